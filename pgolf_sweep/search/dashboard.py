"""optuna-dashboard on a study, for this machine's browsers, without what changes a study."""

from __future__ import annotations

from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from pgolf_sweep.core.errors import InfraError
from pgolf_sweep.search.storage import open_storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication

    from pgolf_sweep.core.paths import StudyPaths

HOST = "127.0.0.1"
READING = frozenset({"GET", "HEAD"})
OWN_NAMES = frozenset({HOST, "localhost"})


class _Server(ThreadingMixIn, WSGIServer):
    """A page loads a dozen files at once; a slow one holds up no other."""

    daemon_threads = True


class _Silent(WSGIRequestHandler):
    """Requests are nobody's news."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def study_server(paths: StudyPaths, port: int) -> tuple[WSGIServer, str]:
    """A server that shows a study's storage, ready to serve.

    Args:
        paths: The study's folder.
        port: Of this machine's loopback; 0 takes a free one.

    Returns:
        The server, and the address of the study's page.

    Raises:
        InfraError: The port is taken, or the storage cannot be reached.
        InputError: There is no such study yet.
    """
    # 1 s of imports: for this command only.
    from optuna_dashboard import wsgi  # noqa: PLC0415

    storage, name = open_storage(paths)
    number = storage.get_study_id_from_name(name)
    try:
        server = make_server(
            HOST, port, read_only(wsgi(storage)), server_class=_Server, handler_class=_Silent
        )
    except OSError as error:
        raise InfraError(
            "the dashboard cannot listen",
            where=f"{HOST}:{port}",
            got=error.strerror or str(error),
            next_step="name a free port with --port, or 0 for any",
        ) from error
    return server, f"http://{HOST}:{server.server_port}/dashboard/studies/{number}"


def read_only(application: WSGIApplication) -> WSGIApplication:
    """Let through what reads, asked for by this machine's own name.

    The name matters as the address does: a page from elsewhere whose own name is made to point
    here (DNS rebinding) could read the study through the user's browser.
    """

    def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "").partition(":")[0]
        if environ["REQUEST_METHOD"] not in READING:
            return _refusal(start_response, "405 Method Not Allowed", "this dashboard only reads")
        if host not in OWN_NAMES:
            return _refusal(start_response, "403 Forbidden", f"ask for it as http://{HOST}")
        return application(environ, start_response)

    return answer


def _refusal(start_response: Callable[..., Any], status: str, text: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Allow", "GET, HEAD")])
    return [f"{text}\n".encode()]

"""The MCP server: the official SDK around `StudyTools`, on stdio or on a loopback port.

The one module that imports the SDK. Over HTTP each request carries the token as a bearer; the SDK
checks the Host header besides, so that no web page reaches the port by a name of its own.
"""

from __future__ import annotations

import hmac
from functools import wraps
from typing import TYPE_CHECKING, Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from starlette.responses import PlainTextResponse

from pgolf_sweep import __version__
from pgolf_sweep.agents.tools import StudyTools, resources
from pgolf_sweep.core.errors import PgolfError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"

INSTRUCTIONS = """Improve the score of one study: edit its program or its knobs, propose, wait,
compare, and go on from what is kept. Every answer has a next_step. A single run proves nothing: a
score moves with its seed; compare says by how much, and whether more seeds are needed. The driver
holds you to a budget. Nothing here promotes, deletes or stops."""

TOOLS = (
    "plan",
    "gate",
    "knobs",
    "propose",
    "wait",
    "compare",
    "lineage",
    "show",
    "logs",
    "best",
    "promote",
)


def make_server(tools: StudyTools) -> MCPServer[Any]:
    """A server with the study's tools and resources."""
    server: MCPServer[Any] = MCPServer(
        f"pgolf-sweep {tools.paths.name}",
        instructions=INSTRUCTIONS,
        version=__version__,
        log_level="WARNING",
    )
    for name in TOOLS:
        server.add_tool(_told(getattr(tools, name)), name=name)
    for uri in ("study://rules", "study://study", "study://program"):
        server.resource(uri, mime_type="text/plain")(_reader(tools, uri))
    return server


def serve_stdio(tools: StudyTools) -> None:
    """Serve on stdin and stdout until the client hangs up."""
    make_server(tools).run("stdio")


def serve_http(tools: StudyTools, *, port: int, token: str) -> None:
    """Serve on a loopback port, at ``/mcp``, until interrupted.

    Args:
        tools: The study's tools.
        port: 0 takes a free one, which is printed by the server's log.
        token: What each request must carry as ``Authorization: Bearer``.
    """
    app = make_server(tools).streamable_http_app(host=HOST)
    config = uvicorn.Config(
        guarded(app, token), host=HOST, port=port, log_level="info", access_log=False
    )
    uvicorn.Server(config).run()


def guarded(app: ASGIApp, token: str) -> ASGIApp:
    """An application that answers 401 to whoever lacks the token."""
    wanted = f"Bearer {token}".encode()

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, wanted):
                refusal = PlainTextResponse("the bearer token is missing or wrong", 401)
                await refusal(scope, receive, send)
                return
        await app(scope, receive, send)

    return checked


def _told(tool: Callable[..., Any]) -> Callable[..., Any]:
    """A tool whose errors reach the client as what, where, got, expected and the next step."""

    @wraps(tool)
    def called(*arguments: Any, **named: Any) -> Any:
        try:
            return tool(*arguments, **named)
        except PgolfError as error:
            raise ToolError("\n".join(error.lines())[:2000]) from error

    return called


def _reader(tools: StudyTools, uri: str) -> Callable[[], str]:
    def read() -> str:
        return resources(tools)[uri]

    read.__name__ = uri.rpartition("/")[2]
    return read

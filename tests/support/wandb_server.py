"""A server on loopback that W&B's client takes for W&B, until it goes away."""

from __future__ import annotations

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

_PROJECT = {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}}


class Call(NamedTuple):
    """A call that was answered.

    Attributes:
        at: Monotonic seconds.
        what: GraphQL operation, or the last part of the path.
        size: Bytes of the body.
        run: The run's id, of a stream.
    """

    at: float
    what: str
    size: int
    run: str = ""


def _operation(query: str) -> str:
    name = re.search(r"(?:query|mutation)\s+(\w+)", query)
    return name.group(1) if name else ""


def _answer(query: str, variables: dict[str, Any], url: str) -> dict[str, Any]:
    match _operation(query):
        case "UpsertBucket":
            run = variables["name"]
            shown = variables.get("displayName") or run
            bucket = {"id": run, "name": run, "displayName": shown, "project": _PROJECT}
            rest = {"description": "", "config": "{}", "sweepName": None, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket | rest, "inserted": True}}
        case "CreateRunFiles":
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": []}}
        case "Viewer":
            teams: dict[str, Any] = {"edges": []}
            viewer = {"id": "v", "entity": "e", "username": "u", "flags": "{}", "teams": teams}
            return {"viewer": viewer}
        case "ArtifactType" | "CreateArtifact" | "CommitArtifact":
            return _artifact(_operation(query), variables)
        case "CreateArtifactManifest":
            file = _upload(url, "manifest.json") | {"id": "f"}
            return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}
        case "UpdateArtifactManifest":
            file = _upload(url, "manifest.json") | {"id": "f"}
            return {"updateArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}
        case "GetDefaultEntity":
            return {"viewer": {"id": "v", "entity": "e", "defaultEntity": {"name": "e"}}}
        case "UpsertView2":
            return {"upsertView": {"view": {"id": "v", "name": variables["name"]}}}
        case "CreateArtifactFiles":
            names = [one["name"] for one in variables["input"]["artifactFiles"]]
            nodes = [
                _upload(url, name)
                | {
                    "id": name,
                    "artifact": {"id": "a"},
                    "storagePath": None,
                    "uploadMultipartUrls": None,
                }
                for name in names
            ]
            return {"createArtifactFiles": {"files": {"edges": [{"node": n} for n in nodes]}}}
    return {}


def _artifact(operation: str, variables: dict[str, Any]) -> dict[str, Any]:
    match operation:
        case "ArtifactType":  # of its earlier versions
            return {"project": {"artifact": None}}
        case "CreateArtifact":
            made = {"id": "a", "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
            return {"createArtifact": {"artifact": made}}
    return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": "d"}}}


def _upload(url: str, name: str) -> dict[str, Any]:
    where = {"uploadUrl": f"{url}/upload/{name}", "uploadHeaders": []}
    return {"name": name, "displayName": name, **where}


class WandbServer:
    """It keeps the names of the runs that sent something; `go_silent` leaves every call waiting.

    Attributes:
        calls: Each call that was answered.
        uploads: Files of artifacts, by name.
        asked: Names and variables of the GraphQL calls.
    """

    def __init__(self) -> None:
        self.streamed: set[str] = set()
        self.calls: list[Call] = []
        self.uploads: dict[str, bytes] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._silent = threading.Event()
        self._over = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _reply(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if server._silent.is_set():
                    server._over.wait()
                if server._over.is_set():
                    self.close_connection = True  # else kept connections would go on
                    return
                document: dict[str, Any] = {}
                run = ""
                what = self.path.rpartition("/")[2] or "/"
                if self.path.endswith("/graphql"):
                    asked = json.loads(body)
                    what = _operation(asked["query"])
                    variables = asked.get("variables") or {}
                    server.asked.append((what, variables))
                    document = {"data": _answer(asked["query"], variables, server.url)}
                elif "/upload/" in self.path:
                    server.uploads[self.path.partition("/upload/")[2]] = body
                elif self.path.endswith("/file_stream"):
                    run = self.path.split("/")[-2]
                    server.streamed.add(run)
                server.calls.append(Call(time.monotonic(), what, len(body), run))
                data = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = _reply  # noqa: N815 - names that http.server calls

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def go_silent(self) -> None:
        self._silent.set()

    def stop(self) -> None:
        """Refuse every further call."""
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        if self._thread.is_alive():
            self.stop()

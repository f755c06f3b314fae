"""An MCP server on stdio that is killed -9 at one step of the protocol after another.

``python dies_serving.py FOLDER``: each life is the command ``mcp`` in a process of its own, forked
of this one, which is its client and speaks the protocol's lines itself: what the SDK's client would
do after its server died is not asked here. Prints a JSON line a life: the step, the signal that
ended the server, and its answer, null where it died first.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from support.dies_proposing import BLOCK, VARIANT, drive, dying, life
from support.sweeps import SCRIPT, build_bench

import pgolf_sweep.agents.server  # noqa: F401 - once here, so that a life costs no start of Python
from pgolf_sweep.agents.tools import StudyTools
from pgolf_sweep.cli import main as command
from pgolf_sweep.core.ledger import Ledger
from pgolf_sweep.core.trial import LogSummary
from pgolf_sweep.launch.inline import Finish
from pgolf_sweep.workflows import propose, repeats
from pgolf_sweep.workflows.study_folder import begin_study, prepare_folder

if TYPE_CHECKING:
    from collections.abc import Iterable

CALLS: dict[str, dict[str, Any]] = {
    "propose": {"script": VARIANT, "parent": 0, "idea": "beta", "seeds": 2},
    "wait": {"seconds": 300},
    "compare": {"base": 0, "candidate": 3, "run": True},
}
HALF = "request half sent"
STEPS: dict[str, tuple[str, tuple[Any, str, int] | None]] = {
    HALF: ("propose", None),
    "program kept, and not proposed": ("propose", (propose, "keep", 1)),
    "first of two seeds left": ("propose", (propose, "submit", 1)),
    "both left, and not answered": ("propose", (propose, "submit", 1)),
    "proposal answered": ("propose", None),
    "waited for": ("wait", (StudyTools, "_standing", 1)),
    "end waited for": ("wait", None),
    "first run of a comparison left": ("compare", (repeats, "submit", 1)),
    "run of a comparison answered": ("compare", None),
    "decision noted, and not answered": ("compare", (Ledger, "append", 1)),
    "decision answered": ("compare", None),
}
"""By step the tool that is called, and what the server dies of the COUNTth time that it returned;
without it the client kills the server once it has the answer."""


@dataclass
class Server:
    """A life of the command, and its client's ends of the two pipes."""

    pid: int
    to: int
    lines: Any
    asked: int = 0

    @classmethod
    def start(cls, folder: Path, step: tuple[Any, str, int] | None) -> Server:
        """Fork the command and greet it."""
        (read_in, write_in), (read_out, write_out) = os.pipe(), os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            os.dup2(read_in, 0)
            os.dup2(write_out, 1)
            for end in (read_in, write_in, read_out, write_out):
                os.close(end)
            if step is not None:
                owner, name, count = step
                setattr(owner, name, dying(getattr(owner, name), count))
            sys.argv = [
                "pgolf-sweep",
                "mcp",
                "study",
                "--by",
                "ada",
                "--runs",
                str(folder / "runs"),
            ]
            os._exit(command())
        os.close(read_in)
        os.close(write_out)
        served = cls(pid, write_in, os.fdopen(read_out, "rb"))
        hello = {"protocolVersion": "2025-06-18", "capabilities": {},
                 "clientInfo": {"name": "test", "version": "1"}}  # fmt: skip
        assert served.request("initialize", hello) is not None
        served.send({"method": "notifications/initialized"})
        return served

    def send(self, message: dict[str, Any]) -> None:
        os.write(self.to, json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def request(self, method: str, params: dict[str, Any]) -> dict[str, Any] | None:
        """The result; None where the server died before it answered."""
        self.asked += 1
        self.send({"id": self.asked, "method": method, "params": params})
        for line in self.lines:
            message = json.loads(line)
            if message.get("id") == self.asked:
                found: dict[str, Any] = message["result"]
                return found
        return None

    def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
        answer = self.request("tools/call", {"name": tool, "arguments": arguments})
        if answer is None:
            return None
        assert not answer.get("isError"), answer
        found: dict[str, Any] = answer["structuredContent"]
        return found

    def end(self) -> int:
        """Kill it, if it is not dead, and take leave of it; the signal that ended it."""
        os.kill(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.to)
        self.lines.close()
        return os.WTERMSIG(status)


def lived(folder: Path, name: str, **more: Any) -> dict[str, Any] | None:
    """The answer of one life to its step's call; the life ends with SIGKILL."""
    tool, step = STEPS[name]
    served = Server.start(folder, step)
    if name == HALF:
        os.write(served.to, b'{"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"na')
        answer = None
    else:
        answer = served.call(tool, CALLS[tool] | more)
    print(json.dumps({"step": name, "signal": served.end(), "answer": answer}), flush=True)
    return answer


def noisy(job: Any) -> Iterable[tuple[float, Any]]:
    """A score that moves with the seed; the change is worth more, but two seeds do not tell."""
    seed, changed = int(job.spec.knobs["SEED"]), b"BETA" in job.files["train_gpt.py"]
    score = 1.2 + 0.01 * np.random.default_rng([seed, changed]).normal() - 0.025 * changed
    yield 1.0, Finish(summary=LogSummary(val_bpb=score, val_loss_nats=2 * score, total_bytes=9))


def main(folder: Path) -> None:
    bench = build_bench(folder, run_cap=99, block=BLOCK)
    (folder / "train_gpt.py").write_bytes(SCRIPT)
    prepare_folder(bench.session, bench.paths, sweep=folder / "study.yaml", data_root=folder)
    begin_study(bench.session, bench.study(), bench.paths.root.parent)

    def ran() -> None:
        assert life(lambda: drive(bench, noisy)) == 0

    ran()
    for name in list(STEPS)[:4]:
        assert lived(folder, name) is None
    answer = lived(folder, "proposal answered")
    first = {"proposal": answer["proposals"][0]}
    lived(folder, "waited for", **first)
    ran()
    lived(folder, "end waited for", **first)
    lived(folder, "first run of a comparison left")
    lived(folder, "run of a comparison answered")
    ran()
    while lived(folder, "decision noted, and not answered") is not None:
        ran()  # no decision yet: what it asked for
    lived(folder, "decision answered")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

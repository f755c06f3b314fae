"""The probe's helper process: torch is loaded once; each script has a fork of it.

Started by `prober` as ``python -m pgolf_sweep.script.probe.server``. Reads one
JSON request a line on its standard input and answers each with one JSON line; ends with its input.
A request names a folder with the script in it and an environment. It goes to the child that probes
this script (`pgolf_sweep.script.probe.child`), which is made with the first request and kept for
the next. A child is killed with all its threads when the time for an answer is over.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pgolf_sweep.script.fstrings import readable
from pgolf_sweep.script.probe import child as probechild
from pgolf_sweep.script.probe.contain import containment
from pgolf_sweep.script.probe.contain.kernel import end_with_parent
from pgolf_sweep.script.probe.contain.written import written_bytes
from pgolf_sweep.script.probe.dryrun import child as runchild
from pgolf_sweep.script.probe.restore import Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgolf_sweep.script.probe.contain.containment import Containment

MOST_SCRIPTS = 4
"""Scripts that have a process waiting for their next probe."""
MOST_ANSWER_BYTES = 1 << 26
"""A script that writes more where its facts are read is cut off; a large model's have 2 MB."""
BUSY = 2.5
"""Times the processor seconds of a run (its own limit) until it is killed: others compute, too."""
_PIPE_BYTES = 1 << 20
_LOOK_SECONDS = 0.5
"""Between two looks at who asked, and at what a script has written."""
_MOST_DESCRIPTORS = 1 << 16


@dataclass(slots=True)
class _Script:
    """A script that was asked for.

    Attributes:
        children: Its processes, by whether they are told of a GPU.
        folder: Its files, put back before each probe.
        pretended: Values of knobs under which it wanted a GPU.
    """

    tree: ast.Module
    folder: Folder
    children: dict[bool, _Child] = field(default_factory=dict)
    pretended: list[dict[str, str]] = field(default_factory=list)

    def end(self) -> None:
        for child in self.children.values():
            child.end()
        self.children.clear()


def serve() -> None:
    """Answer requests until the input ends; the folder of all scripts ends with this process.

    A fork answers, in namespaces of its own where the system lets it have them: a script can
    neither see this process nor keep it from cleaning up.
    """
    with tempfile.TemporaryDirectory(prefix="pgolf-probe-", ignore_cleanup_errors=True) as folder:
        way = containment.choose(folder)
        containment.enter(way)
        child = os.fork()
        if child == 0:
            try:
                _answer_requests(folder, way)
            finally:
                os._exit(0)  # whoever asked waits; to take torch down costs as much as a few probes
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1):
            os.dup2(null, descriptor)  # the asker's end of both is the fork's alone
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
        os.waitpid(child, 0)


def _answer_requests(folder: str, way: Containment) -> None:
    with contextlib.suppress(OSError):
        end_with_parent(signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    scripts = _Scripts(way)
    try:
        _serve(scripts, folder, answers)
    except _AskerGoneError:
        pass
    finally:
        scripts.end()


def _serve(scripts: _Scripts, folder: str, answers: IO[str]) -> None:
    _preload()
    ready = {"ready": True, "folder": folder, "containment": asdict(scripts.way)}
    answers.write(json.dumps(ready) + "\n")
    answers.flush()
    for line in sys.stdin.buffer:
        started = time.process_time()
        answer = scripts.answer(line)
        answer["cpu_seconds"] = answer.get("cpu_seconds", 0.0) + time.process_time() - started
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class _AskerGoneError(Exception):
    """Nobody waits for an answer any more."""


def _asker_is_gone() -> bool:
    """Whether the other end of the standard input is closed."""
    input_ = select.poll()
    input_.register(0, 0)
    return any(event & select.POLLHUP for _, event in input_.poll(0))


def _preload() -> None:
    """Import what nearly every script imports, so that forks find it loaded."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)  # a fork has no other threads to hand work to
    for name in ("numpy", "sentencepiece", "torch._dynamo", "torch._inductor.config",
                 "torch.nn.attention.flex_attention", "torch.distributed",
                 "torch.utils.checkpoint", "torch.nn.parallel", "brotli", "zstandard",
                 "pgolf_sweep.script.probe.dryrun.run"):  # fmt: skip
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a fork's collector then leaves the pages of torch alone


class _Scripts:
    """The scripts that were asked for, and what contains them.

    Args:
        way: What contains each of their processes.
    """

    def __init__(self, way: Containment) -> None:
        self.way = way
        self._known: dict[tuple[str, str], _Script] = {}

    def end(self) -> None:
        """End the processes of all of them."""
        for script in self._known.values():
            script.end()

    def answer(self, line: bytes) -> dict[str, Any]:
        """What a script says to a request."""
        request = json.loads(line)
        if request.get("run"):
            return self._run(line, request)
        try:
            script = self._script(request)
        except (SyntaxError, ValueError) as error:
            return {"error": f"syntax error: {error}", "stage": "read", "relevant": []}
        env = request["env"]
        pretended_to = script.pretended
        known = any(all(env.get(k, "") == v for k, v in one.items()) for one in pretended_to)
        plain = {} if known else self._ask(script, line, request, cuda=False)
        if not (known or plain.get("wants_cuda")):
            return plain
        pretended = self._ask(script, line, request, cuda=True)
        if _got_further(pretended, plain):
            if not known:
                script.pretended.append({k: env.get(k, "") for k in plain["relevant"]})
            pretended["notes"].insert(0, _told_of_one(plain.get("stage", "import")))
            return pretended
        if plain["stage"] == "model":
            # It refuses with a GPU, too, and for another reason than that there was none.
            plain["refused"] = pretended.get("refused", False)
        elif plain.get("names_gpu") or pretended.get("names_gpu"):
            plain["error"] = f"it needs CUDA at import ({plain['error']})"
        plain["relevant"] = sorted({*plain["relevant"], *pretended["relevant"]})
        return plain

    def _run(self, line: bytes, request: Mapping[str, Any]) -> dict[str, Any]:
        """What a run of the script's `main()` shows, in a process and a folder of its own."""
        folder = Path(request["folder"])
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as place:
            shutil.copytree(folder, Path(place, "program"))
            confined = partial(containment.confine, self.way, place, request["env"].values())
            child = _Child(
                lambda orders, out: runchild.live(Path(place), orders, out),
                self.way,
                confined,
                place,
            )
            answer, _ = child.ask(line, BUSY * request["seconds"])
            child.end()
        return answer

    def _script(self, request: Mapping[str, Any]) -> _Script:
        """The script of a request; of those asked for longest ago, one makes way for a new one."""
        key = request["folder"], request["name"]
        if key in self._known:
            self._known[key] = self._known.pop(key)
        else:
            if len(self._known) >= MOST_SCRIPTS:
                self._known.pop(next(iter(self._known))).end()
            tree = _parse(Path(request["source"]).read_text())
            self._known[key] = _Script(tree, Folder(Path(request["folder"])))
        return self._known[key]

    def _ask(
        self, script: _Script, line: bytes, request: Mapping[str, Any], *, cuda: bool
    ) -> dict[str, Any]:
        """A child's answer; a fresh one's where the kept one has none, or cannot import it."""
        script.folder.put_back()
        kept = script.children.get(cuda)
        if kept is not None and kept.alive and not request.get("fresh"):
            answer, whole = kept.ask(line, request["seconds"])
            if answer.get("late") or (whole and answer["stage"] != "import"):
                return answer
        if kept is not None:
            kept.end()
            script.folder.put_back()
        reads = (*request["env"].values(), request["source"])
        child = script.children[cuda] = _Child(
            lambda orders, out: probechild.live(
                request, script.tree, orders, out, cuda=cuda, files=script.folder
            ),
            self.way,
            partial(containment.confine, self.way, request["folder"], reads),
            request["folder"],
        )
        answer, _ = child.ask(line, request["seconds"])
        if answer["stage"] == "import":
            child.end()  # with all that it has started
        return answer


def _got_further(pretended: dict[str, Any], plain: dict[str, Any]) -> bool:
    """Whether a script that was told of a GPU says more than without."""
    if plain.get("stage") == "model":
        return "model_params" in pretended
    return bool(pretended["stage"] != "import")


def _told_of_one(stage: str) -> str:
    where = "at import" if stage == "import" else "where its model is built"
    return f"it asks for a GPU {where}; it was told of one"


def _parse(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as error:
        if "f-string" not in (error.msg or ""):
            raise
        return ast.parse(readable(text))


class _Child:
    """A fork that probes one script.

    Args:
        life: What it does until it ends, given where requests come from and where facts go.
        way: What contains it.
        confine: Makes the fork contained; where it cannot, nothing of the script is run.
        place: The folder that it may change.
    """

    def __init__(
        self,
        life: Callable[[int, int], None],
        way: Containment,
        confine: Callable[[], None],
        place: str,
    ) -> None:
        self._place = None if way.kept_in_memory else place
        self._excess, self._looked_at = False, time.monotonic()
        orders, self._orders = os.pipe()
        self._answers, out = os.pipe()
        with containment.around_fork(way):
            self._pid = os.fork()
        if self._pid == 0:
            try:
                os.setsid()
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                low, high = sorted((orders, out))
                os.closerange(3, low)
                os.closerange(low + 1, high)
                os.closerange(high + 1, _MOST_DESCRIPTORS)
                try:
                    confine()
                except OSError as error:
                    fact = {"stage": "import", "error": f"it cannot be contained: {error}"}
                    os.write(out, json.dumps(fact).encode() + b"\n\n")
                else:
                    life(orders, out)
            finally:
                os._exit(0)
        os.close(orders)
        os.close(out)
        os.set_blocking(self._orders, False)

    @property
    def alive(self) -> bool:
        """Whether it may be asked; a process that has ended itself is told by its answer."""
        return self._pid != 0

    def ask(self, line: bytes, seconds: float) -> tuple[dict[str, Any], bool]:
        """What the child says to a request, and whether it said all; afterwards it may be gone.

        Args:
            line: The request.
            seconds: Until it is killed.
        """
        deadline = time.monotonic() + seconds
        written = self._exchange(line, deadline)
        whole = written.endswith(b"\n\n")
        try:
            answer = _joined(written)
        except (ValueError, TypeError, RecursionError):
            answer, whole = {"stage": "import", "notes": [], "relevant": []}, False
        late = not whole and time.monotonic() >= deadline
        if late:
            answer["late"] = True
        if not whole:
            status = self.end()
            if self._excess:
                answer["error"] = f"it writes more than {containment.most_written():,} B"
            elif "model_params" not in answer:
                answer["error"] = (
                    f"its {answer['stage']} takes longer than {seconds:g} s"
                    if late
                    else f"its {answer['stage']} ended the process (status {status})"
                )
        return answer, whole

    def _exchange(self, line: bytes, deadline: float) -> bytes:
        """Send a request and read until the empty line, the child's end, or the deadline."""
        parts: list[bytes] = []
        size = 0
        rest = memoryview(line)
        while (left := deadline - time.monotonic()) > 0:
            if _asker_is_gone():
                raise _AskerGoneError
            sending = [self._orders] if rest else []
            if self._writes_too_much():
                break
            ready, writable, _ = select.select(
                [self._answers], sending, [], min(left, _LOOK_SECONDS)
            )
            if writable:
                try:
                    rest = rest[os.write(self._orders, rest) :]
                except OSError:
                    rest = rest[:0]  # it is gone; what it said before is read to its end
            if ready:
                data = os.read(self._answers, _PIPE_BYTES)
                parts.append(data)
                size += len(data)
                ended = not rest and b"".join(parts[-2:]).endswith(b"\n\n")
                if not data or ended or size > MOST_ANSWER_BYTES:
                    break
        return b"".join(parts)

    def _writes_too_much(self) -> bool:
        """Whether what it has written has outgrown its limit, where no file system holds that."""
        if self._place is not None and time.monotonic() - self._looked_at > _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._excess = written_bytes(self._pid, self._place) > containment.most_written()
        return self._excess

    def end(self) -> int:
        """Kill what is left of it; its exit status."""
        if self._pid == 0:
            return 0
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        os.close(self._orders)
        os.close(self._answers)
        self._pid = 0
        return status


def _joined(written: bytes) -> dict[str, Any]:
    """The facts that a child wrote, as one answer.

    Raises:
        ValueError: They are no facts: a script can write where they go.
        TypeError: The same.
    """
    answer: dict[str, Any] = {"stage": "import", "notes": []}
    read: list[str] = []
    for fact in filter(None, written.split(b"\n")[:-1]):
        answer |= json.loads(fact)
        read += answer.pop("read", ())
    answer.setdefault("relevant", sorted(read))
    return answer


if __name__ == "__main__":
    serve()

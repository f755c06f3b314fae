"""The probe's helper process: torch is loaded once, each probe is a fork of it.

Started by `pgolf_sweep.script.probe` as ``python -m pgolf_sweep.script.probehelper``. Reads one
JSON request a line on its standard input and answers each with one JSON line; ends with its input.
A request names a folder with the script in it and an environment. The fork imports the script
(its calls of its own functions at the module's level are left out), builds its model on the meta
device and pushes random weights through its quantizer. It cannot open connections, start programs
or see a GPU, and is killed with all its threads when its time is over.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import hashlib
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
import types
from pathlib import Path
from typing import Any

from pgolf_sweep.script.olderpython import readable

MODULE = "probed_script"
_NEW_USER_AND_NETWORK = 0x10000000 | 0x40000000
_ANSWER_BYTES = 1 << 20


def serve() -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    _without_network()
    _preload()
    sources: dict[str, Any] = {}
    answers.write(json.dumps({"ready": True}) + "\n")
    answers.flush()
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(_answer(request, sources)) + "\n")
        answers.flush()


def _without_network() -> None:
    """A network namespace of this process alone, where the system lets it have one."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).unshare(_NEW_USER_AND_NETWORK)


def _preload() -> None:
    """Import what nearly every script imports, so that forks find it loaded."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)  # a fork has no other threads to hand work to
    for name in ("numpy", "sentencepiece", "torch._dynamo", "torch._inductor.config",
                 "torch.nn.attention.flex_attention", "torch.distributed",
                 "torch.utils.checkpoint", "torch.nn.parallel"):  # fmt: skip
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _answer(request: dict[str, Any], sources: dict[str, Any]) -> dict[str, Any]:
    text = request["source"]
    key = hashlib.sha256(text.encode()).hexdigest()
    if key not in sources:
        if len(sources) > 32:
            sources.clear()
        try:
            sources[key] = _parse(text)
        except (SyntaxError, ValueError) as error:
            return {"error": f"syntax error: {error}", "stage": "read", "relevant": []}
    answer = _in_fork(request, sources[key], cuda=False)
    if answer.get("error") and answer.get("wants_cuda"):
        with_cuda = _in_fork(request, sources[key], cuda=True)
        if not with_cuda.get("error"):
            with_cuda["notes"].insert(0, "it asks for a GPU at import; it was told of one")
            return with_cuda
        answer["error"] = f"it needs CUDA at import ({answer['error']})"
        answer["relevant"] = sorted({*answer["relevant"], *with_cuda["relevant"]})
    return answer


def _parse(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as error:
        if "f-string" not in (error.msg or ""):
            raise
        return ast.parse(readable(text))


def _in_fork(request: dict[str, Any], tree: ast.Module, *, cuda: bool) -> dict[str, Any]:
    """Probe in a fork; the last line that it wrote counts, however it ended."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.setsid()
        _become_probe(request, tree, os.fdopen(writing, "w"), cuda=cuda)
        os._exit(0)
    os.close(writing)
    try:
        written, in_time = _read_until(reading, time.monotonic() + request["seconds"])
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    lines = [line for line in written.decode(errors="replace").split("\n")[:-1] if line]
    answer: dict[str, Any] = json.loads(lines[-1]) if lines else {"stage": "import"}
    if not in_time:
        answer["late"] = True
        if "model_params" not in answer:
            answer["error"] = f"its {answer['stage']} takes longer than {request['seconds']:g} s"
    elif "model_params" not in answer and "error" not in answer:
        answer["error"] = f"its {answer['stage']} ended the process (status {status})"
    return answer


def _read_until(reading: int, deadline: float) -> tuple[bytes, bool]:
    parts: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([reading], [], [], left)
        if ready:
            data = os.read(reading, _ANSWER_BYTES)
            if not data:
                return b"".join(parts), True
            parts.append(data)
    return b"".join(parts), False


def _become_probe(request: dict[str, Any], tree: ast.Module, out: Any, *, cuda: bool) -> None:
    """The fork's whole life: everything that others' code can do happens in here."""
    from pgolf_sweep.script import standins  # noqa: PLC0415

    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    folder = request["folder"]
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = [request["name"]]
    sys.path.insert(0, folder)
    sys.setrecursionlimit(10_000)
    finder = standins.StandInFinder(folder)
    sys.meta_path.append(finder)
    standins.hide_compilers()
    standins.skip_initialisation()
    if cuda:
        standins.pretend_cuda()
    refusals = standins.Refusals()
    refusals.install()
    probe = _Probe(request, tree, finder, refusals, out)
    standins.note_reads(probe.note_read)
    probe.run()
    out.flush()


class _Probe:
    """One probe, told to the helper step by step."""

    def __init__(
        self, request: dict[str, Any], tree: ast.Module, finder: Any, refusals: Any, out: Any
    ) -> None:
        self._request = request
        self._tree = tree
        self._finder = finder
        self._refusals = refusals
        self._out = out
        self._answer: dict[str, Any] = {"notes": [], "relevant": []}

    def note_read(self, name: str | None) -> None:
        """The script reads a variable, or all; told at once, as it may not live to say more."""
        told = set(self._answer["relevant"])
        read = set(self._knobs) if name is None else {name} & set(self._knobs)
        if "model_params" not in self._answer and read - told:
            self._tell(relevant=sorted(told | read))

    def run(self) -> None:
        from pgolf_sweep.script import construct  # noqa: PLC0415

        self._tell(stage="import")
        module = types.ModuleType(MODULE)
        module.__file__ = str(Path(self._request["folder"], self._request["name"]))
        sys.modules[MODULE] = module
        namespace = module.__dict__
        try:
            self._import(namespace, module.__file__)
        except BaseException as error:  # noqa: BLE001 - whatever others' code raises
            self._fail(error)
            return
        self._tell(stage="model")
        settings = construct.read_settings(namespace, self._tree, self._request["knobs"])
        self._finder.calls.clear()
        try:
            built = construct.build_model(namespace, self._tree, settings)
        except construct.ProbeError as error:
            self._answer["relevant"] = self._relevant(settings)
            missing = ", ".join(sorted({name.partition(".")[0] for name in self._finder.calls}))
            needs = f" (it needs packages that are not here: {missing})" if missing else ""
            self._tell(error=f"{error}{needs}")
            return
        except BaseException as error:  # noqa: BLE001 - whatever others' code raises
            self._answer["relevant"] = self._relevant(settings)
            self._tell(error=f"building its model failed: {type(error).__name__}: {error}")
            return
        self._note(built.notes)
        if self._finder.calls:
            used = ", ".join(sorted(set(self._finder.calls))[:4])
            self._note([f"parts of the model come from packages that are not here: {used}"])
        parameters = list(built.model.named_parameters())
        self._tell(
            stage="quantizer",
            model_params=sum(tensor.numel() for _, tensor in parameters),
            tensors=[[name, list(t.shape), str(t.dtype)[6:]] for name, t in parameters],
            incomplete=bool(self._finder.calls),
            how=built.how,
            relevant=self._relevant(settings),
        )
        if self._request["quantizer"]:
            self._quantize(namespace, settings, built)
        relevant = {*self._relevant(settings), *self._answer.get("quantizer_knobs", ())}
        self._tell(stage="done", relevant=sorted(relevant))

    def _relevant(self, settings: Any) -> list[str]:
        from pgolf_sweep.script import construct  # noqa: PLC0415

        return sorted(construct.relevant_knobs(settings, self._tree, self._knobs))

    @property
    def _knobs(self) -> list[str]:
        return list(self._request["knobs"])

    def _import(self, namespace: dict[str, Any], path: str) -> None:
        from pgolf_sweep.script.slicing import without_runs  # noqa: PLC0415

        tree, left_out = without_runs(self._tree)
        if left_out:
            self._note([f"it runs when imported ({', '.join(left_out)}()); that was left out"])
        exec(compile(tree, path, "exec"), namespace)  # noqa: S102 - this is the probe

    def _quantize(self, namespace: dict[str, Any], settings: Any, built: Any) -> None:
        from pgolf_sweep.script import quantizers  # noqa: PLC0415

        before, read = set(settings.seen), settings.seen
        evaluated = list(settings.nodes)
        read.clear()
        settings.nodes.clear()
        same = [
            group
            for group in self._request["known"]
            if all(os.environ.get(k, "") == v for k, v in group["knobs"].items())
        ]
        known = {(o["name"], tuple(o["shape"])): o for group in same for o in group["classes"]}
        told = same[-1]["curves"] if same else None
        try:
            found = quantizers.measure(namespace, self._tree, settings, built.model, known, told)
        except BaseException as error:  # noqa: BLE001 - whatever others' code raises
            self._note([f"its quantizer fails: {type(error).__name__}: {error}"[:300]])
            return
        finally:
            # A class taken over was decided by what decided it then.
            decided_by = set(self._relevant(settings))
            decided_by |= {name for group in same for name in group["knobs"]}
            read |= before
            settings.nodes += evaluated
        self._note(found.pop("notes"))
        self._tell(**found, quantizer_knobs=sorted(decided_by))

    def _fail(self, error: BaseException) -> None:
        """Say why the import failed, by its cause rather than by its last exception."""
        self._answer["relevant"] = self._relevant_of_failure(error)
        text = f"{type(error).__name__}: {error}"[:300]
        if isinstance(error, SystemExit):
            text = f"it calls sys.exit({error.code!r}) when it is imported"
        elif isinstance(error, EOFError):
            text = "it reads its standard input when it is imported"
        elif self._refusals.events:
            text = (
                f"when it is imported it {'; '.join(self._refusals.events)}, which a probe may not"
            )
        elif isinstance(error, ImportError):
            text = f"its import fails: {text}"
        words = ("cuda", "nvidia", "gpu")
        wants_cuda = any(word in str(error).lower() for word in words)
        self._tell(error=text, wants_cuda=wants_cuda)

    def _relevant_of_failure(self, error: BaseException) -> list[str]:
        """Of the knobs read so far, those that the statement which failed may depend on."""
        from pgolf_sweep.script.slicing import named_in, reached  # noqa: PLC0415

        read = set(self._answer["relevant"])
        lines = [
            line
            for frame, line in traceback.walk_tb(error.__traceback__)
            if frame.f_globals.get("__name__") == MODULE and frame.f_code.co_name == "<module>"
        ]
        failed: list[ast.AST] = [
            node
            for node in self._tree.body
            if lines and node.lineno <= lines[0] <= (node.end_lineno or node.lineno)
        ]
        if not failed:
            return sorted(read)
        hidden = read - named_in([self._tree], read)
        return sorted(named_in(reached(self._tree, failed, ""), read) | hidden)

    def _note(self, notes: list[str]) -> None:
        self._answer["notes"] += notes

    def _tell(self, **facts: Any) -> None:
        self._answer |= facts
        self._answer["stand_ins"] = sorted(self._finder.packages)
        self._answer["refused"] = self._refusals.events
        self._out.write(json.dumps(self._answer) + "\n")
        self._out.flush()


if __name__ == "__main__":
    serve()

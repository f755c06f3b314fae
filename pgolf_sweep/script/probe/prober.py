"""The parameters of somebody else's model without a run of their `main()`.

A `Prober` keeps one helper process with torch loaded (`server`). Each probe
is a fork of it: the script is imported there and its model built on the meta device. What was
found is kept by script and by the knobs that it depends on, so that a configuration that differs
only in others costs microseconds, and one of another shape milliseconds: a run takes seconds.

Each script is contained by what the kernel gives (`pgolf_sweep.script.probe.contain`).
"""

from __future__ import annotations

import math
import operator
import os
import shutil
import tempfile
import time
import weakref
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.trial import knob_text
from pgolf_sweep.script.probe.client import KEPT_VARIABLES, helper, stop_helper
from pgolf_sweep.script.unpack import unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.script.program import Program

__all__ = ["Probed", "ProbedTensor", "Prober", "Unprobed", "stop_helper"]

FAILURES_UNTIL_GIVEN_UP = 3
"""Configurations that could not be probed, and none that could, until a script is left alone."""

PROBE_SECONDS = 60.0
NOT_UNDERSTOOD = (TypeError, ValueError, KeyError, AttributeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedTensor:
    """One parameter of the model.

    Attributes:
        dtype: As torch names it, for example ``float32``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def params(self) -> int:
        """Numbers in it."""
        count = 1
        for side in self.shape:
            count *= side
        return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What a probe found.

    Attributes:
        model_params: Parameters of the model.
        tensors: The same, by tensor.
        how: The constructor's call that was repeated.
        notes: What did not go as in the script; empty for a clean probe.
        incomplete: The count may be wrong, as `notes` say: parts of the model come from packages
            that are not here, an argument is a guess, or the script did without what was refused.
        stand_ins: Packages that are not here, or siblings that are not the program's.
        relevant: Knobs that the result depends on.
        seconds: What the probe took.
        cpu_seconds: What it took of a processor, but for what this process did.
    """

    model_params: int
    tensors: tuple[ProbedTensor, ...]
    how: str = ""
    notes: tuple[str, ...] = ()
    stand_ins: tuple[str, ...] = ()
    incomplete: bool = False
    relevant: frozenset[str] = frozenset()
    seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unprobed:
    """Why a script could not be probed, in one sentence.

    Attributes:
        refused_by_script: The script's own constructor raised ValueError or an assertion, of
            values that it would get in a run, too.
        stand_ins: Packages that are not here, or siblings that are not the program's.
        relevant: Knobs that the failure depends on; None where that is not known.
    """

    reason: str
    refused_by_script: bool = False
    stand_ins: tuple[str, ...] = ()
    relevant: frozenset[str] | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass(slots=True)
class _Memory:
    """Results of one script, by the values of the knobs that they depend on."""

    results: dict[frozenset[str], dict[tuple[str, ...], Probed | Unprobed]] = field(
        default_factory=dict
    )

    def get(self, values: Mapping[str, str], strange: frozenset[str]) -> Probed | Unprobed | None:
        """What is known of a configuration.

        Args:
            values: Its knobs.
            strange: Those that the script does not name: a sibling may read them.
        """
        for names, by_value in list(self.results.items()):  # another thread may add to it
            found = by_value.get(tuple(values.get(name, "") for name in sorted(names)))
            if found is not None and strange <= names:
                return found
        return None

    def put(
        self, names: frozenset[str], values: Mapping[str, str], result: Probed | Unprobed
    ) -> None:
        key = tuple(values.get(name, "") for name in sorted(names))
        self.results.setdefault(names, {})[key] = result


class Prober:
    """Probes one program; starts its helper process with the first probe.

    Args:
        program: The program; its files are laid out for the helper.
        seconds: Time limit of one probe.
        env: Environment beside the knobs, for example the data set's paths.
        fresh: Whether each probe gets a process of its own; for comparisons, it is far slower.
    """

    def __init__(
        self,
        program: Program,
        *,
        seconds: float = PROBE_SECONDS,
        env: Mapping[str, str] | None = None,
        fresh: bool = False,
    ) -> None:
        self._program = program
        self._seconds = seconds
        self._env = dict(env or {})
        self._fresh = fresh
        self._memory = _Memory()
        self._folder: Path | None = None
        self._failures = 0.0
        self._given_up: Unprobed | None = None

    def probe(self, knobs: Mapping[str, KnobValue]) -> Probed | Unprobed:
        """What a configuration's model is; never raises for what the script does.

        Args:
            knobs: Values by name; absent ones have the script's defaults.
        """
        values = {name: knob_text(value) for name, value in knobs.items()}
        known = self._memory.get(values, self._strange(values)) or self._given_up
        if known is not None:
            return known
        result = self._ask(values)
        self._count_failure(result)
        return result

    def _strange(self, values: Mapping[str, str]) -> frozenset[str]:
        return frozenset(values.keys() - self._program.knobs.keys())

    def _ask(self, values: Mapping[str, str]) -> Probed | Unprobed:
        started = time.perf_counter()
        answer = helper().ask(lambda root: self._request(values, root))
        result = _understood(answer, time.perf_counter() - started)
        relevant = result.relevant
        names = frozenset(self._program.knobs) if relevant is None else relevant
        self._memory.put(names | self._strange(values), values, result)
        return result

    def _count_failure(self, result: Probed | Unprobed) -> None:
        """Stop asking a script that cannot be probed: each try may run all of it, for nothing."""
        if isinstance(result, Probed) or result.refused_by_script:
            self._failures = -math.inf  # it can be probed
            return
        self._failures += 1
        if self._failures < FAILURES_UNTIL_GIVEN_UP:
            return
        default = self._memory.get({}, frozenset()) or self._ask({})
        if isinstance(default, Probed):
            self._failures = -math.inf
            return
        reason = f"given up after {FAILURES_UNTIL_GIVEN_UP} failures, the last: {result.reason}"
        self._given_up = replace(result, reason=reason, relevant=frozenset())

    def _request(self, values: Mapping[str, str], root: Path) -> dict[str, Any]:
        if self._folder is None or self._folder.parent != root:
            self._folder = Path(tempfile.mkdtemp(dir=root))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            program = self._folder / "program"
            for name, content in self._program.files.items():
                path = program / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            source = unpack(self._program.source, path=program / self._program.name)
            (self._folder / "source").write_text(source)
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        return {
            "folder": str(self._folder / "program"),
            "name": self._program.name,
            "source": str(self._folder / "source"),
            "knobs": sorted(self._program.knobs.keys() | values.keys()),
            "env": kept | self._env | dict(values) | {"CUDA_VISIBLE_DEVICES": ""},
            "seconds": self._seconds,
            "fresh": self._fresh,
        }


def _understood(answer: Mapping[str, Any], seconds: float) -> Probed | Unprobed:
    try:
        return _result(answer, seconds)
    except NOT_UNDERSTOOD as error:
        return Unprobed(reason=forged(error), seconds=seconds)


def forged(error: Exception) -> str:
    """Why an answer cannot be read: a script can write where facts go."""
    return f"it writes where its probe answers ({type(error).__name__}: {error})"[:300]


def _result(answer: Mapping[str, Any], seconds: float) -> Probed | Unprobed:
    if "model_params" not in answer:
        reason = str(answer.get("error", "the helper gave no reason"))
        stand_ins = tuple(answer.get("stand_ins", ()))
        if stand_ins:
            reason += f" ({_hint(stand_ins)})"
        relevant = frozenset(answer["relevant"]) if "relevant" in answer else None
        return Unprobed(
            reason=reason,
            refused_by_script=answer.get("refused", False),
            stand_ins=stand_ins,
            relevant=relevant,
            seconds=seconds,
            cpu_seconds=answer.get("cpu_seconds", 0.0),
        )
    notes = list(answer["notes"])
    if answer["lacks"]:
        notes.append(_hint(answer["stand_ins"]))
    return Probed(
        model_params=operator.index(answer["model_params"]),
        tensors=tuple(
            ProbedTensor(name=name, shape=tuple(shape), dtype=dtype)
            for name, shape, dtype in answer["tensors"]
        ),
        how=answer["how"],
        notes=tuple(notes),
        stand_ins=tuple(answer["stand_ins"]),
        incomplete=answer["incomplete"],
        relevant=frozenset(answer["relevant"]),
        seconds=seconds,
        cpu_seconds=answer["cpu_seconds"],
    )


def _hint(stand_ins: Iterable[str]) -> str:
    return (
        f"stood in for: {', '.join(stand_ins)}; a NAME.py beside the script must be in pgolf.files"
    )

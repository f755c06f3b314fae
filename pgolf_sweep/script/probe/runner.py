"""A script's own `main()`, run without a GPU: its parameters, its updates, its export's bytes.

A `Runner` asks the probe's helper process for runs (`pgolf_sweep.script.probe.dryrun`) and keeps
what they showed by the knobs that it depends on. Seeds, paths and logging decide nothing; rates,
decay and momentum move the weights and not the model, so a configuration that differs in them
alone takes over the count and the export of another.
"""

from __future__ import annotations

import math
import operator
import os
import re
import shutil
import tempfile
import time
import weakref
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from pgolf_sweep.core.trial import knob_text
from pgolf_sweep.script.knobs.knobs import STEP_KNOBS
from pgolf_sweep.script.probe.client import KEPT_VARIABLES, helper
from pgolf_sweep.script.probe.prober import NOT_UNDERSTOOD, ProbedTensor, forged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.script.program import Program

RUN_SECONDS = 60.0
"""Of processor time and of waiting for one run; a GPTQ export takes 30 at most on an idle core."""
FAILURES_ALIKE = 12
"""Configurations that fail alike, and no other that runs, before the script is no longer run."""
VOCABULARY = 1024
"""Pieces of the tokenizer of a script that has no knob for it."""
LEAST_SHARE = 0.3
"""Of the largest compressed piece: what is smaller is no export."""
HEADER_BYTES = 64
"""At most, before what a codec made."""
FORCED_WALLCLOCK = "600"
SHORTENED = (
    (re.compile(r"^WARMUP_STEPS$"), 2),
    (re.compile(r"CALIB\w*_(BATCHES|SAMPLES|SEQS)$"), 8),
    (re.compile(r"^POP(ULATION)?_SIZE$"), 2),
)
"""Steps that only warm kernels up, or raise a rate, batches of statistics of what nobody knows, and
the population of an evolution strategy: each costs a run time, and changes nothing. By knob, the
most of them."""
SAME_RATE = 1e-3
"""Relative difference of two rates up to which they are the same: one was measured."""

_IRRELEVANT = re.compile(
    r"^(SEED|RUN_ID|RUN_NAME|WANDB_.*|DATA_(PATH|DIR)|DATASETS?_.*|TOKENIZER_PATH|.*_EVERY|"
    r"VAL_.*|EVAL_.*|LOG_.*|.*_(PATH|DIR|ROOT|FILES)|COMPILE|NUM_WORKERS|TTT_.*|.*_TTT_.*)$"
)
_COURSE = re.compile(
    r"(ITERATIONS|MAX_STEPS|WARMDOWN|WARMUP|COOLDOWN|MAX_WALLCLOCK|TRAIN_BATCH|MIN_LR|GRAD_CLIP|"
    r"EMA_DECAY)"
)
_RATES = re.compile(r"(^|_)(LR|WD|LEARNING_RATE|WEIGHT_DECAY|MOMENTUM|BETA_?[12]?|DECAY)(_|$)|_LR$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """How one optimizer moves a group of parameters.

    Attributes:
        optimizer: The class's name.
        rate: Learning rate before any warm-down.
        momentum: Of Muon or SGD, or Adam's first beta; 0 where there is none.
        decay: Decoupled weight decay, times the rate a step.
        members: Names of its parameters.
    """

    optimizer: str
    rate: float
    momentum: float
    decay: float
    members: tuple[str, ...]

    @property
    def is_muon(self) -> bool:
        """Whether updates are orthogonal matrices."""
        return "muon" in self.optimizer.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The model that a run constructed and gave to its optimizers.

    Attributes:
        model_params: Parameters of the model.
        tensors: The same, by tensor.
        updates: What its optimizers do.
        factors: By tensor, the factor of a step by which the script itself shrinks it.
        notes: What did not go as in a run with a GPU.
        incomplete: Parts come from packages that are not here, the script did without what was
            refused, or it prints another number: the count may be wrong.
        printed_params: What the script itself prints, where it does.
        stand_ins: Packages that are not here.
        cpu_seconds: What the run took of a processor.
        peak_mib: And of memory.
    """

    model_params: int
    tensors: tuple[ProbedTensor, ...]
    updates: tuple[Update, ...]
    factors: Mapping[str, float]
    notes: tuple[str, ...] = ()
    incomplete: bool = False
    printed_params: int | None = None
    stand_ins: tuple[str, ...] = ()
    cpu_seconds: float = 0.0
    peak_mib: float = 0.0

    @property
    def evolves(self) -> bool:
        """Whether it trained without any optimizer; False where its first update was not seen."""
        return not self.updates and not self.notes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor of what the script stores.

    Attributes:
        name: Its path within the stored dictionary.
        numbers: How many.
        bits: Of the widest number that occurs.
        entropy: Bits a number.
    """

    name: str
    numbers: int
    bits: int
    entropy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What the script's own export made of weights of a given spread.

    Attributes:
        model_bytes: Of the compressed model, as it would lie on disk.
        code_bytes: Of the counted code, as the script prints it; None if it does not.
        codec: What compressed it.
        sampled: Whether a slow codec was measured on a sample.
        stored: The tensors that were serialized, where they were.
        factors: As of `Counted`, of the whole training.
        cpu_seconds: What the run took of a processor.
        peak_mib: And of memory.
    """

    model_bytes: int
    code_bytes: int | None
    codec: str
    sampled: bool
    stored: tuple[StoredTensor, ...] = ()
    factors: Mapping[str, float] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    peak_mib: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed:
    """Why a run did not get as far as it was asked to, in one sentence."""

    reason: str
    cpu_seconds: float = 0.0


_Found = TypeVar("_Found")
_Link: TypeAlias = list[tuple[int, str]]
"""What a knob sets: the index of an update and one of its attributes."""


@dataclass(slots=True)
class _Known:
    counts: dict[tuple[str, ...], Counted | RunFailed] = field(default_factory=dict)
    failed: list[RunFailed] = field(default_factory=list)  # as long as no run has counted
    structures: dict[tuple[str, ...], list[tuple[dict[str, str], Counted]]] = field(
        default_factory=dict
    )


class Runner:
    """Runs one program.

    Args:
        program: The program; its files are laid out for the helper.
        seconds: Time limit of one run.
        env: Environment beside the knobs.
    """

    def __init__(
        self,
        program: Program,
        *,
        seconds: float = RUN_SECONDS,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._program = program
        self._seconds = seconds
        self._env = dict(env or {})
        self._known = _Known()
        self._lacking: frozenset[str] = frozenset()
        self._links: dict[str, _Link] = {}
        self._folder: Path | None = None
        self._defaults = {
            name: knob_text(knob.default)
            for name, knob in program.knobs.items()
            if knob.default is not None
        }

    def count(self, knobs: Mapping[str, KnobValue]) -> Counted | RunFailed:
        """The model of a configuration; never raises for what the script does."""
        values = _texts(knobs)
        known = self._told(values)
        if known is not None:
            return known
        key = _key(values, rates=True)
        same = self._known.structures.setdefault(_key(values, rates=False), [])
        found = _sound(_counted, self._ask(values, sigmas=None))
        self._known.counts[key] = found
        if isinstance(found, RunFailed):
            self._known.failed.append(found)
        else:
            for one in same:
                self._learn_link(one, values, found)
            same.append((values, found))
        return found

    def knows(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether `count` answers without a run."""
        return self._told(_texts(knobs)) is not None

    def _told(self, values: Mapping[str, str]) -> Counted | RunFailed | None:
        """A count that an earlier run has told; None where it takes one of its own."""
        key = _key(values, rates=True)
        if key in self._known.counts:
            return self._known.counts[key]
        for before, counted in self._known.structures.get(_key(values, rates=False), ()):
            moved = self._moved(counted, before, values)
            if moved is not None:
                self._known.counts[key] = moved
                return moved
        return self._hopeless()

    def _hopeless(self) -> RunFailed | None:
        """Why no configuration of the script runs, once enough have failed alike and none ran."""
        failed = self._known.failed
        if len(failed) < FAILURES_ALIKE or any(self._known.structures.values()):
            return None
        return failed[-1] if len({one.reason for one in failed}) == 1 else None

    def moved(
        self,
        counted: Counted,
        before: Mapping[str, KnobValue],
        knobs: Mapping[str, KnobValue],
    ) -> Counted | None:
        """A count with the rates of another configuration; None where they cannot be told."""
        return self._moved(counted, _texts(before), _texts(knobs))

    def set_lacking(self, packages: frozenset[str]) -> bool:
        """Take in which packages are missing where the script will run; False: nothing changed.

        Args:
            packages: Those that only help, as a codec's: a script does without.
        """
        if packages == self._lacking:
            return False
        self._lacking, self._known = packages, _Known()
        return True

    def structure(self, knobs: Mapping[str, KnobValue]) -> tuple[str, ...]:
        """What the model and its export depend on, as a key."""
        lacking = (f"without {name}" for name in sorted(self._lacking))
        return (*_key(_texts(knobs), rates=False), *lacking)

    def export(
        self, knobs: Mapping[str, KnobValue], sigmas: Mapping[str, float]
    ) -> Exported | RunFailed:
        """What the script's own export makes of Gaussian weights.

        Args:
            knobs: The configuration.
            sigmas: Standard deviation of each tensor's trained weights, by name.
        """
        return _sound(_exported, self._ask(_texts(knobs), sigmas=sigmas))

    def _ask(
        self, values: Mapping[str, str], *, sigmas: Mapping[str, float] | None
    ) -> dict[str, Any]:
        started = time.perf_counter()
        answer = helper().ask(lambda root: self._request(values, sigmas, root))
        answer["seconds"] = time.perf_counter() - started
        return answer

    def _request(
        self, values: Mapping[str, str], sigmas: Mapping[str, float] | None, root: Path
    ) -> dict[str, Any]:
        if self._folder is None or self._folder.parent != root:
            self._folder = Path(tempfile.mkdtemp(dir=root))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            for name, content in self._program.files.items():
                path = self._folder / "program" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        knobs = {name: value for name, value in values.items() if not _names_place(name, value)}
        given = self._defaults | knobs
        if "MAX_WALLCLOCK_SECONDS" in given and not _number(given["MAX_WALLCLOCK_SECONDS"]) > 0:
            knobs["MAX_WALLCLOCK_SECONDS"] = FORCED_WALLCLOCK  # else it runs all its iterations
        for pattern, most in SHORTENED:
            knobs |= {name: str(most) for name, value in given.items()
                      if pattern.search(name) and _number(value) > most}  # fmt: skip
        counted = self._told(values)
        if sigmas is not None and isinstance(counted, Counted) and not counted.updates:
            # No optimizer: nothing skips the updates after the first.
            knobs |= {name: "1" for name in STEP_KNOBS if name in given}
        return {
            "run": True,
            "folder": str(self._folder / "program"),
            "name": self._program.name,
            "env": kept | self._env | knobs | {"CUDA_VISIBLE_DEVICES": ""},
            "seconds": self._seconds,
            "vocabulary": int(_number(given.get("VOCAB_SIZE", ""))) or VOCABULARY,
            "lacking": sorted(self._lacking),
            "export": sigmas is not None,
            "sigmas": sigmas,
        }

    def _moved(
        self, counted: Counted, before: Mapping[str, str], values: Mapping[str, str]
    ) -> Counted | None:
        """A count with the rates of another configuration; None where they cannot be told."""
        old, new = {**self._defaults, **before}, {**self._defaults, **values}
        updates = list(counted.updates)
        for name in _changed(old, new):
            link = self._links[name] if name in self._links else self._by_value(name, old, counted)
            number = _number(old.get(name, ""))
            if link is None or (link and number == 0):
                return None
            for index, attribute in link:
                moved = getattr(updates[index], attribute) * _number(new.get(name, "")) / number
                updates[index] = replace(updates[index], **{attribute: moved})
        return replace(counted, updates=tuple(updates), cpu_seconds=0.0)

    def _by_value(self, name: str, values: Mapping[str, str], counted: Counted) -> _Link | None:
        """What a knob sets, where its name and value leave no doubt."""
        attribute, number = _attribute_of(name), _number(values.get(name, ""))
        if attribute is None or number <= 0:
            return None
        same = [other for other, text in values.items()
                if _attribute_of(other) == attribute and _number(text) == number]  # fmt: skip
        matching = [(index, attribute) for index, one in enumerate(counted.updates)
                    if _same(getattr(one, attribute), number)]  # fmt: skip
        return matching if same == [name] and matching else None

    def _learn_link(
        self,
        known: tuple[Mapping[str, str], Counted],
        values: Mapping[str, str],
        found: Counted,
    ) -> None:
        """Note what a knob sets, of two runs that differ in this knob alone."""
        before, counted = known
        changed = _changed({**self._defaults, **before}, {**self._defaults, **values})
        if len(changed) != 1 or len(counted.updates) != len(found.updates):
            return
        self._links[changed[0]] = [
            (index, attribute)
            for index, (old, new) in enumerate(zip(counted.updates, found.updates, strict=True))
            for attribute in ("rate", "momentum", "decay")
            if not _same(getattr(old, attribute), getattr(new, attribute))
        ]


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=SAME_RATE)


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Knobs of rates in which two configurations differ."""
    return [
        name
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and _RATES.search(name) and not _IRRELEVANT.match(name)
    ]


def _texts(knobs: Mapping[str, KnobValue]) -> dict[str, str]:
    return {name: knob_text(value) for name, value in knobs.items()}


def _key(values: Mapping[str, str], *, rates: bool) -> tuple[str, ...]:
    return tuple(
        f"{name}={values[name]}"
        for name in sorted(values)
        if not _IRRELEVANT.match(name)
        and not _COURSE.search(name)
        and (rates or not _RATES.search(name))
    )


def _attribute_of(name: str) -> str | None:
    """What of an `Update` a knob sets, by its name."""
    if re.search(r"(^|_)(WD|WEIGHT_DECAY|DECAY)(_|$)", name):
        return "decay"
    if "MOMENTUM" in name and "WARMUP" not in name:
        return "momentum"
    if re.search(r"(^|_)(LR|LEARNING_RATE)(_|$)", name):
        return "rate"
    return None


def _names_place(name: str, value: str) -> bool:
    """Whether a knob names a file or folder that is not here: the script's default is made up."""
    return bool(re.search(r"_(PATH|DIR|ROOT|FILES?)$", name)) and not Path(value).is_file()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _sound(
    read: Callable[[Mapping[str, Any]], _Found | RunFailed], answer: Mapping[str, Any]
) -> _Found | RunFailed:
    """What an answer says; a script may have written into it what makes no sense."""
    try:
        return read(answer)
    except NOT_UNDERSTOOD as error:
        return RunFailed(reason=forged(error))


def _counted(answer: Mapping[str, Any]) -> Counted | RunFailed:
    if "model_params" not in answer:
        return RunFailed(reason=_reason(answer), cpu_seconds=answer.get("cpu_seconds", 0.0))
    notes = list(answer.get("notes", ()))
    refused = answer.get("refused_events", ())
    if refused:
        notes.append(f"it {'; '.join(refused)}, which a probe may not, and goes on without")
    if "groups" not in answer:
        notes.append(f"its first update was not seen: {_reason(answer)}")
    printed = answer.get("printed", {}).get("model_params")
    differs = printed is not None and printed != answer["model_params"]
    if differs:
        notes.append(f"{answer['model_params']:,} parameters were seen, it prints {printed:,}")
    return Counted(
        model_params=operator.index(answer["model_params"]),
        tensors=tuple(
            ProbedTensor(name=name, shape=tuple(shape), dtype=dtype)
            for name, shape, dtype in answer["tensors"]
        ),
        updates=tuple(_update(group) for group in answer.get("groups", ())),
        factors=answer.get("factors", {}),
        notes=tuple(notes),
        incomplete=bool(answer.get("lacks") or refused or differs),
        printed_params=printed,
        stand_ins=tuple(answer.get("stand_ins", ())),
        cpu_seconds=answer.get("cpu_seconds", 0.0),
        peak_mib=answer.get("peak_mib", 0.0),
    )


def _update(group: Mapping[str, Any]) -> Update:
    numbers, initial = group["numbers"], group["initial"]
    rate = max(
        held.get(name, 0.0)
        for held in (numbers, initial)
        for name in ("lr", "base_lr", "initial_lr")
    )
    now = numbers.get("lr", 0.0)
    decay = max((numbers.get(name, 0.0) for name in ("weight_decay", "wd")), default=0.0)
    if group["decay"] > 1e-7 and now > 0:
        decay = group["decay"] / now  # what the step took away says more than a setting's name
    betas = group["betas"]
    momentum = max(
        (held.get("momentum", 0.0) for held in (numbers, initial)),
        default=0.0,
    ) or (betas[0] if betas else 0.0)
    return Update(
        optimizer=group["optimizer"],
        rate=rate,
        momentum=momentum,
        decay=decay,
        members=tuple(group["members"]),
    )


def _exported(answer: Mapping[str, Any]) -> Exported | RunFailed:
    cpu = answer.get("cpu_seconds", 0.0)
    calls = answer.get("compressions", ())
    printed = answer.get("printed", {})
    largest = max((made for _, _, _, made, _ in calls), default=0)
    if not largest:
        return RunFailed(reason=f"its export was not reached: {_reason(answer)}", cpu_seconds=cpu)
    printed_bytes, files = printed.get("model_bytes") or 0, answer.get("files", {}).values()
    last = next(call for call in reversed(calls) if call[3] >= LEAST_SHARE * largest)
    # Of several codecs that were tried on the same data, the one whose bytes were kept.
    rivals = sorted((call for call in calls if call[2] == last[2]), key=operator.itemgetter(3))
    kept = (call for call in rivals for size in (printed_bytes, *files)
            if 0 <= size - call[3] <= HEADER_BYTES)  # fmt: skip
    codec, _, _, made, sampled = next(kept, rivals[0])
    written = [size for size in files if made <= size <= 2 * made]
    model_bytes = printed_bytes if printed_bytes >= made else min(written, default=made)
    return Exported(
        model_bytes=model_bytes,
        code_bytes=printed.get("code_bytes"),
        codec=codec,
        sampled=bool(sampled),
        stored=tuple(
            StoredTensor(
                name=one["name"], numbers=one["numbers"], bits=one["bits"], entropy=one["entropy"]
            )
            for one in answer.get("stored", ())
        ),
        factors=answer.get("factors", {}),
        cpu_seconds=cpu,
        peak_mib=answer.get("peak_mib", 0.0),
    )


def _reason(answer: Mapping[str, Any]) -> str:
    reason = str(answer.get("error", "it ended without one"))
    lacking = answer.get("stand_ins", ())
    return f"{reason} (stood in for: {', '.join(lacking)})" if lacking else reason

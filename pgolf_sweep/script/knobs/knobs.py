"""The environment variables that a script reads, with type and default, found in its source.

The source is parsed, never run. Read are ``os.environ.get``, ``os.getenv``, ``os.environ[...]`` and
``in os.environ`` under any import name or alias, helper functions that wrap them (five deep), and
loops over literal names. Reads whose names only the running script can know are counted.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgolf_sweep.core.trial import knob_text
from pgolf_sweep.script.knobs.booleans import said
from pgolf_sweep.script.knobs.environ_reads import EnvironmentReads
from pgolf_sweep.script.source import parsed
from pgolf_sweep.script.unpack import unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.script.knobs.booleans import Words
    from pgolf_sweep.script.knobs.conversions import KnobKind
    from pgolf_sweep.script.knobs.environ_reads import Found

LAUNCHER_VARIABLES = frozenset(
    {
        *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK"),
        *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "ROLE_WORLD_SIZE"),
        *("MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES"),
        *("PATH", "HOME", "USER", "HOSTNAME", "PYTHONPATH", "LD_LIBRARY_PATH"),
    }
)
"""Set by torchrun and the system for each process: no configuration of a trial."""
STEP_KNOBS = ("ITERATIONS", "NUM_ITERATIONS", "MAX_STEPS")
"""Names of the knob for how many steps a training makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One environment variable of a script.

    Attributes:
        name: The variable's name.
        kind: What the script makes of its text; ``str`` when it takes it as it is.
        default: Value without the variable; None if there is none or it is computed at run time.
        line: One-based line of the (unpacked) source where it is read first.
        words: For a boolean, the texts that the script compares with; None for a number's text.
        choices: The only texts that a flag takes, where it says so.
        switch: Of a flag without a value what turns it off, or empty; None for one with a value.
        any_text_is_true: Whether a flag's every text but the empty one is true (``type=bool``).
    """

    name: str
    kind: KnobKind
    default: KnobValue | None
    line: int
    words: Words | None = None
    choices: tuple[str, ...] = ()
    switch: str | None = None
    any_text_is_true: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """For a boolean, the texts for true and for false; one that no text gives is left out."""
        if self.kind != "bool":
            return ()
        return ("1", "0") if self.words is None else self.words.texts

    def takes(self, value: KnobValue) -> bool:
        """Whether the script can read a value, and reads it as what it says."""
        text = value if isinstance(value, str) else None
        try:
            if self.kind == "int":
                return isinstance(value, int) if text is None else int(text) is not None
            if self.kind == "float":
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                return is_number if text is None else float(text) is not None
        except ValueError:
            return False
        if self.kind == "str":
            return True
        if isinstance(value, list | dict | None):
            return False
        if self.words is None:
            return value in (0, 1) or text in {"0", "1"}
        if isinstance(value, bool):
            return self.words.text(wanted=value) is not None
        return self.words.takes(knob_text(value))

    def takes_flag(self, value: KnobValue) -> bool:
        """Whether the script can read ``--name=value``, the value as Python prints it."""
        if self.choices:
            return str(value) in self.choices
        if self.any_text_is_true:
            return value is not False
        if self.kind == "bool":
            return isinstance(value, bool | int | str) and said(str(value)) is not None
        if self.kind == "int" and isinstance(value, bool):
            return False
        return self.takes(value)

    def asks_for(self) -> str:
        """What a value must be, for people."""
        if self.kind == "bool":
            return " or ".join(f"{self.name}={text}" for text in self.texts)
        noun = {"int": "a whole number", "float": "a number"}.get(self.kind, "a text")
        return noun if self.default is None else f"{noun}, as {self.name}={knob_text(self.default)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a script reads of its environment.

    Attributes:
        knobs: By name, in the order in which the script reads them.
        unnamed: ``file:line`` of each read whose name only the running script knows.
    """

    knobs: dict[str, Knob]
    unnamed: tuple[str, ...] = ()


def read_knobs(source: str, *, path: Path | None = None) -> dict[str, Knob]:
    """The knobs of a script by name, in the order in which it reads them; see `survey`."""
    return survey({"": unpack(source, path=path)}).knobs


def survey(sources: Mapping[str, str]) -> Survey:
    """What files that belong together read; the first one's word comes before the others'.

    Args:
        sources: Texts by the files' names, unpacked.

    Raises:
        SyntaxError: The first is not Python that any version since 3.11 would run. Others that are
            not are left out.
    """
    trees = {}
    for name, text in sources.items():
        try:
            trees[name] = parsed(text)
        except SyntaxError:
            if not trees:
                raise
    names = list(trees)
    try:
        reads = EnvironmentReads(list(trees.values()))
        found = sorted(reads.found(), key=lambda one: one.place)
    except RecursionError as error:
        raise SyntaxError("nested too deeply to be read") from error
    return Survey(
        knobs=_merged(found),
        unnamed=tuple(f"{names[tree]}:{line}" for tree, line in sorted({*reads.unnamed})),
    )


def worded(knobs: Mapping[str, KnobValue], known: Mapping[str, Knob]) -> dict[str, KnobValue]:
    """Values with each boolean as the text that its script wants; others as they are."""
    changed = dict(knobs)
    for name, value in knobs.items():
        knob = known.get(name)
        if knob is None or not isinstance(value, bool):
            continue
        if knob.words is not None:
            text = knob.words.text(wanted=value)
            changed[name] = value if text is None else text
        elif knob.kind == "str":
            changed[name] = str(value)  # a text is spelled as W&B's agent spells it
    return changed


def nearest_knob(name: str, names: Iterable[str]) -> str | None:
    """The name that a user who typed `name` most likely meant, or None if none is close."""
    known = {candidate.upper(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.6)
    return known[matches[0]] if matches else None


def _merged(found: Iterable[Found]) -> dict[str, Knob]:
    """One knob a name: where it is read first, with the first kind and default that are known."""
    merged: dict[str, Knob] = {}
    for one in found:
        if one.name in LAUNCHER_VARIABLES:
            continue
        default, line = _as_kind(one), one.place[1]
        knob = Knob(name=one.name, kind=one.kind, default=default, line=line, words=one.words)
        first = merged.setdefault(one.name, knob)
        if first.default is None and (default is not None or first.kind == "str"):
            merged[one.name] = replace(knob, line=first.line)
    return merged


def _as_kind(found: Found) -> KnobValue | None:
    """A default as the script would have it after its conversion."""
    value, kind = found.default, found.kind
    if not isinstance(value, str | int | float):
        return None
    try:
        if kind == "bool":
            if isinstance(value, bool) and not found.converted:
                return value
            if found.words is not None:
                return found.words.value(value)
            return bool(float(value))
        if kind == "int":
            return int(value)
        if kind == "float":
            number = float(value)
            return number if not math.isnan(number) else None
    except (ValueError, OverflowError):
        return None
    return str(value)

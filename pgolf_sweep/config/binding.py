"""How a sweep's parameters reach its program: environment, flags, JSON or wandb.config.

A parameter goes where the program reads it. A ``command`` decides the words as it does with W&B;
without one, W&B's default applies to what the program takes as flags.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgolf_sweep.config.types import NO_RULES
from pgolf_sweep.config.yaml_lines import WORDS_FOR_BOOL, did_you_mean
from pgolf_sweep.core.trial import knob_text
from pgolf_sweep.script.command import INTERPRETER, TORCHRUN, filled, nested
from pgolf_sweep.script.knobs.knobs import worded
from pgolf_sweep.space.domains import value_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from pgolf_sweep.config.types import SweepSpec
    from pgolf_sweep.config.yaml_lines import Document, KeyPath
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.script.knobs.knobs import Knob
    from pgolf_sweep.script.program import Program
    from pgolf_sweep.space.domains import Parameter

_FLAG_MACROS = ("${args}", "${args_no_equals}", "${args_no_boolean_flags}")
_SETTING_MACROS = ("${args_no_hyphens}", "${args_append_hydra}", "${args_override_hydra}")
_JSON_MACROS = ("${args_json}", "${args_json_file}")
_RANK_MODULES = {"torch.distributed.run", "torch.distributed.launch"}
_MISREAD = re.compile(r"[-+]?(?:0[0-7_]*[1-7][0-7_]*|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?)")
"""Octal and base-60 numbers of YAML 1.1: ``010`` is 8 and ``12:30`` is 750."""
_REBASED = re.compile(r"[-+]?0[xb].*|(?![-+]?\d{1,3}(_\d{3})+$).*_.*", re.IGNORECASE)
"""Hexadecimal and binary numbers, and underscores but for those between thousands."""


@dataclass(frozen=True)
class Binding:
    """A sweep and the program that it runs."""

    spec: SweepSpec
    program: Program

    # -- what a trial gets ----------------------------------------------------------------------

    def config(self, knobs: Mapping[str, KnobValue]) -> dict[str, Any]:
        """A trial's parameters as W&B hands them out, nested ones as mappings."""
        return nested(
            (_path(parameter), self._handed(parameter, knobs[name]))
            for name, parameter in self.spec.space.parameters.items()
            if name in knobs
        )

    def env(self, knobs: Mapping[str, KnobValue]) -> dict[str, str]:
        """The variables that carry resolved knobs; a flag needs none."""
        texts = {n: v for n, v in worded(knobs, self.program.knobs).items() if self._in_env(n)}
        found = {}
        for name, value in texts.items():
            parameter = self.spec.space.parameters.get(name)
            handed = value if parameter is None else self._handed(parameter, value)
            found[name] = handed if isinstance(handed, str) else knob_text(handed)
        return found

    def argv(self, knobs: Mapping[str, KnobValue], gpus: int) -> tuple[str, ...]:
        """The words that start a trial of so many GPUs; empty for the script in its usual way."""
        values = self.config(knobs)
        words = self.spec.command.words
        name = self.program.name
        if words:
            script = self.spec.command.script
            template = tuple("${program}" if word == script else word for word in words)
            name = self.spec.command.module or name
            return self._with_ranks(filled(template, program_name=name, values=values), gpus)
        flags = {top: value for top, value in values.items() if self._by_default(top)}
        if not flags:
            return ()
        return self._with_ranks((INTERPRETER, "-u", name, *self._flag_words(flags)), gpus)

    def _handed(self, parameter: Parameter, value: Any) -> Any:
        """A value as W&B has it, or as the program's own type says where nothing is lost."""
        text = parameter.spelled.get(value_key(value))
        if text is None:
            return value
        kinds = {knob.kind for knob in self._readers(parameter)}
        return int(value) if kinds == {"int"} and value == int(value) else text

    def _in_env(self, name: str) -> bool:
        if name in self.program.knobs or name not in self.spec.space.parameters:
            return True
        parameter = self.spec.space.parameters[name]
        return not self._flags_of(parameter) and len(_path(parameter)) == 1

    def _by_default(self, top: str) -> bool:
        """Whether a parameter is a flag where the file has no command."""
        flags = self.program.flags
        elsewhere = top in self.program.knobs or top in flags.config_names
        return top in flags.known or (bool(flags.beyond) and not elsewhere)

    def _flag_words(self, values: Mapping[str, Any]) -> Iterator[str]:
        """``--name=value``; a switch of the program stands alone, or is turned off."""
        for name, value in values.items():
            knob = self.program.flags.known.get(name)
            if knob is None or knob.switch is None:
                yield f"--{name}={value}"
            elif value:
                yield f"--{name}"
            elif knob.switch:
                yield knob.switch

    def _with_ranks(self, words: tuple[str, ...], gpus: int) -> tuple[str, ...]:
        """The words with torchrun where a trial of the contest has GPUs that nothing shares out.

        A torchrun without a meeting point of its own gets one: trials share a node's ports.
        """
        modules = [i for i, word in enumerate(words) if word in _RANK_MODULES]
        if modules:
            meets = any(w.startswith(("--standalone", "--rdzv")) for w in words)
            at = modules[0] + 1
            return words if meets else (*words[:at], "--standalone", *words[at:])
        plain = self.spec.pgolf.rules == NO_RULES
        if gpus <= 1 or plain or self.spec.command.launches or INTERPRETER not in words:
            return words
        at = words.index(self.program.name) if self.program.name in words else len(words)
        ranks = (*TORCHRUN, "--standalone", f"--nproc_per_node={gpus}")
        return (*words[:at], *ranks, *words[at:])

    # -- what is wrong --------------------------------------------------------------------------

    def note(self, document: Document) -> list[str]:
        """Note what the program cannot read, on the document.

        Returns:
            What people should know: parameters that are passed on unseen.
        """
        unseen: list[str] = []
        if self._of_another(document):
            return []
        for name, parameter in self.spec.space.parameters.items():
            readers = self._readers(parameter)
            if readers:
                self._check_reach(document, parameter)
                self._check_values(document, parameter, readers)
            elif _path(parameter)[0] in self.program.flags.config_names:
                continue
            elif why := self._passed_on(parameter):
                unseen.append(name)
                if why.startswith("hydra") and not self.spec.command.words:
                    document.problem(
                        parameter.keys,
                        "hydra takes NAME=VALUE; write command: [${env}, ${interpreter}, "
                        "${program}, ${args_no_hyphens}]",
                    )
            else:
                self._note_unread(document, parameter)
        if not unseen:
            return []
        why = ", ".join(
            dict.fromkeys(self._passed_on(self.spec.space.parameters[n]) for n in unseen)
        )
        return [f"{', '.join(unseen)} passed on unseen: only the running program knows {why}"]

    def _of_another(self, document: Document) -> bool:
        """Note a file that names no program, where none of its parameters is the trainer's.

        W&B starts such a file by ``wandb.agent(sweep_id, function=...)``.
        """
        names = list(self.spec.space.parameters)
        given = (document.value or {}).get("program")
        if given is not None or not names or not self.program.builtin:
            return False
        if any(name.isupper() for name in names):
            return False  # the trainer's knobs are upper case: a mistyped one
        if any(self._readers(self.spec.space.parameters[name]) for name in names):
            return False
        document.problem(
            ("program",),
            f"missing: name the script that reads {', '.join(names[:3])}; the default, our own "
            "trainer, does not",
        )
        return True

    def _readers(self, parameter: Parameter) -> list[Knob]:
        """The knobs and flags by which the program reads a parameter."""
        found = [self.program.knobs[n] for n in [parameter.name] if n in self.program.knobs]
        return found + self._flags_of(parameter)

    def _flags_of(self, parameter: Parameter) -> list[Knob]:
        known = self.program.flags.known
        top = _path(parameter)[0]
        if top in known and len(_path(parameter)) > 1:
            return []  # takes the mapping as a text
        return [known[top]] if top in known else []

    def _passed_on(self, parameter: Parameter) -> str:
        """Why the program may read a parameter that its text does not name; or nothing."""
        words, flags = self.spec.command.words, self.program.flags
        top = _path(parameter)[0]
        if top in flags.known:
            return f"what is in --{top}"
        if any(macro in words for macro in _JSON_MACROS):
            return "its JSON"
        settings = [words.index(macro) for macro in _SETTING_MACROS if macro in words]
        starts = [i for i, w in enumerate(words) if w in self._program_words]
        if settings and starts and settings[0] > starts[0]:
            return flags.beyond[0] if flags.beyond else "its NAME=VALUE words"
        reaches = not words or any(macro in words for macro in _FLAG_MACROS)
        return ", ".join(flags.beyond) if reaches else ""

    @property
    def _program_words(self) -> set[str]:
        """The words of a command that name the program."""
        command = self.spec.command
        return {"${program}", *filter(None, (command.script, command.module))}

    def _note_unread(self, document: Document, parameter: Parameter) -> None:
        known = {**self.program.knobs, **self.program.flags.known}
        hint = did_you_mean(parameter.name, known)
        hint += unnamed_hint(parameter.name, self.program.unnamed)
        document.problem(parameter.keys, f"{self.spec.program} never reads {parameter.name}{hint}")

    def _check_reach(self, document: Document, parameter: Parameter) -> None:
        """A flag that the command does not pass on would leave every trial at its default."""
        words = self.spec.command.words
        by_env = parameter.name in self.program.knobs
        in_config = _path(parameter)[0] in self.program.flags.config_names
        carried = any(m in words for m in (*_FLAG_MACROS, *_SETTING_MACROS, *_JSON_MACROS))
        if words and not carried and not by_env and not in_config:
            document.problem(
                ("command",),
                f"passes no parameters, and {self.spec.program} takes {parameter.name} as a flag: "
                "write ${args} after the program",
            )
        flag = self.program.flags.known.get(_path(parameter)[0])
        gives_value = "${args}" in words or "${args_no_equals}" in words
        if flag is not None and flag.switch is not None and gives_value and not by_env:
            document.problem(
                parameter.keys,
                f"--{flag.name} takes no value, and command gives it one: write "
                "${args_no_boolean_flags} for ${args}",
            )

    def _check_values(
        self, document: Document, parameter: Parameter, readers: Sequence[Knob]
    ) -> None:
        for place, value in _values(parameter):
            spelled = document.spelled.get((*parameter.keys, *place), "")
            kinds = {knob.kind for knob in readers}
            if trap := _trap(spelled, value, kinds):
                document.problem((*parameter.keys, *place), trap)
                return
        for knob in readers:
            is_flag = knob is not self.program.knobs.get(parameter.name)
            values = [self._converted(parameter, knob, v) for v in parameter.domain.examples()]
            takes = knob.takes_flag if is_flag else knob.takes
            wrong = [value for value in values if not takes(value)]
            if wrong:
                document.problem(
                    parameter.keys, _cannot(self.spec.program, parameter.name, knob, wrong[0])
                )
                return

    def _converted(self, parameter: Parameter, knob: Knob, value: KnobValue) -> KnobValue:
        spelled = value_key(value) in parameter.spelled
        if spelled and knob.kind == "int" and isinstance(value, float) and value == int(value):
            return int(value)
        return value


def unnamed_hint(name: str, unnamed: Sequence[str]) -> str:
    """What to say of a name that is not found where a program reads others that nobody can see."""
    if not unnamed:
        return ""
    return (
        f"; {len(unnamed)} of its reads have names that only the running script knows "
        f"({', '.join(unnamed[:3])}{', ...' if len(unnamed) > 3 else ''}): if {name} is one of "
        f'them, write os.environ.get("{name}") into the script'
    )


def _path(parameter: Parameter) -> tuple[str, ...]:
    return parameter.path or (parameter.name,)


def _values(parameter: Parameter) -> Iterator[tuple[KeyPath, KnobValue]]:
    """A parameter's listed values with where they may stand; those of a range have no place."""
    for index, value in enumerate(parameter.domain.examples()):
        yield ("values", index), value
        yield ("value",), value


def _trap(spelled: str, value: KnobValue, kinds: AbstractSet[str]) -> str:
    """What is wrong with a value that YAML reads otherwise than its reader would."""
    if not spelled or isinstance(value, str):
        return ""
    if _MISREAD.fullmatch(spelled):
        base = "base 60" if ":" in spelled else "octal"
        return f"YAML reads {spelled} as {value} ({base}); write {value}, or quote it: '{spelled}'"
    if "str" not in kinds:
        return ""
    if spelled.lower() in WORDS_FOR_BOOL or _REBASED.fullmatch(spelled):
        return f"YAML reads {spelled} as {value}; quote it: '{spelled}'"
    return ""


def _cannot(program: str, name: str, knob: Knob, value: KnobValue) -> str:
    """What is said of a value that the program cannot read."""
    if knob.choices:
        return f"{program} takes {name} as one of {', '.join(knob.choices)}, not {value!r}"
    if knob.any_text_is_true:
        return (
            f"{program} reads {name} by type=bool, to which the text {value} is true; change the "
            "script (action=argparse.BooleanOptionalAction), or leave the parameter out"
        )
    fix = "; write whole numbers (min, max and q)" if knob.kind == "int" else ""
    fix = f"; write {knob.asks_for()}" if knob.words is not None else fix
    return f"{program} reads {name} as {knob.kind} and cannot read {value!r}{fix}"

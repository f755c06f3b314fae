"""The words that start a trial: W&B's ``command`` with its macros, or what the program reads.

What a macro stands for is what W&B's agent makes of it (wandb 0.31,
``wandb.sdk.launch.sweeps.utils.create_sweep_command_args``), argument by argument; a test compares
the two. What only the node knows stays a macro: the interpreter, its environment, file names.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MACROS = (
    "env",
    "interpreter",
    "program",
    "args",
    "args_no_hyphens",
    "args_no_equals",
    "args_no_boolean_flags",
    "args_json",
    "args_json_file",
    "args_append_hydra",
    "args_override_hydra",
)
INTERPRETER = "${interpreter}"
ARGS_JSON_FILE = "${args_json_file}"
ENVVAR = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")
PARAMETERS_FILE = "sweep-parameters.json"
"""Name of the file that ``${args_json_file}`` stands for, in the trial's folder."""

MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
"""A module as ``python -m`` takes it."""

TORCHRUN = ("-m", "torch.distributed.run")


def macro_words(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """The words of each macro that speaks of parameters.

    Args:
        values: A trial's parameters; nested ones are mappings.
    """
    settings = [f"{name}={value}" for name, value in values.items()]
    unless_false: list[str] = []
    for name, value in values.items():
        if not isinstance(value, bool):
            unless_false.append(f"--{name}={value}")
        elif value:
            unless_false.append(f"--{name}")
    return {
        "args": [f"--{setting}" for setting in settings],
        "args_no_hyphens": settings,
        "args_no_equals": [word for n, v in values.items() for word in (f"--{n}", str(v))],
        "args_no_boolean_flags": unless_false,
        "args_json": [json.dumps(values)],
        "args_append_hydra": [f"+{setting}" for setting in settings],
        "args_override_hydra": [f"++{setting}" for setting in settings],
    }


def filled(
    template: Sequence[str], *, program_name: str, values: Mapping[str, Any]
) -> tuple[str, ...]:
    """A command's words with each macro replaced that is the same on every node.

    Args:
        template: The words of a sweep file's ``command``.
        program_name: The program's file in a trial's folder.
        values: A trial's parameters; nested ones are mappings.
    """
    words = macro_words(values) | {"program": [program_name], "env": ["/usr/bin/env"]}
    found: list[str] = []
    for word in template:
        macro = word[2:-1] if word.startswith("${") and word.endswith("}") else ""
        found += words.get(macro, [word])
    return tuple(found)


def on_node(
    words: Iterable[str], *, interpreter: str, json_file: str, environ: Mapping[str, str]
) -> list[str]:
    """A trial's words with the rest of the macros replaced, on the node that runs them.

    A variable that the node lacks stands for its own name, as with W&B.
    """
    known = {INTERPRETER: [interpreter], ARGS_JSON_FILE: [json_file]}
    found: list[str] = []
    for word in words:
        replaced = ENVVAR.sub(lambda match: environ.get(match[1], match[1]), word)
        found += known.get(word, [replaced])
    return found


def nested(values: Iterable[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    """Values by their paths as W&B hands them out: a mapping in a mapping for nested ones."""
    found: dict[str, Any] = {}
    for path, value in values:
        holder = found
        for name in path[:-1]:
            holder = holder.setdefault(name, {})
        holder[path[-1]] = value
    return found

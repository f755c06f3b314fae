"""W&B's ``command``: which program it starts, how many processes, and what must be refused.

Every word is kept and started as it stands; what is said here is only where a command contradicts
the rest of the file, or cannot hold for a trial that has its own folder on one node.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from pgolf_sweep.config.yaml_lines import shown
from pgolf_sweep.script.command import ENVVAR, INTERPRETER, MACROS, MODULE, TORCHRUN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgolf_sweep.config.yaml_lines import Document

_ENV = {"${env}", "env", "/usr/bin/env"}
_PYTHON = re.compile(r"(?:.*/)?python3?")
_RUNNERS = {"uv", "conda", "mamba", "micromamba", "poetry", "pipenv", "pdm", "hatch", "rye"}
"""Programs that find a Python of their own."""
_ELSEWHERE = {"srun", "sbatch", "mpirun", "mpiexec", "ssh", "docker", "kubectl"}
_SYSTEM = re.compile(
    r"(?:CUDA|CUBLAS|NVIDIA|NCCL|GLOO|TORCH|PYTORCH|TRITON|OMP|MKL|KMP|HF|WANDB|XDG|LC|TOKENIZERS)_"
    r"|PYTHON|(?:LANG|TMPDIR|PATH|LD_LIBRARY_PATH)="
)
"""Settings of the system and its libraries; any other may be a knob."""
_COUNTS = {
    "nproc_per_node": "torchrun",
    "num_processes": "accelerate",
    "num_gpus": "deepspeed",
}
_LAUNCHER_MODULES = ("torch.distributed.", "accelerate", "deepspeed")
_NODES = ("nnodes", "num_machines", "num_nodes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a ``command`` says.

    Attributes:
        words: Its words, macros included; empty where the file has none.
        script: The word that names the program, where it is not ``${program}``.
        module: The program, where ``-m`` runs it as a module.
        processes: Processes that it asks its launcher for.
        processes_at: Position of that word.
        launches: Whether it starts the ranks of a trial itself.
    """

    words: tuple[str, ...] = ()
    script: str | None = None
    module: str | None = None
    processes: int | None = None
    processes_at: int | None = None
    launches: bool = False


def read_command(document: Document, raw: object, program: str | None) -> Command:
    """W&B's ``command``; what is refused is noted on the document."""
    if raw is None or raw == []:
        return Command()  # to W&B, too, an empty one is none
    if not isinstance(raw, list):
        document.problem(("command",), f"must be a list of words, not {shown(raw)}")
        return Command()
    words: list[str] = []
    for index, item in enumerate(raw):
        if isinstance(item, dict | list | None):
            document.problem(("command", index), f"must be a word, not {shown(item)}")
            item = ""  # noqa: PLW2901 - keeps the positions
        words.append(document.spelled.get(("command", index), str(item)))
    _check_macros(document, words)
    _check_starts(document, words)
    module = _module(words, program)
    script = None if module is not None else _script(document, words, program)
    found = Command(words=_interpreted(words), script=script, module=module)
    return _counted(document, found, words)


def _check_macros(document: Document, words: Sequence[str]) -> None:
    for index, word in enumerate(words):
        if ENVVAR.search(word):
            continue
        for name in re.findall(r"\$\{([^}]*)\}", word):
            if name not in MACROS:
                listed = ", ".join(f"${{{one}}}" for one in (*MACROS, "envvar:NAME"))
                document.problem(
                    ("command", index), f"{word!r}: no macro of W&B; they are: {listed}"
                )
            elif word != f"${{{name}}}":
                document.problem(
                    ("command", index),
                    f"{word!r} would stay as it is: W&B replaces ${{{name}}} only where it is a "
                    "word of its own",
                )


def _check_starts(document: Document, words: Sequence[str]) -> None:
    """Refuse what cannot hold for a trial: another user, another node, knobs behind its back."""
    for index, word in enumerate(words):
        place = ("command", index)
        before = [w for w in words[:index] if not re.fullmatch(r"[A-Za-z_]\w*=.*", w)]
        is_first = all(w in _ENV for w in before)
        setting = re.fullmatch(r"([A-Za-z_]\w*)=.*", word)
        if setting and is_first and before and not _SYSTEM.match(word):
            document.problem(
                place,
                f"{word!r} would change what a trial computes behind its record; write it under "
                f"parameters: {setting[1]}: {{value: ...}}",
            )
        elif is_first and word.rpartition("/")[2] == "sudo":
            document.problem(place, f"{word!r} would be lost: a trial runs as its worker's user")
        elif is_first and word.rpartition("/")[2] in _ELSEWHERE:
            document.problem(
                place,
                f"{word!r} starts processes elsewhere: a trial runs where Ray put it; start the "
                "program with python, torchrun, accelerate or deepspeed",
            )


def _script(document: Document, words: Sequence[str], program: str | None) -> str | None:
    """The word that names the program."""
    if "${program}" in words:
        return None
    scripts = [
        (index, word)
        for index, word in enumerate(words)
        if word.endswith(".py") and not word.startswith("-")
    ]
    named = [word for _, word in scripts if program in {None, word}]
    if named:
        return named[0]
    if scripts and program is not None:
        index, word = scripts[0]
        document.problem(
            ("command", index),
            f"{word!r} would be lost: program is {program}; write ${{program}} here",
        )
    elif program is not None:
        document.problem(
            ("command",), f"starts no program: write ${{program}} where {program} belongs"
        )
    return None


def _module(words: Sequence[str], program: str | None) -> str | None:
    """The program as a module, where a Python or a launcher is asked to run it as one."""
    for option, word in pairwise(words):
        if option not in {"-m", "--module"} or word.startswith(_LAUNCHER_MODULES):
            continue
        if word == "${program}":
            return program if program is not None and MODULE.fullmatch(program) else None
        path = word.replace(".", "/")
        if MODULE.fullmatch(word) and program in {None, word, f"{path}.py", f"{path}/__main__.py"}:
            return word
    return None


def _interpreted(words: Sequence[str]) -> tuple[str, ...]:
    """The words, with the worker's interpreter for ``python`` and for what starts ranks.

    A script needs the packages of the worker's environment, which need not be on the node's PATH.
    """
    if any(word.rpartition("/")[2] in _RUNNERS for word in words):
        return tuple(words)
    found: list[str] = []
    for index, word in enumerate(words):
        starts = all(
            w in _ENV or w.startswith("${args") or "=" in w or w == "" for w in words[:index]
        )
        if starts and _PYTHON.fullmatch(word) and "/" not in word:
            found.append(INTERPRETER)
        elif starts and word == "torchrun":
            found += [INTERPRETER, *TORCHRUN]
        else:
            found.append(word)
    return tuple(found)


def _counted(document: Document, found: Command, words: Sequence[str]) -> Command:
    """How many processes a command asks its launcher for."""
    launches = any(
        word.rpartition("/")[2] in {"torchrun", "accelerate", "deepspeed"}
        or word.startswith(("torch.distributed.", "accelerate.", "deepspeed."))
        for word in words
    )
    processes = at = None
    for index, word in enumerate(words):
        option, equals, value = word.lstrip("-").partition("=")
        name = option.replace("-", "_")
        if not launches or not word.startswith("--") or name not in {*_COUNTS, *_NODES}:
            continue
        where = index if equals else index + 1
        text = value if equals else words[index + 1] if index + 1 < len(words) else ""
        if name in _NODES:
            if text.rpartition(":")[2] != "1":
                document.problem(("command", where), f"{word}: a trial has one node, not {text}")
        elif text.isdigit():
            processes, at = int(text), where
            if processes == 0:
                document.problem(("command", where), f"{word} must be at least 1")
        elif text not in {"gpu", "auto", "cpu"}:
            document.problem(
                ("command", where), f"{word}: {text!r} is neither a number nor gpu, cpu or auto"
            )
    return replace(found, processes=processes, processes_at=at, launches=launches)

"""How many scripts that others wrote the size probe can count, against what their logs print.

    python bench/records/probe.py CHECKOUT [--only TEXT]

CHECKOUT is a checkout of openai/parameter-golf. For each log that prints `model_params`: the script
is the source that the log begins with, else the record's; the environment is what the log says of
its hyperparameters, else what the record's README tells to type. Each disagreement is listed with
its reason; exit code 1 when fewer than 92 % agree. `running.py` runs the scripts instead.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.script.fstrings import readable
from pgolf_sweep.script.logs.stream import parse_log
from pgolf_sweep.script.probe.prober import Probed, Prober, Unprobed, stop_helper
from pgolf_sweep.script.probe.slicing import class_attributes
from pgolf_sweep.script.program import Program, from_files
from pgolf_sweep.script.unpack import unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

BAR = 0.92
HEAD_BYTES = 400_000
RULE = re.compile(r"^={60,}$", re.MULTILINE)
BLOCK_LINE = re.compile(r"^(?:\d+:)?\s*(\w+)\s*[:=]\s*(\S.*?)\s*$")
PAIR = re.compile(r"\b([a-z]\w*)[:=](\[[^\]]*\]|[\w.+-]+)(?![\w\[({:=])")
ASSIGNMENT = re.compile(r"\b([A-Z][A-Z0-9_]{2,})=([^\s\\`'\"|]+)")
DEFAULTED = re.compile(r'"\$\{\w+:-([^}"]*)\}"')
CASE = re.compile(r"^case .*?^esac", re.MULTILINE | re.DOTALL)
UNCOMPARED = re.compile(r"^SEED$|_(PATH|DIR)$")
SHELL = "a shell script beside it"
RUN_ONLY = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "RUN_ID"}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("checkout", type=Path)
    arguments.add_argument("--only", default="", help="part of the log's path")
    options = arguments.parse_args()
    probers: dict[tuple[str, str], Prober] = {}
    right: Counter[str] = Counter()
    wrong, seconds, uncertain = [], [], 0
    for path in logs(options.checkout, options.only):
        params = parse_log(path).model_params
        if params is None:
            continue
        where = path.relative_to(options.checkout / "records").as_posix().partition("/")[2]
        try:
            program, from_log = program_of(path)
        except (InputError, FileNotFoundError) as error:
            wrong.append(f"{where}: {error}")
            continue
        prober = probers.setdefault((str(path.parent), program.sha256), Prober(program))
        first = ""
        for source, env in environments(path, program, source_in_log=from_log):
            started = time.perf_counter()
            result = prober.probe(env)
            seconds.append(time.perf_counter() - started)
            if isinstance(result, Probed) and result.model_params == params:
                right[source] += 1
                uncertain += result.incomplete
                break
            first = first or f"{where}: {reason(result, params)}"
        else:
            wrong.append(first)
    stop_helper()
    agreed, count = right.total(), right.total() + len(wrong)
    print(
        f"{count} logs that print model_params; {agreed} agree: {agreed / count:.1%}, bar {BAR:.0%}"
    )
    print("    environment from " + ", ".join(f"{source} {n}" for source, n in right.most_common()))
    print(f"{uncertain} of them said to be uncertain")
    seconds.sort()
    middle, most = seconds[len(seconds) // 2], seconds[-1]
    print(f"seconds a log: median {middle:.3f}, longest {most:.1f}, all {sum(seconds):.0f}")
    for failure in wrong:
        print(f"    {failure}")
    return int(agreed < BAR * count)


def value_of(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def reason(result: Probed | Unprobed, params: int) -> str:
    if isinstance(result, Unprobed):
        return f"not probed: {result.reason}"
    counts = f"probe {result.model_params:,}, log {params:,}"
    if result.incomplete:
        return f"{counts}: {'; '.join(result.notes)}"
    missing = f" (stood in for: {', '.join(result.stand_ins)})" if result.stand_ins else ""
    return f"{counts}: no environment that is printed or documented gives it{missing}"


def logs(checkout: Path, only: str) -> list[Path]:
    found = [
        path
        for pattern in ("*.log", "*.txt")
        for path in (checkout / "records").rglob(pattern)
        if path.name != "requirements.txt" and only in str(path)
    ]
    return sorted(found)


def program_of(log: Path) -> tuple[Program, bool]:
    """The script that wrote a log, and whether it was taken from the log itself."""
    head = log.read_bytes()[:HEAD_BYTES].decode(errors="replace")
    rule = RULE.search(head)
    if rule and "environ" in head[: rule.start()]:
        source = head[: rule.start()]
        start = re.search(r'^(?:"""|\'\'\'|#!|import |from )', source, re.MULTILINE)
        source = source[start.start() :] if start else source
        try:
            ast.parse(readable(source))
        except SyntaxError:
            pass
        else:
            return from_files(
                "train_gpt.py", {"train_gpt.py": source.encode()}, builtin=False
            ), True
    folder = log.parent
    while not list(folder.glob("*.py")) and folder.parent.parent.name != "records":
        folder = folder.parent
    files = {path.name: path.read_bytes() for path in sorted(folder.glob("*.py"))}
    names = [name for name in files if name.startswith("train")] or list(files)
    words = set(re.findall(r"[a-z]+", log.stem))
    names.sort(key=lambda name: (-len(words & set(re.findall(r"[a-z]+", name[:-3]))), len(name)))
    if not names:
        raise FileNotFoundError("no script in the record's folder")
    return from_files(names[0], files, builtin=False), False


def environments(
    log: Path, program: Program, *, source_in_log: bool
) -> Iterator[tuple[str, dict[str, str]]]:
    """What the log says of the script's knobs; where it says little, what is documented beside it.

    A count that agrees under one of them is the right count: no two agree by accident.
    """
    said = said_in(log, attribute_knobs(program), source_in_log=source_in_log)
    given = {name: value for name, value in said.items() if readable_value(name, value, program)}
    commands = [(source, one) for source, several in documented(log) for one in several]
    commands.sort(key=lambda one: not log.stem.startswith(run_of(one[1])))
    found = [
        (source, {name: value for name, value in ASSIGNMENT.findall(command)
                  if readable_value(name, value, program)})
        for source, command in commands
    ]  # fmt: skip
    more = [(source, values) for source, values in found if values.items() - given.items()]
    # A script that says all that the log says, and more, is what was typed.
    typed = [(source, values | given) for source, values in more
             if source == SHELL and agree(values, given)]  # fmt: skip
    yield from typed
    yield "the log", given
    yield from ((source, values | given) for source, values in more)


def run_of(command: str) -> str:
    """The run's name that a command sets."""
    named = re.search(r"\bRUN_ID=(\w+)", command)
    return named[1] if named else "-"


def agree(values: dict[str, str], given: dict[str, str]) -> bool:
    """Whether a command sets what a log says, names of runs and files aside."""
    both = {name for name in values.keys() & given.keys() if not UNCOMPARED.search(name)}
    return len(both) > 2 and all(value_of(values[n]) == value_of(given[n]) for n in both)


def said_in(log: Path, by_attribute: dict[str, str], *, source_in_log: bool) -> dict[str, str]:
    """Values of knobs by what the log prints of its hyperparameters."""
    text = log.read_bytes()[:HEAD_BYTES].decode(errors="replace")
    rule = RULE.search(text)
    if rule and (source_in_log or "environ" in text[: rule.start()]):
        text = text[rule.end() :]
    said: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith(("step", "warmup")) or len(line) > 500:
            continue
        pairs = PAIR.findall(line)
        if len(pairs) < 2 and (block := BLOCK_LINE.match(line)):
            pairs = [(block[1], block[2])]
        for attribute, value in pairs:
            knob = by_attribute.get(attribute) or by_attribute.get(attribute.lower())
            if knob and knob not in said:
                said[knob] = as_text(value)
    return said


def as_text(value: str) -> str:
    """A printed value as the environment variable that gives it."""
    if value.endswith("]"):
        return value.strip("[]").replace(", ", ",")
    return {"True": "1", "False": "0"}.get(value, value)


def readable_value(name: str, value: str, program: Program) -> bool:
    """Whether a text that was found is a value of a knob."""
    knob = program.knobs.get(name)
    if (
        knob is None
        or name in RUN_ONLY
        or any(mark in value for mark in ("environ", "(", "{", "$"))
    ):
        return False
    try:
        if knob.kind in {"int", "bool"}:
            int(value)
        elif knob.kind == "float":
            float(value)
    except ValueError:
        return False
    return True


def attribute_knobs(program: Program) -> dict[str, str]:
    """Attribute of the hyperparameters to the one knob that it is read from."""
    try:
        tree = ast.parse(readable(unpack(program.source)))
    except SyntaxError:
        return {}
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            attributes = class_attributes(tree, node.name, program.knobs)
            found |= {name: next(iter(k)) for name, k in attributes.items() if len(k) == 1}
    return found


def documented(log: Path) -> Iterator[tuple[str, list[str]]]:
    """Commands that the record's README and shell scripts show, fenced block by block."""
    folder = log.parent
    while folder.parent.parent.name != "records":
        folder = folder.parent
    path = folder / "README.md"
    if path.is_file():
        text = path.read_text(errors="replace")
        commands = re.split(r"```|\n\s*\n", text)
        yield "a command of the README", [one for one in commands if ASSIGNMENT.search(one)]
    yield SHELL, [one for p in sorted(folder.glob("*.sh")) for one in branches(p.read_text())]


def branches(script: str) -> list[str]:
    """A shell script's text as it reads under each branch of its first `case`."""
    script = DEFAULTED.sub(r"\1", script)
    case = CASE.search(script)
    if case is None:
        return [script]
    rest = script[: case.start()] + script[case.end() :]
    return [rest + one for one in case[0].split(";;")]


if __name__ == "__main__":
    sys.exit(main())

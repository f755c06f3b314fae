"""What the counted code reads: training shards to train on, nothing from outside, its seed."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from pgolf_sweep.verify.check import Check, CheckVerdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgolf_sweep.submission.folder import Folder, ShippedLog
    from pgolf_sweep.verify.checks_reach import Source

_TRAINING = re.compile(r"(?<![a-z])train(?:ing)?(?![a-z])", re.IGNORECASE)
_VALIDATION = re.compile(
    r"fineweb_val(?!_bytes)|(?<![a-z])val_(?:files|tokens|shards|glob|pattern)"
)
_EVERYTHING = re.compile(r"(?:fineweb_|/)\*(?:\.bin)?$|fineweb_\*|fineweb_\[tv\]")
_TRAIN_FILES = re.compile(r"fineweb_train|(?<![a-z])train_(?:files|shards|glob|pattern)")
_EVALUATION = re.compile(
    r"(?:^|_)(?:eval|evaluate|evaluation|ttt|score|validate)(?:_|$)", re.IGNORECASE
)
_NOT_EVALUATION = re.compile(r"train|calib|gptq|hessian|prequant|pre_quant|quant", re.IGNORECASE)
_LOG_TRAINING = re.compile(
    r"train[\w ]*(?:files|shards|loader|glob|pattern)\S*[:= ]\S*.{0,80}?"
    r"fineweb_(?:val(?!_bytes)|\*)"
)
_READERS = re.compile(
    r"^(?:open|io\.open|builtins\.open|torch\.load|(?:numpy|np)\.(?:load|fromfile|memmap)"
    r"|safetensors\.torch\.load_file|pandas\.read_\w+|glob\.glob|mmap\.mmap|os\.open)$"
    r"|(?:^|\.)Path\(\)\.(?:read_bytes|read_text|open|glob|rglob|iterdir)$"
)
_OUTSIDE = re.compile(r"^(?:/|~|\.\./|\.\.$|[A-Za-z]:\\)")
# A path below /tmp with a part that the run decides is its own scratch file.
_INNOCENT = re.compile(
    r"^/tmp/.*\{\}|"
    r"^/(?:dev/null|proc|sys)|data|fineweb|token|shards|/dev/shm|^/tmp/?$|cache|inductor",
    re.IGNORECASE,
)
_SEEDERS = re.compile(r"(?:^|\.)(?:manual_seed|manual_seed_all|seed_everything)$|^random\.seed$")
MOST_NAMED = 4
LONGEST_LINE = 500


def data_checks(folder: Folder, read: Sequence[Source]) -> Iterator[Check]:
    """Which data the code trains and scores on, which files it opens, and whose seed it takes."""
    yield _data(folder, read)
    yield _outside(read)
    yield _seed(folder, read)


def _answer(rule: str, found: list[str], limit: str, detail: str = "") -> Check:
    return Check(
        rule=rule,
        verdict=CheckVerdict.FAIL if found else CheckVerdict.PASS,
        observed="; ".join(found[:MOST_NAMED]) or "nothing against it",
        limit=limit,
        detail=detail if found else "",
    )


def _data(folder: Folder, read: Sequence[Source]) -> Check:
    found = [line for source in read for line in (*_trained(source), *_evaluated(source))]
    for log in (*folder.logs, *folder.unscored):
        found += [f"{log.name}: {line}" for line in _training_lines(log)]
    return _answer(
        "data",
        list(dict.fromkeys(found)),
        "training on the training shards alone, none of them at evaluation",
    )


def _trained(source: Source) -> Iterator[str]:
    """Validation shards, or all of them, where training data are named."""
    for node in source.names.nodes:
        for target, value in _named_values(node):
            if not _TRAINING.search(target.replace("_", " ")):
                continue
            words = _words(value)
            if any(_VALIDATION.search(word) for word in words) and not any(
                _TRAIN_FILES.search(word) for word in words
            ):
                yield f"{source.name} line {value.lineno}: {target} is validation data"
            elif any(_EVERYTHING.search(word) for word in words):
                yield f"{source.name} line {value.lineno}: {target} is all shards"


def _named_values(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    match node:
        case ast.Assign(targets=targets, value=value):
            yield from ((_name(target), value) for target in targets)
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            yield _name(target), value
        case ast.keyword(arg=str(name), value=value):
            yield name, value
        case ast.Call(func=func, args=args):
            yield from ((_name(func), argument) for argument in args)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _words(node: ast.expr) -> list[str]:
    """Texts and names within an expression, but for those of functions defined in it."""
    found = []
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            found.append(part.value[:500])
        elif isinstance(part, ast.Name | ast.Attribute):
            found.append(_name(part))
    return found


def _evaluated(source: Source) -> Iterator[str]:
    """Training shards in a function that evaluates."""
    for node in source.names.nodes:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not _EVALUATION.search(node.name) or _NOT_EVALUATION.search(node.name):
            continue
        for part in ast.walk(node):
            if isinstance(part, ast.expr) and any(map(_TRAIN_FILES.search, _own_words(part))):
                yield f"{source.name} line {part.lineno}: {node.name} reads training data"
                break


def _own_words(part: ast.expr) -> list[str]:
    if isinstance(part, ast.Constant):
        return [part.value[:500]] if isinstance(part.value, str) else []
    return [_name(part)] if isinstance(part, ast.Name | ast.Attribute) else []


def _training_lines(log: ShippedLog) -> Iterator[str]:
    for line in log.text.splitlines():
        short = len(line) < LONGEST_LINE and not set(line) & set("({#")
        if short and _LOG_TRAINING.search(line):
            yield line.strip()[:120]


def _outside(read: Sequence[Source]) -> Check:
    found = []
    for source in read:
        written = {
            source.names.text(c.args[0]) for c in source.names.calls() if c.args and _writes(c)
        }
        for call in source.names.calls():
            meant = source.names.meanings(call.func)
            if not any(_READERS.search(name) for name in meant) or _writes(call):
                continue
            owner = call.func.value if isinstance(call.func, ast.Attribute) else None
            nodes = [*call.args[:1], *([owner] if isinstance(owner, ast.Call) else [])]
            for node in nodes:
                path = source.names.text(node)
                if (
                    path
                    and path not in written
                    and _OUTSIDE.search(path)
                    and not _INNOCENT.search(path)
                ):
                    found.append(f"{source.name} line {call.lineno}: {path[:80]}")
    return _answer("outside_files", found, "files of the folder and of the data set alone")


def _writes(call: ast.Call) -> bool:
    modes = [*call.args[1:2], *(k.value for k in call.keywords if k.arg == "mode")]
    texts = [mode.value for mode in modes if isinstance(mode, ast.Constant)]
    return any(isinstance(text, str) and set(text) & set("wax+") for text in texts)


def _seed(folder: Folder, read: Sequence[Source]) -> Check:
    """Whether the seed that the logs name can be the one that ran."""
    limit = "the seed comes from the environment"
    found: list[str] = []
    free = 0
    for source in read:
        for call in source.names.calls():
            if not any(_SEEDERS.search(name) for name in source.names.meanings(call.func)):
                continue
            value = _constant(source, call.args[0]) if call.args else None
            if value is None:
                free += 1
            else:
                found.append(f"{source.name} line {call.lineno}: seeds with {value}")
        for node in source.names.nodes:
            for target, value_node in _named_values(node) if isinstance(node, ast.Assign) else ():
                value = _constant(source, value_node)
                if target.lower() == "seed" and value is not None and _is_attribute(node):
                    found.append(f"{source.name} line {value_node.lineno}: seed = {value}")
                    free = 0
    constants = (
        node.value
        for source in read
        for node in source.names.nodes
        if isinstance(node, ast.Constant)
    )
    reads_seed = any(isinstance(word, str) and word.lower() == "seed" for word in constants)
    verdict = CheckVerdict.PASS
    if found and not free:
        several = len({log.seed for log in folder.logs}) > 1
        verdict = CheckVerdict.FAIL if several else CheckVerdict.WARN
    elif not reads_seed and "seed" not in "".join(_arguments(read)):
        verdict = CheckVerdict.UNKNOWN
    return Check(
        rule="seed_used",
        verdict=verdict,
        observed="" if free else "; ".join(found[:MOST_NAMED]),
        limit=limit,
        detail="no SEED is read" if verdict is CheckVerdict.UNKNOWN else "",
    )


def _constant(source: Source, node: ast.expr) -> int | None:
    """A whole number that an expression is, under any name; None where it is read."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name | ast.Attribute):
        values = source.names.constants(_name(node))
        return values[0] if values else None
    return None


def _is_attribute(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Attribute) for t in node.targets)


def _arguments(read: Sequence[Source]) -> Iterator[str]:
    """Names of command-line options, in lower case."""
    for source in read:
        for call in source.names.calls():
            if _name(call.func) == "add_argument" and call.args:
                yield str(source.names.text(call.args[0])).lower()

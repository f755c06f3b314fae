"""The trainer's modules joined into one ``train_gpt.py``: what trials run and what is submitted.

What a reader of the file needs stays: code, line breaks, comments, the first line of a class's
docstring. What goes is what one file does not need or what only costs bytes against the cap:
imports between the modules and for type checkers, the other docstrings, lint marks, statements
marked ``# package only``, and half of the indentation.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib import resources

PACKAGE = "trainer"
MODULES = (
    "config",
    "eager",
    "layers",
    "model",
    "muon",
    "schedule",
    "data",
    "evaluate",
    "adapt",
    "quantize",
    "qat",
    "calibrate",
    "rans",
    "artifact",
    "export",
    "runtime",
    "attention",
    "checkpoint",
    "train",
)
"""In the order in which they are joined: a module uses at import only what lies before it."""

HEADER = '''"""A GPT for the contest in one file: environment variables in, log lines out.

Joined from the modules of the package `trainer`.
"""
'''
PACKAGE_ONLY = "# package only"
LINT_MARK = re.compile(r"\s*# noqa\b.*$")
INDENT = re.compile(r"^( +)", re.MULTILINE)


@cache
def bundle() -> bytes:
    """The bytes of ``train_gpt.py``: the same for the same modules, wherever they are installed."""
    folder = resources.files(PACKAGE)
    sources = {name: folder.joinpath(f"{name}.py").read_text(encoding="utf-8") for name in MODULES}
    return join(sources).encode()


def join(sources: dict[str, str]) -> str:
    """One module that does what the last of the given ones does.

    Args:
        sources: Module name to source, in dependency order.

    Raises:
        ValueError: Two modules define one name, or an import cannot be joined.
    """
    imports: set[str] = set()
    owners: dict[str, str] = {}
    bodies: list[str] = []
    for module, source in sources.items():
        tree = ast.parse(source)
        for name in _defined(tree):
            if name in owners:
                raise ValueError(f"{owners[name]} and {module} both define {name}")
            owners[name] = module
        imports |= _outer_imports(tree, module)
        bodies.append(f"# --- {module} ---\n\n{_body(source, tree)}")
    plain = sorted(line for line in imports if line.startswith("import "))
    others = sorted(line for line in imports if line.startswith("from "))
    head = ["from __future__ import annotations", "", *plain, *others]
    return HEADER + "\n" + "\n".join(head) + "\n\n" + "\n\n".join(bodies)


def _defined(tree: ast.Module) -> list[str]:
    """Names that a module binds at its top level, imports aside."""
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
    return names


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _is_typing_only(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def _outer_imports(tree: ast.Module, module: str) -> set[str]:
    """Run-time imports from outside the package, one name a line."""
    lines: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            lines |= {ast.unparse(ast.Import([alias])) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module.split(".")[0] == PACKAGE:
                if any(alias.asname for alias in node.names):
                    raise ValueError(f"{module}: a renamed import from {node.module}")
            elif node.module != "__future__":
                names = [alias for alias in node.names if alias.name != "TYPE_CHECKING"]
                lines |= {ast.unparse(ast.ImportFrom(node.module, [name], 0)) for name in names}
        elif _is_import(node):
            raise ValueError(f"{module}: a relative import, line {node.lineno}")
    return lines


def _body(source: str, tree: ast.Module) -> str:
    """A module's source without its imports and with short docstrings."""
    lines = source.splitlines()
    replaced: dict[int, str] = {}
    dropped: set[int] = set()
    for node in tree.body:
        if _is_import(node) or _is_typing_only(node):
            dropped |= set(range(node.lineno, _end(node) + 1))
    for owner in ast.walk(tree):
        if isinstance(owner, ast.stmt) and lines[owner.lineno - 1].endswith(PACKAGE_ONLY):
            dropped |= set(range(owner.lineno, _end(owner) + 1))
        if not isinstance(owner, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        text = ast.get_docstring(owner)
        if text is None:
            continue
        node = owner.body[0]
        dropped |= set(range(node.lineno, _end(node) + 1))
        if isinstance(owner, ast.Module):
            replaced[node.lineno] = f"# {text.splitlines()[0]}"
        elif isinstance(owner, ast.ClassDef):
            replaced[node.lineno] = f'{" " * node.col_offset}"""{text.splitlines()[0]}"""'
    documented = 1 if ast.get_docstring(tree) else 0
    first_code = next((node.lineno for node in tree.body[documented:]), len(lines) + 1)
    dropped |= {number for number in range(1, first_code) if number not in replaced}
    kept = [
        LINT_MARK.sub("", replaced.get(number, line)).rstrip()
        for number, line in enumerate(lines, start=1)
        if number in replaced or number not in dropped
    ]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
    return INDENT.sub(lambda match: " " * (len(match[1]) // 2), text) + "\n"


def _end(node: ast.stmt) -> int:
    """Last line of a statement."""
    return node.end_lineno or node.lineno

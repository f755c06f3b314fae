"""Whether a node has what the ``requirements.txt`` beside a script asks for.

Only packages that the script imports count: a repository's file lists what its other scripts need,
too. A missing one ends the run before it starts; another version is said in the run's log.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.script.source import decoded, parsed
from pgolf_sweep.script.unpack import unpack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILE = "requirements.txt"
MODULES = {
    "flash-attn": "flash_attn",
    "flash-attn-3": "flash_attn_interface",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "pillow": "PIL",
    "zstd": "zstandard",
}
"""Module of a distribution whose name is another one."""
_LINE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*([<>=!~][^;#]*)?")
_PART = re.compile(r"(==|>=|<=|>|<)\s*([0-9][0-9.]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """One requirement that the node does not meet.

    Attributes:
        requirement: As the file has it.
        installed: Version that is here, or None if the package is missing.
    """

    requirement: str
    installed: str | None

    @property
    def sentence(self) -> str:
        """For people."""
        have = "it is not installed" if self.installed is None else f"{self.installed} is installed"
        return f"{FILE} asks for {self.requirement}; {have}"


def lacking(files: Mapping[str, bytes], script: str) -> list[Lack]:
    """Requirements of a program's files that this machine does not meet.

    Args:
        files: The program's files; without a ``requirements.txt`` nothing is lacking.
        script: Name of the one that runs.
    """
    if FILE not in files:
        return []
    wanted = _imported(unpack(decoded(files[script]), path=Path(script), files=files))
    found = []
    for name, versions, line in _requirements(files[FILE].decode(errors="replace")):
        module = MODULES.get(name, name.replace("-", "_"))
        if module not in wanted:
            continue
        installed = _installed(name)
        if importlib.util.find_spec(module) is None:
            found.append(Lack(requirement=line, installed=None))
        elif installed is not None and not _meets(installed, versions):
            found.append(Lack(requirement=line, installed=installed))
    return found


def _requirements(text: str) -> Iterator[tuple[str, str, str]]:
    for raw in text.splitlines():
        line = raw.partition("#")[0].strip()
        match = _LINE.match(line)
        if match:
            yield match[1].lower().replace("_", "-"), match[2] or "", line


def _imported(source: str) -> set[str]:
    """Packages that a script imports at its top, where nothing catches their absence."""
    try:
        tree = parsed(source)
    except SyntaxError:
        return set()  # it will say so itself
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {item.name.partition(".")[0] for item in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _meets(installed: str, versions: str) -> bool:
    """Whether a version satisfies plain comparisons; others are taken as met."""
    have = _numbers(installed)
    for operator, text in _PART.findall(versions):
        want = _numbers(text)
        width = max(len(have), len(want))
        a = have + (0,) * (width - len(have))
        b = want + (0,) * (width - len(want))
        met = {"==": a == b, ">=": a >= b, "<=": a <= b, ">": a > b, "<": a < b}
        if not met[operator]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()

"""Check of a node for what the ``requirements.txt`` beside a script asks for.

Only packages that the script imports count: a repository's file lists what its other scripts need,
too. A missing one ends the run before it starts; another version is said in the run's log.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

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
"""Module of a distribution that is not here and whose name is another one."""
_COMMENT = re.compile(r"(^|\s)#.*$")
_PIP_OPTION = re.compile(r"\s--")


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
    for requirement, line in _requirements(files[FILE].decode(errors="replace")):
        modules = _modules(requirement.name) & wanted
        if not modules:
            continue
        installed = _installed(requirement.name)
        if all(importlib.util.find_spec(module) is None for module in modules):
            found.append(Lack(requirement=line, installed=None))
        # A development build that a node has is as good as its release.
        elif installed and not requirement.specifier.contains(installed, prereleases=True):
            found.append(Lack(requirement=line, installed=installed))
    return found


def _requirements(text: str) -> Iterator[tuple[Requirement, str]]:
    """What pip would install here, with its line; options, paths and bare URLs name no package."""
    for raw in text.replace("\\\n", " ").splitlines():
        line = _COMMENT.sub("", raw).strip()
        with suppress(InvalidRequirement):
            requirement = Requirement(_PIP_OPTION.split(line)[0])
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement, line


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


def _modules(distribution: str) -> set[str]:
    """Top modules of a distribution: as it says itself if it is here, else by its name."""
    name = canonicalize_name(distribution)
    guess = MODULES.get(name, name.replace("-", "_"))
    try:
        here = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return {guess}
    listed = here.read_text("top_level.txt")
    if listed is not None:
        return {guess, *listed.split()}
    return {guess, *(path.parts[0].removesuffix(".py") for path in here.files or ())}


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

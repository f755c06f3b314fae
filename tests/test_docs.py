"""Every command has help, an example and a place in the documentation, and the other way round."""

from __future__ import annotations

import doctest
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pgolf_sweep.cli import app

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HEAVY = ("torch", "ray", "wandb", "optuna", "pandas", "scipy", "sentencepiece")

# Counted in a process of its own, since this one has loaded everything by now.
LOADED = (
    "import json, sys\n"
    "from pgolf_sweep.cli import app\n"
    "app(sys.argv[1:], standalone_mode=False)\n"
    f"print('LOADED', json.dumps([n for n in {HEAVY!r} if n in sys.modules]))\n"
)


def commands() -> dict[str, Any]:
    """Every command by the words that one types, groups opened."""

    def below(command: Any, words: tuple[str, ...]) -> dict[str, Any]:
        inner = getattr(command, "commands", None)
        if inner is None:
            return {" ".join(words): command}
        found: dict[str, Any] = {}
        for name, child in inner.items():
            found |= below(child, (*words, name))
        return found

    return below(typer.main.get_command(app), ())


COMMANDS = commands()


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_has_help_with_an_example_of_itself(words: str) -> None:
    text = COMMANDS[words].help or ""
    assert text.splitlines()[0].strip()
    examples = re.findall(r"^\s*Example: pgolf-sweep (.+)$", text, re.MULTILINE)
    assert examples
    for example in examples:
        assert example.startswith(words)


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_of_a_command_has_help(words: str) -> None:
    for parameter in COMMANDS[words].params:
        assert getattr(parameter, "help", None), f"{words}: {parameter.name}"


@pytest.mark.parametrize("words", COMMANDS)
def test_help_shows_each_text_as_it_is_written(words: str) -> None:
    wide = {"TERMINAL_WIDTH": "1000", "COLUMNS": "1000", "NO_COLOR": "1"}
    done = CliRunner().invoke(app, [*words.split(), "--help"], env=wide)
    assert done.exit_code == 0
    shown = " ".join(re.sub(r"[│╭╰─]", " ", done.stdout).split())
    texts = [COMMANDS[words].help, *(parameter.help for parameter in COMMANDS[words].params)]
    for text in filter(None, texts):
        assert " ".join(text.split()) in shown


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_is_named_in_the_documentation(words: str) -> None:
    text = "\n".join(path.read_text() for path in DOCUMENTS)
    first = words.split(maxsplit=1)[0]
    assert re.search(rf"pgolf-sweep {first}\b|`{first}\b", text), f"{words} is documented nowhere"


def typed_in(path: Path) -> list[str]:
    """What follows ``pgolf-sweep`` in a document, on lines that one would type."""
    text = path.read_text()
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, re.DOTALL)
    spans = re.findall(r"`pgolf-sweep ([^`\n]+)`", text)
    lines = [line for block in blocks for line in block.splitlines()]
    typed = [line.partition("pgolf-sweep ")[2] for line in lines]
    return spans + [words for words in typed if words]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_options_in_the_documentation_exist(path: Path) -> None:
    for line in typed_in(path):
        words = line.partition("#")[0].split()
        if words[0].startswith("-"):
            continue
        known = [name for name in COMMANDS if name.split() == words[: len(name.split())]]
        assert known, f"{path.name}: pgolf-sweep {line}"
        options = {text for p in COMMANDS[known[0]].params for text in (*p.opts, *p.secondary_opts)}
        for word in words:
            if word.startswith("--"):
                name = word.split("=")[0].rstrip(",.;:)")
                assert name in options | {"--help"}, f"{path.name}: pgolf-sweep {line}"


def test_files_that_the_readme_names_exist() -> None:
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(((?!https?:)[^)#]+)", text)
    sweeps = set(re.findall(r"\bsweeps/\w+\.yaml", text)) - {"sweeps/mine.yaml"}
    for name in [*links, *sweeps]:
        assert (ROOT / name).exists(), name


def test_targets_of_make_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"^make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert target in targets


@pytest.mark.parametrize("words", ["", *COMMANDS])
def test_help_of_a_command_loads_nothing_heavy(words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words.split(), "--help"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert f"Usage: pgolf-sweep {words}" in done.stdout or f"{words} [OPTIONS]" in done.stdout
    assert json.loads(done.stdout.rpartition("LOADED ")[2]) == []


FAULT = re.compile(r"^\| [^|]+ \|(?: [^|]* \|){5} `(\S+)`(?: (\w+))? \|$", re.MULTILINE)


def test_each_fault_of_the_table_has_its_test() -> None:
    page = (ROOT / "docs" / "faults.md").read_text()
    table = page.partition("## The table")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    found = FAULT.findall(table)
    heads = sum(line.startswith(("| fault", "| ---")) for line in rows)
    assert len(found) == len(rows) - heads >= 60
    for name, word in found:
        (path,) = [path for path in (ROOT / "tests").rglob("*.py") if path.match(name)]
        assert re.search(rf"^def test_\w*{word}", path.read_text(), re.MULTILINE), (name, word)


def test_architecture_names_every_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    modules = {
        path.stem
        for path in (ROOT / "pgolf_sweep").rglob("*.py")
        if not path.stem.startswith("__") and path.parent.name != "cli"
    }
    assert {name for name in modules if not re.search(rf"\b{name}\b", text)} == set()


def test_python_of_the_readme_prints_what_it_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sweeps").symlink_to(ROOT / "sweeps")
    (tmp_path / "runs").symlink_to(ROOT / "tests/data/studies/after_demo")  # as it left it once
    monkeypatch.chdir(tmp_path)
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    test = doctest.DocTestParser().get_doctest(block[1], {}, "README.md", "README.md", 0)
    assert doctest.DocTestRunner().run(test).failed == 0
    assert len(test.examples) == 6

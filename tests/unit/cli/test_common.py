"""From an error to a message and an exit code, the one place that does it."""

from __future__ import annotations

import logging
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

import pgolf_sweep
from pgolf_sweep.cli import common
from pgolf_sweep.cli.literal import LiteralTyper
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.workflows.launch_support import log_to_file


def ended_by(monkeypatch, error: BaseException) -> int:
    """The exit code of a command that ends so."""

    def app() -> None:
        raise error

    monkeypatch.setattr(common, "app", app)
    monkeypatch.delenv("PGOLF_DEBUG", raising=False)
    with pytest.raises(SystemExit) as end:
        common.main()
    return int(end.value.code or 0)


def test_known_error_has_its_exit_code_and_all_its_lines(monkeypatch, capsys):
    code = ended_by(monkeypatch, InputError("it is wrong", got="7", expected="8"))
    assert code == 2
    assert capsys.readouterr().err == "error: it is wrong\n  got: 7\n  expected: 8\n"


def test_mistake_of_our_own_is_no_answer_and_shows_no_traceback(monkeypatch, capsys, tmp_path):
    paths = StudyPaths(tmp_path)
    package = logging.getLogger("pgolf_sweep")
    before = list(package.handlers)
    log_to_file(paths)
    try:
        code = ended_by(monkeypatch, AttributeError("no such thing"))
    finally:
        for handler in set(package.handlers) - set(before):
            package.removeHandler(handler)
            handler.close()
    said = capsys.readouterr().err
    assert code == 3, "1 would tell a script that the answer is no"
    assert "AttributeError: no such thing" in said
    assert "--debug" in said
    assert "Traceback" not in said
    assert "Traceback" in paths.driver_log.read_text()


def test_interruption_that_typer_swallowed_is_named(monkeypatch, capsys):
    assert ended_by(monkeypatch, SystemExit(130)) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_version_needs_no_command():
    done = CliRunner().invoke(common.app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"pgolf-sweep {pgolf_sweep.__version__}\n")


def test_brackets_in_help_are_text():
    app = LiteralTyper()

    @app.command()
    def one(cap: Annotated[int, typer.Option(help="Trials [default: 64] of [bold]all[/bold]")] = 1):
        """Run [FILE]... now."""

    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout
    assert "Run [FILE]... now." in shown
    assert "Trials [default: 64] of [bold]all[/bold]" in shown

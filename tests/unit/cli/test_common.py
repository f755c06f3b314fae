"""From an error to a message and an exit code, the one place that does it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

import pytest
import typer
from typer.testing import CliRunner

import pgolf_sweep
from pgolf_sweep.cli import common
from pgolf_sweep.cli.literal import LiteralTyper
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.workflows.launch_support import log_to_file

if TYPE_CHECKING:
    from pathlib import Path


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
    assert code == 4, "3 would tell a script to retry, 1 that the answer is no"
    assert "AttributeError: no such thing" in said
    assert "please report" in said
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


def test_nothing_that_is_printed_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[2Jb\x07c\x9b31md\u202ee:smile:[bold]f"
    common.say(hostile)
    common.fail(InputError(hostile, where=hostile))
    common.out.print(hostile)
    logging.getLogger("pgolf_sweep").handle(
        logging.LogRecord("pgolf_sweep", logging.WARNING, "", 0, "%s", (hostile,), None)
    )
    said = capsys.readouterr()
    text = said.out + said.err
    assert not set("\x1b\x07\x9b\u202e") & set(text)
    assert r"a\x1b[2Jb" in text
    assert ":smile:[bold]f" in text


def test_fault_of_ours_exits_with_4_and_leaves_a_file_to_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken() -> None:
        raise RuntimeError("postgresql://me:pass-word@db is odd")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(common, "app", broken)
    monkeypatch.setattr("sys.argv", ["pgolf-sweep", "launch", "--storage=redis://me:pass-word@c"])
    with pytest.raises(SystemExit) as caught:
        common.main()
    assert caught.value.code == 4
    (report,) = tmp_path.glob("pgolf-sweep-fault-*.txt")
    assert str(report) in capsys.readouterr().err.replace("\n", "")
    text = report.read_text()
    assert "RuntimeError" in text
    assert "command: pgolf-sweep launch" in text
    assert "pass-word" not in text

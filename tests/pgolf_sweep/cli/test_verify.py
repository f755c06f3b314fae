from __future__ import annotations

import json
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from pgolf_sweep.cli import verify as _  # noqa: F401 - registers the command
from pgolf_sweep.cli.common import app
from pgolf_sweep.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def test_broken_folder_ends_with_one_and_json_names_the_checks(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Nothing\n")
    done = CliRunner().invoke(app, ["verify", str(tmp_path), "--rules", "demo", "--json"])
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["ok"] is False
    assert document["rules"] == "demo"
    files = next(check for check in document["checks"] if check["rule"] == "files")
    assert files["verdict"] == "fail"
    assert set(files) == {"rule", "verdict", "observed", "limit", "detail"}


def test_table_shows_every_rule(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert done.exit_code == 1
    assert "submission_json" in done.output
    assert "breaks" in done.output


def test_absent_folder_is_wrong_input(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "nowhere")])
    assert isinstance(done.exception, InputError)
    assert done.exception.exit_code == 2

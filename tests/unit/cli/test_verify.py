from __future__ import annotations

import json
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from pgolf_sweep.cli import verify as _  # noqa: F401 - registers the command
from pgolf_sweep.cli.common import app
from pgolf_sweep.core.errors import InputError

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


def test_several_folders_are_one_answer(tmp_path: Path) -> None:
    folders = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        folders.append(str(tmp_path / name))
    done = CliRunner().invoke(app, ["verify", *folders, "--rules", "demo", "--json"])
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["ok"] is False
    assert [one["folder"] for one in document["folders"]] == folders


def test_record_to_beat_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "record.yaml").write_text(
        "val_bpb: 1.2244\nval_loss_nats: 2.0727\nsource: the baseline\ndate: 2026-03-18\n"
    )
    done = CliRunner().invoke(
        app,
        ["verify", str(tmp_path), "--rules", "demo", "--record", str(tmp_path / "record.yaml"),
         "--json"],
    )  # fmt: skip
    record = next(c for c in json.loads(done.stdout)["checks"] if c["rule"] == "record")
    assert "below 2.07270" in record["limit"] or "better than 2.07270" in record["limit"]


def test_one_bad_path_does_not_end_the_others(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "last").mkdir()
    paths = [str(tmp_path / name) for name in ("nowhere", "file", "n" * 300, "last")]
    done = CliRunner().invoke(app, ["verify", *paths, "--rules", "demo", "--json"])
    assert done.exit_code == 2
    document = json.loads(done.stdout)
    assert document["ok"] is False
    assert [one["folder"] for one in document["folders"]] == paths
    assert [one["ok"] for one in document["folders"]] == [False] * 4
    codes = [one["error"]["exit_code"] for one in document["folders"][:3]]
    assert codes == [2, 2, 2]
    assert document["folders"][0]["error"]["where"] == paths[0]
    assert document["folders"][3]["checks"]
    assert done.stderr.count("error:") == 3


def test_table_of_the_others_is_shown_beside_an_error(tmp_path: Path) -> None:
    paths = [str(tmp_path / "nowhere"), str(tmp_path)]
    done = CliRunner().invoke(app, ["verify", *paths, "--rules", "demo"])
    assert done.exit_code == 2
    assert "no such submission folder" in done.stderr
    assert "submission_json" in done.stdout


def test_folder_of_the_kernel_is_answered() -> None:
    done = CliRunner().invoke(app, ["verify", "/proc/self", "--json"])
    assert done.exit_code == 1
    readable = next(c for c in json.loads(done.stdout)["checks"] if c["rule"] == "readable")
    assert "cannot be read" in readable["observed"]

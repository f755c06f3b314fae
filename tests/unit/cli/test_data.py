from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from pgolf_sweep.cli import app
from pgolf_sweep.core.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set, made by the command itself."""
    folder = tmp_path_factory.mktemp("cli-data")
    text = folder / "text.txt"
    text.write_text(
        "\n\n".join(f"number {i} follows {i - 1} and precedes {i + 1}" * 3 for i in range(900))
    )
    arguments = ["data", "from-text", str(text), "--vocab-size", "320", "--name", "tiny"]
    result = CliRunner().invoke(app, [*arguments, "--data-root", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert made["name"] == "tiny_sp320"
    assert not made["reused"]
    assert made["train"]["tokens"] > made["val"]["tokens"] > 0
    assert made["text_bytes"] > made["val_text_bytes"] > 0
    return folder


def test_check_prints_one_document_with_units(root: Path) -> None:
    result = CliRunner().invoke(app, ["data", "check", "tiny", "--data-root", str(root), "--json"])
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["ok"] is True
    assert document["vocab_size"] == 320
    assert document["val"].keys() == {"shards", "tokens", "shard_bytes"}
    assert len(document["identity"]) == 16


def test_check_without_json_prints_a_table(root: Path) -> None:
    result = CliRunner().invoke(app, ["data", "check", "tiny_sp320", "--data-root", str(root)])
    assert result.exit_code == 0
    assert "train" in result.stdout
    assert "is sound" in result.stderr


@pytest.mark.parametrize("arguments", [["tiny", "--vocab-size", "1024"], ["sp1024"], ["nothing"]])
def test_check_refuses_what_cannot_be_trained_on(root: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["data", "check", *arguments, "--data-root", str(root)])
    assert isinstance(result.exception, DataError)
    assert result.exception.exit_code == 2


@pytest.mark.parametrize("command", ["demo", "from-text", "prepare", "check"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, ["data", command, "--help"])
    assert result.exit_code == 0
    assert f"Example: pgolf-sweep data {command}" in " ".join(result.stdout.split())

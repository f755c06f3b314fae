from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.config.rules import RulesError, load_rules, preset_names
from pgolf_sweep.core.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads(name: str, tmp_path: Path) -> None:
    rules = load_rules(name, base=tmp_path)
    assert rules.name == name
    assert rules.artifact_cap_bytes > 0


def test_contest_preset_holds_the_contest_s_numbers(tmp_path: Path) -> None:
    rules = load_rules("parameter-golf-2026", base=tmp_path)
    assert rules.artifact_cap_bytes == 16_000_000
    assert (rules.train_seconds, rules.eval_seconds, rules.gpus) == (600, 600, 8)
    assert (rules.min_seeds, rules.margin_nats, rules.p_value) == (3, 0.005, 0.01)


def test_frontier_differs_in_its_margin_only(tmp_path: Path) -> None:
    strict = load_rules("parameter-golf-2026", base=tmp_path)
    frontier = load_rules("parameter-golf-2026-frontier", base=tmp_path)
    assert (frontier.margin_nats, frontier.p_value) == (0.0, 0.25)
    assert frontier.record == strict.record
    assert frontier.artifact_cap_bytes == strict.artifact_cap_bytes


def test_own_file_extends_a_preset(tmp_path: Path) -> None:
    text = "extends: parameter-golf-2026\nartifact_cap_bytes: 8_000_000\nrecord: null\n"
    (tmp_path / "mine.yaml").write_text(text)
    rules = load_rules("mine.yaml", base=tmp_path)
    assert (rules.name, rules.artifact_cap_bytes, rules.record) == ("mine", 8_000_000, None)
    assert rules.train_seconds == 600


def test_all_mistakes_are_reported_at_once_with_key_and_line(tmp_path: Path) -> None:
    text = "extends: demo\nmin_seed: 3\ntrain_seconds: soon\nrecord:\n  val_bpb: true\n"
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RulesError) as caught:
        load_rules("mine.yaml", base=tmp_path)
    found = {(problem.path, problem.line) for problem in caught.value.problems}
    assert {("min_seed", 2), ("train_seconds", 3), ("record.val_bpb", 5)} <= found
    assert ("record.source", 4) in found
    assert "min_seeds" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected keys and values"),
        ("a: [", "not YAML"),
        ("extends: nothing\n", "expected a preset"),
        ("title: x\n", "artifact_cap_bytes: missing"),
        ("extends: demo\nartifact_cap_bytes: 0\n", "greater than or equal to 1"),
        ("extends: demo\ntrain_seconds: .inf\n", "finite"),
    ],
)
def test_broken_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RulesError, match=message):
        load_rules("mine.yaml", base=tmp_path)


def test_unknown_name_lists_the_presets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="parameter-golf-2026"):
        load_rules("parameter-golf-2062", base=tmp_path)

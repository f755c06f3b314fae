"""Every forgery is seen by the rule that should see it, and the good folder passes."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from support.forgeries import FORGERIES, Forgery

from pgolf_sweep.config.rules import load_rules
from pgolf_sweep.verify.check import CheckVerdict
from pgolf_sweep.verify.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

ORDER = [CheckVerdict.PASS, CheckVerdict.WARN, CheckVerdict.UNKNOWN, CheckVerdict.FAIL]


def test_the_good_folder_passes(good: Path) -> None:
    answer = verify(good)
    odd = {c.rule: c.verdict for c in answer.checks if c.verdict is not CheckVerdict.PASS}
    assert answer.ok
    assert odd == {"log_source": CheckVerdict.UNKNOWN}  # our scripts do not print themselves


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda f: f"{f.name}-{f.rule}")
def test_a_forgery_is_seen_by_its_rule(forgery: Forgery, good: Path, tmp_path: Path) -> None:
    folder = tmp_path / good.name
    shutil.copytree(good, folder)
    forgery.apply(folder)
    checks = {c.rule: c for c in verify(folder, load_rules("demo", base=folder)).checks}
    assert forgery.rule in checks
    seen = checks[forgery.rule]
    assert seen.verdict.value == forgery.verdict, f"{seen}"


def test_there_is_a_forgery_for_every_rule_that_can_fail() -> None:
    assert len({f.name for f in FORGERIES}) >= 70

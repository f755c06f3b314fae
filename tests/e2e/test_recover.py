"""A study whose journal is lost: refused, rebuilt, gone on with; by the commands that say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.terminal import Terminal, lasting

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_lost_journal_costs_no_trial(tmp_path: Path, address: str) -> None:
    with Terminal(tmp_path, address) as terminal:
        file = terminal.sweep("paid", run_cap=2)
        assert terminal.launch(file).code == 0
        before = terminal.trials("paid")
        results = {p: p.read_bytes() for p in terminal.study("paid").glob("trials/*/result.json")}
        (terminal.study("paid") / "study.journal").unlink()
        for words in (("status", "paid"), ("trials", "paid"), ("best", "paid"), ("report", "paid")):
            said = terminal.run(*words)
            assert (said.code, "pgolf-sweep recover paid" in said.err) == (2, True), said.err
        said = terminal.launch(file)
        assert said.code == 2, said.err
        assert "next: pgolf-sweep recover paid" in said.err
        assert terminal.run("recover", "paid", "--json").json()["recovered"]["ended"] == len(before)
        assert terminal.trials("paid") == before
        assert "nothing to recover" in terminal.run("recover", "paid").err
        # The folder under another name is the same study, and goes on.
        terminal.study("paid").rename(terminal.study("renamed"))
        longer = terminal.sweep("paid", run_cap=3)
        assert terminal.launch(longer, "--name", "renamed").code == 0
        after = terminal.trials("renamed")
        assert list(map(lasting, after[: len(before)])) == list(map(lasting, before))
        assert sum(row["attempts"] for row in after) == 3
        for path, data in results.items():
            moved = terminal.study("renamed") / path.relative_to(terminal.study("paid"))
            assert moved.read_bytes() == data

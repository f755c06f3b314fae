"""An error is its finding: parts that people read, kept over a pickle."""

from __future__ import annotations

import pickle

from pgolf_sweep.core.errors import Finding, InfraError


def test_an_error_has_the_parts_and_lines_of_its_finding() -> None:
    error = InfraError("the disk is full", where="n0:/tmp", next_step="free space")
    assert error.finding == Finding(
        what="the disk is full", where="n0:/tmp", next_step="free space"
    )
    assert error.lines() == ["the disk is full", "  where: n0:/tmp", "  next: free space"]
    assert str(error) == "\n".join(error.finding.lines())


def test_an_error_arrives_whole_from_another_process() -> None:
    error = InfraError("lost", where="n1", got="nothing", expected="a word", next_step="wait")
    assert pickle.loads(pickle.dumps(error)).finding == error.finding  # noqa: S301 - our own bytes

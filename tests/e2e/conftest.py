"""Terminals to type commands in, and one Ray for all studies that need none of their own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from support.terminal import OURS, Said, Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def typed_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Types a command in this process, which spares a start; for what starts no other."""
    from pgolf_sweep.cli import main

    Terminal(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)

    def typed(*words: str) -> Said:
        monkeypatch.setattr("sys.argv", ["pgolf-sweep", *words])
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return typed


@pytest.fixture
def terminal(tmp_path: Path, address: str) -> Iterator[Terminal]:
    """A terminal whose launches share the cluster."""
    with Terminal(tmp_path, address=address) as made:
        yield made


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal whose launches start a Ray of their own."""
    with Terminal(tmp_path) as made:
        yield made

"""The command line: parse, call, render, exit code. One module a family of commands."""

from __future__ import annotations

# Importing a module registers its commands, in the order in which a user meets them.
from pgolf_sweep.cli import (  # noqa: F401
    calibrate,
    compare,
    dashboard,
    data,
    define,
    doctor,
    fit,
    gate,
    init,
    knobs,
    launch,
    leaderboard,
    lineage,
    mcp,
    promote,
    propose,
    recover,
    report,
    simulate,
    study,
    trials,
    verify,
)
from pgolf_sweep.cli.common import app, main

__all__ = ["app", "main"]

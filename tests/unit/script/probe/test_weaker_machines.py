"""The attacks again where the kernel, or a container, allows less: what is said still holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pgolf_sweep.script.probe.contain import landlock
from pgolf_sweep.script.probe.contain.containment import containment

TESTS = Path(__file__).parents[3]
FILTER = "a filter of system calls"
HOOKS = "hooks of Python on file writes"
LIMITS = "limits on memory and all that it writes"
WATCH = "limits on memory, a watch on all that it writes"
MACHINES = [
    (["no-users"], f"namespaces (mount, pid, network, ipc, uts), {FILTER}, {LIMITS}"),
    (["no-users", "no-privileges"], f"Landlock {landlock.version()}, {FILTER}, {WATCH}"),
    (["no-users", "no-privileges", "no-landlock"], f"{FILTER}, {HOOKS}, {WATCH}"),
    (["no-users", "no-privileges", "no-landlock", "no-filters"], f"{HOOKS}, {WATCH}"),
]


@pytest.mark.slow
@pytest.mark.skipif(
    "user" not in containment().namespaces or not landlock.version(),
    reason="makes weaker machines of one that has it all",
)
@pytest.mark.parametrize(("kinds", "expected"), MACHINES, ids=lambda one: str(one)[:60])
def test_attacks_on_a_weaker_machine(kinds: list[str], expected: str) -> None:
    suite = str(Path(__file__).with_name("test_hostile.py"))
    words = [sys.executable, str(TESTS / "support" / "weaker.py"), *kinds, "--"]
    words += [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", suite]
    done = subprocess.run(
        words,
        cwd=TESTS.parent,
        env=os.environ | {"EXPECTED_CONTAINMENT": expected},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]

"""Cost of the faults: each test may leave the seconds until a slot worked again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[float], None]:
    """Takes the seconds; they are shown at the end, and in a file of --junitxml."""

    def note(seconds: float) -> None:
        request.node.user_properties.append(("seconds", f"{seconds:.1f}"))

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show them."""
    for report in terminalreporter.getreports("passed"):
        for name, value in getattr(report, "user_properties", ()):
            if report.when == "call" and name == "seconds":
                terminalreporter.write_line(f"{value:>6} s  {report.nodeid.partition('::')[2]}")

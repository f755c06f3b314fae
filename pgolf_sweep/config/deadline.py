"""A deadline as a sweep file writes it: a time of day on a date, or a duration."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

from pgolf_sweep.config.yaml_lines import shown

_DURATION = re.compile(
    r"(?:(\d+(?:\.\d+)?)\s*d)?\s*(?:(\d+(?:\.\d+)?)\s*h)?\s*(?:(\d+(?:\.\d+)?)\s*m(?:in)?)?"
)
EXPECTED = "a time such as 2026-12-01T18:00, or a duration such as 36h, 90m or 1d12h"


def check_deadline(value: object) -> object:
    """A deadline as text; YAML reads some times as such.

    Raises:
        ValueError: It is none.
    """
    text = value.isoformat() if isinstance(value, date) else value
    duration_or_time(text if isinstance(text, str) else shown(text))
    return text


def deadline_at(text: str, *, begun: float) -> float:
    """The deadline in seconds of the epoch.

    Args:
        text: As `check_deadline` let pass; a time without an offset is this machine's.
        begun: When the study began, which a duration counts from.
    """
    found = duration_or_time(text)
    return begun + found.total_seconds() if isinstance(found, timedelta) else found.timestamp()


def duration_or_time(text: str) -> timedelta | datetime:
    """What a deadline's text means.

    Raises:
        ValueError: Nothing.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is not None and any(match.groups()):
        days, hours, minutes = (float(part or 0) for part in match.groups())
        found = timedelta(days=days, hours=hours, minutes=minutes)
        if found:
            return found
    try:
        if re.search(r"\d[T ]\d", text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise ValueError(f"must be {EXPECTED}, not {text}")

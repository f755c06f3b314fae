"""Every event has its words and a JSON line."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, get_args

import pytest

from pgolf_sweep.core import events
from pgolf_sweep.core.event_text import event_document, event_text
from pgolf_sweep.core.record import State, TrialRecord

VALUES: dict[str, Any] = {
    "str": "words",
    "int": 3,
    "float": 90.0,
    "bool": True,
    "tuple[int, ...]": (3, 4),
    "tuple[str, ...]": ("a", "b"),
    "TrialRecord": TrialRecord(number=3, outcome=State.FAILED, knobs={}, reason="exit code 1"),
}


@pytest.mark.parametrize("kind", get_args(events.SweepEvent), ids=lambda kind: kind.__name__)
def test_event_has_words_and_a_json_line(kind: type) -> None:
    event = kind(**{field.name: VALUES[str(field.type)] for field in dataclasses.fields(kind)})
    text = event_text(event)
    assert text
    assert "\n" not in text
    line = json.loads(json.dumps(event_document(event, at=7.5)))
    assert line["message"] == text
    assert line["at"] == 7.5
    names = {
        "trial" if field.name == "record" else field.name for field in dataclasses.fields(kind)
    }
    assert line.keys() == {"event", "at", "message"} | names


def test_event_is_named_in_snake_case() -> None:
    event = events.NoHealthyNode(what="trial", troubles="n0: refused", give_up_seconds=600.0)
    assert event_document(event, at=0.0)["event"] == "no_healthy_node"
    assert event_text(event).startswith("NO NODE can take a trial: n0: refused")

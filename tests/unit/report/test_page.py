"""A study's page says what the study holds, and nothing in a study can break or script it."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.core.trial import Interval
from pgolf_sweep.report.page import page
from pgolf_sweep.report.read import Status

CAP = 300_000
VOID = {"meta", "br", "hr"}


class Document(HTMLParser):
    """Elements, attributes and text of a page whose elements are all closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.kinds: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs
        self.kinds += [value for name, value in attrs if name == "class"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.words)


def completed(number: int, val_bpb: float, artifact_bytes: int, **knobs: object) -> TrialRecord:
    return TrialRecord(
        number=number,
        outcome=State.COMPLETED,
        knobs={"SEED": 1337, **knobs},
        val_bpb=val_bpb,
        artifact_bytes=artifact_bytes,
        headroom_bytes=CAP - artifact_bytes,
        predicted_bytes=Interval(
            low=artifact_bytes * 0.98, mid=artifact_bytes * 1.01, high=artifact_bytes * 1.03
        ),
        slot_seconds=30.0,
        ended_at=100.0 + number,
    )


def discarded(number: int, **knobs: object) -> TrialRecord:
    return TrialRecord(
        number=number,
        outcome=State.DISCARDED,
        knobs={"SEED": 1337, **knobs},
        reason="too big by 12,000 B",
        predicted_bytes=Interval(low=311_000, mid=312_000, high=313_000),
    )


def study(*records: TrialRecord, name: str = "demo", **last: object) -> Status:
    return Status(name=name, state="finished", driver=None, records=list(records), last=dict(last))


FULL = study(
    completed(0, 2.61234567, 250_000, WIDTH=96),
    completed(1, 2.41234567, 290_000, WIDTH=112),
    completed(2, 2.31234567, 310_000, WIDTH=120),
    discarded(3, WIDTH=128),
    reason="run_cap reached",
    run_cap=4,
    saved_by_gate_seconds=200.0,
)


def test_the_headline_is_the_best_within_the_cap() -> None:
    words = Document(page(FULL)).words
    assert words[words.index("best val_bpb") + 1] == "2.4123", "trial 2 is over the cap"
    assert words[words.index("its headroom") + 1] == "10,000 B"
    assert "finished (run_cap reached)" in words


def test_every_trial_is_there_with_its_reason_and_the_knobs_that_vary() -> None:
    text = Document(page(FULL)).text
    for width in (96, 112, 120, 128):
        assert f"WIDTH={width}" in text
    assert "too big by 12,000 B" in text
    assert "~312,000 B" in text
    assert "SEED" not in text, "it is the same everywhere"


def test_what_the_gate_saved_is_said() -> None:
    words = Document(page(FULL)).words
    assert words[words.index("discarded by the gate") + 1] == "1"
    assert words[words.index("saved by the gate, about") + 1] == "3 min 20 s"


def test_charts_show_each_measured_trial_and_set_apart_those_over_the_cap() -> None:
    document = Document(page(FULL))
    assert document.elements.count("figure") == 2
    assert document.kinds.count("dot") == 4, "two trials within the cap, in two charts"
    assert document.kinds.count("over") == 2
    assert document.kinds.count("bar") == 3
    assert "Median error 1.0%; 3 of 3 within" in document.text


def test_the_best_so_far_only_falls_and_ends_at_the_last_trial() -> None:
    text = page(study(*(completed(n, 2.0 + v, 9) for n, v in enumerate([0.3, 0.5, 0.1]))))
    corners = text.partition('<polyline class="best" points="')[2].partition('"')[0].split()
    heights = [float(corner.partition(",")[2]) for corner in corners]
    assert heights == sorted(heights), "down the page is a better score"
    assert len(corners) == 4


def test_text_of_a_study_stays_text() -> None:
    nasty = "<b>&\"'</b><script>alert(1)</script>"
    failed = TrialRecord(number=2, outcome=State.FAILED, knobs={}, reason=nasty)
    text = page(
        study(
            completed(0, 2.512345678, 9, **{"ACT": nasty, nasty: 1}),
            completed(1, 2.512345678, 9, **{"ACT": "relu", nasty: 1}),
            failed,
            name=nasty,
            reason=nasty,
        )
    )
    document = Document(text)
    assert "b" not in document.elements
    assert "script" not in document.elements
    assert document.text.count(nasty) >= 5


@pytest.mark.parametrize("records", [(), (completed(0, 2.5, 9),), (discarded(0),)])
def test_a_page_asks_for_nothing_from_outside(records: tuple[TrialRecord, ...]) -> None:
    document = Document(page(study(*records)))
    assert not {"script", "link", "img", "iframe"} & set(document.elements)
    assert not {"src", "href", "onclick"} & {name for name, _ in document.attributes}
    assert "url(" not in page(study(*records))


def test_a_study_without_trials_has_a_page() -> None:
    text = Document(page(study())).text
    assert "No completed trial within the cap yet." in text
    assert "None yet." in text


def test_knobs_without_effect_are_a_warning() -> None:
    idle = study(completed(0, 2.512345678, 9, EMA=0), completed(1, 2.512345678, 9, EMA=1))
    document = Document(page(idle))
    assert "warning" in document.kinds
    assert "EMA changes nothing: trials 0, 1 have identical scores" in document.words
    assert "warning" not in Document(page(FULL)).kinds


def test_scores_that_are_not_finite_leave_the_charts_alone() -> None:
    text = page(study(completed(0, float("nan"), 9), completed(1, 2.5, 9)))
    assert Document(text).kinds.count("dot") == 3, "two sizes, one score"

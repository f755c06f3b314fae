"""A study's page says what the study holds, and nothing in a study can break or script it."""

from __future__ import annotations

import dataclasses
import json
from html.parser import HTMLParser
from typing import Any

import pytest

from pgolf_sweep.core.record import Posterior, State, TrialRecord
from pgolf_sweep.core.trial import Interval
from pgolf_sweep.report.figures import figures
from pgolf_sweep.report.page import page
from pgolf_sweep.report.read import Status
from pgolf_sweep.report.story import Promoted, Story
from pgolf_sweep.report.traces import MOST_DOTS

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
        if self.open[-1:] not in (["style"], ["script"]):
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


def study(*records: TrialRecord, name: str = "demo", **last: object) -> Story:
    status = Status(
        name=name, state="finished", driver=None, records=list(records), last=dict(last)
    )
    return Story(status=status, cap_bytes=CAP)


def traces(story: Story, name: str) -> dict[str, Any]:
    """Traces of a chart by their name."""
    figure = next(figure for figure in figures(story) if figure.name == name)
    return {trace["name"]: trace for trace in figure.traces}


FULL = study(
    completed(0, 2.61234567, 250_000, WIDTH=96),
    completed(1, 2.41234567, 290_000, WIDTH=112),
    completed(2, 2.31234567, 310_000, WIDTH=120),
    discarded(3, WIDTH=128),
    reason="run_cap reached",
    run_cap=4,
    saved_by_gate_seconds=200.0,
)
NASTY = "<b>&\"'</b><script>alert(1)</script>"


def test_the_headline_is_the_best_within_the_cap() -> None:
    words = Document(page(FULL)).words
    assert words[words.index("best val_bpb") + 1] == "2.4123", "trial 2 is over the cap"
    assert words[words.index("its headroom") + 1] == "10,000 B"
    assert "finished (run_cap reached)" in words


def test_the_headline_says_what_all_scores_say_of_the_best() -> None:
    said = Posterior(mean=2.4131, low=2.4112, high=2.4149, tied=True)
    status = dataclasses.replace(FULL.status, posteriors={0: said, 1: said})
    words = Document(page(Story(status=status))).words
    assert words[words.index("by all scores, 95 %") + 1] == "2.4131 (2.4112 to 2.4149)"
    assert words[words.index("cannot be told from") + 1] == "1 other trial"
    place = words.index("by all scores")
    assert words[place - 2 : place + 2] == ["trial", "val_bpb", "by all scores", "artifact"]


def test_the_promotion_is_on_the_page_beside_the_lucky_seed() -> None:
    promoted = Promoted(
        folder="2026-11-28_demo", trial=1, val_bpb=2.4201, std=0.0007, seeds=(7, 8), p_value=0.004,
        artifact_bytes=290_100, ok=False, failures=("seeds",),
    )  # fmt: skip
    words = Document(page(Story(status=FULL.status, promoted=[promoted]))).words
    assert words[words.index("mean val_bpb on fresh seeds") + 1] == "2.4201 ± 0.0007"
    assert words[words.index("p against the record") + 1] == "0.004"
    assert words[words.index("verify") + 1] == "breaks: seeds"


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
    for name in ("progress", "bytes"):
        drawn = traces(FULL, name)
        assert sorted(drawn["within the cap"]["y"]) == [2.41234567, 2.61234567]
        assert drawn["over the cap"]["y"] == [2.31234567]
    assert "Median error 1.0 %; 3 of 3 within" in Document(page(FULL)).text


def test_each_chart_has_its_place_and_its_data_in_the_page() -> None:
    text = page(FULL)
    data = text.partition('id="figures">')[2].partition("</script>")[0]
    names = {figure["name"] for figure in json.loads(data)}
    ids = {value for name, value in Document(text).attributes if name == "id"}
    assert names == ids - {"figures"}
    assert len(names) >= 4


def test_the_best_so_far_only_falls_and_ends_at_the_last_trial() -> None:
    scores = [0.3, 0.5, 0.1, 0.4]
    line = traces(study(*(completed(n, 2.0 + v, 9) for n, v in enumerate(scores))), "progress")
    best = line["best so far"]
    assert best["y"] == [2.3, 2.3, 2.1, 2.1, 2.1]
    assert best["x"][-1] == len(scores)


def test_random_search_is_extrapolated_from_the_first_trials_only() -> None:
    scores = [2.5 + 0.01 * (n % 5) for n in range(10)] + [2.0] * 20
    drawn = traces(study(*(completed(n, v, 9) for n, v in enumerate(scores))), "progress")
    expected = drawn["random search, expected"]["y"]
    assert expected == sorted(expected, reverse=True)
    assert 2.45 < expected[-1] < 2.52, "the sampler's later successes are not in it"


def test_curves_stop_where_their_trials_did() -> None:
    pruned = TrialRecord(number=1, outcome=State.PRUNED, knobs={}, val_bpb=2.9)
    story = Story(
        status=study(completed(0, 2.5, 9), pruned).status,
        curves={0: [2.9, 2.7, 2.5], 1: [3.0, 2.9], 2: [3.1]},
    )
    drawn = traces(story, "curves")
    assert drawn["trial 0"]["y"] == [2.9, 2.7, 2.5]
    assert drawn["trial 1"]["x"] == [1, 2]
    assert "trial 2" not in drawn, "one point is no curve"


def test_slots_that_run_at_the_same_time_have_rows_of_their_own() -> None:
    def ran(number: int, start: float, end: float) -> TrialRecord:
        return TrialRecord(
            number=number, outcome=State.COMPLETED, knobs={}, val_bpb=2.5, node="n0",
            started_at=start, ended_at=end,
        )  # fmt: skip

    rows = traces(study(ran(0, 100, 160), ran(1, 110, 170), ran(2, 161, 200)), "timeline")
    assert rows["completed"]["y"] == ["n0 #1", "n0 #2", "n0 #1"]
    assert rows["completed"]["base"] == pytest.approx([0, 1 / 6, 61 / 60])


def test_text_of_a_study_stays_text() -> None:
    failed = TrialRecord(number=2, outcome=State.FAILED, knobs={}, reason=NASTY)
    text = page(
        study(
            completed(0, 2.512345678, 9, **{"ACT": NASTY, NASTY: 1}),
            completed(1, 2.512345678, 9, **{"ACT": "relu", NASTY: 1}),
            completed(3, 2.6, 9, ACT="gelu"),
            failed,
            name=NASTY,
            reason=NASTY,
        )
    )
    document = Document(text)
    assert "b" not in document.elements
    assert document.elements.count("script") == 3, "the data, Plotly and what draws"
    assert document.text.count(NASTY) >= 5
    data = text.partition('id="figures">')[2].partition("</script>")[0]
    assert "<" not in data
    assert "<b>" not in json.dumps(json.loads(data)), "Plotly reads tags in texts"


@pytest.mark.parametrize("records", [(), (completed(0, 2.5, 9),), (discarded(0),)])
def test_a_page_asks_for_nothing_from_outside(records: tuple[TrialRecord, ...]) -> None:
    text = page(study(*records))
    document = Document(text)
    assert not {"link", "img", "iframe"} & set(document.elements)
    assert not {"src", "href", "onclick"} & {name for name, _ in document.attributes}
    policy = next(v for n, v in document.attributes if n == "content" and v and "default" in v)
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe-inline'" not in policy


def test_a_study_without_trials_has_a_page() -> None:
    document = Document(page(study()))
    assert "No completed trial within the cap yet." in document.text
    assert "None yet." in document.text
    assert "script" not in document.elements


def test_knobs_without_effect_are_a_warning() -> None:
    idle = study(completed(0, 2.512345678, 9, EMA=0), completed(1, 2.512345678, 9, EMA=1))
    document = Document(page(idle))
    assert "warning" in document.kinds
    assert "EMA changes nothing: trials 0, 1 have identical scores" in document.words
    assert "warning" not in Document(page(FULL)).kinds


def test_scores_that_are_not_finite_leave_the_charts_alone() -> None:
    story = study(completed(0, float("nan"), 9), completed(1, 2.5, 9))
    assert traces(story, "progress")["within the cap"]["y"] == [2.5]
    assert "NaN" not in page(story).partition('id="figures">')[2].partition("</script>")[0]


def test_thousands_of_trials_keep_their_best_in_a_chart() -> None:
    story = study(*(completed(n, 3.0 - n / 5000, 9) for n in range(3 * MOST_DOTS)))
    drawn = traces(story, "progress")["within the cap"]
    assert len(drawn["y"]) == MOST_DOTS
    assert min(drawn["y"]) == pytest.approx(3.0 - (3 * MOST_DOTS - 1) / 5000)

"""The agent's tools on a study whose slots are simulated: answers, budget, and what they refuse."""

from __future__ import annotations

import json

import pytest

from pgolf_sweep.agents.tools import StudyTools
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import write_text
from pgolf_sweep.driver.proposals import pending

RATE = {"MATRIX_LR": 0.02}
MOST_ANSWER_BYTES = 6000


def proposed(served, width, **more):
    answer = served.tools.propose({"MODEL_DIM": width, **RATE}, **more)
    assert len(answer.proposals) == 1, answer
    return answer.proposals[0]


def test_a_loop_measures_the_noise_keeps_what_helps_and_names_the_line_that_breaks(served):
    tools = served.tools
    base = proposed(served, 64, idea="the base")
    assert tools.wait(base, 0).state == "waits"
    served.drive(1)
    ended = tools.wait(base, 0)
    assert (ended.state, ended.trial.number, ended.trial.idea) == ("ended", 0, "the base")
    assert "repeat_of=0" in tools.plan().next_step
    assert len(tools.propose(repeat_of=0, seeds=4).proposals) == 4
    served.drive(5)
    assert 0 < tools.plan().noise_bpb < 0.01
    for width in (96, 192):
        proposed(served, width, idea="wider", parent=0)
    served.drive(7)
    better = next(t for t in tools.lineage().trials if t.val_bpb and t.val_bpb < 1.19)
    assert better.parent == 0
    answer = tools.compare(0, better.number)
    assert (answer.decision, answer.next_step) == ("keep", f"go on from trial {better.number}")
    assert answer.low_bpb < -0.01 < 0
    broken = next(t for t in tools.lineage().trials if t.outcome == "failed")
    logs = tools.logs(broken.number)
    assert (logs.error_line, logs.error) == (3, "ValueError: invalid literal for int()")
    assert logs.error_code == 'WIDTH = int(os.environ.get("MODEL_DIM", 64))'
    assert logs.next_step.startswith("fix line 3 of train_gpt.py")
    assert tools.show(better.number).knobs["MODEL_DIM"] == 96
    assert tools.best().trials[0].number == better.number
    assert f"--trial {better.number}" in tools.promote().next_step
    for answer in (tools.plan(), tools.knobs(), tools.lineage(), tools.best(), logs,
                   tools.logs(better.number), tools.show(better.number)):  # fmt: skip
        assert answer.next_step
        assert len(json.dumps(answer.model_dump())) <= MOST_ANSWER_BYTES


def test_a_long_curve_is_thinned_and_ends_with_its_last_point(served):
    proposed(served, 64)
    served.drive(1)
    curve = served.tools.logs(0).curve
    assert len(curve) == 24
    assert (curve[0].step, curve[-1].step) == (0, 400)
    assert curve[-1].val_bpb == pytest.approx(1.5)


def test_further_seeds_that_a_comparison_asks_for_are_left_only_with_run(served):
    proposed(served, 64)
    proposed(served, 128)
    served.drive(2)
    answer = served.tools.compare(0, 1)
    assert (answer.decision, answer.proposals) == ("more", [])
    assert pending(served.paths) == []
    answer = served.tools.compare(0, 1, run=True)
    assert len(answer.proposals) == 2
    assert {one.by for one in pending(served.paths)} == {"ada"}


def test_without_a_budget_an_agent_only_reads(served):
    eve = StudyTools(served.paths, "eve")
    answer = eve.propose({"MODEL_DIM": 64, **RATE})
    assert answer.proposals == []
    assert "gives eve no budget" in answer.reason
    assert "eve" in eve.plan().may_propose
    text = served.paths.sweep.read_text()
    lines = [line for line in text.splitlines() if "proposers" not in line]
    write_text(served.paths.sweep, "\n".join(lines) + "\n")
    ada = StudyTools(served.paths, "ada")
    assert "pgolf.proposers is absent" in ada.propose({"MODEL_DIM": 64, **RATE}).reason
    assert pending(served.paths) == []


def test_a_spent_budget_is_refused_before_the_driver_is_asked(served):
    bob = StudyTools(served.paths, "bob")  # 3.6 s, and a trial takes ten
    proposed(served, 64)
    served.drive(1)
    answer = bob.propose({"MODEL_DIM": 128, **RATE})
    assert "GPU-hours are spent" in answer.reason
    assert bob.plan().gpu_hours_left == pytest.approx(0.001)


@pytest.mark.parametrize("name", ["../../sweep", "/etc/passwd", "..", "absent"])
def test_a_proposal_outside_the_study_is_not_read(served, name):
    with pytest.raises(InputError, match="no proposal"):
        served.tools.wait(name, 0)


def test_what_does_not_exist_is_an_error_with_a_next_step(served):
    for call in (served.tools.show, served.tools.logs):
        with pytest.raises(InputError, match="no trial 9"):
            call(9)
    with pytest.raises(InputError, match="outside the space"):
        served.tools.propose({"MODEL_DIM": 100})
    with pytest.raises(InputError, match="too long"):
        served.tools.propose(script="#" * 2_000_000)

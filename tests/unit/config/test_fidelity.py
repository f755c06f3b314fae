"""Rungs in a sweep file: what they shrink, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgolf_sweep.config.fidelity import Fidelity, Rung, note_fidelity
from pgolf_sweep.config.sweep_file import draft_spec
from pgolf_sweep.script.program import from_files
from trainer.config import read_config
from trainer.schedule import muon_momentum, warmdown_progress

SCRIPT = b"""
import os
A = float(os.environ.get("MATRIX_LR", 0.02))
B = int(os.environ.get("ITERATIONS", 20000))
C = int(os.environ.get("SWA_START_STEP", 4000))
"""


def problems(block: str, *, method: str = "bayes", script: bytes = SCRIPT) -> dict[str, str]:
    document, spec = draft_spec(
        f"program: train_gpt.py\nmethod: {method}\nmetric: {{name: val_bpb, goal: minimize}}\n"
        f"parameters:\n  MATRIX_LR: {{min: 0.01, max: 0.1}}\npgolf:\n  fidelity: {block}\n",
        Path("sweep.yaml"),
    )
    note_fidelity(document, spec, from_files("t.py", {"t.py": script}, builtin=False))
    return {one.path: one.message for one in document.problems}


def test_a_list_of_rungs_is_short_for_the_block() -> None:
    assert problems("[{share: 0.1}]") == problems("{rungs: [{share: 0.1}], keep: 0.2}") == {}


@pytest.mark.parametrize(
    ("block", "path", "said"),
    [
        ("[]", "pgolf.fidelity", "names no rung"),
        ("[{}]", "pgolf.fidelity.rungs.0", "like the sweep itself"),
        ("[{share: 0.5, gpus: 3}]", "pgolf.fidelity.rungs.0.gpus", "must divide the 8 GPUs"),
        ("[{share: 2}]", "pgolf.fidelity.rungs.0.share", "at most 1"),
        ("[{share: 0.5}, {share: 0.2}]", "pgolf.fidelity.rungs.1.share", "the cheapest first"),
        ("{rungs: [{share: 0.1}], keep: 1.0e-300}", "pgolf.fidelity.keep", "at least 0.001"),
        ("[{sahre: 0.1}]", "pgolf.fidelity.rungs.0.sahre", "did you mean 'share'"),
        ("[{set: {NONE: 1}}]", "pgolf.fidelity.rungs.0.set.NONE", "does not read NONE"),
        ("[{set: {MATRIX_LR: 1}}]", "pgolf.fidelity.rungs.0.set.MATRIX_LR", "is searched"),
        ("{rungs: [{share: 0.1}], scale: [NONE]}", "pgolf.fidelity.scale.0", "does not read NONE"),
    ],
)
def test_a_mistake_is_named_with_its_place(block: str, path: str, said: str) -> None:
    assert said in problems(block)[path]


def test_fewer_gpus_take_longer_for_the_same_share_of_the_training() -> None:
    rungs = Fidelity(rungs=(Rung(share=0.25, gpu_share=1 / 8), Rung(share=0.5)), keep=0.3)
    assert rungs.instead(1, {"MAX_WALLCLOCK_SECONDS": 600.0, "ITERATIONS": 8000}, {}) == {
        "MAX_WALLCLOCK_SECONDS": 1200.0,
        "ITERATIONS": 2000,
    }
    assert [rungs.slots(rung) for rung in (1, 2, None)] == [1, 8, 8]
    assert rungs.begun() == [pytest.approx(1 / 0.09), pytest.approx(1 / 0.3)]


def test_a_method_that_would_learn_from_short_scores_is_refused() -> None:
    assert "use method bayes" in problems("[{share: 0.1}]", method="tpe")["pgolf.fidelity"]


def test_a_script_that_counts_no_steps_by_a_known_name_says_what_does() -> None:
    script = SCRIPT.replace(b"ITERATIONS", b"ROUNDS")
    assert (
        "under scale" in problems("[{share: 0.1}]", script=script)["pgolf.fidelity.rungs.0.share"]
    )
    assert not problems("{rungs: [{share: 0.1}], scale: [ROUNDS]}", script=script)


def test_a_short_rung_sees_the_whole_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {
        "ITERATIONS": 8000,
        "WARMDOWN_ITERS": 2000,
        "MUON_MOMENTUM_WARMUP_STEPS": 1600,
        "EMA_DECAY": 0.999,
        "MAX_WALLCLOCK_SECONDS": 600.0,
    }
    rungs = Fidelity(rungs=(Rung(share=0.125, sets={"TRAIN_SEQ_LEN": 512}),), keep=0.3)
    short = rungs.instead(1, whole, {"GPTQ_RESERVE_SECONDS": 40.0, "LR_WARMUP_STEPS": 0})
    assert short == {
        "ITERATIONS": 1000,
        "WARMDOWN_ITERS": 250,
        "MUON_MOMENTUM_WARMUP_STEPS": 200,
        "EMA_DECAY": pytest.approx(0.992, abs=1e-4),
        "MAX_WALLCLOCK_SECONDS": pytest.approx(40 + 70),
        "TRAIN_SEQ_LEN": 512,
    }

    def of(knobs):
        with monkeypatch.context() as patch:
            for name, value in knobs.items():
                patch.setenv(name, str(0 if name == "MAX_WALLCLOCK_SECONDS" else value))
            return read_config()

    long, brief = of(whole), of(short)
    for at in (0.05, 0.5, 0.8, 0.95):
        assert warmdown_progress(brief, round(1000 * at), 0.0) == pytest.approx(
            warmdown_progress(long, round(8000 * at), 0.0)
        )
        assert muon_momentum(brief, round(1000 * at)) == pytest.approx(
            muon_momentum(long, round(8000 * at))
        )

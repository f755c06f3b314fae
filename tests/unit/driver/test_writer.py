"""Finished trials teach a gate in the same way, whoever teaches it."""

from __future__ import annotations

from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.driver.writer import calibrate


class Pupil:
    def __init__(self):
        self.sizes, self.times = [], []

    def contradiction(self, knobs, **printed):
        return ""

    def learn(self, knobs, model_bytes, **more):
        self.sizes.append(model_bytes)

    def learn_time(self, knobs, *, steps, train_seconds, eval_seconds):
        self.times.append((steps, train_seconds, eval_seconds))


def row(number, **change):
    facts = {"outcome": State.COMPLETED, "knobs": {}, "model_bytes": 1000 + number, "steps": 50,
             "train_seconds": 600.0, "eval_seconds": 9.0}  # fmt: skip
    return TrialRecord(number=number, **facts | change)


def test_an_export_teaches_its_bytes_and_evaluation_but_not_its_training_again():
    pupil = Pupil()
    calibrate(pupil, row(1), row(2, export_of=1))
    assert pupil.sizes == [1001, 1002]
    assert pupil.times == [(50, 600.0, 9.0), (None, None, 9.0)]


def test_what_has_no_result_of_its_own_teaches_nothing():
    pupil = Pupil()
    calibrate(pupil, row(1, outcome=State.FAILED), row(2, duplicate_of=1), row(3, model_bytes=None))
    assert (pupil.sizes, pupil.times) == ([], [])

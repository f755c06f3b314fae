"""A sweep over bits and the evaluation's stride: the driver, the trainer, and one training."""

from __future__ import annotations

import contextlib
import io
import shutil
import signal

import pytest
from support.sweeps import Watcher

from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.core.record import State
from pgolf_sweep.core.trial import TRAIN
from pgolf_sweep.driver.driver import Driver, Options
from pgolf_sweep.driver.opening import open_session
from pgolf_sweep.launch.inline import Finish, InlineLauncher, SimulatedClock
from pgolf_sweep.launch.node.checkpoints import leave, take_over
from pgolf_sweep.script.logs.stream import read_log
from pgolf_sweep.search.study import open_study
from pgolf_sweep.track.null import NullStudyTracker
from pgolf_sweep.workflows.fit import fit
from pgolf_sweep.workflows.study_folder import begin_study, prepare_folder
from trainer.train import main

SWEEP = """
program: trainer
method: {method}
run_cap: {cap}
metric: {{name: val_bpb, goal: minimize}}
parameters: {{{knobs}}}
pgolf: {{data: tiny_sp320, rules: rules.yaml, resources: {{gpus: 0, cpus: 1}}{more}}}
"""
RULES = """
title: Tiny models
track: demo
artifact_cap_bytes: {cap}
train_seconds: 120
eval_seconds: 60
min_seeds: 2
"""


@pytest.fixture
def bench(tmp_path, tiny_env, monkeypatch):
    """Drives a sweep of tiny models in this process."""
    previous = signal.getsignal(signal.SIGTERM)
    env = tiny_env()
    folders = [tmp_path / "data" / name for name in ("datasets", "tokenizers")]
    shutil.copytree(env.pop("DATA_PATH"), folders[0] / "tiny_sp320")
    folders[1].mkdir()
    shutil.copy(env.pop("TOKENIZER_PATH"), folders[1] / "tiny_320_bpe.model")

    class Bench:
        def __init__(self, method, cap, more="", cap_bytes=16_000_000, **searched):
            knobs = {name: f"{{value: {value}}}" for name, value in env.items()}
            knobs |= {name: f"{{values: {values}}}" for name, values in searched.items()}
            text = ", ".join(f"{name}: {domain}" for name, domain in knobs.items())
            self.sweep = tmp_path / "tiny.yaml"
            self.sweep.write_text(SWEEP.format(method=method, cap=cap, knobs=text, more=more))
            (tmp_path / "rules.yaml").write_text(RULES.format(cap=cap_bytes))
            self.session = open_session(self.sweep, data_root=tmp_path / "data")
            self.paths = StudyPaths(tmp_path / "runs" / self.session.spec.name)
            self.clock = SimulatedClock()

        def drive(self, cap):
            prepare_folder(self.session, self.paths, sweep=self.sweep, data_root=tmp_path / "data")
            with contextlib.closing(open_study(self.session.spec, self.paths, write=True)) as study:
                begin_study(self.session, study, self.paths.root.parent)
                Driver(
                    session=self.session,
                    study=study,
                    launcher=InlineLauncher(1, self._run, self.clock),
                    tracker=NullStudyTracker(),
                    paths=self.paths,
                    clock=self.clock,
                    observer=Watcher(),
                    options=Options(run_cap=cap),
                ).run()
                return study.records()

        def _run(self, job):
            said = []
            job.folder.mkdir(parents=True, exist_ok=True)
            start_at, taken_over = take_over(job.reuse, job.folder, said.append)
            for name, content in job.reuse.files.items():
                (job.folder / name).write_bytes(content)
            summary = self.work(job.folder, {**job.spec.env, **taken_over})
            kept = leave(job.reuse, job.folder, said.append) if start_at == TRAIN else None
            assert not said
            yield 1.0, Finish(summary=summary, start_at=start_at, checkpoint_bytes=kept)

        def work(self, folder, values):
            """The trainer's summary in a folder, with an environment."""
            folder.mkdir(parents=True, exist_ok=True)
            out = io.StringIO()
            with monkeypatch.context() as patch, contextlib.redirect_stdout(out):
                patch.chdir(folder)
                for name, value in values.items():
                    patch.setenv(name, value)
                main()
            return read_log(out.getvalue().encode())[0]

    yield Bench
    signal.signal(signal.SIGTERM, previous)


def test_a_grid_over_bits_and_stride_trains_once_and_scores_as_whole_runs_do(bench, tmp_path):
    grid = bench("grid", 4, ", gate: {enabled: false}", MATRIX_BITS=[5, 6], EVAL_STRIDE=[0, 8])
    records = grid.drive(None)
    assert [record.outcome for record in records] == [State.COMPLETED] * 4
    stages = [record.stage or TRAIN for record in records]
    assert stages.count(TRAIN) == 1
    assert {"export", "eval"} < set(stages)
    for record in records:
        spec = grid.session.trial_spec(record.number, record.knobs, "test", run_id="")
        whole = grid.work(tmp_path / f"whole-{record.number}", spec.env)
        assert record.val_bpb == whole.val_bpb
        assert record.artifact_bytes == whole.total_bytes


@pytest.mark.slow
def test_fit_proposes_bits_that_use_the_cap_and_they_share_the_training(bench):
    bits = {"MATRIX_BITS": [4, 5, 6, 8], "EMBED_BITS": [4, 6, 8]}
    roomy = bench("random", 9, **bits).session
    most, least = (
        roomy.verdict(roomy.resolve({"MATRIX_BITS": n, "EMBED_BITS": n})).artifact_bytes.mid
        for n in (8, 4)
    )
    tiny = bench("random", 9, cap_bytes=int((2 * most + least) / 3), **bits)
    (first,) = (row for row in tiny.drive(1) if row.outcome is State.COMPLETED)
    found = fit(tiny.paths, tokens=512)
    assert found.fit_of == first.number
    assert abs(found.rises["MATRIX_BITS"][4]) > abs(found.rises["MATRIX_BITS"][8])
    (fitted,) = (row for row in tiny.drive(2) if row.parent is not None)
    assert (fitted.stage, fitted.reused_from, fitted.parent) == ("export", *[first.number] * 2)
    assert {name: fitted.knobs[name] for name in bits} == dict(found.bits)
    assert fitted.submittable
    assert f"{found.cost_bpb:+.5f}" in fitted.idea

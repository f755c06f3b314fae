from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.trial import EndCause, Resources
from pgolf_sweep.launch.inline import Finish, InlineLauncher
from pgolf_sweep.submission.folder import read_folder
from pgolf_sweep.verify.check import CheckVerdict
from pgolf_sweep.verify.rerun import dataset_name, rerun, resources_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.promotions import Bench

    from pgolf_sweep.launch.base import Job
    from pgolf_sweep.verify.check import Check


def run_again(bench: Bench, finish: Finish | None = None, seed: int | None = None) -> Check:
    """A promoted folder trained again; without `finish` as its seeds were."""
    folder = read_folder(bench.promote().folder)

    def simulate(job: Job) -> Iterator[tuple[float, Finish]]:
        assert job.files["train_gpt.py"] == folder.script
        assert not any(name.endswith((".log", ".ptz")) for name in job.files)
        assert job.spec.env["DATA_PATH"] == "here"
        good = bench.finish(int(job.spec.env["SEED"]), len(folder.script))
        yield 60.0, finish or good

    return rerun(
        folder,
        bench.rules,
        seed=seed,
        env={"DATA_PATH": "here"},
        launcher=InlineLauncher(1, simulate, bench.clock),
        clock=bench.clock,
        work=bench.root / "again",
    )


def test_the_same_result_again_passes(bench: Bench) -> None:
    seed = bench.plan().seeds[1]
    check = run_again(bench, seed=seed)
    assert check.verdict is CheckVerdict.PASS
    assert f"seed {seed}: val_bpb 1.2" in check.observed
    assert "to the last digit" in check.detail


def test_another_score_fails_with_both_numbers(bench: Bench) -> None:
    bench.promote()
    text = bench.finish(5, 100).files["train.log"].replace(b"val_bpb:1.2", b"val_bpb:1.3")
    check = run_again(bench, Finish(files={"train.log": text}))
    assert check.verdict is CheckVerdict.FAIL
    assert "+0.09939" in check.observed
    assert "the log says 1.2" in check.detail


def test_noise_between_seeds_is_allowed(bench: Bench) -> None:
    log = bench.finish(5, 100).files["train.log"]
    check = run_again(bench, Finish(files={"train.log": log.replace(b"1.20000005", b"1.2015")}))
    assert check.verdict is CheckVerdict.PASS


def test_a_run_without_a_score_fails_and_a_lost_one_is_infrastructure(bench: Bench) -> None:
    check = run_again(bench, Finish(exit_code=1, detail="out of memory"))
    assert check.verdict is CheckVerdict.FAIL
    assert "out of memory" in check.detail
    with pytest.raises(InfraError, match="node gone"):
        run_again(bench, Finish(cause=EndCause.LOST, exit_code=None, detail="node gone"))


def test_an_unknown_seed_is_the_users_mistake(bench: Bench) -> None:
    with pytest.raises(InputError, match="nothing to run again"):
        run_again(bench, seed=1)


def test_the_run_gets_what_the_folder_says_it_had(bench: Bench) -> None:
    folder = read_folder(bench.promote().folder)
    assert dataset_name(folder) == "demo_sp512"
    assert resources_for(folder, bench.rules) == Resources(gpus=0, cpus=1.0)
    stranger = replace(folder, manifest={})
    assert dataset_name(stranger) is None
    assert resources_for(stranger, replace(bench.rules, gpus=8)) == Resources(gpus=8, cpus=8.0)

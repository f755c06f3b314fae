from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.trial import EndCause, Resources
from pgolf_sweep.launch.inline import Finish, InlineLauncher
from pgolf_sweep.submission.folder import read_folder
from pgolf_sweep.verify.check import CheckVerdict
from pgolf_sweep.verify.rerun import dataset_name, rerun, resources_for, score_artifact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.promotions import Bench

    from pgolf_sweep.launch.base import Job
    from pgolf_sweep.submission.folder import Folder
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


def scored(
    bench: Bench, finish: Finish | None = None, *, switch: str = "START_AT", model: bool = True
) -> tuple[Check, list[Job]]:
    """A promoted folder whose script is asked to score the model that ships."""
    folder = read_folder(bench.promote().folder)
    assert folder.model is not None
    folder = replace(
        folder,
        model=folder.model if model else None,
        code=f"import os\nwhat = os.environ.get({switch!r}, 'train')\n",
    )
    jobs: list[Job] = []

    def simulate(job: Job) -> Iterator[tuple[float, Finish]]:
        jobs.append(job)
        yield 60.0, finish or Finish(files={"train.log": LINE % bench_score(folder)})

    check = score_artifact(
        folder,
        bench.rules,
        env={"DATA_PATH": "here"},
        launcher=InlineLauncher(1, simulate, bench.clock),
        clock=bench.clock,
        work=bench.root / "again",
    )
    return check, jobs


LINE = b"final_int6_zlib_roundtrip_exact val_loss:2.0 val_bpb:%.8f\n"


def bench_score(folder: Folder) -> float:
    score = folder.logs[0].summary.val_bpb
    assert score is not None
    return score


def test_the_model_that_ships_is_scored_without_training(bench: Bench) -> None:
    check, jobs = scored(bench)
    assert check.verdict is CheckVerdict.PASS, check
    assert jobs[0].spec.env["START_AT"] == "eval"
    model = jobs[0].files["final_model.int8.ptz"]
    assert len(zlib.decompress(model)) > 100_000


def test_a_model_of_another_score_or_of_none_fails(bench: Bench) -> None:
    other, _ = scored(bench, Finish(files={"train.log": LINE % 1.3}))
    assert other.verdict is CheckVerdict.FAIL
    assert "1.30000" in other.observed
    crashed, _ = scored(bench, Finish(exit_code=1, detail="not an artifact"))
    assert crashed.verdict is CheckVerdict.FAIL
    assert "not an artifact" in crashed.detail


@pytest.mark.parametrize("change", [{"switch": "ITERATIONS"}, {"model": False}])
def test_where_it_cannot_be_told_nothing_runs(bench: Bench, change: dict[str, Any]) -> None:
    check, jobs = scored(bench, **change)
    assert check.verdict is CheckVerdict.UNKNOWN
    assert jobs == []


def test_a_script_that_trains_all_the_same_tells_nothing_of_the_model(bench: Bench) -> None:
    log = bench.finish(5, 100).files["train.log"]
    check, _ = scored(bench, Finish(files={"train.log": log}), switch="EVAL_ONLY")
    assert check.verdict is CheckVerdict.UNKNOWN
    assert "EVAL_ONLY did not keep it from training" in check.observed

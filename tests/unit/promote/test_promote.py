from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.promotions import log_text

from pgolf_sweep.config.rules import Record
from pgolf_sweep.core.errors import InfraError, InputError, PromotionError
from pgolf_sweep.core.paths import write_bytes, write_json
from pgolf_sweep.core.trial import EndCause
from pgolf_sweep.launch.inline import Finish
from pgolf_sweep.promote.promote import choose, plan
from pgolf_sweep.promote.seeds import fresh_seeds
from pgolf_sweep.script.unpack import unpack
from pgolf_sweep.submission.evidence import Candidate, LineageStep
from pgolf_sweep.verify.check import CheckVerdict

if TYPE_CHECKING:
    from support.promotions import Bench

    from pgolf_sweep.launch.base import Job


def candidate(number: int, val_bpb: float, artifact_bytes: int | None) -> Candidate:
    return Candidate(
        study="toy",
        number=number,
        knobs={},
        proposer="tpe",
        val_bpb=val_bpb,
        artifact_bytes=artifact_bytes,
    )


def test_best_trial_that_fits_is_chosen(bench: Bench) -> None:
    cap = bench.rules.artifact_cap_bytes
    pool = [candidate(0, 1.1, cap + 1), candidate(1, 1.2, cap), candidate(2, 1.3, 10)]
    assert choose(pool, bench.rules).number == 1
    assert choose(pool, bench.rules, number=2).number == 2
    with pytest.raises(PromotionError, match="no completed trial fits"):
        choose(pool[:1], bench.rules)
    with pytest.raises(InputError, match="trial 9"):
        choose(pool, bench.rules, number=9)


def test_seeds_are_fresh_distinct_and_reproducible() -> None:
    seeds = fresh_seeds("toy", 7, 50, used=())
    assert len(set(seeds)) == 50
    assert fresh_seeds("toy", 7, 3, used=()) == seeds[:3]
    assert seeds[0] not in fresh_seeds("toy", 7, 50, used={seeds[0]})
    assert fresh_seeds("toy", 8, 3, used=()) != seeds[:3]


def test_promotion_writes_a_folder_that_verifies(bench: Bench) -> None:
    done = bench.promote()
    assert done.verification.ok
    assert done.folder.name == "2023-11-14_A_toy"  # the simulated clock's day
    assert len(done.seeds) == 2
    manifest = json.loads((done.folder / "submission.json").read_text())
    code = (done.folder / "train_gpt.py").stat().st_size
    model = (done.folder / "final_model.int8.ptz").stat().st_size
    assert manifest["bytes_total"] == code + model == done.artifact_bytes
    assert manifest["bytes_code"] == code
    assert manifest["seeds"] == list(done.seeds)
    assert sorted(manifest["seed_results"]) == sorted(map(str, done.seeds))
    results = [manifest["seed_results"][str(seed)]["val_bpb"] for seed in done.seeds]
    assert manifest["val_bpb"] == pytest.approx(sum(results) / 2, abs=1e-8)
    assert "torch==2.13.0\n" in (done.folder / "requirements.txt").read_text()
    readme = (done.folder / "README.md").read_text()
    assert f"**val_bpb = {manifest['val_bpb']:.5f}" in readme
    assert "12 completed, 5 discarded" in readme


def test_shipped_script_has_the_winning_values_as_defaults(bench: Bench) -> None:
    script = (bench.promote().folder / "train_gpt.py").read_text()
    bare = script.replace("import torch", "") + "print(layers, rate)\n"
    done = subprocess.run(
        [sys.executable, "-c", bare], env={}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "11 0.02\n"


def test_seeds_are_declared_before_they_run_and_exclude_the_search_s(bench: Bench) -> None:
    planned = bench.plan()
    bench.promote(planned)
    declared = json.loads((planned.root / "declared.json").read_text())["declarations"]
    assert declared[0]["seeds"] == list(planned.seeds)
    assert declared[0]["declared_at"] <= bench.clock.now() - 60
    assert 1337 not in planned.seeds


def test_finished_seeds_are_not_run_again(bench: Bench) -> None:
    first = bench.promote()
    runs = len(bench.started)
    assert bench.promote().folder == first.folder
    assert len(bench.started) == runs == 2


def test_more_seeds_run_only_the_new_ones(bench: Bench) -> None:
    bench.promote()
    third = bench.plan(seeds=3).seeds[2]
    with pytest.raises(InputError, match="holds something else"):
        bench.promote(bench.plan(seeds=3))
    assert bench.started[2:] == [(third, 0)]


def test_declared_seeds_cannot_be_left_out(bench: Bench) -> None:
    three = bench.plan(seeds=3)
    bench.promote(three)
    assert bench.plan(seeds=2).seeds == three.seeds
    assert bench.plan(seeds=4).seeds[:3] == three.seeds


def test_lost_seed_is_run_again_up_to_the_limit(bench: Bench) -> None:
    seed = bench.plan().seeds[0]
    lost = Finish(cause=EndCause.LOST, exit_code=None, detail="node gone")
    bench.results[seed] = [lost]
    assert bench.promote().verification.ok
    assert (seed, 1) in bench.started


def test_seed_lost_for_good_is_infrastructure_and_resumable(bench: Bench) -> None:
    seed = bench.plan().seeds[0]
    lost = Finish(cause=EndCause.LOST, exit_code=None, detail="node gone")
    bench.results[seed] = [lost, lost]
    with pytest.raises(InfraError, match="node gone"):
        bench.promote(max_retries=1)
    assert bench.promote().verification.ok
    assert len(bench.started) == 4  # two attempts lost, one other seed, one resumed


def test_promotion_whose_nodes_are_gone_says_so_and_ends(bench: Bench) -> None:
    bench.slots = 0
    said: list[str] = []
    with pytest.raises(InfraError, match="no node could take a run for 2 min"):
        bench.promote(give_up_seconds=120.0, report=said.append)
    assert 120 <= bench.clock.monotonic() < 125
    assert (
        len([line for line in said if "NO NODE can take a run: the cluster has none" in line]) == 1
    )
    bench.slots = 1
    assert bench.promote().verification.ok


def test_slot_that_vanished_before_a_seed_started_costs_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = bench.launcher()
    start, refusals = launcher.start, iter([True, True])

    def refuse_twice(job: Job) -> str:
        if next(refusals, False):
            raise InfraError("there is no free slot")
        return start(job)

    monkeypatch.setattr(launcher, "start", refuse_twice)
    bench.launch = lambda: launcher
    assert bench.promote(max_retries=0).verification.ok
    assert {attempt for _, attempt in bench.started} == {0}


KILLED = Finish(cause=EndCause.SIGNALED, exit_code=-9, detail="killed by SIGKILL")
FULL = "OSError: [Errno 28] No space left on device: 'final_model.pt'"
DISK = Finish(exit_code=1, log_tail=(FULL,), files={"train.log": FULL.encode() + b"\n"})


@pytest.mark.parametrize("end", [KILLED, DISK])
def test_seed_killed_from_outside_is_run_again_and_is_no_evidence(
    bench: Bench, end: Finish
) -> None:
    seed = bench.plan().seeds[0]
    bench.results[seed] = [end, end]
    with pytest.raises(InfraError, match=r"killed by SIGKILL|disk refused"):
        bench.promote(max_retries=1)
    assert bench.promote().verification.ok
    assert [attempt for started, attempt in bench.started if started == seed] == [0, 1, 0]


def test_seed_that_the_kernel_killed_for_its_memory_is_final(bench: Bench) -> None:
    planned = bench.plan()
    memory = replace(KILLED, detail="killed by SIGKILL: the node ran out of memory")
    bench.results[planned.seeds[0]] = [memory]
    for _ in range(2):
        with pytest.raises(PromotionError, match="out of memory"):
            bench.promote()
    assert len(bench.started) == 2


@pytest.mark.parametrize("end", [KILLED, DISK])
def test_result_that_version_0_1_took_for_evidence_does_not_block_a_promotion(
    bench: Bench, end: Finish
) -> None:
    planned = bench.plan()
    folder = planned.seed_folder(planned.seeds[0])
    result = {
        "seed": planned.seeds[0],
        "script_sha256": planned.script_sha256,
        "cause": end.cause.value,
        "exit_code": end.exit_code,
        "detail": end.detail,
        "node": "n",
        "started_at": 1.0,
        "ended_at": 2.0,
        "attempts": [],
    }
    write_json(folder.result, result)
    for name, content in end.files.items():
        write_bytes(folder.root / name, content)
    assert bench.promote(planned).verification.ok


def test_failed_seed_refuses_and_stays_in_the_evidence(bench: Bench) -> None:
    planned = bench.plan()
    crash = Finish(exit_code=1, detail="exit code 1", files={"train.log": b"boom\n"})
    bench.results[planned.seeds[0]] = [crash]
    for _ in range(2):
        with pytest.raises(PromotionError) as caught:
            bench.promote()
        assert f"seed {planned.seeds[0]}: exit code 1" in str(caught.value)
    assert len(bench.started) == 2
    assert planned.seed_folder(planned.seeds[0]).log.read_text() == "boom\n"
    assert not (bench.root / "submissions").exists()


def test_refusal_lists_every_unmet_rule_with_number_and_limit(bench: Bench) -> None:
    bench.log_options = {"model_bytes": 400_000, "train_ms": 130_000}
    with pytest.raises(PromotionError) as caught:
        bench.promote()
    text = str(caught.value)
    size = 400_000 + len(bench.plan().script)
    assert f"artifact: {size:,} bytes; expected <= 300,000 bytes" in text
    assert f"logged_artifact: {size:,} bytes; expected <= 300,000 bytes" in text
    assert "train_seconds: 130.0 s; expected <= 120 s" in text
    for seed in bench.plan().seeds:
        assert f"train_seed{seed}.log: {size:,}" in text
        assert f"train_seed{seed}.log: 130.0 s" in text
    assert "expected: a folder that verify passes by demo" in text
    assert "next: the evidence stays there" in text
    assert caught.value.exit_code == 1
    assert not (bench.root / "submissions").exists()


def test_script_that_counts_other_bytes_is_refused(bench: Bench) -> None:
    planned = bench.plan()
    other = bench.finish(planned.seeds[0], len(planned.script) + 5)
    bench.results[planned.seeds[0]] = [other]
    with pytest.raises(PromotionError, match="logged_code_bytes: script of"):
        bench.promote()
    assert not (bench.root / "submissions").exists()


def record(val_bpb: float, ratio: float) -> Record:
    return Record(val_bpb=val_bpb, val_loss_nats=val_bpb / ratio, source="table", date="2023-01-01")


def test_better_than_the_record_ships_with_its_p(bench: Bench) -> None:
    bench.rules = replace(
        bench.rules, record=record(1.21, 0.59226), margin_nats=0.005, p_value=0.05
    )
    done = bench.promote(bench.plan(rules=bench.rules))
    assert done.p_value is not None
    assert done.p_value < 0.05
    assert "nats better" in (done.folder / "README.md").read_text()


def test_not_better_than_the_record_is_refused_with_p(bench: Bench) -> None:
    bench.rules = replace(bench.rules, record=record(1.2001, 0.59226), margin_nats=0.005)
    bench.rules = replace(bench.rules, p_value=0.05)
    with pytest.raises(PromotionError, match=r"record: .* p = .*; expected .*, p < 0.05"):
        bench.promote(bench.plan(rules=bench.rules))


def test_record_of_today_is_held_against_the_runs(bench: Bench) -> None:
    later = replace(record(1.2001, 0.59226), date="2099-01-01")
    bench.rules = replace(bench.rules, record=later, margin_nats=0.005, p_value=0.05)
    with pytest.raises(PromotionError, match=r"record: -0\.0.* nats, p = .*not after the record"):
        bench.promote(bench.plan(rules=bench.rules))
    better = replace(later, val_bpb=1.21, val_loss_nats=1.21 / 0.59226)
    bench.rules = replace(bench.rules, record=better)
    assert bench.promote(bench.plan(rules=bench.rules)).verification.ok


def test_seeds_that_would_do_are_named(bench: Bench) -> None:
    tight = record(1.2006, 0.59226)
    bench.rules = replace(bench.rules, record=tight, margin_nats=0.0, p_value=0.01)
    first, second = (seed for seed in bench.plan().seeds)
    for seed, score in ((first, 1.2), (second, 1.2003)):
        bench.log_options = {"val_bpb": score}
        bench.results[seed] = [bench.finish(seed, len(bench.plan().script))]
    with pytest.raises(PromotionError, match=r"record: .* 5 seeds would do"):
        bench.promote(bench.plan(rules=bench.rules))


def test_another_tokenizer_is_not_compared(bench: Bench) -> None:
    bench.rules = replace(bench.rules, record=record(1.21, 0.38713), p_value=0.05)
    with pytest.raises(PromotionError, match="another tokenizer or validation set"):
        bench.promote(bench.plan(rules=bench.rules))


def with_log(finish: Finish, old: bytes, new: bytes) -> Finish:
    """A run whose log says something else."""
    text = finish.files["train.log"]
    assert old in text
    return replace(finish, files={**finish.files, "train.log": text.replace(old, new)})


def edit_logs(bench: Bench, old: bytes, new: bytes) -> None:
    planned = bench.plan()
    for seed in planned.seeds:
        bench.results[seed] = [with_log(bench.finish(seed, len(planned.script)), old, new)]


def test_refusal_leaves_earlier_submissions_alone_and_nothing_beside(bench: Bench) -> None:
    folder = bench.promote().folder
    before = {path: path.read_bytes() for path in folder.iterdir()}
    strict = replace(bench.rules, train_seconds=10.0)
    with pytest.raises(PromotionError, match=r"train_seconds: 50\.0 s; expected <= 10 s"):
        bench.promote(bench.plan(rules=strict))
    assert list((bench.root / "submissions").iterdir()) == [folder]
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_evaluation_that_the_log_does_not_time_is_bounded_by_the_run(bench: Bench) -> None:
    edit_logs(bench, b" eval_time:4000ms", b"")
    done = bench.promote()
    check = next(c for c in done.verification.checks if c.rule == "eval_seconds")
    assert check.verdict is CheckVerdict.PASS
    assert "10.0 s at most, not in the log" in check.detail  # 60 s of run, 50 s of training
    short = replace(bench.rules, eval_seconds=5.0)
    with pytest.raises(PromotionError, match=r"eval_seconds: .*expected <= 5 s; .* at most"):
        bench.promote(bench.plan(rules=short), about=replace(bench.about, name="B"))


def test_clock_that_no_log_shows_is_refused(bench: Bench) -> None:
    planned = bench.plan()
    for seed in planned.seeds:
        finish = bench.finish(seed, len(planned.script))
        log = re.sub(rb" train_time:\d+ms step_avg:[\d.]+ms", b"", finish.files["train.log"])
        bench.results[seed] = [replace(finish, files={**finish.files, "train.log": log})]
    with pytest.raises(PromotionError, match="train_seconds: no log says it; expected <= 120 s"):
        bench.promote()


def test_model_that_stays_behind_is_measured_all_the_same(bench: Bench) -> None:
    about = replace(bench.about, include_model=False)
    done = bench.promote(about=about)
    assert not list(done.folder.glob("final_model*"))
    assert bench.promote(about=about).folder == done.folder
    bench.log_options = {"model_bytes": 400_000}
    planned = bench.plan(number=8)
    for seed in planned.seeds:
        # The logs tell of a smaller model than the one that the run left.
        finish = bench.finish(seed, len(planned.script))
        text = log_text(seed, code_bytes=len(planned.script)).encode()
        bench.results[seed] = [replace(finish, files={**finish.files, "train.log": text})]
    with pytest.raises(PromotionError, match="artifact: 400,"):
        bench.promote(planned, about=replace(about, name="B"))


def test_failed_seed_hides_no_rule_that_the_others_break(bench: Bench) -> None:
    bench.log_options = {"train_ms": 130_000}
    planned = bench.plan()
    bench.results[planned.seeds[0]] = [
        Finish(exit_code=1, detail="exit code 1", files={"train.log": b"boom\n"})
    ]
    with pytest.raises(PromotionError) as caught:
        bench.promote()
    assert f"seed {planned.seeds[0]}: exit code 1; expected a run with a final score" in str(
        caught.value
    )
    assert "train_seconds: 130.0 s; expected <= 120 s" in str(caught.value)


def test_knobs_of_a_script_that_is_execed_from_beside_it_become_its_defaults(bench: Bench) -> None:
    files = {
        "train_gpt.py": b"exec(open('real.py').read())\n",
        "real.py": b"import os\nFLAG = os.environ.get('FLAG', 'no') == 'yes'\n",
    }
    chosen = replace(candidate(1, 1.1, 10), knobs={"FLAG": True})
    planned = plan(
        chosen,
        files=files,
        program_name="train_gpt.py",
        used_seeds=(),
        root=bench.root,
        rules=bench.rules,
    )
    assert "get('FLAG', \"yes\")" in unpack(planned.script.decode())


def test_submission_says_who_found_what_and_what_it_is_worth(bench, monkeypatch):
    steps = (
        LineageStep(trial=0, parent=None, proposer="tpe", idea="", variant=""),
        LineageStep(
            trial=7,
            parent=0,
            proposer="propose:ada",
            idea="a|b",
            variant="abc",
            effect_bpb=-0.0021,
            low_bpb=-0.0034,
            high_bpb=-0.0008,
            runs=(3, 4),
        ),
    )
    came = replace(
        bench.provenance,
        lineage=steps,
        tried={"tpe": 12, "propose:ada": 3},
        based_on={"name": "a record", "link": "https://example.org/r", "licence": "MIT"},
    )
    monkeypatch.setattr(type(bench), "provenance", came)
    done = bench.promote()
    told = json.loads((done.folder / "submission.json").read_text())["attribution"]
    assert told["lineage"][1]["effect_bpb"] == -0.0021
    assert told["based_on"]["licence"] == "MIT"
    readme = (done.folder / "README.md").read_text()
    assert "began as [a record](https://example.org/r), MIT." in readme
    assert "| 7 | 0 | `propose:ada` | a\\|b | -0.00210 | -0.00340 to -0.00080 | 3 and 4 |" in readme
    assert "12 by `tpe`, 3 by `propose:ada`" in readme

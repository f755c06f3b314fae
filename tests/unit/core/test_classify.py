"""The outcome of each way to end."""

from __future__ import annotations

import dataclasses
import math
import signal

import pytest

from pgolf_sweep.core.classify import artifact_bytes, classify
from pgolf_sweep.core.record import State, TrialRecord, ranked
from pgolf_sweep.core.trial import (
    Completed,
    EndCause,
    Failed,
    FailureCode,
    FailureKind,
    LogSummary,
    Pruned,
    RunEnd,
)

GOOD = LogSummary(val_bpb=1.25, model_bytes=1000, code_bytes=200, total_bytes=1200)


def end(**changes):
    plain = RunEnd(
        cause=EndCause.EXITED,
        exit_code=0,
        detail="",
        summary=GOOD,
        node="n",
        started_at=10.0,
        ended_at=25.0,
    )
    return dataclasses.replace(plain, **changes)


def outcome_of(run):
    return classify(run, last_val_bpb=2.0, last_step=40)


def test_score_and_exit_zero_is_completed():
    assert outcome_of(end()) == Completed(val_bpb=1.25, artifact_bytes=1200)


def test_exit_zero_without_score_is_the_trials_failure():
    outcome = outcome_of(end(summary=LogSummary()))
    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.DETERMINISTIC
    assert "without printing a final score" in outcome.reason


def test_unread_final_line_is_named_in_the_reason():
    line = "final_super_eval bpb=1.07"
    outcome = outcome_of(end(summary=LogSummary(unread_finals=(line,))))
    assert line in outcome.reason


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_score_that_is_not_finite_is_a_failure(value):
    outcome = outcome_of(end(summary=LogSummary(val_bpb=value, non_finite=True)))
    assert isinstance(outcome, Failed)
    assert "not finite" in outcome.reason


@pytest.mark.parametrize(
    ("bpb", "nats"),
    [(-1.0, None), (0.0, None), (1e-12, None), (1e-12, 1.7e-12), (0.625, 41.0), (1.2, 0.7)],
)
def test_score_that_cannot_be_is_a_failure_and_never_the_best(bpb, nats):
    outcome = outcome_of(end(summary=dataclasses.replace(GOOD, val_bpb=bpb, val_loss_nats=nats)))
    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.DETERMINISTIC
    assert "cannot" in outcome.reason
    old = TrialRecord(number=0, outcome=State.COMPLETED, knobs={}, val_bpb=bpb, val_loss_nats=nats)
    assert ranked([old]) == []


@pytest.mark.parametrize(("bpb", "nats"), [(1.2244, 2.0606), (1.0, 0.6931472), (2.5, None)])
def test_score_of_any_tokenizer_is_taken(bpb, nats):
    summary = dataclasses.replace(GOOD, val_bpb=bpb, val_loss_nats=nats)
    assert isinstance(outcome_of(end(summary=summary)), Completed)


def test_exit_code_names_the_exception_not_the_last_line():
    tail = ("Traceback (most recent call last):", "ValueError: width 65", "[rank0] bye")
    outcome = outcome_of(end(exit_code=1, log_tail=tail))
    assert outcome.reason == "exit code 1: ValueError: width 65"
    assert outcome.log_tail == tail


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has",
            "out of memory, asked for 2.50 GiB: lower",
        ),
        (
            "RuntimeError: DefaultCPUAllocator: not enough memory: tried to allocate 4096 bytes",
            "out of memory, asked for 4096 bytes: lower",
        ),
        ("MemoryError", "out of memory: lower the tokens of a step"),
    ],
)
def test_out_of_memory_is_deterministic_and_says_what_was_asked_for(line, said):
    outcome = outcome_of(end(exit_code=1, log_tail=(line, "done")))
    assert outcome.reason.startswith(said)
    assert outcome.kind is FailureKind.DETERMINISTIC
    assert outcome.code is FailureCode.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (signal.SIGKILL, FailureKind.INFRASTRUCTURE),
        (signal.SIGTERM, FailureKind.INFRASTRUCTURE),
        (signal.SIGSEGV, FailureKind.DETERMINISTIC),
        (signal.SIGABRT, FailureKind.DETERMINISTIC),
    ],
)
def test_signal_blames_who_sends_it(number, kind):
    outcome = outcome_of(end(cause=EndCause.SIGNALED, exit_code=-number))
    assert outcome.kind is kind
    assert signal.Signals(number).name in outcome.reason


TORCHRUN = """
Failures:
[1]:
  exitcode  : -15 (pid: 21745)  (SIGTERM)
Root Cause (first observed failure):
[0]:
  exitcode  : {code} (pid: 21746)
=======================================================
"""


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (-9, FailureKind.INFRASTRUCTURE, "a rank was killed by SIGKILL"),
        (-11, FailureKind.DETERMINISTIC, "a rank was killed by SIGSEGV"),
        (1, FailureKind.DETERMINISTIC, "exit code 1: ValueError: width 65"),
    ],
)
def test_rank_that_failed_first_says_who_is_to_blame(code, kind, reason):
    tail = ("ValueError: width 65", *TORCHRUN.format(code=code).splitlines())
    outcome = outcome_of(end(exit_code=1, log_tail=tail))
    assert (outcome.kind, outcome.reason) == (kind, reason)


def test_what_the_kernel_kills_for_want_of_memory_is_the_trials_own_failure():
    detail = "killed by SIGKILL: the node ran out of memory"
    outcome = outcome_of(end(cause=EndCause.SIGNALED, exit_code=-9, detail=detail))
    assert (outcome.kind, outcome.code) == (
        FailureKind.DETERMINISTIC,
        FailureCode.OUT_OF_MEMORY,
    )


def test_full_disk_of_a_node_is_not_the_trials_fault():
    line = "OSError: [Errno 28] No space left on device: 'final_model.pt'"
    outcome = outcome_of(end(exit_code=1, log_tail=(line, "bye")))
    assert outcome.kind is FailureKind.INFRASTRUCTURE
    assert outcome.reason == f"the node's disk refused: {line}"


@pytest.mark.parametrize("cause", [EndCause.LOST, EndCause.SETUP, EndCause.CANCELLED])
def test_lost_setup_and_cancelled_are_infrastructure(cause):
    outcome = outcome_of(end(cause=cause, detail="why"))
    assert outcome == Failed(
        kind=FailureKind.INFRASTRUCTURE, code=FailureCode(cause.value), reason="why", log_tail=()
    )


@pytest.mark.parametrize(
    "cause",
    [EndCause.TIMEOUT, EndCause.SILENT, EndCause.MISSING_DEPENDENCY, EndCause.FOLDER_REMOVED],
)
def test_limits_are_the_trials_own_failure(cause):
    outcome = outcome_of(end(cause=cause, detail="still running after 9 s"))
    assert outcome.kind is FailureKind.DETERMINISTIC


def test_pruned_keeps_the_last_score():
    outcome = outcome_of(end(cause=EndCause.PRUNED, detail="pruned at validation 3"))
    assert outcome == Pruned(val_bpb=2.0, step=40, reason="pruned at validation 3")


@pytest.mark.parametrize(
    ("summary", "file_bytes", "expected"),
    [
        (GOOD, 1000, 1200),
        (GOOD, 1500, 1700),  # the file is larger than the log claims: the file counts
        (LogSummary(code_bytes=200), 1500, 1700),
        (LogSummary(total_bytes=900), None, 900),
        (LogSummary(), 1500, None),
    ],
)
def test_artifact_bytes_take_the_larger_answer(summary, file_bytes, expected):
    assert artifact_bytes(end(summary=summary, model_file_bytes=file_bytes)) == expected


def test_score_and_loss_of_two_measurements_fail_the_trial():
    known = LogSummary(
        val_bpb=1.2, val_loss_nats=2.0261, val_bpb_prequant=1.21, val_loss_nats_prequant=2.043
    )
    assert isinstance(outcome_of(end(summary=known)), Completed)
    for wrong in (
        dataclasses.replace(known, val_bpb=1.2 / 1.17),
        dataclasses.replace(known, val_bpb=-1.5),
        dataclasses.replace(known, val_bpb=0.0),
    ):
        failed = outcome_of(end(summary=wrong))
        assert isinstance(failed, Failed)
        assert failed.kind is FailureKind.DETERMINISTIC
    both = dataclasses.replace(known, val_bpb=1.2 / 1.17, val_bpb_prequant=1.21 / 1.17)
    run = end(summary=both)
    assert isinstance(classify(run, last_val_bpb=None, last_step=None), Completed)
    outcome = classify(run, last_val_bpb=None, last_step=None, bytes_per_token=2.4359)
    assert isinstance(outcome, Failed)
    assert "2.4359" in outcome.reason

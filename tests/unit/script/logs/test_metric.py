"""A metric of any name is read from log lines and from what a script hands to W&B."""

from __future__ import annotations

import pytest

from pgolf_sweep.core.trial import Metric
from pgolf_sweep.script.logs.metric import MetricStream


def read(text: str, **metric: str) -> tuple[list[tuple[int, float | None]], float | None]:
    """Steps and values of the reports, and the last value."""
    stream = MetricStream(Metric(**{"name": "val/loss", "contest": False, **metric}))  # type: ignore[arg-type]
    reports = [report for part in (text[:7], text[7:]) for report in stream.feed(part.encode())]
    last = stream.end(complete=True)
    reports += [last] if last is not None else []
    return [(report.step, report.val_bpb) for report in reports], stream.summary().val_bpb


@pytest.mark.parametrize(
    "line",
    [
        "val/loss: 1.25",
        "epoch done, val/loss=1.25, acc=0.3",
        "val/loss = 1.25 (best 1.1)",
        '{"val/loss": 1.25, "lr": 0.1}',
        "{'val/loss': 1.25}",
        "[rank0]: \x1b[32mval/loss\x1b[0m: 1.25",
    ],
)
def test_a_line_with_the_name_is_a_report(line: str) -> None:
    assert read(f"start\n{line}\nend\n") == ([(1, 1.25)], 1.25)
    assert read(f"start\n{line}") == ([(1, 1.25)], 1.25)


@pytest.mark.parametrize(
    "line",
    [
        "best_val/loss: 1.25",
        "val/loss_ema: 1.25",
        "x.val/loss: 1",
        "val/loss: high",
        "val/loss 1.25",
    ],
)
def test_another_name_or_no_number_is_none(line: str) -> None:
    assert read(f"{line}\n") == ([], None)


def test_the_last_value_counts_and_steps_are_read() -> None:
    text = "step: 10 val/loss: 3\nepoch=2 val/loss: 2.5e-1\nval/loss: nan\nval/loss: 0.5\n"
    reports, last = read(text)
    assert [step for step, _ in reports] == [10, 2, 3, 4]
    assert last == 0.5


def test_a_pattern_finds_it_in_any_words() -> None:
    text = "eval loss is 3.5 now\neval loss is 2.5 now\n"
    assert read(text, pattern=r"eval loss is ([\d.]+)") == ([(1, 3.5), (2, 2.5)], 2.5)


def test_a_loss_that_is_not_finite_is_no_score() -> None:
    stream = MetricStream(Metric(name="loss", contest=False))
    stream.feed(b"loss: inf\n")
    assert stream.summary().non_finite


def test_facts_of_the_log_are_kept_and_the_contests_score_is_not() -> None:
    stream = MetricStream(Metric(name="acc", contest=False))
    stream.feed(
        b"model_params:1234\nacc: 0.5\nfinal_int8_zlib_roundtrip val_loss:2.0 val_bpb:1.2000\n"
    )
    summary = stream.summary()
    assert (summary.val_bpb, summary.finals, summary.model_params) == (0.5, {"acc": 0.5}, 1234)


def test_what_wandb_logs_is_a_report() -> None:
    stream = MetricStream(Metric(name="acc", contest=False))
    assert stream.logged({"loss": 2.0}) is None
    report = stream.logged({"acc": 0.5}, 7)
    assert report is not None
    assert (report.step, report.val_bpb) == (7, 0.5)
    assert stream.summary().val_bpb == 0.5

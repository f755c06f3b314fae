import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf_sweep.core.trial import LogSummary
from pgolf_sweep.script.logs import stream
from pgolf_sweep.script.logs.parser import MOST_FINALS, MOST_UNREAD_FINALS, LogParser
from pgolf_sweep.script.logs.stream import LogStream, parse_log

LOGS = Path(__file__).parents[3] / "data" / "logs"


def summary_of(*lines: str) -> LogSummary:
    parser = LogParser()
    for line in lines:
        parser.feed(line)
    return parser.summary()


def fed(path: Path) -> LogSummary:
    return summary_of(*lines_of(path.read_bytes()))


def lines_of(data: bytes) -> list[str]:
    for mark, encoding in stream.ENCODINGS.items():
        if data.startswith(mark):
            data = data[len(mark) :].decode(encoding, errors="replace").encode()
    return data.replace(b"\r", b"\n").decode(errors="replace").split("\n")


def test_baseline_log_is_read_in_full_and_its_source_is_not() -> None:
    assert parse_log(LOGS / "baseline.log") == LogSummary(
        val_bpb=1.22436570,
        val_loss_nats=2.07269931,
        val_bpb_prequant=1.2172,
        val_loss_nats_prequant=2.0606,
        finals={"final_int8_zlib_roundtrip": 1.22436570},
        final_losses_nats={"final_int8_zlib_roundtrip": 2.07269931},
        model_bytes=15815847,
        code_bytes=47642,
        total_bytes=15863489,
        model_params=17059912,
        steps=13780,
        step_avg_ms=43.54,
        train_seconds=600.038,
        eval_seconds=1.401,
        peak_memory_mib=10184,
        seed=1337,
        stopped_early=True,
    )


def test_last_of_several_finals_is_the_value_and_all_are_kept() -> None:
    summary = parse_log(LOGS / "phased_ttt.log")
    assert summary.val_bpb == 1.07216564
    assert summary.finals == {
        "diagnostic quantized": 1.08336093,
        "quantized_ttt_phased": 1.07216564,
    }
    assert (summary.val_bpb_prequant, summary.val_loss_nats_prequant) == (1.07228209, 2.768)
    assert summary.eval_seconds == pytest.approx(500.104)
    assert summary.unread_finals == ()


def test_compressed_code_is_what_counts() -> None:
    summary = parse_log(LOGS / "phased_ttt.log")
    assert (summary.code_bytes, summary.total_bytes) == (28599, 15996697)


def test_step_average_comes_from_the_clock_where_it_is_not_printed() -> None:
    assert parse_log(LOGS / "phased_ttt.log").step_avg_ms == pytest.approx(119.2062)


def test_step_average_comes_from_throughput_where_there_is_no_clock() -> None:
    summary = summary_of("train_batch_tokens:524288", "200/20000 train_loss: 2.7 tok/s: 5242880")
    assert summary.step_avg_ms == pytest.approx(100.0)


def test_ternary_dialect_derives_model_bytes_from_the_budget() -> None:
    summary = parse_log(LOGS / "ternary.log")
    assert (summary.total_bytes, summary.code_bytes) == (15995705, 70853)
    assert summary.model_bytes == 15995705 - 70853
    assert summary.finals == {"final_ternary_roundtrip": 1.1839, "final_sliding": 1.1568}
    assert (summary.val_bpb, summary.seed, summary.model_params) == (1.1568, 42, 73685840)
    assert (summary.steps, summary.step_avg_ms) == (6520, 91.7)


def test_final_that_is_not_finite_is_no_value_and_no_earlier_one_takes_its_place() -> None:
    summary = parse_log(LOGS / "nan.log")
    assert summary.non_finite
    assert summary.val_bpb is None
    assert summary.val_loss_nats is None
    assert summary.finals["final_int8_zlib_roundtrip"] == 1.2
    assert math.isnan(summary.finals["final_sliding_window"])


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "NaN"])
def test_train_loss_that_is_not_finite_is_noticed(value: str, tmp_path: Path) -> None:
    lines = [
        "step:1/4 train_loss:3.1000 train_time:9ms step_avg:9.00ms",
        f"step:2/4 train_loss:{value} train_time:18ms step_avg:9.00ms",
        "step:3/4 train_loss:3.0000 train_time:27ms step_avg:9.00ms",
    ]
    assert summary_of(*lines).non_finite
    path = tmp_path / "train.log"
    path.write_text("\n".join(lines).lower() + "\n")
    assert parse_log(path).non_finite


def test_ranks_colours_carriage_returns_and_broken_text_are_survived() -> None:
    summary = parse_log(LOGS / "interleaved.log")
    assert (summary.seed, summary.model_params, summary.steps) == (5, 1000, 8)
    assert (summary.val_bpb, summary.val_bpb_prequant) == (1.75, 1.7)


@pytest.mark.parametrize("path", sorted(LOGS.glob("*.log")), ids=lambda path: path.name)
@pytest.mark.parametrize("block_bytes", [64, 1 << 20])
def test_reading_a_file_equals_feeding_its_lines(
    path: Path, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "BLOCK_BYTES", block_bytes)
    assert str(parse_log(path)) == str(fed(path))  # as text, since NaN is not equal to itself


def test_score_cut_off_by_the_end_of_the_log_is_not_read(tmp_path: Path) -> None:
    whole = (LOGS / "baseline.log").read_bytes().rstrip(b"\n")
    for cut in range(1, 9):
        path = tmp_path / "cut.log"
        path.write_bytes(whole[:-cut])
        assert parse_log(path).val_bpb == 1.2244
    path.write_bytes(whole)
    assert parse_log(path).val_bpb == 1.22436570


def test_log_cut_anywhere_never_gives_a_wrong_number(tmp_path: Path) -> None:
    whole = (LOGS / "baseline.log").read_bytes()
    path = tmp_path / "cut.log"
    header = whole.index(b"Running Python")
    for cut in range(header, len(whole), 3):
        path.write_bytes(whole[:cut])
        summary = parse_log(path)
        assert summary.val_bpb in {None, 1.2244, 1.22436570}
        assert summary.total_bytes in {None, 15815847 + 47642}
        assert summary.code_bytes in {None, 47642}
        assert summary.model_bytes in {None, 15815847}
        assert summary.val_bpb_prequant in {None, 4.1077, 1.3614, 1.2172}
        assert summary.model_params in {None, 17059912}
        assert summary.seed in {None, 1337}
        assert summary.steps in {None, 0, 200, 1000, 13600, 13780}
        assert summary.train_seconds in {None, 0, 8.711, 43.54, 592.1, 600.038}


def test_several_runs_in_a_file_are_read_as_the_last() -> None:
    first = ["model_params:10", "seed:1", "step:5/5 val_loss:3 val_bpb:1.9 train_time:5ms",
             "final_roundtrip val_loss:3.0 val_bpb:1.9000"]  # fmt: skip
    second = ["model_params:20", "step:1/5 val_loss:4 val_bpb:2.5 train_time:1ms"]
    summary = summary_of(*first, *second)
    assert (summary.model_params, summary.steps) == (20, 1)
    assert summary.val_bpb is None
    assert summary.finals == {}


def test_unknown_final_is_reported_with_its_line() -> None:
    line = "*** Our BPB = 1.0821 (best model) ***"
    summary = summary_of("step:5/5 val_loss:3 val_bpb:1.9 train_time:5ms", line)
    assert summary.unread_finals == (line,)
    assert summary.val_bpb is None


@pytest.mark.parametrize(
    "line",
    [
        "val_loss=2.7 val_bpb=1.0821 (submission)",
        "mystery_eval val_loss:2.7 val_bpb:1.0821",
        "mystery val_loss:2.7 bpb:1.0821",
        "bits per byte, bpb: 1.0821",
        '{"final_val_bpb": 1.0821, "seed": 3}',
        '"final_val_bpb": 1.0821,',
        "| final | val_bpb: 1.0821 |",
        "score (bits per byte): 1.0821",
        "model_bpb: 1.2 ngram_bpb: 1.1",
    ],
)
def test_unknown_wording_of_a_final_is_never_dropped(line: str, tmp_path: Path) -> None:
    assert summary_of(line).unread_finals == (line,)
    path = tmp_path / "train.log"
    path.write_text(f"{line}\n")
    assert parse_log(path).unread_finals == (line,)


TRAINED = (
    "model_params:1000",
    "step:99/100 train_loss:2.1 train_time:99ms step_avg:1.00ms",
    "step:100/100 val_loss:2.1 val_bpb:1.2000 train_time:100ms step_avg:1.00ms",
    "Code size: 47642 bytes",
    "Serialized model int8+zlib: 15123456 bytes",
)
FINAL = "final_int8_zlib_roundtrip val_loss:2.0000 val_bpb:1.1500 eval_time:100ms"


@pytest.mark.parametrize("rule", ["=" * 60, "-" * 60])
@pytest.mark.parametrize(
    "first",
    [
        ["import flash_attn failed, using SDPA"],
        ["from transformers import x failed"] * 8,
        ["import os"],
        ["import os", "import torch", "def f(x):", "    return x"],
    ],
)
def test_a_rule_below_the_results_undoes_none_of_them(first: list[str], rule: str) -> None:
    expected = summary_of(*TRAINED, FINAL)
    assert summary_of(*first, *TRAINED, FINAL, rule, "Done") == expected
    assert summary_of(*first, *TRAINED, rule, FINAL) == expected


def test_sample_output_in_the_middle_of_the_source_is_undone_at_its_end() -> None:
    source = [
        "import os",
        "import re",
        '"""',
        FINAL,
        '"""',
        "def f():",
        "def g():",
        "x = 1",
        "=" * 60,
    ]
    assert summary_of(*source) == LogSummary()
    assert summary_of(*source, *TRAINED) == summary_of(*TRAINED)


@pytest.mark.parametrize(
    "line",
    [
        "sliding bpb: 1.1043",
        "sliding window bpb: 1.1043",
        "quantized bpb: 1.1043",
        "roundtrip BPB 1.1043",
        "ttt_bpb=1.1043",
        "Test BPB after TTT = 1.1043",
        "Final score (full val set) val_bpb: 1.1043",
        "final val_bpb (fp16 roundtrip): 1.1043",
        "val_bpb (int8 roundtrip): 1.1043",
        "Quantized BPB (no XSA): 1.1043",
        "final bpb over all batches of the last epoch: 1.1043",
        "final result is 1.1043 bpb",
        "result: 1.1043 bpb",
        "*** Final BPB = 1.1043 (best model) ***",
        "FINAL bits per byte, bpb: 1.1043",
        "final_thing val_loss:2.7 bpb:1.1043",
        "Post-quant sliding val_loss:2.0 val_bpb:1.1043",
        "With Recalibration val_loss:1.9 val_bpb:1.1043 stride:64 eval_time:1604ms",
        "hash_cache_exact val_loss:1.9 val_bpb:1.1043",
        "mixer val_bpb:1.1043 eval_time:4713ms order=5",
        "ttt:done val_loss=1.9 val_bpb=1.1043 elapsed=5.6s",
        "**val_bpb after the round trip: 1.1043**",
    ],
)
def test_final_is_read_in_the_words_that_people_use(line: str, tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_text("\n".join([*TRAINED, line, ""]))
    assert parse_log(path) == summary_of(*TRAINED, line)
    assert (parse_log(path).val_bpb, parse_log(path).unread_finals) == (1.1043, ())


@pytest.mark.parametrize("line", ["val_bpb: 1.0821", "Val BPB: 1.0821", "val_bpb=1.0821"])
def test_a_line_that_is_nothing_but_a_score_counts_where_nothing_else_does(line: str) -> None:
    assert summary_of(*TRAINED, line).val_bpb == 1.0821
    assert summary_of(*TRAINED, FINAL, line).val_bpb == 1.15


@pytest.mark.parametrize(
    "line",
    [
        "ttt_progress: batch 7/781 batch_loss:2.3530 batch_bpb:1.0621 running_bpb:1.0544",
        "  ttt_chunk [1/1238] bpb=1.120040 time=3.8s",
        '    print(f"final bpb:{bpb:.4f}, before 1.0821 bpb")',
        '    f"bpb {1.0821:.4f}"',
        "# the round trip costs: 1.0821 bpb",
        "final delta_bpb:-0.0031",
        "ttt_gain: 0.0121 BPB gain over int6",
        "quant_gap: 0.0121 BPB",
    ],
)
def test_running_values_and_source_are_no_finals(line: str) -> None:
    assert summary_of(line).unread_finals == ()


def test_of_too_many_unread_finals_the_last_are_kept() -> None:
    lines = [f"eval {n}/300 val_bpb:1.{n:03}" for n in range(100, 400)]
    unread = summary_of(*lines, lines[290], "Our val_bpb: 1.0812").unread_finals
    assert len(unread) == MOST_UNREAD_FINALS
    assert unread[-3:] == (lines[299], lines[290], "Our val_bpb: 1.0812")


def test_of_too_many_finals_the_last_are_kept() -> None:
    finals = [f"final_{n} val_bpb:1.{n:04}" for n in range(MOST_FINALS + 9)]
    summary = summary_of(*finals)
    assert summary.val_bpb == 1.0208
    assert len(summary.finals) == MOST_FINALS


@pytest.mark.parametrize(
    "prefix",
    [
        "2026-03-20 10:00:00.123 | INFO     | __main__:main:10 - ",
        "2026-03-20 10:00:00.123 | SUCCESS | train_eval:<lambda>:7 - ",
        "2026-03-20 10:00:00,123 - INFO - ",
        "INFO: ",
    ],
)
def test_what_loggers_put_before_a_line_is_no_part_of_it(prefix: str) -> None:
    lines = ("seed:5", *TRAINED, FINAL)
    assert summary_of(*(prefix + line for line in lines)) == summary_of(*lines)


@pytest.mark.parametrize(
    "again",
    [
        ["model_params:1000"],
        ["model_params:1400", "seed:5", "ttt: step 1/9 loss:2.0 time:9ms"],
        ["model_params:1000", "model_params:1000", "step:101/200 train_loss:2.1 train_time:101ms"],
    ],
)
def test_a_model_that_is_loaded_again_begins_no_other_run(again: list[str]) -> None:
    last = "final_ttt_lora val_loss:1.9000 val_bpb:1.1400"
    summary = summary_of(*TRAINED, FINAL, *again, last)
    assert summary.finals == {"final_int8_zlib_roundtrip": 1.15, "final_ttt_lora": 1.14}
    assert (summary.val_bpb, summary.model_params) == (1.14, 1000)
    assert (summary.code_bytes, summary.total_bytes) == (47642, 47642 + 15123456)


def test_another_run_begins_with_its_first_step_wherever_the_log_is_cut(tmp_path: Path) -> None:
    first = ["seed:1", *TRAINED, FINAL, "seed:2", "model_params:20"]
    steps = [f"step:{n}/300 train_loss:2.0 train_time:{n}ms" for n in range(1, 301)]
    path = tmp_path / "train.log"
    path.write_text("\n".join([*first, *steps, ""]))
    summary = parse_log(path)
    assert summary == summary_of(*first, *steps)
    assert (summary.seed, summary.model_params, summary.steps) == (2, 20, 300)
    assert (summary.finals, summary.code_bytes) == ({}, None)


def test_separators_of_thousands_are_read() -> None:
    summary = summary_of(
        "Code size: 47,642 bytes",
        "Serialized model int8+zlib: 15,123,456 bytes",
        "Total submission size int8+zlib: 15,171,098 bytes",
    )
    sizes = (summary.code_bytes, summary.model_bytes, summary.total_bytes)
    assert sizes == (47642, 15123456, 15171098)
    assert summary_of("budget:15,995,705/16,000,000").total_bytes == 15995705


@pytest.mark.parametrize(
    "line",
    [
        "seed: 42",
        "Seed: 42",
        "using seed 42",
        "Random seed: 42",
        "seed=42, lr=0.1",
        "lr=3, seed=42, x=1",
    ],
)
def test_seed_is_read_in_the_usual_words(line: str) -> None:
    assert summary_of(line).seed == 42


@pytest.mark.parametrize("line", ["seed = int(x)", "seeds: 42", "Seed 42 failed", "seed: 42.5"])
def test_what_is_no_seed_is_not_read_as_one(line: str) -> None:
    assert summary_of(line).seed is None


@pytest.mark.parametrize(
    "label",
    [
        *(
            "non_quantized",
            "not quantized",
            "unquantized",
            "before quantization",
            "final_fp16_model",
        ),
        *("final_model_fp32", "final_no_quant", "final_weights_ema"),
        *("DIAGNOSTIC post_train", "after training:", "post-train"),
    ],
)
def test_score_before_the_round_trip_is_never_the_value(label: str) -> None:
    summary = summary_of(*TRAINED, FINAL, f"{label} val_loss:1.9 val_bpb:1.0000")
    assert (summary.val_bpb, summary.val_bpb_prequant) == (1.15, 1.0)
    assert list(summary.finals) == ["final_int8_zlib_roundtrip"]


@pytest.mark.parametrize("label", ["final_teacher", "final_train_subset", "final_val_subset"])
def test_score_of_another_model_or_other_data_is_kept_by_name_only(label: str) -> None:
    summary = summary_of(*TRAINED, FINAL, f"{label} val_loss:1.9 val_bpb:1.0000")
    assert (summary.val_bpb, summary.finals[label]) == (1.15, 1.0)


@pytest.mark.parametrize(
    "label",
    [
        *("final_dequantized", "final_int6_ema", "final_fp8_roundtrip", "final_test_time_training"),
        *("final_post_training_quant", "final_sliding_ema", "final_distilled"),
    ],
)
def test_score_after_the_round_trip_stays_final(label: str) -> None:
    assert summary_of(f"{label} val_loss:1.9 val_bpb:1.0000").val_bpb == 1.0


def test_repeated_final_in_other_words_is_not_unread() -> None:
    summary = summary_of(
        "final_int8_zlib_roundtrip_exact val_loss:2.07269931 val_bpb:1.22436570",
        "---",
        "val_bpb:          1.22436570",
    )
    assert summary.unread_finals == ()
    assert summary.val_bpb == 1.22436570


def test_exact_line_refines_its_twin_in_either_order() -> None:
    plain = "final_int8_zlib_roundtrip val_loss:2.0727 val_bpb:1.2244 eval_time:1401ms"
    exact = "final_int8_zlib_roundtrip_exact val_loss:2.07269931 val_bpb:1.22436570"
    for lines in ((plain, exact), (exact, plain)):
        summary = summary_of(*lines)
        assert summary.finals == {"final_int8_zlib_roundtrip": 1.22436570}
        assert (summary.val_bpb, summary.val_loss_nats) == (1.22436570, 2.07269931)
        assert summary.eval_seconds == pytest.approx(1.401)


def test_score_that_the_rules_bar_is_kept_by_name_only() -> None:
    summary = summary_of(
        "final_roundtrip val_loss:2.0 val_bpb:1.2000",
        "final_oracle_ttt val_loss:1.0 val_bpb:0.6000",
    )
    assert summary.val_bpb == 1.2
    assert summary.finals["final_oracle_ttt"] == 0.6


def test_score_before_quantization_is_no_final() -> None:
    summary = summary_of("DIAGNOSTIC post_ema val_loss:1.9235 val_bpb:1.1392 eval_time:1959ms")
    assert (summary.val_bpb_prequant, summary.finals) == (1.1392, {})


def test_steps_of_the_evaluation_are_not_steps_of_the_training() -> None:
    summary = summary_of(
        "step:500/500 val_loss:3.0 val_bpb:1.8000 train_time:5000ms step_avg:10.00ms",
        "ttt: step 3/9 loss:2.5 time:40ms",
        "gptq calibration step:7/8 loss:1.0 t:3ms",
    )
    assert (summary.steps, summary.train_seconds) == (500, 5.0)


def test_progress_is_reported_as_it_comes() -> None:
    parser = LogParser()
    assert parser.feed("warmup_step:1/20") is None
    train = parser.feed("step:200/20000 train_loss:2.7561 train_time:8711ms step_avg:43.55ms\n")
    assert train is not None
    assert (train.step, train.total_steps, train.train_loss_nats) == (200, 20000, 2.7561)
    assert (train.val_bpb, train.train_seconds, train.step_avg_ms) == (None, 8.711, 43.55)
    minutes = parser.feed("4000/20000 val_loss: 2.8722 val_bpb: 1.1119 train_time: 8.1m")
    assert minutes is not None
    assert (minutes.step, minutes.val_bpb) == (4000, 1.1119)
    assert minutes.train_seconds == pytest.approx(486.0)
    (bar,) = LogStream().feed(b"10%\rstep:7/9 val_loss:3.0 val_bpb:1.8\r99%")
    assert bar.step == 7


def test_lines_longer_than_any_dialect_are_passed_over_in_constant_memory(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    blob = b"val_bpb:1.0 " * 500_000
    path.write_bytes(blob + b"\nfinal_roundtrip val_loss:2.0 val_bpb:1.2000\n" + blob)
    summary = parse_log(path)
    assert summary.val_bpb == 1.2
    assert summary.unread_finals == ()


def test_empty_log_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_bytes(b"")
    assert parse_log(path) == LogSummary()


def streamed(data: bytes, cuts: list[int]) -> tuple[str, str]:
    """Reports and summary of a log that came in pieces, as text: NaN is not equal to itself."""
    stream = LogStream()
    ends = [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    reports = [
        report
        for start, end in itertools.pairwise([0, *ends])
        for report in stream.feed(data[start:end])
    ]
    last = stream.end(complete=True)
    return str([*reports, *([last] if last else [])]), str(stream.summary())


def line_by_line(data: bytes) -> tuple[str, str]:
    parser = LogParser()
    reports = [report for line in lines_of(data) if (report := parser.feed(line)) is not None]
    return str(reports), str(parser.summary())


CUTS = st.lists(st.integers(0, 1 << 20), max_size=30)


@pytest.mark.parametrize("path", sorted(LOGS.glob("*.log")), ids=lambda path: path.name)
@given(cuts=CUTS)
@settings(deadline=None, max_examples=15)
def test_pieces_of_a_log_say_what_its_lines_say(path: Path, cuts: list[int]) -> None:
    data = path.read_bytes()
    assert streamed(data, cuts) == line_by_line(data)


def test_no_score_of_a_flood_of_lines_is_lost_and_the_last_steps_count() -> None:
    steps = [f"step:{n}/9000 train_loss:{n}.5 train_time:{n}ms step_avg:1.0ms" for n in range(9000)]
    for n in range(0, 9000, 500):
        steps[n] = f"step:{n}/9000 val_loss:3.0 val_bpb:1.{n:04} train_time:{n}ms step_avg:1.0ms"
    stream = LogStream()
    reports = stream.feed("".join(f"{step}\n" for step in steps).encode())
    assert [r.step for r in reports if r.val_bpb is not None] == list(range(0, 9000, 500))
    kept = [report.step for report in reports if report.val_bpb is None]
    # Between two scores the first (it could be another run's) and the last.
    assert kept == [n for start in range(0, 9000, 500) for n in (start + 1, start + 499)]
    assert stream.summary() == summary_of(*steps)


def test_steps_that_come_together_are_all_reported() -> None:
    steps = "".join(f"step:{n}/99 train_loss:1.5 train_time:{n}ms\n" for n in range(100))
    assert [report.step for report in LogStream().feed(steps.encode())] == list(range(100))


FRAGMENTS = st.sampled_from(
    [
        *("step:", "1/2", " val_loss:", " val_bpb:", "nan", "1.5", "inf", "final_", "_exact"),
        *("bytes", "Total submission size", "Code size: ", "model_params:", "seed:", "\r"),
        *("\x1b[3", "=" * 100, "import os", "peak memory allocated: ", " MiB", "9" * 30, "1e400"),
        *("train_time:", "ms", "tok/s", "stopping_early: x train_time:", "budget:", "/"),
        *("[rank0]: ", "bpb", "params", "  ", "\u0663"),
        *("running_", "batch ", "bpb: 1.05", "def f(", "import re", '"""', "step:3/9 loss:2.5"),
        *("2.125 BPB", "| INFO | ", '"val_bpb": 1.1', "{", "|", "Seed: 4", "seed=4, lr=", "1,234"),
    ]
)


@given(
    st.lists(st.one_of(st.binary(), st.lists(FRAGMENTS).map(lambda p: "".join(p).encode()))), CUTS
)
@settings(deadline=None, max_examples=300)
def test_pieces_of_any_bytes_say_what_their_lines_say(lines: list[bytes], cuts: list[int]) -> None:
    data = b"\n".join(lines)
    assert streamed(data, cuts) == line_by_line(data)


@given(st.lists(st.one_of(st.text(), st.lists(FRAGMENTS).map("".join)), max_size=12))
@settings(deadline=None, max_examples=400)
def test_no_text_makes_it_raise(lines: list[str]) -> None:
    assert isinstance(summary_of(*lines), LogSummary)


@given(st.binary(max_size=2000))
@settings(deadline=None, max_examples=100)
def test_no_bytes_make_it_raise(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "train.log"
    path.write_bytes(data)
    assert isinstance(parse_log(path), LogSummary)


@given(
    step=st.integers(0, 10**6),
    total=st.integers(0, 10**6),
    loss=st.integers(0, 200_000),
    bpb=st.integers(0, 100_000),
    train_ms=st.integers(0, 10**8),
    average=st.integers(0, 10**7),
)
def test_parsing_inverts_formatting_of_validation_lines(
    step: int, total: int, loss: int, bpb: int, train_ms: int, average: int
) -> None:
    report = LogParser().feed(
        f"step:{step}/{total} val_loss:{loss / 1e4:.4f} val_bpb:{bpb / 1e4:.4f} "
        f"train_time:{train_ms}ms step_avg:{average / 100:.2f}ms"
    )
    assert report is not None
    assert (report.step, report.total_steps) == (step, total)
    assert (report.val_loss_nats, report.val_bpb) == (loss / 1e4, bpb / 1e4)
    assert report.train_seconds == pytest.approx(train_ms / 1000)
    assert report.step_avg_ms == average / 100


@given(
    code=st.integers(1, 10**9),
    model=st.integers(1, 10**10),
    params=st.integers(1, 10**12),
    seed=st.integers(0, 2**32),
    codec=st.sampled_from(
        ["int8+zlib", "int6+zstd-22", "mixed_int5_int6+brotli", "quantized+lzma"]
    ),
    bpb=st.integers(10**7, 10**9),
)
def test_parsing_inverts_formatting_of_the_closing_lines(
    code: int, model: int, params: int, seed: int, codec: str, bpb: int
) -> None:
    summary = summary_of(
        f"model_params:{params}",
        f"seed:{seed}",
        f"Serialized model: {4 * model} bytes",
        f"Code size: {code} bytes",
        f"Total submission size: {4 * model + code} bytes",
        f"Serialized model {codec}: {model} bytes (payload:1 raw_torch:2 payload_ratio:3.91x)",
        f"Total submission size {codec}: {model + code} bytes",
        f"final_{codec}_roundtrip_exact val_loss:2.00000000 val_bpb:{bpb / 1e8:.8f}",
    )
    assert (summary.model_params, summary.seed) == (params, seed)
    assert (summary.code_bytes, summary.model_bytes) == (code, model)
    assert summary.total_bytes == model + code
    assert summary.val_bpb == float(f"{bpb / 1e8:.8f}")


def test_a_smaller_export_is_the_result_and_the_first_is_kept_apart():
    lines = """\
step:20/20 val_loss:2.0000 val_bpb:1.2000 train_time:900ms step_avg:45.00ms
Code size: 50000 bytes
Serialized model int8+zlib: 260000 bytes (payload:1 raw:1 ratio:1.00x)
Total submission size int8+zlib: 310000 bytes
final_int8_zlib_roundtrip val_loss:2.0100 val_bpb:1.2100 eval_time:700ms
final_int8_zlib_roundtrip_exact val_loss:2.01000001 val_bpb:1.21000001
artifact:over_cap by:900 setting:EMBED_BITS=7
artifact:smaller_export setting:MLP_BITS=6,CODEC=lzma
Code size: 50000 bytes
Serialized model int6+lzma: 240000 bytes (payload:1 raw:1 ratio:1.00x)
Total submission size int6+lzma: 290000 bytes
final_int6_lzma_roundtrip val_loss:2.0200 val_bpb:1.2200 eval_time:800ms
final_int6_lzma_roundtrip_exact val_loss:2.02000002 val_bpb:1.22000002
"""
    parser = LogParser()
    for line in lines.splitlines():
        parser.feed(line)
    last = parser.summary()
    assert (last.val_bpb, last.total_bytes, last.model_bytes) == (1.22000002, 290_000, 240_000)
    assert last.finals == {"final_int6_lzma_roundtrip": 1.22000002}
    assert last.exported == {"MLP_BITS": "6", "CODEC": "lzma"}
    first = last.over_cap
    assert (first.val_bpb, first.total_bytes, first.model_bytes) == (1.21000001, 310_000, 260_000)
    assert (first.eval_seconds, last.eval_seconds) == pytest.approx((0.7, 0.8))
    assert first.steps == last.steps == 20
    assert first.over_cap is None


@pytest.mark.parametrize(
    ("lines", "code", "model", "total"),
    [
        (["Code size: 4961 bytes", "Serialized zstd-22: 79229 bytes  Total: 84190 bytes"],
         4961, 79229, 84190),
        (["Artifact: 79229 bytes, code: 4961 bytes, total: 84190 bytes"], 4961, 79229, 84190),
        (["model:79229 code:4961 total:84190 (0.08 MB)"], 4961, 79229, 84190),
        (["Code size: 4961 bytes", "Binary artifact: 79229 bytes (lzma) = 0.08MB",
          "Total submission size: 84190 bytes = 0.08MB"], 4961, 79229, 84190),
        (["q_int6+zstd19: artifact=79229 code=4961 total=84190 ratio=3.8x"], 4961, 79229, 84190),
        (["packed_blob_bytes:79229 code_bytes:4961 total:84190"], 4961, 79229, 84190),
        (["int6_brotli: 79,229 bytes | code: 4,961 | total: 84,190 (0.08MB)"], 4961, 79229, 84190),
        (["Model blob : 79229 bytes", "Submission size: 84190 bytes"], None, 79229, 84190),
        (["model_params:99000", "Serialized model: 396000 bytes  Code: 4961  Total: 400961"],
         4961, None, None),
        (["model_params:99000", "Serialized model: 79229 bytes", "Code size: 4961 bytes",
          "Total submission size: 84190 bytes"], 4961, 79229, 84190),
        (["Size check PASSED: 84190 / 16,000,000 (0.5%)"], None, None, 84190),
        (["total_submission_size_int8_zlib:84190 bytes"], None, None, 84190),
        (["FINAL_SUBMISSION_BYTES:84190"], None, None, 84190),
        (["bytes_code:    4961", "bytes_total:   84190  (limit 16000000)"], 4961, 79229, 84190),
        (["Size: 84190 bytes (limit: 16,000,000)"], None, None, 84190),
        (["total_bytes=151080891", "loaded_state_bytes=79229"], None, None, None),
        (["model_bytes=79229", "total_bytes=84190"], None, 79229, 84190),
        # What pruning could save is no size of what was written.
        (["submission_fit: target_bytes=90000 code_bytes=4961 quant_bytes=90229 total_bytes=95190",
          "submission_fit: +/-1_candidates=41123 full_prune_total_bytes=84190"],
         4961, 90229, 95190),
        (["batch 3/782 total_windows: 969088", "ttt_total_batches: 782/782 (expect 782)",
          "exit code: 1", "Total params: 17059912"], None, None, None),
    ],
)  # fmt: skip
def test_bytes_are_read_by_the_words_that_name_them(
    lines: list[str], code: int | None, model: int | None, total: int | None, tmp_path: Path
) -> None:
    summary = summary_of(*lines)
    assert (summary.code_bytes, summary.model_bytes, summary.total_bytes) == (code, model, total)
    path = tmp_path / "train.log"
    path.write_text("\n".join([*lines, ""]))
    assert parse_log(path) == summary


def test_raw_and_packed_code_are_told_apart() -> None:
    summary = summary_of(
        "Code size (uncompressed): 9000 bytes", "Code size (compressed): 3000 bytes"
    )
    assert (summary.code_bytes, summary.uncompressed_code_bytes) == (3000, 9000)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8"])
@given(cuts=CUTS)
@settings(deadline=None, max_examples=10)
def test_logs_of_a_windows_shell_are_read(encoding: str, cuts: list[int]) -> None:
    text = (LOGS / "baseline.log").read_text()
    data = ("\ufeff" + text).encode(encoding)
    assert streamed(data, cuts) == line_by_line(text.encode())


@pytest.mark.parametrize(
    "line",
    [
        "lr:embed=0.035 matrix=0.025 batch:786432 wall:600s seed:42",
        "max_wallclock_seconds:600.0 seed:42",
        "=== Seed 42 ===",
        "eval: stride=64 zstd=1 seed=42",
    ],
)
def test_seed_is_read_among_other_settings(line: str) -> None:
    assert summary_of(line).seed == 42
    assert summary_of(line, "seed:7").seed == 7


@pytest.mark.parametrize(
    "line",
    [
        "spinquant:baked seed:42 weights:5",
        "backbone_seed: 42",
        "x=1 hash_seed=42",
        "== Seed 42 of 9",
    ],
)
def test_seed_of_something_else_is_not_the_runs(line: str) -> None:
    assert summary_of(line).seed is None


@pytest.mark.parametrize("score", [0.157519, 0.0301, 12.5])
def test_scores_of_any_size_are_read(score: float) -> None:
    assert summary_of(f"ngram:done val_loss=0.3 val_bpb={score} elapsed=5.6s").val_bpb == score
    assert summary_of(f"bpb: {score}").unread_finals == (f"bpb: {score}",)


@pytest.mark.parametrize(
    "end", [["ttt:start", "Traceback (most recent call last):"], ["ttt_sliding:start chunks=3"]]
)
def test_diagnostic_of_a_run_that_died_before_its_end_is_no_final(end: list[str]) -> None:
    diagnostic = "diagnostic quantized val_loss:2.3565 val_bpb:1.0768 eval_time:51550ms"
    summary = summary_of(*TRAINED, diagnostic, *end)
    assert (summary.val_bpb, summary.val_loss_nats, summary.eval_seconds) == (None, None, None)
    assert summary.finals == {"diagnostic quantized": 1.0768}
    assert summary_of(*TRAINED, diagnostic).val_bpb == 1.0768
    assert summary_of(*TRAINED, FINAL, "Traceback (most recent call last):").val_bpb == 1.15
    assert summary_of(*TRAINED, FINAL, diagnostic).val_bpb == 1.15


LONG = (
    "model_params:1000",
    "step:9000/20000 train_loss:2.1 train_time:690000ms step_avg:69.00ms",
    "stopping_early: wallclock_cap train_time:690000ms step:9000/20000",
)


@pytest.mark.parametrize(
    "other",
    [
        "refit:step 600 loss=0.0174 t=56.4s",
        "[head] ep 12/20 step 48 loss=2.4783 elapsed=0.3s",
        "[head] step 48 loss=2.4783 elapsed=0.3s",
        "step:600/600 train_loss:0.0174 train_time:56400ms step_avg:9.00ms",
        "step:1/600 train_loss:0.0174 train_time:4ms step_avg:4.00ms",
        "swa pass: step 600 val_loss:2.1 val_bpb:1.1 t:5ms",
    ],
)
def test_steps_of_another_phase_hide_no_training(other: str, tmp_path: Path) -> None:
    summary = summary_of(*LONG, other, FINAL)
    assert (summary.steps, summary.train_seconds, summary.step_avg_ms) == (9000, 690.0, 69.0)
    path = tmp_path / "train.log"
    path.write_text("\n".join([*LONG, other, FINAL, ""]))
    assert parse_log(path) == summary


def test_training_that_begins_anew_before_its_cap_is_read_as_the_last() -> None:
    first = "step:90/100 train_loss:2.0 train_time:90ms"
    again = [
        "step:0/100 train_loss:3.0 train_time:0ms",
        "step:40/100 train_loss:2.0 train_time:44ms",
    ]
    summary = summary_of(first, *again)
    assert (summary.steps, summary.train_seconds) == (40, 0.044)

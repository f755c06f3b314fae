"""The page of a sweep at every size, and on terminals of all kinds."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.sweeps import SCRIPT, build_bench
from support.terminal import Background, Terminal, wait_for

from pgolf_sweep.cli.common import SafeConsole
from pgolf_sweep.cli.live import LEVELS, Page, fitting, line, sparkline
from pgolf_sweep.core.record import Posterior
from pgolf_sweep.core.trial import StepReport
from pgolf_sweep.driver.control import DriverLock
from pgolf_sweep.driver.snapshot import SweepState, status_document
from pgolf_sweep.workflows.launch_support import StatusFile
from pgolf_sweep.workflows.study_folder import prepare_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
KNOBS = {"MATRIX_LR": 0.0234, "MODEL_DIM": 512, "LR_SCHEDULE": "cosine"}
PAIRS = [f"{name}={value}" for name, value in KNOBS.items()]


def document(running: int = 3, **changes: Any) -> dict[str, Any]:
    """A sweep in the middle of its work."""
    trials = [
        {
            "number": 10 + i,
            "knobs": KNOBS,
            "node": f"h100-{i}.cluster.internal",
            "step": 1200 + i,
            "total_steps": 20_000,
            "val_bpb": 1.3456,
            "curve": [6.9, 3.0, 2.5, 2.3],
            "seconds_left": 312.0,
        }
        for i in range(running)
    ]
    ended = {"number": 4, "val_bpb": 1.1702, "headroom_bytes": 12_345, "knobs": KNOBS}
    return {
        "study": "night",
        "state": "running",
        "counts": {"running": running, "completed": 3, "pruned": 1, "failed": 0, "discarded": 12},
        "counted": 5,
        "run_cap": 24,
        "slots": 4,
        "nodes": [
            {"node": f"h100-{i}.cluster.internal", "state": "ready", "refusals": []}
            for i in range(3)
        ],
        "running": trials,
        "best": ended,
        "last": ended | {"outcome": "failed", "reason": "out of memory", "ended_at": 940.0},
        "began_at": 100.0,
        "seconds_left": 3600.0,
        "waiting": 2,
        "near": 1,
        "proposals": 1,
        "redrawn": 7,
        "held_seconds": 1800.0,
        "gpus": 8,
        "usd_per_gpu_hour": 2.5,
    } | changes


def drawn(
    found: dict[str, Any], width: int = 120, *, height: int | None = None, encoding: str = "utf-8"
) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    console = SafeConsole(file=file, width=width, highlight=False)
    posterior = Posterior(mean=1.171, low=1.1698, high=1.1722, tied=True)
    page = Page(found, varied=set(KNOBS), now=1000.0, posterior=posterior, height=height)
    console.print(page)
    return file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def test_page_says_health_best_progress_and_cost_at_once():
    text = " ".join(drawn(document()).split())
    for said in (
        "night: running",
        "5 of 24 trials, elapsed 15 min 00 s, about 1 h 00 min left",
        "4.00 GPU-hours, $10.00",
        "3 completed, 1 pruned, 0 failed, 12 discarded by the gate, 7 passed over",
        "trial 4: val_bpb 1.1702, by all scores 1.1710 (1.1698 to 1.1722), headroom 12,345 B",
        "trial 4, 1 min 00 s ago: failed: out of memory",
        "2 trials for a slot (1 near the cap), 1 proposal of people",
        "3 of 4 slots busy: h100-0 1, h100-1 1, h100-2 1",
        "10 h100-0 1200/20000 1.3456",
        "5 min 12 s",
    ):
        assert said in text, text


@given(st.integers(40, 200), st.integers(18, 60), st.integers(0, 80))
def test_no_line_is_too_long_no_pair_broken_and_no_page_too_high(width, height, running):
    text = drawn(document(running), width, height=height)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    if width >= 60:
        assert len(lines) <= height
        shown = [row for row in lines if re.match(r" *\d+ .*\d+/20000", row)]
        more = re.search(r"and (\d+) more", text)
        assert len(shown) + (int(more[1]) if more else 0) == running
    for piece in re.findall(r"\S*=\S*", text):
        assert piece in PAIRS, text
    for quantity in ("5 of 24", "15 min 00 s", "1 h 00 min", "12,345 B"):
        assert quantity in text, text


def test_terminal_without_our_signs_gets_plain_ones():
    assert drawn(document(), encoding="ascii").isascii()


def test_old_status_file_and_a_study_without_a_driver_are_shown():
    old = {"study": "old", "state": "finished", "counts": document()["counts"], "best": None}
    assert "old: finished" in drawn(old)
    page = Page(document(state="interrupted"), varied=set(), now=1000.0, alive=False)
    console = Console(file=io.StringIO(), width=120)
    console.print(page)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "about" not in text, "nobody works on it"
    assert "h100-0" not in text


def test_names_and_reasons_cannot_steer_the_terminal():
    evil = document(reason="\x1b[2J", study="night")
    evil["running"][0]["node"] = "\x1b]0;evil\x07"
    evil["last"]["reason"] = "\x1b[31mred"
    text = drawn(evil)
    assert "\x1b]" not in text
    assert "\x1b[2J" not in text
    assert "\x1b[31m" not in text


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([], ""),
        ([1.0], ""),
        ([1.0, 1.0], LEVELS[0] * 2),
        ([8.0, 1.0], LEVELS[-1] + LEVELS[0]),
        ([1.0, float("nan"), 8.0], LEVELS[0] + LEVELS[-1]),
        ([-1.0, 1.0], LEVELS[0] + LEVELS[-1]),
    ],
)
def test_sparkline(values, shown):
    assert sparkline(values) == shown


def test_long_curve_ends_with_its_last_point():
    assert sparkline([9.0] * 99 + [1.0])[-1] == LEVELS[0]


def test_only_whole_pairs_fit():
    assert fitting(PAIRS, 100) == " ".join(PAIRS)
    assert fitting(PAIRS, 33) == "MATRIX_LR=0.0234 MODEL_DIM=512 ..."[:33] or "..."
    assert fitting(PAIRS, 20) == "MATRIX_LR=0.0234 ..."
    assert fitting(PAIRS, 10) == ""


def test_one_line_for_a_file():
    assert line(document()).startswith("5 of 24 trials | 3 running | 3 completed, 1 pruned")


# -- what a driver says ----------------------------------------------------------------------------


def test_snapshot_has_what_the_page_shows(make_bench):
    bench = make_bench(run_cap=6)
    final = bench.driver(slots=2).run()
    seen = bench.watcher.snapshots
    assert (final.counted, final.waiting, final.proposals) == (6, 0, 0)
    assert final.last is not None
    assert final.last.ended_at == max(r.ended_at for r in bench.study().records() if r.ended_at)
    assert final.held_seconds == pytest.approx(final.trained_seconds)
    middle = next(shot for shot in seen if shot.running and shot.running[0].step == 200)
    assert middle.running[0].seconds_left == pytest.approx(10.0 / 3, abs=1.0)
    assert middle.held_seconds > middle.trained_seconds
    assert final.seconds_left is None


def test_curve_is_the_losses_until_there_are_validations(make_bench):
    bench = make_bench(run_cap=1)

    def slow(job):
        for step in range(1, 201):
            yield 1.0, StepReport(step=step, total_steps=200, train_loss_nats=7.0 - step / 100)
        yield from ()

    bench.driver(slots=1, simulate=slow).run()
    curve = next(s for s in bench.watcher.snapshots if s.running and s.running[0].step == 190)
    curve = curve.running[0].curve
    assert curve[0] == pytest.approx(6.99)
    assert len(curve) <= 33
    assert list(curve) == sorted(curve, reverse=True)


def test_sweep_that_has_proposed_its_last_says_when_it_ends(make_bench):
    bench = make_bench(method="grid", width="{values: [32, 64, 96]}", rate="{values: [0.02]}")
    bench.driver(slots=1).run()
    ending = [s for s in bench.watcher.snapshots if s.state is SweepState.FINISHED and s.running]
    assert ending
    assert all(shot.seconds_left is not None for shot in ending)
    text = drawn(status_document(ending[0]) | {"study": "grid"})
    assert "grid: ending (every point of the grid was proposed)" in text


# -- in a real terminal ----------------------------------------------------------------------------


@pytest.fixture
def driven(tmp_path) -> Iterator[Terminal]:
    """A terminal in a folder whose study somebody drives; two of its trials run."""
    bench = build_bench(tmp_path, run_cap=8)
    (tmp_path / "train_gpt.py").write_bytes(SCRIPT)
    prepare_folder(bench.session, bench.paths, sweep=tmp_path / "study.yaml", data_root=tmp_path)
    driver = bench.driver(slots=2)
    turns = driver.turns()
    while driver.snapshot().counted < 5:
        next(turns)
    shot = driver.snapshot()
    now = time.time() - bench.clock.now()
    running = [dataclasses.replace(r, started_at=r.started_at + now) for r in shot.running]
    StatusFile(bench.paths).write(dataclasses.replace(shot, running=running))
    with DriverLock(bench.paths), Terminal(tmp_path) as terminal:
        yield terminal


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (44, 12)])
def test_watch_fits_its_terminal_follows_its_size_and_quits_by_a_key(driven, size):
    seen = driven.start("watch", "study", tty=True, size=size)
    wait_for(lambda: "study: running" in seen.screen, of=seen)
    wait_for(lambda: "of 8 trials" in seen.screen, of=seen)
    rows = seen.screen.splitlines()
    assert rows[0] == "study: running"
    assert len(rows) <= size[1]
    seen.resize(70, 20)
    wait_for(lambda: seen.screen.count("study: running") == 1, of=seen)
    seen.type("q")
    assert seen.wait(20.0) == 0
    assert "study goes on" in seen.screen
    assert not (driven.study("study") / "request").exists()
    assert driven.run("status", "study", "--json").json()["state"] == "running"


def test_watch_ends_by_ctrl_c_and_leaves_the_sweep_alone(driven):
    seen = driven.start("watch", "study", tty=True, size=(80, 24))
    wait_for(lambda: "study: running" in seen.screen, of=seen)
    seen.type("\x03")
    assert seen.wait(20.0) == 130
    assert "Traceback" not in seen.said
    assert not (driven.study("study") / "request").exists()


WARNS = """
import logging
from pgolf_sweep.cli.common import out
from pgolf_sweep.cli.live import Page
from pgolf_sweep.cli.screen import Screen

logging.basicConfig(level=logging.WARNING, handlers=[logging.StreamHandler()])
with Screen(out) as screen:
    for number in range(4):
        page = Page({"study": "night", "state": f"turn {number}"}, varied=set(), now=0.0)
        screen.show(page, "")
        logging.getLogger().warning("warning %d", number)
        screen.say(f"event {number}")
"""


def test_warnings_and_events_stand_above_the_page(tmp_path):
    env = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    for name in ("COLUMNS", "LINES", "TERM"):
        env.pop(name, None)
    command = [sys.executable, "-c", WARNS]
    seen = Background(command, folder=tmp_path, env=env, tty=True, size=(60, 20))
    assert seen.wait(60.0) == 0
    lines = seen.screen.splitlines()
    seen.close()
    said = [f"{what} {number}" for number in range(4) for what in ("WARNING:root:warning", "event")]
    assert lines == [*said, "night: turn 3"]


def test_dumb_terminal_gets_lines_and_no_control_codes(driven):
    seen = driven.start("watch", "study", "--seconds", "0.2", tty=True, size=(80, 24), TERM="dumb")
    wait_for(lambda: "5 of 8 trials" in seen.said, of=seen)
    seen.type("q")
    assert seen.wait(20.0) == 0
    assert "\x1b" not in seen.said


def test_no_colour_means_none(driven):
    assert driven.environment()["NO_COLOR"]
    plain = driven.start("watch", "study", tty=True, size=(80, 24))
    wait_for(lambda: "study: running" in plain.screen, of=plain)
    plain.type("q")
    plain.wait(20.0)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", plain.said)

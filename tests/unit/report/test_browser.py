"""A real browser draws a study's page, wide and on a phone, in light and in dark."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.report.figures import figures
from pgolf_sweep.report.page import page
from pgolf_sweep.report.read import Status
from pgolf_sweep.report.story import Story

if TYPE_CHECKING:
    from pathlib import Path

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--virtual-time-budget=10000", "--enable-logging=stderr", "--v=0",
)  # fmt: skip
PROBE = """
<script>addEventListener("load", function () {
  var wide = document.documentElement.scrollWidth > innerWidth;
  var drawn = Array.from(document.querySelectorAll("figure > div"))
    .filter(function (one) { return one.querySelector("svg.main-svg"); }).length;
  var small = Array.from(document.querySelectorAll("svg text"))
    .filter(function (one) { return parseFloat(getComputedStyle(one).fontSize) < 9; }).length;
  document.title = JSON.stringify({wide: wide, drawn: drawn, small: small,
    script: "injected" in window});
});</script>
"""


def story() -> Story:
    records = [
        TrialRecord(
            number=n,
            outcome=State.COMPLETED,
            knobs={"WIDTH": 64 + 16 * (n % 5), "LR": 0.01 * 1.3**n, "ACT": f"a<b>{n % 2}"},
            val_bpb=2.6 - 0.01 * n,
            artifact_bytes=200_000 + 1000 * n,
            headroom_bytes=100_000 - 1000 * n,
            slot_seconds=30.0,
            started_at=100.0 + 30 * n,
            ended_at=130.0 + 30 * n,
            node="n0",
        )
        for n in range(14)
    ]
    injected = "<script>window.injected = 1</script><img src=x onerror='window.injected=1'>"
    status = Status(name=injected, state="finished", driver=None, records=records, last={})
    curves = {n: [3.0, 2.8, 2.6 - 0.01 * n] for n in range(14)}
    importance = {"LR": 0.7, "WIDTH": 0.3}
    return Story(status=status, cap_bytes=300_000, curves=curves, importance=importance)


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_chart_is_drawn_and_nothing_is_wider_than_the_window(
    tmp_path: Path, width: int, scheme: str
) -> None:
    text = page(story())
    # The probe is the test's own script: the page's policy has to let it in.
    text = text.replace("script-src ", "script-src 'unsafe-inline' ", 1)
    text = re.sub(r"'sha256-[^']+' ?", "", text).replace("</body>", f"{PROBE}</body>")
    (tmp_path / "page.html").write_text(text)
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    words = [
        str(BROWSER), *QUIET, *dark, f"--window-size={width},3000",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{tmp_path}/page.html",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title is not None, done.stderr[-2000:]
    seen = json.loads(title.group(1).replace("&amp;", "&"))
    expected = {"wide": False, "drawn": len(figures(story())), "small": 0, "script": False}
    assert seen == expected


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
def test_the_pages_own_policy_lets_its_charts_draw(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page(story()))
    words = [
        str(BROWSER), *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
        f"file://{tmp_path}/page.html",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.count('class="main-svg"') >= len(figures(story()))
    assert "Content Security Policy" not in done.stderr

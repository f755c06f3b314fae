"""The page of `launch` in a real terminal: it fits, follows the terminal's size, and stays true."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from support.terminal import wait_for

if TYPE_CHECKING:
    from support.terminal import Terminal

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def rows(page: str) -> list[str]:
    return [line for line in page.splitlines() if "/40 " in line]


def completed(page: str) -> int:
    said = re.search(r"(\d+) completed", page)
    return 0 if said is None else int(said[1])


def test_page_fits_follows_the_size_and_is_right_while_draining(terminal: Terminal) -> None:
    file = terminal.sweep(
        "live",
        run_cap=40,
        parameters={
            "ITERATIONS": {"value": 40},
            "STEP_SECONDS": {"value": 0.15},
            "NUM_LAYERS": {"values": [2, 3]},
        },
    )
    driver = terminal.start_launch(file, "--slots", "2", tty=True, size=(80, 24))
    pages: list[str] = []

    def has_all() -> bool:
        pages.append(driver.screen)
        return completed(pages[-1]) > 0 and len(rows(pages[-1])) == 2

    wait_for(has_all, 120.0, of=driver)
    page = pages[-1]
    assert max(map(len, page.splitlines())) <= 80
    assert page.count("live: running") == 1
    assert "of 40 trials, elapsed" in page
    assert "2 of 2 slots busy" in page
    for row in rows(page):
        assert "MATRIX_LR=" in row

    driver.resize(60, 20)
    wait_for(lambda: "live: running" in driver.screen, of=driver)
    wait_for(lambda: len(rows(driver.screen)) == 2, 60.0, of=driver)
    assert driver.screen.count("progress ") == 1
    seen = terminal.start("watch", "live", tty=True, size=(100, 30))
    wait_for(lambda: "live: running" in seen.screen, of=seen)

    before = completed(driver.screen)
    # The trial that begins then takes six seconds: the page has time to say that it drains.
    wait_for(lambda: completed(driver.screen) > before, 60.0, of=driver)
    driver.type("\x03")
    wait_for(lambda: "live: draining (stopped by the user)" in driver.screen, of=driver)
    assert driver.wait(60.0) == 130
    assert "ended: stopped by the user" in driver.said
    assert seen.wait(30.0) == 0
    assert "live: stopped" in seen.screen
    assert not rows(seen.screen)


def test_dumb_terminal_of_a_launch_gets_lines(terminal: Terminal) -> None:
    file = terminal.sweep("dumb", run_cap=2)
    driver = terminal.start_launch(file, tty=True, size=(80, 24), TERM="dumb")
    assert driver.wait(120.0) == 0
    assert "\x1b" not in driver.said
    assert "trial 0: val_bpb" in driver.said
    assert "ended: run_cap of 2 trials reached" in driver.said

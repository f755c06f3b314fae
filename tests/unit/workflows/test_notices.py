"""Notices reach a webhook and a command, and their failures touch nothing."""

from __future__ import annotations

import json
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from pgolf_sweep.config.types import NotifyBlock
from pgolf_sweep.core.events import (
    BestFound,
    BudgetSpent,
    NodeQuarantined,
    NodeReady,
    SweepEnded,
    TrialEnded,
)
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.workflows.notices import Notices, masked_webhook, notices_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLACE = "T000/B000/hunter2hunter2"


class Webhook:
    """A server that takes Slack's messages, or answers with an error, or late."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.status = 200
        self.held = threading.Event()
        self.held.set()
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.held.wait(60.0)
                webhook.got.append((self.path, self.headers["Content-Type"], json.loads(body)))
                self.send_response(webhook.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/{PLACE}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def texts(self) -> list[str]:
        return [document["text"] for _, _, document in self.got]


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    made = Webhook()
    yield made
    made.held.set()
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def notices(tmp_path) -> Callable[..., Notices]:
    def make(**block: Any) -> Notices:
        found = NotifyBlock(**block)
        return Notices(found, study="night", webhook=found.webhook, folder=tmp_path)

    return make


def best(number: int, reason: str = "") -> BestFound:
    record = TrialRecord(
        number=number, outcome=State.COMPLETED, knobs={}, val_bpb=1.25 - number / 100, reason=reason
    )
    return BestFound(record=record, metric="val_bpb")


END = SweepEnded(study="night", state="finished", reason="run_cap of 4 reached", completed=4)
QUARANTINE = NodeQuarantined(node="<!channel>", reason="R&D", retry_seconds=60.0)
BUDGET = BudgetSpent(reason="budget of 40 GPU-hours reached")


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_webhook_gets_what_slack_takes_and_nothing_else(webhook, notices, caplog):
    made = notices(webhook=webhook.url)
    made.event(TrialEnded(record=best(1).record))
    made.event(best(1))
    made.event(NodeReady(node="a"))
    made.event(QUARANTINE)
    made.event(BUDGET)
    made.event(END)
    made.close()
    assert webhook.texts == [
        "night: trial 1 is the best so far: val_bpb 1.2400",
        "night: node &lt;!channel&gt; is QUARANTINED: R&amp;D; it is tried again in 1 min",
        "night: the budget is spent: budget of 40 GPU-hours reached",
        "night: ended: run_cap of 4 reached",
    ]
    assert {(path, kind) for path, kind, _ in webhook.got} == {
        (f"/services/{PLACE}", "application/json")
    }
    assert warnings_of(caplog) == []


def test_only_what_is_asked_for_is_told(webhook, notices):
    made = notices(webhook=webhook.url, on=["finish"])
    for event in (best(1), QUARANTINE, BUDGET, END):
        made.event(event)
    made.close()
    assert webhook.texts == ["night: ended: run_cap of 4 reached"]


def test_slow_webhook_holds_nothing_up_and_gets_only_the_newest_best(webhook, notices):
    webhook.held.clear()
    made = notices(webhook=webhook.url)
    made.event(QUARANTINE)
    deadline = time.monotonic() + 10.0
    while made._waiting:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for number in range(50):
        made.event(best(number))  # returns at once, though nothing is answered
    assert webhook.got == []
    webhook.held.set()
    made.close()
    assert [text.split(":")[1] for text in webhook.texts[1:]] == [" trial 49 is the best so far"]


@pytest.mark.parametrize("dead", [True, False])
def test_failing_webhook_is_one_warning_without_its_secret(webhook, notices, caplog, dead):
    if dead:
        webhook.server.server_close()
    webhook.status = 404
    made = notices(webhook=webhook.url)
    for event in (best(1), END):
        made.event(event)
    made.close()
    (warning,) = warnings_of(caplog)
    assert "http://127.0.0.1/***" in warning
    assert ("HTTP 404" if not dead else "Error") in warning
    assert "hunter2" not in caplog.text


def test_command_is_told_by_its_environment_and_its_input(notices, tmp_path, caplog):
    made = notices(
        command='cat > event.json; echo "$PGOLF_EVENT|$PGOLF_STUDY|$PGOLF_NOTICE" > said'
    )
    made.event(best(3, reason="$(touch evil)"))
    made.close()
    assert (tmp_path / "said").read_text() == (
        "best|night|night: trial 3 is the best so far: val_bpb 1.2200\n"
    )
    document = json.loads((tmp_path / "event.json").read_text())
    assert (document["event"], document["trial"]["number"]) == ("best_found", 3)
    assert not (tmp_path / "evil").exists()
    assert warnings_of(caplog) == []


def test_failing_command_is_a_warning(notices, caplog):
    made = notices(command="exit 3")
    made.event(END)
    made.close()
    (warning,) = warnings_of(caplog)
    assert "command: exit code 3" in warning


def test_file_may_name_a_variable_for_the_url(make_bench, webhook, caplog):
    bench = make_bench()
    block = NotifyBlock(webhook="${HOOK}")
    object.__setattr__(bench.session.spec.pgolf, "notify", block)
    made = notices_of(bench.session, {"HOOK": webhook.url})
    made.event(END)
    made.close()
    assert len(webhook.got) == 1
    notices_of(bench.session, {}).close()
    notices_of(bench.session, {"HOOK": "hunter2"}).close()
    assert len(warnings_of(caplog)) == 2
    assert "hunter2" not in caplog.text


def test_what_cannot_be_told_is_refused_without_quoting_it():
    with pytest.raises(ValueError, match="must begin with https://") as caught:
        NotifyBlock(webhook="ftp://hunter2")
    assert "hunter2" not in str(caught.value.errors(include_input=False))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="finish"):
        NotifyBlock(on=["lunch"])


def test_masked_webhook():
    assert masked_webhook("https://user:pw@hooks.slack.com/services/T/B/x?y=z") == (
        "https://hooks.slack.com/***"
    )


def test_driver_says_its_best_and_its_end(make_bench):
    bench = make_bench(run_cap=6)
    bench.driver().run()
    found = [event for event in bench.watcher.events if isinstance(event, BestFound)]
    scores = [event.record.val_bpb for event in found]
    assert scores == sorted(scores, reverse=True)
    assert found[-1].record.number == bench.driver().run().best.number
    ended = [event for event in bench.watcher.events if isinstance(event, SweepEnded)]
    assert (ended[0].state, ended[0].completed) == ("finished", 6)
    assert "run_cap of 6" in ended[0].reason

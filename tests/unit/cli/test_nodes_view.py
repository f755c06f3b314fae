"""The view of nodes in trouble, and the exit code of a sweep that they end."""

from __future__ import annotations

import dataclasses

import pytest
from rich.console import Console

from pgolf_sweep.cli.live import Page
from pgolf_sweep.cli.study import status_page
from pgolf_sweep.core.errors import AnswerNoError, Finding, InfraError
from pgolf_sweep.core.paths import write_text
from pgolf_sweep.driver.snapshot import SweepState, status_document
from pgolf_sweep.nodes.quarantine import NodeRow, NodeStatus
from pgolf_sweep.report.read import study_status
from pgolf_sweep.workflows.launch import conclude
from pgolf_sweep.workflows.launch_support import StatusFile


def text_of(group):
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(group)
    return capture.get()


@pytest.fixture
def finished(make_bench):
    bench = make_bench(run_cap=2)
    write_text(bench.paths.sweep, bench.session.spec.text)
    final = bench.driver().run()
    refusal = Finding(
        what="GPU 3 is not free",
        where="h100-2",
        got="71234 MiB used by process 77 (python)",
        expected="at most 1024 MiB",
        next_step="on h100-2: end process 77",
    )
    nodes = (
        NodeRow(node="h100-0", state=NodeStatus.READY),
        NodeRow(
            node="h100-1",
            state=NodeStatus.QUARANTINED,
            reason="3 trials in a row failed there: exit code 1",
            retry_at=final.now + 250,
            failures=3,
        ),
        NodeRow(
            node="h100-2",
            state=NodeStatus.REFUSED,
            reason="GPU 3 is not free",
            retry_at=final.now + 60,
            refusals=(refusal,),
        ),
    )
    return bench, dataclasses.replace(final, nodes=nodes)


def test_live_view_lists_nodes_in_trouble_with_the_time_of_the_next_try(finished):
    _, final = finished
    said = text_of(Page(status_document(final), varied=set(), now=final.now))
    assert "h100-1 quarantined: 3 trials in a row failed there: exit code 1" in said
    assert "tried again in 4 min 10 s" in said
    assert "next: on h100-2: end process 77" in said
    assert "h100-0 ready" not in said


def test_status_lists_every_node_in_json_and_those_in_trouble_for_people(finished):
    bench, final = finished
    StatusFile(bench.paths).write(final)
    status = study_status(bench.paths)
    rows = {row["node"]: row for row in status.to_json()["nodes"]}
    assert rows["h100-1"]["state"] == "quarantined"
    assert rows["h100-1"]["retry_at"] == final.now + 250
    assert rows["h100-2"]["refusals"][0]["got"] == "71234 MiB used by process 77 (python)"
    assert rows["h100-0"]["state"] == "ready"
    said = text_of(status_page(status))
    assert "h100-1 quarantined" in said
    assert "h100-0" not in said


def test_end_without_a_node_is_infrastructure_and_one_without_a_chance_is_a_no(finished):
    bench, final = finished
    no_nodes = dataclasses.replace(final, state=SweepState.NO_HEALTHY_NODES, reason="no node could")
    with pytest.raises(InfraError, match="no node could") as error:
        conclude(no_nodes, bench.paths, "pgolf-sweep launch x.yaml", interrupted=False)
    assert error.value.exit_code == 3
    same_error = dataclasses.replace(
        final, state=SweepState.ABORTED_SAME_ERROR, reason="the first 10 trials"
    )
    assert same_error.best is not None
    with pytest.raises(AnswerNoError, match="the first 10 trials") as no:
        conclude(same_error, bench.paths, "pgolf-sweep launch x.yaml", interrupted=False)
    assert no.value.exit_code == 1
    assert "pgolf-sweep launch x.yaml" in str(no.value)


@pytest.mark.parametrize("content", ["", '{"state": "runn', "[]"])
def test_a_damaged_status_file_hides_nothing_and_stops_nobody(finished, content):
    bench, final = finished
    trials = study_status(bench.paths).to_json()["trials"]
    bench.paths.status.write_text(content)
    assert study_status(bench.paths).to_json()["trials"] == trials
    file = StatusFile(bench.paths)
    file.reopen()  # of a launch that resumes
    file.write(final)
    assert study_status(bench.paths).to_json()["nodes"]

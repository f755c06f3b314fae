"""A study's view in W&B, against a stand-in server."""

from __future__ import annotations

import json
import sys

import pytest
from support.sweeps import build_bench
from support.wandb_server import WandbServer

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.paths import write_text
from pgolf_sweep.track.view import save_view
from pgolf_sweep.workflows.tracking import save_study_view

KEY = "0" * 40


@pytest.fixture
def server(monkeypatch):
    with WandbServer() as made:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", made.url)
        yield made


def test_view_has_the_panels_that_matter_for_the_runs_of_the_study(server, tmp_path):
    bench = build_bench(tmp_path)
    write_text(bench.paths.sweep, bench.session.spec.text)
    address = save_study_view(bench.paths)
    assert address.startswith(f"{server.url}/e/pgolf-sweep?nw=")
    ((_, saved),) = [call for call in server.asked if call[0] == "UpsertView2"]
    assert (saved["displayName"], saved["projectName"]) == ("study (pgolf-sweep)", "pgolf-sweep")
    text = saved["spec"]
    sections = json.loads(text)["section"]["panelBankConfig"]["sections"]
    panels = {one["name"]: [panel["viewType"] for panel in one["panels"]] for one in sections}
    assert panels["Search"] == ["Parallel Coordinates Plot", "Parameter Importance"]
    assert {"Score", "Search", "Size", "Speed"} <= panels.keys()
    for said in ("config:MATRIX_LR.value", "config:MODEL_DIM.value", "summary:val_bpb", "val/bpb"):
        assert said in text
    assert "config:SEED" not in text, "it has one value"
    assert '"study"' in text, "the group"


def test_server_that_refuses_is_infrastructure(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "1")
    with pytest.raises(InfraError, match="does not take the view"):
        save_view(entity="e", project="p", study="s", knobs=["A"])


def test_missing_package_is_said_with_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(InputError, match="needs the package wandb-workspaces"):
        save_view(entity="e", project="p", study="s", knobs=[])


def test_no_key_is_the_users_mistake(tmp_path):
    bench = build_bench(tmp_path)
    write_text(bench.paths.sweep, bench.session.spec.text)
    with pytest.raises(InputError, match="API key"):
        save_study_view(bench.paths)

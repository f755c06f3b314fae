from __future__ import annotations

import pytest

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.track import node_environment, resolve_mode, run_id
from pgolf_sweep.track.mode import travelling_environment


@pytest.fixture
def netrc(tmp_path):
    def write(host: str) -> dict[str, str]:
        path = tmp_path / ".netrc"
        path.write_text(f"machine {host} login user password from-netrc\n")
        path.chmod(0o600)
        return {"HOME": str(tmp_path)}

    return write


def test_without_a_key_runs_are_offline_and_the_note_says_how_to_change_it(tmp_path):
    mode = resolve_mode(None, {"HOME": str(tmp_path)})
    assert mode.mode == "offline"
    assert mode.note is not None
    assert "wandb login" in mode.note


def test_a_key_in_the_environment_means_online(tmp_path):
    mode = resolve_mode(None, {"HOME": str(tmp_path), "WANDB_API_KEY": "k"})
    assert (mode.mode, mode.note) == ("online", None)


def test_a_key_in_netrc_counts_for_its_own_host_only(netrc):
    environ = netrc("api.wandb.ai")
    assert resolve_mode(None, environ).mode == "online"
    elsewhere = environ | {"WANDB_BASE_URL": "https://wandb.example.org"}
    assert resolve_mode(None, elsewhere).mode == "offline"


def test_broken_netrc_is_no_key(tmp_path):
    (tmp_path / ".netrc").write_text("machine\nmachine nonsense {{{")
    assert resolve_mode(None, {"HOME": str(tmp_path)}).mode == "offline"


def test_the_option_wins_over_the_environment(tmp_path):
    environ = {"HOME": str(tmp_path), "WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}
    assert resolve_mode(None, environ).mode == "disabled"
    assert resolve_mode("offline", environ).mode == "offline"
    assert resolve_mode(None, {"HOME": str(tmp_path), "WANDB_MODE": "dryrun"}).mode == "offline"


def test_online_without_a_key_is_refused_before_anything_is_spent(tmp_path):
    with pytest.raises(InputError) as caught:
        resolve_mode("online", {"HOME": str(tmp_path)})
    assert caught.value.next_step is not None
    assert "wandb login" in caught.value.next_step


def test_unknown_mode_is_refused(tmp_path):
    with pytest.raises(InputError) as caught:
        resolve_mode("sometimes", {"HOME": str(tmp_path)})
    assert caught.value.got == "sometimes"
    assert caught.value.where == "--wandb"


def test_nodes_get_the_key_only_online(netrc):
    environ = netrc("wandb.example.org") | {"WANDB_BASE_URL": "https://wandb.example.org", "X": "1"}
    assert node_environment(environ, "online") == {
        "WANDB_BASE_URL": "https://wandb.example.org",
        "WANDB_API_KEY": "from-netrc",
    }
    assert "WANDB_API_KEY" not in node_environment(environ, "offline")


def test_run_ids_are_stable_and_tell_studies_apart():
    assert run_id("demo", 12) == "demo-12"
    assert run_id("demo", 12, salt="a") == run_id("demo", 12, salt="a")
    ids = {
        run_id("demo", 12),
        run_id("demo", 12, salt="a"),
        run_id("demo", 12, salt="b"),
        run_id("a/b", 12),
        run_id("a:b", 12),
        run_id("a-b", 12),
    }
    assert len(ids) == 6
    assert all(set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for found in ids)
    assert len(run_id("x" * 300, 100_000)) < 100


def test_keys_travel_and_paths_of_this_host_do_not(netrc):
    environ = netrc("api.wandb.ai") | {
        "WANDB_ENTITY": "team",
        "WANDB_DIR": "/here",
        "WANDB_IDENTITY_TOKEN_FILE": "/here",
        "HF_TOKEN": "hub",
        "PATH": "/bin",
    }
    found = {"WANDB_API_KEY": "from-netrc", "WANDB_ENTITY": "team", "HF_TOKEN": "hub"}
    assert travelling_environment(environ) == found

"""A trial's way out: as a sweep file, as an environment, as the command that trains it here."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pgolf_sweep.config.rules import preset_names
from pgolf_sweep.config.sweep_file import parse_spec
from pgolf_sweep.core.kept import read_spec
from pgolf_sweep.core.paths import read_json
from pgolf_sweep.core.record import SCORE
from pgolf_sweep.driver.opening import reopen_session
from pgolf_sweep.driver.variants import Sessions
from pgolf_sweep.gate.store import USER
from pgolf_sweep.script.program import BUILTIN
from pgolf_sweep.variants.store import FILES, kept

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord

ONLY_OF_A_SEARCH = ("early_terminate", "description")
ONLY_OF_A_SEARCH_BLOCK = ("warm_start", "budget", "seed", "promote")


def rerun_yaml(paths: StudyPaths, record: TrialRecord) -> str:
    """A sweep file of one configuration, whose launch trains a trial again.

    Files that the study's sweep file names stand in it by their absolute path, so that it may lie
    anywhere on this machine.
    """
    document: dict[str, Any] = yaml.safe_load(paths.sweep.read_text())
    base = Path(read_json(paths.origin)["base"])
    for key in ONLY_OF_A_SEARCH:
        document.pop(key, None)
    document |= {
        "name": f"{paths.name}-trial-{record.number}",
        "method": "grid",
        "run_cap": 1,
        "parameters": {name: {"value": value} for name, value in record.knobs.items()},
    }
    if record.variant or document.get("program", BUILTIN) != BUILTIN:
        # As it ran, even if the script has changed since.
        document["program"] = str(_script(paths, record))
    block = document.get("pgolf") or {}
    for key in ONLY_OF_A_SEARCH_BLOCK:
        block.pop(key, None)
    if block.get("rules", "") not in {"", *preset_names()}:
        block["rules"] = str((base / block["rules"]).resolve())
    gate = block.get("gate")
    if isinstance(gate, dict):
        gate.pop("repair", None)
        if gate.get("calibration") not in {None, USER}:
            gate["calibration"] = str((base / gate["calibration"]).resolve())
    if block:
        document["pgolf"] = block
    score = "" if record.val_bpb is None else f", {record.metric or SCORE} {record.val_bpb:.4f}"
    text = f"# Trial {record.number} of {paths.name}{score}\n"
    text += yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=100)
    parse_spec(text, paths.sweep)
    return text


def rerun_env(paths: StudyPaths, record: TrialRecord) -> dict[str, str]:
    """The environment variables that a trial's script gets, without those of one attempt."""
    spec = read_spec(paths.trial(record.number))
    if spec is not None and isinstance(spec.get("env"), dict):
        env = {str(name): str(value) for name, value in spec["env"].items()}
    else:
        session = reopen_session(paths, need_data=False)
        session = Sessions(session, paths).of(record.variant)
        made = session.trial_spec(record.number, record.knobs, record.proposer, run_id="rerun")
        env = dict(made.env)
    return env | {"RUN_ID": f"{paths.name}-{record.number}"}


def _script(paths: StudyPaths, record: TrialRecord) -> Path:
    """The script that a trial ran, where the study keeps it."""
    if record.variant:
        folder, name = paths.variants / record.variant / FILES, kept(paths, record.variant).name
    else:
        folder, name = paths.program, str(read_json(paths.program / "program.json")["name"])
    return (folder / name).resolve()


def env_text(env: Mapping[str, str]) -> str:
    """A file to source."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(env.items()))


def rerun_command(paths: StudyPaths, record: TrialRecord) -> str:
    """The line that trains a trial on this machine, in a folder of its own."""
    session = reopen_session(paths, need_data=False)
    script = _script(paths, record)
    words = [f"{n}={shlex.quote(v)}" for n, v in sorted(rerun_env(paths, record).items())]
    ranks = max(1, session.resources.gpus)
    folder = f"rerun-{paths.name}-{record.number}"
    return (
        f"mkdir -p {folder} && cd {folder} && env {' '.join(words)} "
        f"torchrun --standalone --nproc_per_node={ranks} {shlex.quote(str(script))}"
    )

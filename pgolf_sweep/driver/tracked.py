"""What W&B gets of a study as a whole: figures while it runs, its files at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgolf_sweep.core.paths import write_text
from pgolf_sweep.core.record import SCORE
from pgolf_sweep.core.secrets import MASK
from pgolf_sweep.track.base import TrackedFiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgolf_sweep.config.types import SweepSpec
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.driver.snapshot import Snapshot


def metrics(snapshot: Snapshot) -> dict[str, float]:
    """What the study's summary run in W&B shows."""
    figures = {f"trials/{name}": float(count) for name, count in snapshot.counts.items()}
    figures["trials/passed_over"] = float(snapshot.redrawn)
    figures["slot_hours/trained"] = snapshot.trained_seconds / 3600
    figures["slot_hours/saved_by_gate"] = snapshot.saved_by_gate_seconds / 3600
    if snapshot.gpus:
        figures["gpu_hours"] = snapshot.trained_seconds * snapshot.gpus / 3600
        if snapshot.usd_per_gpu_hour is not None:
            figures["usd"] = figures["gpu_hours"] * snapshot.usd_per_gpu_hour
    best = snapshot.best
    if best is not None and best.val_bpb is not None:
        figures[f"best/{snapshot.metric or SCORE}"] = best.val_bpb
        figures["best/trial"] = float(best.number)
        if best.headroom_bytes is not None:
            figures["best/headroom_bytes"] = float(best.headroom_bytes)
    return figures


def study_config(spec: SweepSpec) -> dict[str, object]:
    """What was asked for, as the summary run's config."""
    space = {name: one.domain.describe() for name, one in spec.space.parameters.items()}
    return {
        "method": spec.method,
        "run_cap": spec.run_cap,
        "program": spec.program,
        "metric": spec.metric.name,
        "rules": spec.pgolf.rules,
        "gpus_per_trial": spec.pgolf.gpus,
        "space": space,
    }


def study_files(
    spec: SweepSpec, paths: StudyPaths, best: TrialRecord | None
) -> Iterator[TrackedFiles]:
    """The sweep file and the best trial's files, as far as they are on this machine."""
    sweep, webhook = paths.sweep, spec.pgolf.notify.webhook
    if webhook is not None and "://" in webhook:
        # Its path is a secret, and a team reads W&B's artifacts.
        sweep = paths.wandb / "sweep.yaml"
        write_text(sweep, spec.text.replace(webhook, f"https://{MASK}"))
    if sweep.is_file():
        yield TrackedFiles(name=f"{spec.name}-sweep", kind="sweep", files={"sweep.yaml": sweep})
    if best is None:
        return
    trial = paths.trial(best.number)
    files = [trial.spec, trial.log, trial.artifact(), *trial.root.glob("*.py")]
    kept = {path.name: path for path in files if path is not None and path.is_file()}
    if kept:
        metadata = {
            "trial": best.number,
            "val_bpb": best.val_bpb,
            "artifact_bytes": best.artifact_bytes,
            "headroom_bytes": best.headroom_bytes,
        }
        yield TrackedFiles(name=f"{spec.name}-best", kind="trial", files=kept, metadata=metadata)

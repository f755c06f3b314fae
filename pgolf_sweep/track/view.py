"""A view of a study in W&B with the panels that matter, made by code; needs wandb-workspaces."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InfraError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


def save_view(
    *, entity: str | None, project: str, study: str, knobs: Sequence[str], metric: str = "val_bpb"
) -> str:
    """Save a view of a study's runs: score, search, size, speed; a panel can be changed there.

    Args:
        entity: W&B entity that owns the project; None for the key's default.
        project: W&B project of the study's runs.
        study: The study's name, which is the group of its runs.
        knobs: Parameters that the sweep varies.
        metric: What it optimises.

    Returns:
        The view's address.

    Raises:
        InputError: wandb-workspaces is not installed.
        InfraError: W&B does not take the view.
    """
    try:
        with warnings.catch_warnings():
            # It is written for pydantic 1, which pydantic 2 warns of.
            warnings.simplefilter("ignore", DeprecationWarning)
            import wandb_workspaces.reports.v2 as wr  # noqa: PLC0415 - optional
            import wandb_workspaces.workspaces as ws  # noqa: PLC0415
            from wandb_workspaces import expr  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            "a view in W&B needs the package wandb-workspaces",
            got=str(error),
            next_step="pip install 'pgolf-sweep[views]'",
        ) from error
    from pgolf_sweep.track.wandb_run import default_entity  # noqa: PLC0415

    view = ws.Workspace(
        entity=entity or default_entity(),
        project=project,
        name=f"{study} (pgolf-sweep)",
        sections=[
            ws.Section(name=name, panels=panels, is_open=True)
            for name, panels in _sections(wr, knobs, metric).items()
        ],
        runset_settings=ws.RunsetSettings(
            filters=expr.And(ws.Metric("Group") == study),
            order=[ws.Ordering(ws.Summary(metric), ascending=True)],
        ),
    )
    try:
        saved: Any = view
        return str(saved.save().url)
    except Exception as error:  # the package raises what its transport does
        raise InfraError(
            "W&B does not take the view",
            where=f"{entity}/{project}",
            got=str(error).partition("\n")[0][:200],
            next_step="`wandb login`, and see that the entity may write to the project",
        ) from error


def _sections(wr: Any, knobs: Sequence[str], metric: str) -> dict[str, list[Any]]:
    """Panels by section."""
    curve = "val/bpb" if metric == "val_bpb" else metric
    columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(name)) for name in knobs]
    columns.append(wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(metric)))
    return {
        "Score": [
            wr.LinePlot(title="validation", x="step", y=[curve]),
            wr.LinePlot(title="training loss", x="step", y=["train/loss_nats"]),
            wr.BarPlot(title="final score", metrics=[metric]),
        ],
        "Search": [
            wr.ParallelCoordinatesPlot(columns=columns),
            wr.ParameterImportancePlot(with_respect_to=metric),
        ],
        "Size": [
            wr.ScatterPlot(title="score against bytes", x="artifact_bytes", y=metric),
            wr.ScatterPlot(
                title="predicted against measured bytes",
                x=wr.Config("predicted_bytes"),
                y="artifact_bytes",
            ),
            wr.BarPlot(title="headroom", metrics=["headroom_bytes"]),
        ],
        "Speed": [
            wr.LinePlot(title="tokens a second", x="step", y=["tokens_per_second"]),
            wr.LinePlot(title="time of a step", x="step", y=["step_avg_ms"]),
        ],
    }

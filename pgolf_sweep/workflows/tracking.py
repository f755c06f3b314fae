"""How a study's runs appear in W&B."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgolf_sweep.config.sweep_file import load_spec
from pgolf_sweep.core.paths import StudyPaths, read_json
from pgolf_sweep.track.base import RunTracking
from pgolf_sweep.track.mode import node_environment, resolve_mode, run_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.config.types import SweepSpec
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.track.mode import ResolvedMode


PROJECT = "pgolf-sweep"
"""W&B project where the sweep file names none."""


BATCH_KNOB = "TRAIN_BATCH_TOKENS"
"""Where the contest's scripts read the tokens of a step."""


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """How a study's trials appear in W&B.

    Attributes:
        salt: What tells this study from an earlier one of its name.
    """

    mode: ResolvedMode
    session: Session
    salt: str

    def of(self, record: TrialRecord) -> RunTracking | None:
        """Settings of one trial's run; None where W&B is disabled."""
        predicted = record.predicted_bytes
        return self.run(
            key=str(record.number),
            config={
                **self._defaults(),
                **record.knobs,
                **self.session.instead(record.knobs, record.rung),
                **({} if record.rung is None else {"rung": record.rung}),
                "trial": record.number,
                "proposer": record.proposer,
                "predicted_bytes": None if predicted is None else round(predicted.mid),
                "model_params": record.model_params,
            },
            tags=(record.proposer, *(() if record.rung is None else (f"rung {record.rung}",))),
        )

    def run(
        self, *, key: str, config: Mapping[str, Any], tags: tuple[str, ...] = ()
    ) -> RunTracking | None:
        """Settings of any run of the study, named by its key."""
        if self.mode.mode == "disabled":
            return None
        spec = self.session.spec
        return RunTracking(
            mode=self.mode.mode,
            project=self.project,
            entity=spec.entity or os.environ.get("WANDB_ENTITY") or None,
            group=spec.name,
            run_id=run_id(spec.name, key, salt=self.salt),
            name=f"{spec.name}-{key}",
            config=config,
            cap_bytes=self.session.rules.artifact_cap_bytes,
            tags=tags,
            metric="" if spec.metric.contest else spec.metric.name,
            bytes_per_token=self.session.bytes_per_token,
            batch_tokens=_whole(config.get(BATCH_KNOB)),
            env=node_environment(os.environ, self.mode.mode),
        )

    def _defaults(self) -> dict[str, KnobValue]:
        """What the program reads where nobody says otherwise, so that runs can be compared."""
        knobs = self.session.program.knobs.values()
        return {knob.name: knob.default for knob in knobs if knob.default is not None}

    @property
    def project(self) -> str:
        """W&B project of the study."""
        return project_of(self.session.spec)


def project_of(spec: SweepSpec) -> str:
    """W&B project of a sweep."""
    return spec.project or os.environ.get("WANDB_PROJECT") or PROJECT


def save_study_view(paths: StudyPaths) -> str:
    """Save a view of a study's runs in W&B; its address.

    Raises:
        InputError: There is no key, or wandb-workspaces is not installed.
        InfraError: W&B does not take it.
    """
    from pgolf_sweep.track.view import save_view  # noqa: PLC0415 - wandb

    resolve_mode("online", os.environ)
    spec = load_spec(paths.sweep)
    return save_view(
        entity=spec.entity or os.environ.get("WANDB_ENTITY") or None,
        project=project_of(spec),
        study=paths.name,
        knobs=[one.name for one in spec.space.parameters.values() if one.searched],
        metric=spec.metric.name,
    )


def make_tracking(session: Session, paths: StudyPaths, mode: ResolvedMode) -> Tracking:
    """How the trials of a study that was launched appear in W&B."""
    return Tracking(mode=mode, session=session, salt=str(read_json(paths.origin)["created_at"]))

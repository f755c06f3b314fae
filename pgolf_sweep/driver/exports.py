"""One training, two artifacts: over the cap as configured, and the smaller one that followed.

The first is the trial's own result, over the cap as measured. The second is another configuration,
and so a trial of its own (`export_of: 7`), which took no slot: the weights are the same.
"""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from pgolf_sweep.core.classify import classify
from pgolf_sweep.core.paths import on_disk, write_bytes, write_json
from pgolf_sweep.core.record import TrialRecord
from pgolf_sweep.core.trial import Completed, EndCause
from pgolf_sweep.search.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.trial import KnobValue, RunEnd
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.search.study import Study


def split_export(end: RunEnd) -> tuple[RunEnd, RunEnd | None]:
    """A run's end as that of its configured artifact, and that of the smaller one, if any.

    What was exported first was scored before the second was begun: however the run ended after
    that, the first has its result.
    """
    first = end.summary.over_cap
    if first is None:
        return end, None
    own = dataclasses.replace(
        end,
        cause=EndCause.EXITED,
        exit_code=0,
        detail="",
        summary=first,
        model_file_bytes=None,
    )
    return own, end


def exported(
    record: TrialRecord, end: RunEnd, defaults: Mapping[str, KnobValue], *, cap_bytes: int
) -> TrialRecord | None:
    """The row of the smaller artifact, still without a number; None where it has no score.

    Args:
        record: The row of the trial that trained it.
        end: The run's end, as it stands after the last export.
        defaults: The program's own values, for the types of its knobs.
        cap_bytes: The rules' limit.
    """
    outcome = classify(end, last_val_bpb=None, last_step=None)
    if not isinstance(outcome, Completed):
        return None
    try:
        changes = {name: _read(text, defaults[name]) for name, text in end.summary.exported.items()}
    except (KeyError, ValueError):
        return None  # no setting of ours
    row = TrialRecord(
        number=-1,
        outcome=record.outcome,
        knobs={**record.knobs, **changes},
        model_params=record.model_params,
        code_bytes=record.code_bytes,
        proposer=Origin.export(record.number).proposer,
        export_of=record.number,
        **dataclasses.asdict(record.change),
    )
    ended = row.ended(outcome, end, cap_bytes=cap_bytes)
    reason = f"the weights of trial {record.number}, stored smaller"
    return dataclasses.replace(ended, slot_seconds=0.0, reason=reason)


def register_export(
    row: TrialRecord, of: TrialRecord, study: Study, session: Session, paths: StudyPaths
) -> TrialRecord:
    """The row with its number in the study, its folder written; doing it again changes nothing.

    The folder gets the program, the run's log and the artifact, which leaves the folder of the
    trial that trained it. The sampler sees the trained trial's value of a knob where the space
    does not hold the exported one.

    Args:
        row: The smaller artifact's row.
        of: The row of the trial that trained it.
        study: Gets a running trial.
        session: The sweep.
        paths: The study's folder.
    """
    point = {}
    for name, parameter in session.spec.space.parameters.items():
        if name in of.knobs:
            point[name] = of.knobs[name]
            with suppress(ValueError):
                parameter.domain.encode(row.knobs[name])
                point[name] = row.knobs[name]
    number = study.begin_once(point, Origin.export(of.number, of.change))
    run_id = f"{study.name}-{number}"
    spec = session.trial_spec(number, row.knobs, row.proposer, run_id=run_id)
    row = dataclasses.replace(row, number=number, identity=spec.identity)
    trained, folder = paths.trial(of.number), paths.trial(number)
    if folder.result.is_file():
        return row
    write_json(
        folder.spec, dataclasses.asdict(spec) | {"export_of": of.number} | of.change.to_json()
    )
    for name, content in session.program.files.items():
        write_bytes(folder.root / name, content)
    with on_disk(folder.root):
        with suppress(FileNotFoundError):
            shutil.copyfile(trained.log, folder.log)
        artifact = trained.artifact()
        if artifact is not None:
            artifact.replace(folder.root / artifact.name)
    write_json(folder.result, {"record": row.to_json()})
    return row


def _read(text: str, default: KnobValue) -> KnobValue:
    """A knob's value as the script printed it."""
    if isinstance(default, bool):
        return bool(int(text))
    return type(default)(text) if isinstance(default, int | float) else text

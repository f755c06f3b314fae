"""`gate --measure`: the real script for a few steps on this machine, for its export's true bytes.

A run by the same worker that trials have, without a cluster. Its steps, warm-ups and validations
are few, where the script reads a knob for them; it ends once its log has said how large the
artifact is.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.classify import artifact_bytes, classify, infrastructure_failure
from pgolf_sweep.core.errors import DataError, InfraError, InputError
from pgolf_sweep.core.trial import EndCause, Failed, Limits, Resources, TrialSpec, knob_text
from pgolf_sweep.gate.store import measured
from pgolf_sweep.launch.node.run import BEGINNING, RunOrder
from pgolf_sweep.launch.node.worker import Worker
from pgolf_sweep.nodes.check import usable_gpus
from pgolf_sweep.script.knobs.knobs import STEP_KNOBS, worded
from pgolf_sweep.script.logs.stream import LogStream

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pgolf_sweep.core.trial import Interval, KnobValue, RunEnd
    from pgolf_sweep.data import DataSet
    from pgolf_sweep.gate.predictor import ProgramLike
    from pgolf_sweep.gate.store import Measured
    from pgolf_sweep.script.program import Program

STEPS = 4
"""Of the training: enough that every optimizer, average and schedule has moved."""
WALLCLOCK_SECONDS = 30
MOST_SECONDS = 900.0
"""Of the whole run: a script that reads no knob for its length trains for ten minutes."""
TOTAL_SECONDS = 5.0
"""From the line with the model's bytes to that with the artifact's, where a script prints both."""
SEQUENCES = 8
"""Of a step on a CPU, where the size of a batch does not matter and its time does."""
_NEEDS_GPU = re.compile(r"cuda|nvidia|\bgpu|triton|nccl", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """What a few steps of the real script came to.

    Attributes:
        knobs: The configuration that ran, with what kept it short.
        model_bytes: Of the compressed model.
        artifact_bytes: With the code, as the log or the disk say; None where neither does.
        code_bytes: As the log says.
        model_params: As the log says.
        steps: That it made, where the log says.
        train_seconds: Of them.
        seconds: Of the whole run.
        gpus: That it ran on; 0 is a CPU.
        host: The machine.
    """

    knobs: Mapping[str, KnobValue]
    model_bytes: int
    artifact_bytes: int | None
    code_bytes: int | None
    model_params: int | None
    steps: int | None
    train_seconds: float | None
    seconds: float
    gpus: int
    host: str

    @property
    def as_ran(self) -> dict[str, KnobValue]:
        """Its knobs, the steps being those that it made."""
        made = {} if self.steps is None else dict.fromkeys(STEP_KNOBS, self.steps)
        return {**self.knobs, **{n: steps for n, steps in made.items() if n in self.knobs}}

    def stored(self, program: ProgramLike) -> Measured:
        """The run as a store keeps it."""
        return measured(
            program,
            self.knobs,
            self.model_bytes,
            f"gate --measure on {self.host}",
            steps=self.steps,
            train_seconds=self.train_seconds,
            model_params=self.model_params,
            code_bytes=self.code_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A measured run beside its prediction.

    Attributes:
        run: The run.
        predicted: Model bytes that the gate expected of as many steps; None where it knew nothing.
    """

    run: MeasuredRun
    predicted: Interval | None

    @property
    def error_percent(self) -> float | None:
        """Predicted over measured bytes, less one, in percent."""
        if self.predicted is None:
            return None
        return 100 * (self.predicted.mid / self.run.model_bytes - 1)

    def to_json(self) -> dict[str, Any]:
        """The key ``measured`` of ``gate --json``."""
        known = self.predicted
        rounded = None if known is None else {
            name: round(getattr(known, name)) for name in ("low", "mid", "high")
        }  # fmt: skip
        error = self.error_percent
        return asdict(self.run) | {
            "predicted_bytes": rounded,
            "error_percent": None if error is None else round(error, 3),
        }


def measure(
    program: Program,
    knobs: Mapping[str, KnobValue],
    *,
    given: Mapping[str, KnobValue],
    dataset: DataSet | None,
    gpus: int,
    data_root: Path,
) -> MeasuredRun:
    """Run a program for a few steps and read its artifact's bytes.

    Args:
        program: What runs.
        knobs: Its configuration.
        given: Of these, what the user asked for and nothing shortens.
        dataset: What it trains on; None for one below `data_root` that has its vocabulary, or
            what the environment names.
        gpus: Most GPUs to use; 0 for the CPU.
        data_root: Folder of datasets and tokenizers.

    Raises:
        InputError: The script ends before it has exported, or there is no data for it.
        InfraError: The script needs a GPU that is not here, or this machine cannot run it.
    """
    here = min(gpus, usable_gpus())
    values = {**knobs, **_short(program, knobs, on_cpu=not here), **given}
    data = dataset or _data_for(program, values, data_root)
    env = {name: knob_text(value) for name, value in worded(values, program.knobs).items()}
    env |= {} if data is None else data.env()
    if not here:
        env["TORCHDYNAMO_DISABLE"] = "1"  # to compile for a CPU takes longer than a few steps
    spec = TrialSpec(
        study="measure",
        number=0,
        knobs=values,
        env=env | {"RUN_ID": "measure"},
        program_name=program.name,
        program_sha256=program.sha256,
        resources=Resources(gpus=here, cpus=float(os.cpu_count() or 1)),
        limits=Limits(total_seconds=MOST_SECONDS, silent_seconds=MOST_SECONDS),
        proposer="gate --measure",
    )
    host = os.uname().nodename
    end = _run(RunOrder(run="measure", node=host, spec=spec, files=program.files))
    summary = end.summary
    model_bytes = summary.model_bytes or end.model_file_bytes
    if not model_bytes:
        raise _failure(end, program, gpus=here)
    return MeasuredRun(
        knobs=values,
        model_bytes=model_bytes,
        artifact_bytes=artifact_bytes(end),
        code_bytes=summary.code_bytes,
        model_params=summary.model_params,
        steps=summary.steps,
        train_seconds=summary.train_seconds,
        seconds=end.slot_seconds,
        gpus=here,
        host=host,
    )


def _short(
    program: ProgramLike, knobs: Mapping[str, KnobValue], *, on_cpu: bool
) -> dict[str, KnobValue]:
    """Values that keep a run short, of the knobs that a program reads."""
    defaults = {name: knob.default for name, knob in program.knobs.items()}
    values = {**defaults, **knobs}
    wanted: dict[str, KnobValue] = {
        **dict.fromkeys(STEP_KNOBS, STEPS),
        "MAX_WALLCLOCK_SECONDS": WALLCLOCK_SECONDS,
        "VAL_LOSS_EVERY": 0,
        "TRAIN_LOG_EVERY": 1,
    }
    if on_cpu:
        length = values.get("TRAIN_SEQ_LEN")
        tokens = SEQUENCES * length if isinstance(length, int) else None
        wanted |= {"WARMUP_STEPS": 0, "TRAIN_BATCH_TOKENS": tokens, "VAL_BATCH_SIZE": tokens}
    return {
        name: _at_most(value, values[name])
        for name, value in wanted.items()
        if name in program.knobs and value is not None
    }


def _at_most(value: KnobValue, before: KnobValue) -> KnobValue:
    """A limit, unless what it limits is lower: 0 is no limit of a wallclock."""
    numbers = isinstance(value, int | float) and isinstance(before, int | float)
    return before if numbers and 0 < float(str(before)) < float(str(value)) else value


def _data_for(
    program: ProgramLike, values: Mapping[str, KnobValue], data_root: Path
) -> DataSet | None:
    """The data set below a folder with a configuration's vocabulary.

    Raises:
        DataError: Our trainer has none; another script may have data of its own.
    """
    from pgolf_sweep.data import present  # noqa: PLC0415 - next to its use

    if "DATA_PATH" in os.environ or "VOCAB_SIZE" not in program.knobs:
        return None
    size = values.get("VOCAB_SIZE", program.knobs["VOCAB_SIZE"].default)
    sets = present(data_root)
    found = next((one for one in sets if one.vocab_size == size), None)
    if found is None and program.builtin:
        raise DataError(
            f"no data set with a vocabulary of {size} is here",
            where=str(data_root / "datasets"),
            got=", ".join(one.name for one in sets) or "none",
            next_step="--set VOCAB_SIZE=N names that of another, or: pgolf-sweep data demo",
        )
    return found


def _run(order: RunOrder) -> RunEnd:
    """A run of this machine until its artifact's bytes are known, or its end."""
    worker, stream, cursor = Worker(), LogStream(), BEGINNING
    known_at: float | None = None
    try:
        worker.start(order)
        while True:
            progress = worker.poll(order.run, cursor, 1.0)
            cursor = progress.cursor
            stream.feed(progress.log)
            if progress.end is not None:
                return progress.end
            summary, now = stream.summary(), time.monotonic()
            if summary.model_bytes and known_at is None:
                known_at = now
            waited = known_at is not None and now - known_at > TOTAL_SECONDS
            if summary.model_bytes and (summary.total_bytes or waited):
                worker.cancel(order.run, "its artifact is measured")
    finally:
        worker.close()


def _failure(end: RunEnd, program: ProgramLike, *, gpus: int) -> InputError | InfraError:
    """Why a run has left no artifact."""
    outcome = classify(end, last_val_bpb=None, last_step=None)
    said = outcome.reason if isinstance(outcome, Failed) else "it printed no size"
    text = "\n".join((said, *end.log_tail))
    if not gpus and _NEEDS_GPU.search(text):
        return InfraError(
            "the script needs a GPU, and this machine has none that may be used",
            where=end.node,
            got=said,
            next_step="run the same command on a machine with a GPU; without --measure the gate "
            "needs none",
        )
    if infrastructure_failure(end) is not None:
        return InfraError("the run was lost", where=end.node, got=said)
    knobs = [name for name in (*STEP_KNOBS, "MAX_WALLCLOCK_SECONDS") if name in program.knobs]
    reads = f"it reads {', '.join(knobs)}" if knobs else "it reads no knob for its steps"
    late = end.cause is EndCause.TIMEOUT
    return InputError(
        "the script's run told no size of an artifact",
        where=f"{end.node}, {end.slot_seconds:.0f} s" + (f"; {reads}" if late else ""),
        got=said,
        expected="a line such as 'Serialized model int8+zlib: 15815847 bytes', or a final_model "
        "file",
    )

"""The sweep file as pydantic models: W&B's sweep schema plus one ``pgolf:`` block.

One model a block, one docstring a key. The reader (`blocks`), the JSON schema (`schema`) and
docs/sweep_file.md come from here. What one key alone can get wrong is checked here; what several
keys contradict is checked in `blocks` and `sweep_file`.

Source of W&B's keys: schema.json of the package `sweeps` 0.3.0, which W&B's server applies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

from pgolf_sweep.config.model_base import (
    AnyList,
    AnyValue,
    Block,
    Count,
    Number,
    Text,
)
from pgolf_sweep.config.pgolf_model import PgolfModel

if TYPE_CHECKING:
    from collections.abc import Mapping

Method = Literal["grid", "random", "bayes", "tpe", "gp", "cmaes", "qmc"]
Distribution = Literal[
    "constant",
    "categorical",
    "categorical_w_probabilities",
    "int_uniform",
    "uniform",
    "q_uniform",
    "log_uniform",
    "log_uniform_values",
    "q_log_uniform",
    "q_log_uniform_values",
    "inv_log_uniform",
    "inv_log_uniform_values",
    "normal",
    "q_normal",
    "log_normal",
    "q_log_normal",
    "beta",
    "q_beta",
]

METRIC_SPELLINGS = frozenset(
    {"val_bpb", "eval_bpb", "valid_bpb", "validation_bpb", "final_val_bpb", "bpb"}
)
"""Names of the contest's score, in lower case, with ``_`` for all that is no letter or digit."""


class ParameterBlock(BaseModel):
    """One parameter: a value, values, or a distribution with its own keys."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    value: AnyValue = Field(default=None, examples=[512])
    """A constant: a number, true or false, text, null, a list or a mapping."""
    values: AnyList = Field(default=None, examples=[["linear", "cosine", "wsd"]])
    """A list of values of any kind. A value that stands twice is twice as likely."""
    probabilities: AnyList = Field(default=None, examples=[[0.5, 0.25, 0.25]])
    """A probability for each of `values`; they sum to 1."""
    distribution: Distribution | None = Field(default=None, examples=["log_uniform_values"])
    """How values are drawn. Without it `value` is a constant, `values` a choice, and `min` with
    `max` an int_uniform between whole numbers, a uniform between others."""
    min: Number | None = Field(default=None, examples=[0.015])
    """Lower bound; a natural exponent for log_uniform, q_log_uniform and inv_log_uniform."""
    max: Number | None = Field(default=None, examples=[0.08])
    """Upper bound, possible like the lower one."""
    q: Number | None = Field(default=None, examples=[64])
    """Values are multiples of it (q_ distributions); 1 if absent."""
    mu: Number | None = Field(default=None, examples=[0.0])
    """Mean of a normal, or of the logarithm of a log_normal; 0 if absent."""
    sigma: Number | None = Field(default=None, examples=[1.0])
    """Standard deviation of the same; 1 if absent, 0 makes a constant."""
    a: Number | None = Field(default=None, examples=[1.0])
    """First shape of a beta; 1 if absent."""
    b: Number | None = Field(default=None, examples=[1.0])
    """Second shape of a beta; 1 if absent."""
    parameters: dict[str, ParameterBlock] | None = Field(
        default=None, examples=[{"depth": {"values": [2, 4]}}]
    )
    """Parameters inside this one: the program gets one mapping, as from W&B."""
    when: dict[str, AnyValue] | None = Field(default=None, examples=[{"LR_SCHEDULE": "cosine"}])
    """Other parameters and the value, or list of values, under which this one exists."""


class MetricBlock(Block):
    """What is optimised."""

    name: Text = Field(default="val_bpb", examples=["val_loss"])
    """Name under which the program logs it. `val_bpb`, `val/bpb` and `eval/bpb` are the contest's
    score; any other is read from log lines and from `wandb.log`."""
    goal: Literal["minimize", "maximize"] = "minimize"
    """Whether low or high is good; the contest's score is minimised."""
    target: float | None = Field(default=None, examples=[1.2])
    """The sweep starts no further trial once one has reached it."""
    impute: Literal["latest", "best", "worst"] | None = Field(default=None, examples=["worst"])
    """Score that a failed trial gets in the sampler's eyes. Without it, as in Optuna, none."""
    impute_while_running: Literal["latest", "best", "worst", "false"] | None = Field(
        default=None, examples=["false"]
    )
    """Only `false` is offered: running trials have no made-up score."""


class EarlyTerminateBlock(Block):
    """How trials that lag behind are stopped. An iteration is one report of the metric."""

    type: Literal["forecast", "halving", "hyperband", "median", "none"] | None = Field(
        default=None, examples=["forecast"]
    )
    """`forecast`: from a third of the schedule on, what cannot become the best is stopped;
    `halving`: at a third the best half go on, towards the end `1 / eta ** 2`; `hyperband` as
    W&B reads it; `median` stops what is worse than the median of the others."""
    min_iter: Count | None = Field(default=None, examples=[3])
    """First iteration at which a trial may be stopped; hyperband: also at `min_iter * eta ** k`."""
    max_iter: Count | None = Field(default=None, examples=[27])
    """Hyperband: last iteration; with `s` it wins over `min_iter`."""
    s: Annotated[float, Field(ge=1)] | None = Field(default=None, examples=[2])
    """Hyperband: number of iterations to stop at, `max_iter / eta`, `max_iter / eta ** 2`, ..."""
    eta: Annotated[float, Field(gt=1)] | None = Field(default=None, examples=[3])
    """Hyperband: the best `1 / eta` go on; halving: `1 / eta ** 2` at the end; 3 if absent."""
    strict: bool = True
    """Hyperband: judge a trial by its value at the iteration, not by its best until then."""
    startup_trials: Annotated[int, Field(ge=0)] | None = Field(default=None, examples=[5])
    """All but hyperband: curves that must have come as far before one is judged; 4 if absent,
    and 8 at least under forecast."""


class ControllerBlock(Block):
    """Who proposes: always `pgolf-sweep launch`."""

    type: Literal["local", "cloud"] = "cloud"
    """Accepted; both mean that `launch` proposes the trials."""


class SweepFile(Block):
    """A sweep file: which knobs of a program to search, how, and by what it is judged."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        "job": "W&B launch jobs are not used; name the script under program",
        "image_uri": "W&B launch images are not used; name the script under program",
        "scheduler": "W&B's custom schedulers are not used; choose a method",
        "metrics": "one metric is optimised: write metric: {name: ..., goal: ...}",
        "fidelity": "fidelity belongs under pgolf",
    }

    program: Text | None = Field(default=None, examples=["train_gpt.py"])
    """`trainer` for ours, or a script's path from the sweep file's folder, else from where you
    stand. Else the script that `command` names, else `trainer`."""
    method: Method | None = Field(default=None, examples=["bayes"])
    """Who proposes. `bayes` and `tpe` are the same; grid, random and bayes are W&B's."""
    metric: MetricBlock = Field(default=MetricBlock(), examples=[{"name": "val_bpb"}])
    """What is optimised."""
    parameters: dict[str, ParameterBlock] = Field(
        default={}, examples=[{"MATRIX_LR": {"min": 0.015, "max": 0.08}}]
    )
    """What is searched, by the name of an environment variable or flag of the program."""
    run_cap: Count | None = Field(default=None, examples=[64])
    """Trials that take a slot; discards do not count. No limit if absent."""
    early_terminate: EarlyTerminateBlock = Field(
        default=EarlyTerminateBlock(), examples=[{"type": "hyperband", "min_iter": 3}]
    )
    """How trials that lag behind are stopped."""
    command: AnyList = Field(
        default=None, examples=[["${env}", "${interpreter}", "${program}", "${args}"]]
    )
    """Words that start a trial, with W&B's macros; docs/wandb.md."""
    name: Text | None = Field(default=None, examples=["matrix lr"])
    """The study's name; the file's stem if absent."""
    project: Text | None = Field(default=None, examples=["golf"])
    """W&B project of the runs."""
    entity: Text | None = Field(default=None, examples=["my-team"])
    """W&B entity of the runs."""
    description: Text | None = Field(default=None, examples=["Which rate suits the baseline?"])
    """Free text."""
    controller: ControllerBlock = Field(default=ControllerBlock(), examples=[{"type": "local"}])
    """Accepted as W&B writes it; `launch` proposes the trials either way."""
    apiVersion: Text | None = Field(default=None, examples=["core/v1"])  # noqa: N815 - W&B's name
    """Accepted as W&B writes it."""
    kind: Literal["sweep"] | None = Field(default=None, examples=["sweep"])
    """Accepted as W&B writes it."""
    pgolf: PgolfModel = Field(default=PgolfModel(), examples=[{"rules": "none"}])
    """What W&B has no word for."""

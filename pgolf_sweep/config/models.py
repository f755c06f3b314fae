"""The sweep file as pydantic models: W&B's sweep schema plus one ``pgolf:`` block.

One model a block, one docstring a key. The reader (`blocks`), the JSON schema (`schema`) and
docs/sweep_file.md come from here. What one key alone can get wrong is checked here; what several
keys contradict is checked in `blocks` and `sweep_file`.

Source of W&B's keys: schema.json of the package `sweeps` 0.3.0, which W&B's server applies.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from pgolf_sweep.config.deadline import check_deadline
from pgolf_sweep.config.yaml_lines import shown

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

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

Occasion = Literal["finish", "best", "quarantine", "budget"]

METRIC_SPELLINGS = frozenset(
    {"val_bpb", "eval_bpb", "valid_bpb", "validation_bpb", "final_val_bpb", "bpb"}
)
"""Names of the contest's score, in lower case, with ``_`` for all that is no letter or digit."""


def _texts(value: object) -> object:
    items = [value] if isinstance(value, str) else value
    if isinstance(items, list) and all(isinstance(item, str) for item in items):
        return tuple(items)
    raise ValueError(f"must be a list of text, not {shown(value)}")


def _number(value: object) -> int | float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(f"must be a number, not {shown(value)}")
    return value  # type: ignore[return-value]


def _pattern(value: object) -> object:
    if not isinstance(value, str):
        return value  # pydantic says that it is no text
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from error
    if groups != 1:
        raise ValueError(f"{value!r} needs one group, (...), around the number; it has {groups}")
    return value


Text = Annotated[str, StringConstraints(pattern=r"\S")]
Texts = Annotated[
    tuple[str, ...],
    BeforeValidator(_texts),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Number = Annotated[int | float, PlainValidator(_number), WithJsonSchema({"type": "number"})]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
AnyValue = Annotated[Any, WithJsonSchema({})]
AnyList = Annotated[Any, WithJsonSchema({"type": "array"})]


class Block(BaseModel):
    """One mapping of the file: strict, closed, and a key without a value reads as absent."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
    REFUSED: ClassVar[Mapping[str, str]] = {}
    """Keys that are understood and not offered, with the reason."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {key: item for key, item in value.items() if item is not None}


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A block's fields by the keys of the file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


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


class ResourcesBlock(Block):
    """What one trial occupies, all of it on one node."""

    gpus: Annotated[int, Field(ge=0)] | None = Field(default=None, examples=[8])
    """GPUs for each trial; 0 trains on the CPU. Else what `command` asks of torchrun, else 8, or 1
    under `rules: none`."""
    cpus: Positive | None = Field(default=None, examples=[1])
    """CPU cores for each trial; else one a GPU."""


class SchemeModel(Block):
    """How the program quantizes, declared where the probe cannot see it."""

    bits: Annotated[int, Field(ge=2)] | None = Field(default=None, examples=[6])
    """Width of matrices; 8 if absent."""
    embed_bits: Annotated[int, Field(ge=2)] | None = Field(default=None, examples=[8])
    """Width of embeddings and heads; that of matrices if absent."""
    scale: Literal["rowmax", "percentile", "sdclip", "mse"] = "rowmax"
    """How the step of a row is set."""
    clip_sigmas: Positive | None = Field(default=None, examples=[12.85])
    """With `scale: sdclip`: sigmas at which it clips."""
    clip_percentile: Positive | None = Field(default=None, examples=[99.99])
    """With `scale: percentile`: the percentile at which it clips."""
    codec: Literal["zlib", "zstd", "lzma", "brotli"] | None = Field(
        default=None, examples=["brotli"]
    )
    """What compresses the container; nothing if absent."""
    keep_below: Annotated[int, Field(ge=0)] = 65_536
    """Tensors of at most this many numbers stay 16-bit floating point."""


class GateBlock(Block):
    """What is judged before a trial takes a slot; docs/gate.md."""

    enabled: bool | None = Field(default=None, examples=[False])
    """Whether configurations are judged; true if absent, false under `rules: none`."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.99
    """Probability that a discard is right."""
    scheme: SchemeModel | None = Field(default=None, examples=[{"bits": 6, "codec": "brotli"}])
    """How the program quantizes, where the probe cannot see it."""
    repair: Texts = Field(default=(), examples=[["NUM_LAYERS"]])
    """Parameters that may give where a configuration does not surely fit."""
    export: Texts | None = Field(default=None, examples=[["MATRIX_BITS"]])
    """Knobs of our trainer that may give once the weights are trained; all that can if absent."""
    calibration: Text | None = Field(default=None, examples=["user"])
    """A store of measured sizes to learn from: `user`, or a path."""
    memory_gib: Positive | None = Field(default=None, examples=[80])
    """Memory of one card; what needs more is discarded."""
    min_steps: Count | None = Field(default=None, examples=[1000])
    """Fewest training steps within the wallclock that are worth a slot."""


class DataBlock(Block):
    """The data set that trials train on: a name to be located, or paths of one's own."""

    name: Text | None = Field(default=None, examples=["sp1024"])
    """Name of a data set; `data: sp1024` is short for it."""
    path: Text | None = Field(default=None, examples=["data/shards"])
    """Folder of shards, from the sweep file's folder."""
    tokenizer: Text | None = Field(default=None, examples=["data/my.model"])
    """The tokenizer's model file; goes with `path`."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value


class LimitsBlock(Block):
    """Limits on a run, in seconds; else the rules decide."""

    total_seconds: Positive | None = Field(default=None, examples=[1800])
    """From the program's start to its exit."""
    silent_seconds: Positive | None = Field(default=None, examples=[600])
    """Longest time without a line of output."""


class Budget(Block):
    """What the sweep may spend; the first that is used up ends it."""

    trials: Count | None = Field(default=None, examples=[24])
    """Trials that take a slot, as `run_cap`; of the two the smaller holds."""
    gpu_hours: Positive | None = Field(default=None, examples=[40])
    """GPU-hours of all trials together; no limit if absent."""
    usd: Positive | None = Field(default=None, examples=[200])
    """Dollars of all trials together; needs `usd_per_gpu_hour`."""
    deadline: Annotated[Text, BeforeValidator(check_deadline)] | None = Field(
        default=None, examples=["36h"]
    )
    """No trial starts that would end later: a time such as `2026-12-01T18:00`, or a duration from
    the study's first launch."""
    usd_per_gpu_hour: Annotated[float, Field(ge=0)] | None = Field(default=None, examples=[2.5])
    """Price; of a CPU's trial, of a slot-hour."""
    reserve: bool = True
    """Whether the runs of a promotion are kept back of GPU-hours, dollars and time."""


class ProposerBlock(Block):
    """What one proposer may have running and spend."""

    gpu_hours: Positive | None = Field(default=None, examples=[20])
    """GPU-hours of all its trials together; a slot without GPUs counts as one. No limit if
    absent."""
    concurrent: Count | None = Field(default=None, examples=[2])
    """Trials that it may have waiting and running; further proposals wait. No limit if absent."""
    failures: Annotated[int, Field(ge=0)] = 3
    """Failed trials in a row that pause it for ten minutes; 0: never."""


class AcceptBlock(Block):
    """When a candidate replaces what it was made from; docs/agents.md."""

    rule: Literal["significant", "greedy", "none"] = "significant"
    """`significant`: better beyond noise; `greedy`: any better mean; `none`: never."""
    false_keep: Annotated[float, Field(gt=0, lt=0.5)] = 0.002
    """Significant: probability of keeping a candidate without effect."""
    missed: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Significant: probability of dropping one that is better by `least_effect`."""
    least_effect: Positive = 2.0
    """Significant: smallest improvement of interest, in standard deviations of one run over
    seeds."""
    most_seeds: Count = 8
    """Significant: runs of a candidate after which it is dropped undecided."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return {"rule": value} if isinstance(value, str) else value


class ReuseBlock(Block):
    """Trials that differ only in what follows the training share it; docs/trainer.md."""

    enabled: bool | None = Field(default=None, examples=[True])
    """Whether checkpoints are kept; if absent, where an export or eval knob is searched."""
    roles: dict[str, Literal["train", "export", "eval"]] = Field(
        default={}, examples=[{"QUANT_BITS": "export"}]
    )
    """First part of a run that a knob changes; train if absent. Our trainer's knobs have theirs."""
    store: Text | None = Field(default=None, examples=["s3://bucket/checkpoints"])
    """Folder or fsspec address that all nodes reach; `checkpoints` in the study's if absent."""
    max_gib: Positive = 5.0
    """Most that the checkpoints occupy; those unused for longest go first."""


class RungBlock(Block):
    """A cheaper rung, by what is otherwise there than in the sweep."""

    share: Annotated[float, Field(gt=0, le=1)] = Field(default=1.0, examples=[0.125])
    """Share of the training. The schedule shrinks with it: iterations, wallclock, warmups, warmdown
    and the horizon of EMA."""
    gpus: Count | None = Field(default=None, examples=[1])
    """GPUs of each trial there, which divide the sweep's: eight of one GPU run at a time on a node.
    The wallclock grows with fewer of them, so that the training stays the same share. The sweep's
    if absent."""
    sets: dict[str, AnyValue] = Field(default={}, alias="set", examples=[{"ITERATIONS": 500}])
    """Knobs that all its trials have instead, whatever the share."""


def _rungs(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class FidelityBlock(Block):
    """Rungs below the sweep's own, on which trials begin; the leading ones go on.

    Scores of the sweep's own rung alone are results, and `run_cap` counts its trials. With the
    methods `bayes`, `gp`, `random` and `qmc`.
    """

    rungs: Annotated[tuple[RungBlock, ...], BeforeValidator(_rungs)] = Field(
        default=(), examples=[[{"gpus": 1, "share": 0.125}]]
    )
    """The cheaper ones, cheapest first; `fidelity: [...]` is short for it."""
    keep: Annotated[float, Field(ge=0.001, lt=1)] = 0.25
    """Share of a rung's trials that go on to the next."""
    scale: Texts = Field(default=(), examples=[["SWA_START_STEP"]])
    """Further knobs that count steps, of a script that is not ours; those with the names of the
    contest's scripts are known."""

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return {"rungs": value} if isinstance(value, list) else value


class NodesBlock(Block):
    """What is asked of the machines that trials run on; docs/nodes.md."""

    failures: Annotated[int, Field(ge=0)] = 3
    """Failed trials in a row that quarantine their node; 0: never."""
    retry_seconds: Positive = 300.0
    """Until a quarantined node is tried again; doubles each time, up to 8 times."""
    give_up_seconds: Positive = 3600.0
    """The sweep ends when no node could take a trial for this long."""
    check: bool = True
    """Whether a node is looked at before its first trial."""
    speed: Literal["refuse", "mark", "none"] | None = Field(default=None, examples=["mark"])
    """What a node gets that is slower than `min_speed`: `refuse`, `mark` (its trials are marked) or
    `none` (nothing is measured); refuse with GPUs, none without if absent."""
    min_speed: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Least tokens per second, as a share of the other nodes' median."""


def _webhook(value: object) -> object:
    """A URL, or the variable that holds it."""
    text = str(value)
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?|\$\{[A-Za-z_]\w*\}", text):
        # The URL is a secret: it is not quoted.
        raise ValueError("must begin with https:// or http://, or be a variable such as ${WEBHOOK}")
    return value


class NotifyBlock(Block):
    """Who is told of a launch's turns; docs/watching.md. A notice that fails is a warning."""

    webhook: Annotated[Text, BeforeValidator(_webhook)] | None = Field(
        default=None, examples=["${SLACK_WEBHOOK}"]
    )
    """URL that gets `{"text": ...}` by POST, as Slack's webhooks take it; `${NAME}` is a variable
    of the driver's environment, which keeps the URL out of the file."""
    command: Text | None = Field(default=None, examples=['notify-send "$PGOLF_NOTICE"'])
    """A shell's command in the sweep file's folder; `PGOLF_NOTICE`, `PGOLF_EVENT` and
    `PGOLF_STUDY` say what it is of, its standard input is the event as JSON."""
    on: Annotated[tuple[Occasion, ...], BeforeValidator(_texts)] = Field(
        default=get_args(Occasion), examples=[["finish", "quarantine"]]
    )
    """`finish`: the sweep ended; `best`: a trial is the best so far; `quarantine`: a node takes no
    trials; `budget`: it is spent."""


class EnvBlock(Block):
    """What trials get of their node's environment; docs/scripts.md."""

    pass_: Texts = Field(default=(), alias="pass", examples=[["MY_DATA_DIR"]])
    """Variables of the node that the program gets beyond the system's."""


class PromoteBlock(Block):
    """How a winner is confirmed."""

    seeds: Count | None = Field(default=None, examples=[3])
    """Fresh seeds; else as many as the rules ask for."""


class BasedOnBlock(Block):
    """The published work that the program began as."""

    name: Text | None = Field(default=None, examples=["the record of 2026-03-20"])
    """What it is, and whose."""
    link: Text | None = Field(default=None, examples=["https://example.org/record"])
    """Where it is published."""
    licence: Text | None = Field(default=None, examples=["MIT"])
    """Under which licence."""


class ReadMetricBlock(Block):
    """How the metric is found in the log."""

    pattern: Annotated[Text, BeforeValidator(_pattern)] | None = Field(
        default=None, examples=[r"eval loss is ([\d.]+)"]
    )
    """A regular expression whose one group is the number; searched for in every line."""


class PgolfModel(Block):
    """What W&B has no word for; all of it optional."""

    rules: Text = Field(default="parameter-golf-2026", examples=["none"])
    """A preset, or the path of a rules file; `none` is a plain sweep without the contest."""
    require: Texts = Field(default=(), examples=[["MODEL_DIM % NUM_HEADS == 0"]])
    """Expressions over knobs that a configuration must make true."""
    one_at_a_time: bool = Field(default=False, examples=[True])
    """A grid of all first values, and of each other value alone; with each the values of SEED.
    A parameter with `when` changes beside the value that it depends on."""
    resources: ResourcesBlock = Field(default=ResourcesBlock(), examples=[{"gpus": 8}])
    """What one trial occupies."""
    gate: GateBlock = Field(default=GateBlock(), examples=[{"confidence": 0.99}])
    """What is judged before a trial takes a slot."""
    data: DataBlock | None = Field(default=None, examples=["sp1024"])
    """The data set, by name or as a mapping."""
    files: Texts = Field(default=(), examples=[["lib/*.py"]])
    """Paths or globs beside the program that trials need."""
    env: EnvBlock = Field(default=EnvBlock(), examples=[{"pass": ["MY_DATA_DIR"]}])
    """What trials get of their node's environment."""
    limits: LimitsBlock = Field(default=LimitsBlock(), examples=[{"total_seconds": 1800}])
    """Wallclock limits."""
    budget: Budget = Field(default=Budget(), examples=[{"gpu_hours": 40}])
    """Money and time."""
    warm_start: AnyList = Field(
        default=None, examples=[[{"MATRIX_LR": 0.04}, {"study": "first", "trials": "matching"}]]
    )
    """What is known before: configurations, or parts of them, and the `top` of other studies are
    tried first; with `trials: matching` another study's trials that lie in the space are taken
    over, as trials where program, data and rules are the same, else as the sampler's prior."""
    metric: ReadMetricBlock = Field(
        default=ReadMetricBlock(), examples=[{"pattern": r"eval loss is ([\d.]+)"}]
    )
    """How the metric is found in the log."""
    pack: bool | None = Field(default=None, examples=[True])
    """Whether trials run the program minified and compressed, as it would be submitted; our own
    trainer is if absent."""
    reuse: ReuseBlock = Field(default=ReuseBlock(), examples=[{"max_gib": 50}])
    """How trials share a training."""
    fidelity: FidelityBlock = Field(default=FidelityBlock(), examples=[[{"share": 0.125}]])
    """Cheaper rungs on which trials begin; docs/trainer.md."""
    max_retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial that infrastructure lost is run again."""
    nodes: NodesBlock = Field(default=NodesBlock(), examples=[{"failures": 3}])
    """What is asked of the nodes."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The sampler's seed."""
    second_seeds: Annotated[int, Field(ge=0)] | None = Field(default=None, examples=[3])
    """Leading trials that run on a second seed when the end nears; 0: none. If absent 3 under
    `bayes` from 24 trials on."""
    noise_floor: Annotated[int, Field(ge=0)] | None = Field(default=None, examples=[4])
    """Runs of the program's own configuration with which a study begins, each on a seed of its own:
    their spread is the noise that `compare` judges by. If absent 4 where `proposers` stand, else
    none."""
    proposers: dict[str, ProposerBlock] = Field(
        default={}, examples=[{"anna": {"gpu_hours": 20, "concurrent": 2}}]
    )
    """Budgets by the name that `--by` gives, `"*"` for everyone else; where any stands, who is not
    named may not propose."""
    accept: AcceptBlock = Field(default=AcceptBlock(), examples=["significant"])
    """When `compare` keeps a candidate; a rule's name, or a mapping."""
    based_on: BasedOnBlock = Field(
        default=BasedOnBlock(), examples=[{"name": "the record of 2026-03-20", "licence": "MIT"}]
    )
    """The published work that the program began as; `promote` names it in the submission."""
    promote: PromoteBlock = Field(default=PromoteBlock(), examples=[{"seeds": 3}])
    """How a winner is confirmed."""
    notify: NotifyBlock = Field(
        default=NotifyBlock(), examples=[{"webhook": "${SLACK_WEBHOOK}", "on": ["finish"]}]
    )
    """Who is told of a launch's turns."""


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

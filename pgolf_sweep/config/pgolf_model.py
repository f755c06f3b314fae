"""The `pgolf:` block of the sweep file as pydantic models, one a block, one docstring a key."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import (
    BeforeValidator,
    Field,
    model_validator,
)

from pgolf_sweep.config.deadline import check_deadline
from pgolf_sweep.config.model_base import (
    AnyList,
    AnyValue,
    Block,
    Count,
    Positive,
    Text,
    Texts,
    as_pattern,
    as_texts,
)

Occasion = Literal["finish", "best", "quarantine", "budget"]


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
    false_keep: Annotated[float, Field(gt=0, lt=0.5)] = 0.001
    """Significant: p, two-sided, below which a better candidate is kept."""
    missed: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    """Significant: at each run, probability of dropping one that is better by `least_effect`."""
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
    on: Annotated[tuple[Occasion, ...], BeforeValidator(as_texts)] = Field(
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

    pattern: Annotated[Text, BeforeValidator(as_pattern)] | None = Field(
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

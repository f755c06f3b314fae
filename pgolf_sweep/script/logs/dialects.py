r"""Lines of the contest's scripts, as data: one pattern a fact, read by `parser`.

A new way of saying something is a new line here. Every pattern wants literal numbers, so that the
source code which a log begins with (``val_bpb:{val_bpb:.4f}``) never matches.
"""

from __future__ import annotations

import re

NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|nan|inf(?:inity)?)"
"""A number as Python formats it, NaN and infinity included (matched without regard to case)."""

COUNT = r"\d[\d,_]*+"
"""A whole number, with separators of thousands."""

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""Terminal colours, cursor movements and titles."""

PREFIX = re.compile(
    r"""(?:\s*(?:
        \[[^\]]{1,60}\]:?                              # [rank0]: [default3]: [12:00:01]
      | (?:rank|node|worker|gpu)\s*\d+\s*[:|]          # rank 3:  gpu0|
      | \(\w+\ pid=[^)]{1,40}\)                        # (worker pid=123, ip=10.0.0.1)
      | \d+:(?=\s)                                     # 3: ...
      | \d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?Z?
      | \d{1,2}:\d\d:\d\d(?:[.,]\d+)?
      | \d+\.\d+s?(?=\s)                              # seconds since the epoch or the start
      | \|\s*LEVEL\s*\|(?:\s*[\w.<>]+:[\w.<>]+:\d+\ -(?=\s))?  # | INFO | __main__:main:10 -
      | (?:-\s*)?LEVEL\s*[-:](?=\s)                     # - INFO -  INFO:
    ))+\s*""".replace("LEVEL", "(?:TRACE|DEBUG|INFO|SUCCESS|WARNING|ERROR|CRITICAL)"),
    re.VERBOSE | re.IGNORECASE,
)
"""What launchers and loggers put before a line: rank, host, time, level."""

_NAMES = r"[\w.]+(?:\s+as\s+\w+)?(?:\s*,\s*[\w.]+(?:\s+as\s+\w+)?)*\s*,?\s*(?:[\\#;].*)?$"
CODE_STARTS = ("import ", "from ", "def ", "class ", "if __name__", '"""', "'''", "#!")
CODE_LINE = re.compile(
    rf"""from\s+[\w.]+\s+import\s+(?:[(*]|{_NAMES})|import\s+{_NAMES}
        |def\s+\w+\(|class\s+\w+[(:]|if\s+__name__\b|\"\"\"|'''|\#!""",
    re.VERBOSE,
)
"""A line that only source code begins with (``import x failed`` is none)."""

CODE_END = re.compile(r"(?:={40,}|-{60,}|\*{60,})$")
"""The rule that the baseline's family prints between its source and its first message."""

STEP = re.compile(
    r"(?:\bstep[: =]\s*(\d+)(?:\s*/\s*(\d+))?|^(\d+)/(\d+)(?=\s+(?:train|val)_loss\b))",
    re.IGNORECASE,
)
"""Step and planned steps: ``step:200/20000 ...`` or ``200/20000 train_loss: ...``."""

PAIR = re.compile(
    rf"(?<![\w.])(?<!val/)(train[_ ]loss|val[_ ]loss|val[_ ]bpb|loss|train_time|t|step_avg|avg"
    rf"|tok/s|tok_s|tokens/s|eval_time|time|elapsed)\s*[:=]\s*({NUMBER})\s*(ms|s|m|h)?(?![a-z.\d])",
    re.IGNORECASE,
)
"""``key:value`` pairs of step and score lines, with the unit of times."""

UNIT_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

NOT_TRAINING = ("final", "ttt", "eval", "calib", "gptq", "warmup", "refit", "slot")
"""Words before ``step`` on lines that count the steps of something else."""

TAG = re.compile(r"\s*\[([A-Za-z_ -]{2,40})\]")
TRAINING_TAGS = frozenset({"train", "training", "val", "valid", "validation", "trainer", "info"})
"""``[head] step 3`` counts the steps of something else, unless its tag is one of these."""

STOPPED = re.compile(
    r"stopping_early:?\s*\w*(?:\s+train_time:\s*(\d+(?:\.\d+)?)\s*(ms|s|m))?(?:\s+step:\s*(\d+))?"
)
"""The wallclock cap ended the run, at which time and step."""

SCORE_END = re.compile(r"^(?!.*\bstep:?\s*\d)(?!\d+/\d).*\bval_bpb\s*[:=]\s*\S+$", re.IGNORECASE)
"""A line whose last word is a score of no training step, as the last line of many logs."""

BPB = re.compile(r"bpb|bits[ _/-](?:per[ _-])?byte", re.IGNORECASE)

JSON_MEMBER = re.compile(rf"""["'][^"']*["']\s*:\s*{NUMBER}\s*,?$""", re.IGNORECASE)
"""``"final_val_bpb": 1.0821,`` in a document of several lines."""

SOURCE = re.compile(r"""\(f["']|\{[A-Za-z_]|\bdef |\breturn """)
"""Marks of source code, which a report has not."""


SMALLER_EXPORT = re.compile(r"^artifact:smaller_export setting:(\S+)$")
"""Our trainer's word that the artifact was over the cap: what follows is a smaller one of it."""

MODEL_PARAMS = re.compile(
    rf"\b(?:model_params|params|n_params|total_params|num_params)\s*[:=]\s*({COUNT})(?!\s+layers)"
    rf"|^total\s*:\s*({COUNT})\s+params\b",
    re.IGNORECASE,
)
"""Parameters of the model."""

PHASE = re.compile(r"^[\w.-]+(?: \w+)?:\s?(?:start|starting|begin)\b")
"""``ttt:start``: an evaluation begins, which ends with a score of its own."""

DIED = re.compile(r"^(?:Traceback \(most recent|Segmentation fault|Killed\b)")
"""A script ends before its time."""

SEED = re.compile(
    r"^(?:(?:(?i:using|random|the)\s+)*[Ss]eed(?:\s*[:=]\s*|\s+)(\d+)\s*(?:$|[,;]|\s\w+[:=])"
    r"|(?:export\s+)?SEED=(\d+)\b)"
)
"""The run's seed, which begins a line."""

SETTING_SEED = re.compile(
    r"[:=](?:[^\s:=]*\d[^\s:=]*|true|false),?\s+seed\s*[:=]\s*(\d+)(?![\w.])"
    r"|[A-Za-z0-9],?\sseed=(\d+)(?:,?\s+\w+=|$)"
    r"|^=+\s*seed\s+(\d+)\s*=|^params:.*\bs:(\d+)$",
    re.IGNORECASE,
)
"""A seed among other settings, ``wall:600s seed:1337``, or in a banner, ``=== Seed 42 ===``."""

BATCH_TOKENS = re.compile(r"\btrain_batch_tokens\s*[:=]\s*(\d+)")
"""Tokens a step, which turn a throughput into a step time."""

PEAK_MEMORY = re.compile(
    r"\bpeak[ _]mem(?:ory)?(?: allocated)?\s*:\s*(\d+(?:\.\d+)?)\s*(MiB|GiB|MB|GB)"
)
"""Peak memory of a GPU."""

MEMORY_MIB = {"mib": 1.0, "gib": 1024.0, "mb": 1e6 / 2**20, "gb": 1e9 / 2**20}

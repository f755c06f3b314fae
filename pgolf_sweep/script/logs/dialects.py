r"""Lines of the contest's scripts, as data: one pattern a fact, read by `parser`.

A new way of saying something is a new line here. Every pattern wants literal numbers, so that the
source code which a log begins with (``val_bpb:{val_bpb:.4f}``) never matches.
"""

from __future__ import annotations

import re
from enum import StrEnum

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
    r"(?:\bstep[: ]\s*(\d+)(?:\s*/\s*(\d+))?|^(\d+)/(\d+)(?=\s+(?:train|val)_loss\b))"
)
"""Step and planned steps: ``step:200/20000 ...`` or ``200/20000 train_loss: ...``."""

PAIR = re.compile(
    rf"(?<![\w.])(train_loss|val_loss|val_bpb|loss|train_time|t|step_avg|avg|tok/s|tok_s|tokens/s"
    rf"|eval_time|time|elapsed)\s*[:=]\s*({NUMBER})\s*(ms|s|m|h)?(?![a-z.\d])",
    re.IGNORECASE,
)
"""``key:value`` pairs of step and score lines, with the unit of times."""

UNIT_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

NOT_TRAINING = ("final", "ttt", "eval", "calib", "gptq", "warmup")
"""Words before ``step`` on lines that count the steps of something else."""

STOPPED = re.compile(
    r"stopping_early:?\s*\w*(?:\s+train_time:\s*(\d+(?:\.\d+)?)\s*(ms|s|m))?(?:\s+step:\s*(\d+))?"
)
"""The wallclock cap ended the run, at which time and step."""

SCORE = re.compile(rf"\bval_(?:loss|bpb)\s*[:=]\s*{NUMBER}", re.IGNORECASE)
"""Where a score begins; what stands before it on the line is its label."""

SCORE_END = re.compile(r"^(?!.*\bstep:?\s*\d)(?!\d+/\d).*\bval_bpb\s*[:=]\s*\S+$", re.IGNORECASE)
"""A line whose last word is a score of no training step, as the last line of many logs."""

_BPB = r"(?:bpb|bits[ _/-](?:per[ _-])?byte)"
_DECIMAL = r"[-+]?(?:\d+\.\d\d+|nan|inf(?:inity)?)"
BPB = re.compile(_BPB, re.IGNORECASE)
LOOKS_FINAL = re.compile(
    rf"""{_BPB}\W{{0,24}}?\s*({NUMBER})(?![\w.]*[({{])      # BPB = 1.0821
        |{_BPB}\b[^:={{}}\n]{{1,60}}?[:=]\s*({_DECIMAL})\b    # bpb (int8 round trip): 1.0821
        |({_DECIMAL})\s*(?:val[_ ]?)?{_BPB}\b(?!\s*[:=])     # 1.0821 bpb""",
    re.VERBOSE | re.IGNORECASE,
)
"""A number that some unknown line calls bpb."""

JSON_MEMBER = re.compile(rf"""["'][^"']*["']\s*:\s*{NUMBER}\s*,?$""", re.IGNORECASE)
"""``"final_val_bpb": 1.0821,`` in a document of several lines."""

SOURCE = re.compile(r"""\(f["']|\{[A-Za-z_]|\bdef |\breturn """)
"""Marks of source code, which a report has not."""


class ScoreKind(StrEnum):
    """What a labelled score is worth."""

    BARRED = "barred"
    """A score that the rules do not count, or of another model or other data: kept by name, never
    the trial's value."""
    PREQUANT = "prequant"
    """Before the round trip."""
    FINAL = "final"
    """After the round trip; the last one is the trial's value."""


PROGRESS = re.compile(
    r"\b(?:(?:progress|chunk|batch|(?<!sliding\ )window|warmup|epoch|doc)\b|running"
    r"|(?:ttt_progress|ttt_chunk|sliding_eval|\w+_diagnostics)\b)",
    re.IGNORECASE | re.ASCII,
)
"""Words of running values in the middle of an evaluation."""

_TAG = r"[\w.+-]"
_BEFORE = r"(?:fp32|fp16|bf16|float|raw|unquantized|pre_?quant|ema|swa)"
_AFTER = r"(?:roundtrip|quant|int\d|fp[48]|ternary|binary|ttt|sliding|zlib|lzma|zstd|brotli)"
_REST = r"(?:_(?:set|subset|data|split|eval|model|weights|exact))*"
_UN = r"(?:pre|un|non|not|no|before|without)"
_SCORE_LABELS = (
    (ScoreKind.BARRED, rf"{_TAG}*(?:illegal|non_?legal|oracle|cheat){_TAG}*"),
    (ScoreKind.BARRED, rf"\bfinal_(?:{_TAG}*_)?(?:teacher|subset){_REST}"),
    (ScoreKind.BARRED, rf"\bfinal_(?:model_|eval_|on_)?train(?:ing|set)?{_REST}"),
    (
        ScoreKind.PREQUANT,
        rf"(?:diagnostic\s+)?(?<![a-z])(?:{_UN}[-_ ]?quant\w*|post[-_ ]?ema)(?:\s+[\w-]+)?",
    ),
    (
        ScoreKind.PREQUANT,
        rf"\b(?:final_|diagnostic )?{_BEFORE}(?:_eval|_model|_exact)*",
    ),
    (ScoreKind.PREQUANT, rf"\bfinal_(?!{_TAG}*{_AFTER})(?:{_TAG}*_)?{_BEFORE}{_REST}"),
    (ScoreKind.FINAL, rf"final_{_TAG}*(?:\s+sliding)?"),
    (ScoreKind.FINAL, rf"(?:diagnostic\s+)?quantized{_TAG}*"),
    (ScoreKind.FINAL, rf"(?:legal_ttt|ttt_(?:sliding|lora|final|eval)){_TAG}*"),
    (ScoreKind.FINAL, rf"\b{_TAG}*(?:roundtrip|sliding_window){_TAG}*"),
)
SCORE_LABELS = tuple(
    (kind, re.compile(rf"(?P<label>{pattern})(?::done)?$", re.IGNORECASE))
    for kind, pattern in _SCORE_LABELS
)
"""Labels of scores, at the end of what stands before the score; the first that matches decides."""

LABEL_NOISE = re.compile(r"(?:\s+\w+[:=][\w.]+)*[\s:,|>-]*$")
"""Settings and punctuation between a label and its score, such as ``stride:64``."""

MODEL_BYTES = re.compile(
    r"""(?:serialized[ _]model(?:[ _](?P<codec>[^:]{1,60}?))?
        |(?P<scheme>\bint\d\+\w+)\s+model)
        \s*:\s*(?P<bytes>COUNT)(?:\s*bytes|B\b)""".replace("COUNT", COUNT),
    re.VERBOSE | re.IGNORECASE,
)
"""Bytes of the model file; without a codec's name it is the raw checkpoint."""

CODE_BYTES = re.compile(
    rf"\bcode(?:[ _]size)?(?:\s*\((?P<form>[\w ]+)\))?\s*:\s*(?P<bytes>{COUNT})"
    r"(?:\s*bytes|B\b|\s*$)",
    re.IGNORECASE,
)
"""Bytes of the counted code; ``(uncompressed)`` is not what counts when a packed form is shown."""

TOTAL_BYTES = re.compile(
    r"""(?:total\s+submission(?:\s+size)?(?:\s+(?P<codec>[^:\s]{1,60}))?\s*:\s*(?P<bytes>COUNT)\s*bytes
        |^artifact_bytes\s*:\s*(?P<artifact>COUNT)\s*$
        |^budget\s*:\s*(?P<budget>COUNT)/\d)""".replace("COUNT", COUNT),
    re.VERBOSE | re.IGNORECASE,
)
"""Code plus model."""

SMALLER_EXPORT = re.compile(r"^artifact:smaller_export setting:(\S+)$")
"""Our trainer's word that the artifact was over the cap: what follows is a smaller one of it."""

MODEL_PARAMS = re.compile(
    rf"\b(?:model_params|params|n_params|total_params|num_params)\s*[:=]\s*({COUNT})(?!\s+layers)"
    rf"|^total\s*:\s*({COUNT})\s+params\b",
    re.IGNORECASE,
)
"""Parameters of the model."""

SEED = re.compile(
    r"^(?:(?:(?i:using|random|the)\s+)*[Ss]eed(?:\s*[:=]\s*|\s+)(\d+)\s*(?:$|[,;]|\s\w+[:=])"
    r"|params:.*\bs:(\d+)$|.*[A-Za-z0-9],?\sseed=(\d+)(?:,?\s+\w+=|$)"
    r"|(?:export\s+)?SEED=(\d+)\b)"
)
"""The run's seed: alone on a line, or in a one-line list of hyperparameters."""

BATCH_TOKENS = re.compile(r"\btrain_batch_tokens\s*[:=]\s*(\d+)")
"""Tokens a step, which turn a throughput into a step time."""

PEAK_MEMORY = re.compile(
    r"\bpeak[ _]mem(?:ory)?(?: allocated)?\s*:\s*(\d+(?:\.\d+)?)\s*(MiB|GiB|MB|GB)"
)
"""Peak memory of a GPU."""

MEMORY_MIB = {"mib": 1.0, "gib": 1024.0, "mb": 1e6 / 2**20, "gb": 1e9 / 2**20}

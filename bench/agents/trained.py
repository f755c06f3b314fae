"""Thirty edits of the trainer, and their trainings, for loop.py.

The study's program is the trainer with defaults spoilt; a training is 40 steps of 2 layers of width
32 on the demo's text, scored on 8,192 tokens, in a process forked of one that has torch.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import sys
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

VAL_TOKENS = 8193
HEADER_BYTES, COUNT_PLACE = 1024, 8
KNOBS = {
    "VOCAB_SIZE": 512, "MODEL_DIM": 32, "NUM_LAYERS": 2, "NUM_HEADS": 4, "NUM_KV_HEADS": 2,
    "ITERATIONS": 40, "TRAIN_BATCH_TOKENS": 512, "TRAIN_SEQ_LEN": 64, "MATRIX_LR": 0.02,
    "WARMUP_STEPS": 0, "WARMDOWN_FRAC": 0.5, "MUON_MOMENTUM_WARMUP_STEPS": 0,
    "VAL_LOSS_EVERY": 0, "VAL_BATCH_SIZE": 16384,
}  # fmt: skip
SCORE = re.compile(r"roundtrip_exact val_loss:\S+ val_bpb:(\S+)")


@dataclass(frozen=True)
class Edit:
    """One change of the script, and what is known of it before it is trained."""

    name: str
    kind: str
    before: str
    after: str


def _default(kind: str, knob: str, before: str, after: str) -> Edit:
    return Edit(f"{knob} {after}", kind, f'"{knob}", {before}', f'"{knob}", {after}')


def _added(name: str, line: str) -> Edit:
    return Edit(name, "none", MAIN, f"{line}\n\n{MAIN}")


def _drawn(count: int) -> Edit:
    """Other random numbers, the same distribution: a change of seed in all but name."""
    return Edit(f"draws {count}", "none", SEEDED, f"{SEEDED}\n    torch.rand({count})")


MAIN = 'if __name__ == "__main__":'
SEEDED = "torch.manual_seed(config.seed)"
TIMING = 'return f"train_time:'
SPOILT = (
    _default("", "LOGIT_SOFTCAP", "30.0", "3.0"),
    _default("", "MUON_BACKEND_STEPS", "5", "1"),
    _default("", "TIED_EMBED_INIT_STD", "0.005", "0.5"),
)
EDITS = (
    _default("helpful", "LOGIT_SOFTCAP", "3.0", "30.0"),
    _default("helpful", "TIED_EMBED_INIT_STD", "0.5", "0.005"),
    _default("helpful", "BETA1", "0.9", "0.5"),
    _default("helpful", "MUON_BACKEND_STEPS", "1", "5"),
    _default("helpful", "MUON_MOMENTUM", "0.95", "0.0"),
    *(_drawn(count) for count in (1, 2, 3, 4)),
    _default("none", "BETA2", "0.95", "0.951"),
    _default("none", "ADAM_EPS", "1e-8", "3e-8"),
    _default("none", "HEAD_LR", "0.008", "0.01"),  # the head is tied
    _default("none", "TTT_LORA_RANK", "80", "96"),  # no training at the test
    _default("none", "GATE_WINDOW", "12", "16"),  # no gate
    _added("constant", "UNUSED = 3"),
    _added("import", "import collections"),
    _added("function", "def unused() -> int:\n  return 3"),
    Edit("message", "none", "stopping_early: wallclock_cap", "stopping_early: time"),
    Edit("name", "none", '"peak memory allocated:', '"memory allocated:'),
    _default("harmful", "TIED_EMBED_LR", "0.05", "0.2"),
    _default("harmful", "TIED_EMBED_LR", "0.05", "0.0005"),
    _default("harmful", "SCALAR_LR", "0.04", "0.2"),
    _default("harmful", "SCALAR_LR", "0.04", "0.8"),
    _default("harmful", "EMA_DECAY", "0.0", "0.97"),
    Edit("raises", "broken", TIMING, f"return [][1] or {TIMING[7:]}"),
    Edit("not finite", "broken", "total += loss.detach()", "total += loss.detach() / 0"),
    Edit("half", "unparsed", MAIN, "if __name__ =="),
    Edit("no colon", "unparsed", MAIN, MAIN[:-1]),
    _default("identical", "ADAM_EPS", "1e-8", "2e-8"),
    Edit("ADAM_EPS again", "identical", '"ADAM_EPS", 1e-8', '# smaller\n"ADAM_EPS", 2e-8'),
)


def base_program() -> str:
    """The trainer's script with its defaults spoilt."""
    from pgolf_sweep.script.bundle import bundle

    text = bundle().decode()
    for edit in SPOILT:
        text = changed(text, edit)
    return text


def changed(text: str, edit: Edit) -> str:
    """A program with one edit."""
    if text.count(edit.before) != 1:
        raise ValueError(f"{edit.name}: {text.count(edit.before)} places")
    return text.replace(edit.before, edit.after)


def short_data(data: Path, folder: Path) -> Path:
    """The demo's data with a validation set that takes a tenth of a second."""
    for shard in (data / "datasets" / "demo_sp512").glob("*.bin"):
        raw = shard.read_bytes()
        if "_val_" in shard.name:
            end = HEADER_BYTES + 2 * VAL_TOKENS
            count = VAL_TOKENS.to_bytes(4, "little")
            raw = raw[:COUNT_PLACE] + count + raw[COUNT_PLACE + 4 : end]
        (folder / shard.name).write_bytes(raw)
    return folder


class OutOfTimeError(Exception):
    """No training starts any more; what is done is kept."""


class Trainings:
    """Scores by edits and seed: trained once each, kept as JSON lines.

    Args:
        file: What stands there is not trained again.
        data: A folder that `pgolf-sweep data demo` has filled.
        seconds: No training starts after them.
        folder: For what a training writes.
    """

    def __init__(self, file: Path, data: Path, seconds: float, folder: Path) -> None:
        import torch

        torch.set_num_threads(1)
        self.file, self.folder, self.deadline = file, folder, time.monotonic() + seconds
        self.base = base_program()
        self.environment = {key: str(value) for key, value in KNOBS.items()} | {
            "DATA_PATH": str(short_data(data.resolve(), folder)),
            "TOKENIZER_PATH": str(data.resolve() / "tokenizers" / "demo_512_bpe.model"),
        }
        rows = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
        self.known = {(tuple(row["edits"]), row["seed"]): row["val_bpb"] for row in rows}

    def program(self, edits: Collection[Edit]) -> str:
        """The spoilt program with those edits.

        Raises:
            ValueError: One does not apply, as a patch does not.
        """
        text = self.base
        for edit in edits:
            text = changed(text, edit)
        return text

    def score(self, edits: Collection[Edit], seed: int) -> float | None:
        """The score of one training; None where it breaks."""
        edits = sorted(edits, key=EDITS.index)
        key = (tuple(edit.name for edit in edits), seed)
        if key not in self.known:
            if time.monotonic() > self.deadline:
                raise OutOfTimeError
            self.known[key] = self._trained(self.program(edits), seed)
            row = {"edits": key[0], "seed": seed, "val_bpb": self.known[key]}
            with self.file.open("a") as file:
                file.write(json.dumps(row) + "\n")
        return self.known[key]

    def _trained(self, text: str, seed: int) -> float | None:
        """Train in a forked process, which need not import torch again."""
        script, log = self.folder / "train_gpt.py", self.folder / "log"
        script.write_text(text)
        child = os.fork()
        if not child:
            try:
                with log.open("wb") as file:
                    os.dup2(file.fileno(), 1)
                    os.dup2(file.fileno(), 2)
                os.chdir(self.folder)
                os.environ.update(self.environment, SEED=str(seed))
                runpy.run_path(str(script), run_name="__main__")
            except BaseException:  # noqa: BLE001 - a forked process must not go on as the parent
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(0)
        os.waitpid(child, 0)
        found = SCORE.findall(log.read_text(errors="replace"))
        return float(found[-1]) if found else None

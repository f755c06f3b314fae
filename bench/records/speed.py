"""How fast the log parser is, by kind of log, and that its memory does not grow.

python bench/records/speed.py [--megabytes 200]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.script.log import LogParser, parse_log

if TYPE_CHECKING:
    from collections.abc import Callable

LINES_PER_CHUNK = 20_000
KINDS: dict[str, Callable[[int], str]] = {
    "training steps": lambda i: (
        f"step:{i}/20000 train_loss:2.7561 train_time:{i * 43}ms step_avg:43.55ms\n"
    ),
    "validations": lambda i: (
        f"step:{i}/20000 val_loss:2.2987 val_bpb:1.3614 train_time:{i}ms step_avg:43.54ms\n"
    ),
    "running scores": lambda i: (
        f"ttt_progress: batch {i}/781 batch_loss:2.3530 batch_bpb:1.0621 running_bpb:1.0544\n"
    ),
    "progress bars": lambda i: f"{i % 100}%|###   | {i}/9999 batches of the evaluation\r",
    "words": lambda _: "debug: " + "x" * 92 + "\n",
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--megabytes", type=int, default=200)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.log"
        for name, line in KINDS.items():
            lines = [line(i) for i in range(LINES_PER_CHUNK)]
            chunk = "".join(lines).encode()
            repeats = max(1, options.megabytes * 1_000_000 // len(chunk))
            with path.open("wb") as file:
                for _ in range(repeats):
                    file.write(chunk)
            started = time.perf_counter()
            parse_log(path)
            file_seconds = time.perf_counter() - started
            parser = LogParser()
            started = time.perf_counter()
            for text in lines:
                parser.feed(text)
            feed_seconds = time.perf_counter() - started
            print(
                f"{name:16} file {repeats * len(chunk) / file_seconds / 1e6:6.0f} MB/s "
                f"{repeats * LINES_PER_CHUNK / file_seconds / 1e6:6.2f} M lines/s, "
                f"line by line {LINES_PER_CHUNK / feed_seconds / 1e6:5.2f} M lines/s, "
                f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"
            )


if __name__ == "__main__":
    main()

"""Speed of reading logs, by kind of log, and memory that does not grow.

    python bench/records/speed.py [--megabytes 200]

A file as `logs --parse` reads it, and the same bytes as a running trial's worker takes them from
the script's pipe: log file, last lines, reports and summary. Seconds are of a processor.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.launch.node.bounded_log import BoundedLog
from pgolf_sweep.launch.node.run import Run, RunOrder
from pgolf_sweep.script.logs.stream import parse_log

if TYPE_CHECKING:
    from collections.abc import Callable

LINES_PER_CHUNK = 20_000
PIPE_BYTES = 1 << 16
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
            size, count = repeats * len(chunk), repeats * LINES_PER_CHUNK
            print(
                f"{name:16} file {rate(parse_log, path, size, count)}, "
                f"live {rate(live, path, size, count)}, "
                f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"
            )


def rate(read: Callable[[Path], object], path: Path, size: int, lines: int) -> str:
    started = time.process_time()
    read(path)
    seconds = time.process_time() - started
    return f"{size / seconds / 1e6:5.0f} MB/s {lines / seconds / 1e6:5.2f} M lines/s"


def live(path: Path) -> None:
    """A run's own way of reading; what a script prints comes in pieces of a pipe's size."""
    order = RunOrder(run="bench", node="here", spec=None, files={})
    run = Run(order, threading.Condition(), guard=None)
    run._log = BoundedLog(path.with_name("log"), 64_000_000)
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIPE_BYTES):
            run._take(piece)
            run._reports.clear()
    run._log.close()


if __name__ == "__main__":
    main()

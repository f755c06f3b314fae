"""One study whose driver, and whose proposers, kill themselves at one step after another.

``python dies_proposing.py FOLDER``: simulated slots, and a process for each life, forked of this
one, so that forty lives cost one start of Python. Prints a JSON line a life: the step, its signal.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.sweeps import SCRIPT, Bench, build_bench, train

from pgolf_sweep.agents.tools import StudyTools
from pgolf_sweep.core.ledger import Ledger
from pgolf_sweep.driver import proposals, runs, writer
from pgolf_sweep.driver.admission import Admission
from pgolf_sweep.driver.proposals import pending
from pgolf_sweep.launch.inline import InlineLauncher
from pgolf_sweep.search.study import Study
from pgolf_sweep.workflows import propose, repeats
from pgolf_sweep.workflows.study_folder import begin_study, prepare_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BLOCK = (
    "  gate: {enabled: false}\n"
    "  noise_floor: 3\n"
    "  accept: {false_keep: 0.01}\n"
    "  proposers: {ada: {gpu_hours: 10, concurrent: 4, failures: 1}}\n"
)
DRIVER_STEPS: list[tuple[str, Any, str, int]] = [
    ("enqueued, and not answered", Study, "enqueue_once", 1),
    ("answered, and not in the ledger", proposals, "answer", 1),
    ("in the ledger", Ledger, "append", 2),  # the first catches up
    ("asked", Study, "ask", 1),
    ("its folder written", Admission, "_prepare", 1),
    ("queued", Study, "note", 1),
    ("running, and not launched", Study, "note", 2),
    ("launched", InlineLauncher, "start", 1),
    ("reported", Study, "report", 2),
    ("result written, and not told", runs, "write_json", 1),
    ("told, and no row", Study, "tell", 1),
    ("row written, and not in the ledger", writer, "append_row", 1),
    ("result in the ledger", Ledger, "append", 3),
]
"""What has just happened when a driver dies, each in a life of its own with a fresh proposal."""
PROPOSER_STEPS: list[tuple[str, Any, str, int]] = [
    ("program kept, and not proposed", propose, "keep", 1),
    ("first of two seeds left", propose, "submit", 1),
    ("both left, and not answered", propose, "submit", 1),
]
VARIANT = SCRIPT.decode() + 'BETA = 0.95\nprint("val_bpb:1.0")\n'
RAN = "ran"


def dying(method: Callable[..., Any], count: int) -> Callable[..., Any]:
    """A method that is the process's last the COUNTth time that it has returned."""
    calls = 0

    def call(*args: Any, **words: Any) -> Any:
        nonlocal calls
        result = method(*args, **words)
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


def life(act: Callable[[], object], *step: Any) -> int:
    """The wait status of a process that acts, and dies at a step where one is given."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        if step:
            owner, name, count = step
            setattr(owner, name, dying(getattr(owner, name), count))
        act()
    except BaseException as error:  # noqa: BLE001 - a forked process must not go on as the parent
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def told(name: str, status: int) -> None:
    print(json.dumps({"step": name, "signal": os.WTERMSIG(status), "code": status >> 8}))


def drive(bench: Bench, train: Callable[[Any], Iterable[tuple[float, Any]]] = train) -> None:
    """Run what was asked for; note each run that ends in a file."""

    def simulate(job: Any) -> Iterable[tuple[float, Any]]:
        for seconds, event in train(job):
            if hasattr(event, "summary"):
                with (bench.folder / RAN).open("a") as file:
                    file.write(f"{job.spec.number}\n")
            yield seconds, event

    records = bench.study().records()
    waiting = sum(not r.outcome.final for r in records) + len(pending(bench.paths))
    ended = sum(r.outcome.final and r.duplicate_of is None for r in records)
    bench.driver(slots=1, simulate=simulate, run_cap=ended + waiting).run()


def main(folder: Path) -> None:
    bench = build_bench(folder, run_cap=99, block=BLOCK)
    (folder / "train_gpt.py").write_bytes(SCRIPT)
    prepare_folder(bench.session, bench.paths, sweep=folder / "study.yaml", data_root=folder)
    # The launch, too, may die between two of its first trials.
    begin: Callable[[], object] = lambda: begin_study(  # noqa: E731 - called in several lives
        bench.session, bench.study(), bench.paths.root.parent
    )
    told("one run of the baseline enqueued", life(begin, Study, "enqueue_once", 2))
    told("begun", life(begin))
    told("baseline", life(lambda: drive(bench)))
    tools = StudyTools(bench.paths, "ada")
    for at, (name, *step) in enumerate(DRIVER_STEPS):
        tools.propose(knobs={"MODEL_DIM": 64, "MATRIX_LR": 0.03 + at / 1000}, idea=name)
        told(name, life(lambda: drive(bench), *step))
    told("all", life(lambda: drive(bench)))

    def tried() -> None:
        tools.propose(script=VARIANT, parent=0, idea="beta", seeds=2)

    for name, *step in PROPOSER_STEPS:
        told(name, life(tried, *step))
    told("asked again", life(tried))

    def again() -> None:
        tools.propose(repeat_of=0, seeds=2)

    told("first of two repeats left", life(again, repeats, "submit", 1))
    told("repeats asked again", life(again))
    told("end", life(lambda: drive(bench)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Checks of this machine or cluster for what is missing, each with a verdict and a next step.

Nothing here prints. Facts are gathered in `examine`; what they mean is judged by pure functions.
"""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import DataError, InfraError, InputError
from pgolf_sweep.core.trial import Resources
from pgolf_sweep.data import locate, survey
from pgolf_sweep.script.probe.contain.containment import containment
from pgolf_sweep.track import resolve_mode
from pgolf_sweep.workflows import doctor_machine as machine
from pgolf_sweep.workflows import doctor_software as software
from pgolf_sweep.workflows.doctor_check import Check, Grade

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pgolf_sweep.data import DataSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one sweep asks of the machine.

    Attributes:
        gpus: GPUs of one node for each trial.
        dataset: What its trials train on, or None.
    """

    gpus: int
    dataset: DataSet | None


def examine(
    *,
    data_root: Path,
    runs: Path,
    needs: Needs | None = None,
    address: str | None = None,
    looking: Callable[[str], None] = lambda _: None,
) -> Iterator[Check]:
    """Look at everything that a sweep needs, quick things first.

    Args:
        data_root: Folder of datasets and tokenizers.
        runs: Folder that holds the studies.
        needs: What a certain sweep asks for, or None for the machine alone.
        address: A Ray cluster whose nodes are to be listed, or None.
        looking: Told what is looked at next, since some of it takes seconds.

    Yields:
        The checks.
    """
    looking("python and libraries")
    yield software.judge_python(sys.version_info[:3])
    yield software.judge_libraries(
        software.installed_versions(), software.import_errors(list(software.LIBRARIES))
    )
    yield software.codecs()
    yield software.judge_containment(containment())
    yield from machine.ray_token(Path("~/.ray/auth_token").expanduser())
    looking("torch")
    torch = software.probe(software.TORCH_PROBE)
    yield software.judge_torch(torch)
    gpus = [software.Gpu(**gpu) for gpu in torch.get("gpus", [])]
    # Trials of a cluster run on its nodes; this machine may have no GPU at all.
    yield software.judge_gpus(gpus, needed=needs.gpus if needs and address is None else None)
    yield software.judge_torchrun(software.find_torchrun(), needed=bool(needs and needs.gpus > 1))
    looking("machine")
    yield machine.judge_memory(len(os.sched_getaffinity(0)), machine.available_memory_bytes())
    yield machine.judge_descriptors(*resource.getrlimit(resource.RLIMIT_NOFILE))
    yield machine.judge_shared_memory(machine.shared_memory_bytes(Path("/dev/shm")))  # noqa: S108 - measured, not written
    yield from machine.folders(runs)
    yield tracking(os.environ)
    yield from data_sets(data_root, needs)
    if address is not None:
        looking(f"Ray cluster at {address}")
        yield cluster(address, needed=needs.gpus if needs else None)


def tracking(environ: Mapping[str, str]) -> Check:
    """Where W&B runs would go; the key itself is never shown."""
    expected = "online with a key, or a mode that was chosen"
    try:
        mode = resolve_mode(None, environ)
    except InputError as error:
        return Check(
            name="wandb",
            verdict=Grade.FAIL,
            observed=error.what,
            expected=expected,
            next_step=error.next_step or "unset WANDB_MODE",
        )
    return Check(
        name="wandb",
        verdict=Grade.WARN if mode.note else Grade.OK,
        observed=f"{mode.mode}, no key is set" if mode.note else mode.mode,
        expected=expected,
        next_step="wandb login, or wandb sync later" if mode.note else None,
    )


def data_sets(root: Path, needs: Needs | None) -> Iterator[Check]:
    """Every data set that is there, and the one that the sweep asks for."""
    present = sorted(path.name for path in (root / "datasets").glob("[!.]*_sp*") if path.is_dir())
    needed = needs.dataset if needs else None
    if needed is not None:
        yield judge_data(needed, needed=True)
    for name in present:
        if needed is None or name != needed.name:
            try:
                dataset = locate(name, root)
            except DataError:
                continue  # a folder of someone else's
            yield judge_data(dataset, needed=False)
    if not present and needed is None:
        yield Check(
            name="data",
            verdict=Grade.WARN,
            observed=f"none in {root / 'datasets'}",
            expected="demo_sp512 for the demo, fineweb10B_sp1024 for the contest",
            next_step="pgolf-sweep data demo",
        )


def judge_data(dataset: DataSet, *, needed: bool) -> Check:
    """A data set is sound."""
    expected = "whole shards and their tokenizer"
    try:
        found = survey(dataset)
    except DataError as error:
        got = f": {error.got}" if error.got else ""
        return Check(
            name=f"data {dataset.name}",
            verdict=Grade.FAIL if needed else Grade.WARN,
            observed=f"{error.what}{got}",
            expected=error.expected or expected,
            next_step=error.next_step,
        )
    return Check(
        name=f"data {dataset.name}",
        verdict=Grade.OK,
        observed=f"{found.train.tokens:,} tokens to train on, {found.val.tokens:,} to validate",
        expected=expected,
    )


def cluster(address: str, *, needed: int | None) -> Check:
    """A Ray cluster answers, and one of its nodes has the GPUs of a trial."""
    expected = "a Ray cluster" if needed is None else f"a node with {needed} GPUs"
    try:
        from pgolf_sweep.launch.ray import cluster as ray_cluster  # noqa: PLC0415 - ray takes 0.6 s

        own = ray_cluster.join(address, Resources(gpus=needed or 0, cpus=1.0), None)
        try:
            nodes = [(node.name, node.gpus, node.cpus) for node in ray_cluster.live_nodes()]
        finally:
            if own:
                ray_cluster.leave()
    except (InfraError, ImportError) as error:
        got = error.got if isinstance(error, InfraError) else None
        return Check(
            name="ray cluster",
            verdict=Grade.FAIL,
            observed=f"{getattr(error, 'what', error)}{f': {got}' if got else ''}",
            expected=expected,
            next_step=getattr(error, "next_step", None) or software.INSTALL,
        )
    return judge_nodes(nodes, needed=needed, expected=expected)


def judge_nodes(
    nodes: Sequence[tuple[str, float, float]], *, needed: int | None, expected: str
) -> Check:
    """The cluster's nodes, each a name, its GPUs and its CPUs, can run a trial."""
    fits = needed is None or any(gpus >= needed for _, gpus, _ in nodes)
    listed = ", ".join(f"{name} ({gpus:g} GPUs, {cpus:g} CPUs)" for name, gpus, cpus in nodes)
    return Check(
        name="ray cluster",
        verdict=Grade.OK if fits and nodes else Grade.FAIL,
        observed=listed if nodes else "no live node",
        expected=expected,
        next_step=None if fits and nodes else "add a node, or lower pgolf.resources.gpus",
    )

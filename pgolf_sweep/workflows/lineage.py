"""What is done with the programs of a study: shown, written out, merged, ablated, chosen from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import AnswerNoError, InputError
from pgolf_sweep.core.paths import write_bytes
from pgolf_sweep.core.record import State, ranked
from pgolf_sweep.report.compare import noise_of
from pgolf_sweep.report.lineage import extendable, lineage, near_misses
from pgolf_sweep.report.read import reading, study_records
from pgolf_sweep.script.logs.stream import parse_log
from pgolf_sweep.script.logs.tail import log_tail
from pgolf_sweep.variants.diff import merged as merged_files
from pgolf_sweep.variants.diff import unified
from pgolf_sweep.variants.store import kept, kept_all, patch_of, plain_files
from pgolf_sweep.workflows.propose import Asked
from pgolf_sweep.workflows.variants import program_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.report.lineage import Extendable, Lineage, Node
    from pgolf_sweep.variants.store import Variant
    from pgolf_sweep.workflows.propose import Proposal

SEED_SD_BPB = 0.0005
"""Spread of one run over seeds where no configuration of the study ran on two: the contest's
records report .0003 to .0012."""
MOST_PAIRS = 15
TAIL_LINES = 20
OWN_PROGRAM = "program"
"""By which `checkout` asks for the study's own program."""


def read_lineage(paths: StudyPaths) -> Lineage:
    """The tree of a study.

    Raises:
        InputError: It cannot be read.
    """
    return lineage(paths.name, study_records(paths.root), kept_all(paths))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTrial:
    """One trial with its program and its log.

    Attributes:
        record: Its row.
        variant: Its program; None for the study's own.
        diff: Of its program against its parent's.
        log: What its log says, by key; empty without a log.
        tail: The log's last lines where the trial failed.
        curve: Its validations: ordinal, from 1, and score.
        node: Where it stands in the lineage; None outside of it.
    """

    record: TrialRecord
    variant: Variant | None
    diff: str
    log: Mapping[str, Any]
    tail: tuple[str, ...]
    curve: Sequence[tuple[int, float]]
    node: Node | None


def shown_trial(paths: StudyPaths, number: int) -> ShownTrial:
    """What there is to see of a trial.

    Raises:
        InputError: There is no such trial.
    """
    record = _trial(paths, study_records(paths.root), str(number))
    own = record.number if record.duplicate_of is None else record.duplicate_of
    with reading(paths.root) as study:
        curve = study.curves().get(own, [])
    log = paths.trial(own).log
    said = dataclasses.asdict(parse_log(log)) if log.is_file() else {}
    failed = record.outcome is State.FAILED
    return ShownTrial(
        record=record,
        variant=kept(paths, record.variant) if record.variant else None,
        diff=patch_of(paths, record.variant) if record.variant else "",
        log={key: value for key, value in said.items() if value not in (None, {}, ())},
        tail=log_tail(log)[-TAIL_LINES:] if failed else (),
        curve=curve,
        node=read_lineage(paths).node_of(own),
    )


def named_trial(paths: StudyPaths, named: str) -> int:
    """The number of the trial that a number or `best` names.

    Raises:
        InputError: There is none.
    """
    return _trial(paths, study_records(paths.root), named).number


def checkout(paths: StudyPaths, named: str, folder: Path) -> list[Path]:
    """Write a trial's program into a folder, as people wrote it.

    Args:
        paths: The study's folder.
        named: A trial's number, `best`, or `program` for the study's own.
        folder: Where; made if it is not there.

    Returns:
        The files.

    Raises:
        InputError: There is no such trial, or another file of that name lies there.
    """
    variant = ""
    if named != OWN_PROGRAM:
        variant = _trial(paths, study_records(paths.root), named).variant
    files = plain_files(program_of(paths, variant))
    taken = [
        name
        for name, content in files.items()
        if (folder / name).exists() and (folder / name).read_bytes() != content
    ]
    if taken:
        raise InputError(
            "nothing is overwritten",
            where=str(folder),
            got=f"other content in {', '.join(taken)}",
            expected="a new or empty folder",
        )
    for name, content in files.items():
        write_bytes(folder / name, content)
    return [folder / name for name in sorted(files)]


# -- merging -------------------------------------------------------------------------------------


def merge(
    paths: StudyPaths, first: str, second: str, *, by: str, idea: str = "", seeds: int = 1
) -> Proposal:
    """Propose the program that has the changes of two trials' programs.

    Its knobs are the first's, and where only the second differs from the trial that both descend
    from, the second's.

    Raises:
        InputError: There is no such trial, or one program descends from the other.
        AnswerNoError: Both change the same lines.
    """
    asked = Asked.of(paths, by=by, idea=idea, seeds=seeds)
    one, two = asked.trial(first), asked.trial(second)
    files = _merged(paths, one.variant, two.variant)
    text = f"merge of trials {one.number} and {two.number}"
    if not asked.idea:
        ideas = " + ".join(filter(None, [one.idea, two.idea]))
        asked = dataclasses.replace(asked, idea=f"{text}: {ideas}" if ideas else text)
    knobs = _merged_knobs(asked, one, two)
    return asked.propose(knobs, parent=one, files=files, merged=two.variant)


def _merged(paths: StudyPaths, one: str, two: str) -> dict[str, bytes]:
    lines = [ancestors(paths, variant) for variant in (one, two)]
    for variant, other in ((one, lines[1]), (two, lines[0])):
        if variant in other:
            raise InputError(
                "one of the programs descends from the other: there is nothing to merge",
                got=f"{one or 'the study program'} and {two or 'the study program'}",
                next_step="pgolf-sweep lineage STUDY shows two branches",
            )
    base = next(variant for variant in lines[0] if variant in lines[1])
    texts = [plain_files(program_of(paths, variant)) for variant in (base, one, two)]
    return merged_files(*texts)


def ancestors(paths: StudyPaths, variant: str) -> list[str]:
    """A program and those that it descends from, the study's own last."""
    found = [variant]
    while found[-1]:
        parent = kept(paths, found[-1]).parent
        if parent in found:
            break  # a file that somebody edited
        found.append(parent)
    return found if not found[-1] else [*found, ""]


def _merged_knobs(asked: Asked, one: TrialRecord, two: TrialRecord) -> dict[str, KnobValue]:
    rows = {record.number: record for record in asked.records}

    def line(record: TrialRecord) -> list[int]:
        found = [record.number]
        while (above := rows[found[-1]].parent) in rows and above not in found:
            found.append(above)
        return found

    of_two = line(two)
    base = next((rows[number] for number in line(one) if number in of_two), None)
    if base is None:
        return {}
    parameters = asked.session.spec.space.parameters
    return {
        name: two.knobs[name]
        for name in parameters
        if name in two.knobs
        and name.lower() != "seed"
        and one.knobs.get(name) == base.knobs.get(name) != two.knobs[name]
    }


# -- ablation ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """A trial's program without one change of its lineage.

    Attributes:
        variant: The change, by the id of the program that made it.
        idea: Its one line.
        proposal: What was proposed; None where the change cannot be taken out.
        problem: Why not; empty otherwise.
    """

    variant: str
    idea: str
    proposal: Proposal | None
    problem: str = ""


def ablate(paths: StudyPaths, named: str, *, by: str, seeds: int = 1) -> list[Ablation]:
    """Propose a trial's program with each change of its lineage left out, oldest first.

    A change is taken out as git would revert it: the three-way merge of the program with the
    change's parent, on the changed program.

    Raises:
        InputError: There is no such trial, or it runs the study's own program.
    """
    asked = Asked.of(paths, by=by, seeds=seeds)
    record = asked.trial(named)
    if not record.variant:
        raise InputError(
            f"trial {record.number} runs the study's own program: nothing was changed",
            next_step=f"pgolf-sweep lineage {paths.name}",
        )
    line = [variant for variant in ancestors(paths, record.variant) if variant]
    return [_without(paths, asked, record, variant) for variant in reversed(line)]


def _without(paths: StudyPaths, asked: Asked, record: TrialRecord, variant: str) -> Ablation:
    change = kept(paths, variant)
    whole, made, before = (
        plain_files(program_of(paths, one)) for one in (record.variant, variant, change.parent)
    )
    named = change.idea or f"change {variant}"
    try:
        files = merged_files(made, whole, before)
        proposal = dataclasses.replace(asked, idea=f"without: {named}").propose(
            {}, parent=record, files=files
        )
    except (AnswerNoError, InputError) as error:
        problem = "; ".join(filter(None, [error.what, error.got]))
        return Ablation(variant=variant, idea=change.idea, proposal=None, problem=problem)
    return Ablation(variant=variant, idea=change.idea, proposal=proposal)


# -- what to try next ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NextSteps:
    """Where a change promises most.

    Attributes:
        std: Of one run over seeds; `measured` says whether the study's own repeats gave it.
        parents: Configurations worth extending, best first.
        combine: Pairs of trials whose programs git merges cleanly, best first.
        metric: The sweep's own metric; empty for the contest's score.
    """

    std: float
    measured: bool
    parents: tuple[Extendable, ...]
    combine: tuple[tuple[Node, Node], ...]
    metric: str = ""


def next_steps(paths: StudyPaths, *, top: int = 5) -> NextSteps:
    """What to extend and what to combine.

    Raises:
        InputError: The study cannot be read.
        AnswerNoError: No trial completed that could be extended.
    """
    records = study_records(paths.root)
    variants = kept_all(paths)
    tree = _with_best(paths, records, variants)
    noise = noise_of(records)
    std = SEED_SD_BPB if noise is None or noise.std <= 0 else noise.std
    added = {name: _added(patch_of(paths, name)) for name in variants}
    parents = extendable(tree, records, added, std=std)
    if not parents:
        raise AnswerNoError(
            "no trial completed that could be extended",
            next_step=f"pgolf-sweep trials {paths.name}",
        )
    near = near_misses(tree, std=std, maximize=any(r.maximize for r in records))
    return NextSteps(
        std=std,
        measured=noise is not None,
        parents=tuple(parents[:top]),
        combine=tuple(_mergeable(paths, near))[:top],
        metric=tree.metric,
    )


def _with_best(
    paths: StudyPaths, records: Sequence[TrialRecord], variants: Mapping[str, Variant]
) -> Lineage:
    """The lineage, with the best trial as a root where it stands outside of it."""
    best = next(iter(ranked(records)), None)
    return lineage(paths.name, records, variants, also=() if best is None else (best.number,))


def _added(patch: str) -> frozenset[str]:
    lines = patch.splitlines()
    new = (line[1:].strip() for line in lines if line[:1] == "+" and line[:3] != "+++")
    return frozenset(line for line in new if line)


def _mergeable(paths: StudyPaths, near: Sequence[Node]) -> Iterator[tuple[Node, Node]]:
    tried = 0
    for one, two in combinations(near, 2):
        if tried == MOST_PAIRS:
            return
        try:
            lines = {*ancestors(paths, one.variant)} & {one.variant, two.variant}
            if one.variant == two.variant or two.variant in lines:
                continue
            tried += 1
            files = _merged(paths, one.variant, two.variant)
        except (AnswerNoError, InputError):
            continue
        if unified(files, plain_files(program_of(paths, one.variant))):
            yield one, two


def _trial(paths: StudyPaths, records: Sequence[TrialRecord], named: str) -> TrialRecord:
    """The trial that a number or `best` names.

    Raises:
        InputError: There is none.
    """
    if named == "best":
        found = next(iter(ranked(records)), None)
    else:
        found = next((r for r in records if str(r.number) == named), None)
    if found is None:
        raise InputError(
            f"study {paths.name!r} has no trial {named}",
            expected="a trial's number, or `best`",
            next_step=f"pgolf-sweep trials {paths.name}",
        )
    return found

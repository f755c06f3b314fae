"""Programs of a study: lineage, show, checkout, merge, ablate, next."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgolf_sweep.cli.common import (
    DEFAULT_RUNS,
    JsonOption,
    RunsOption,
    StudyArgument,
    app,
    emit,
    out,
    say,
)
from pgolf_sweep.core.record import SCORE, named

if TYPE_CHECKING:
    from pgolf_sweep.report.lineage import Node
    from pgolf_sweep.workflows.forward import Selection
    from pgolf_sweep.workflows.lineage import NextSteps, ShownTrial

TrialArgument = Annotated[str, typer.Argument(metavar="N|best", help="A trial's number, or best.")]
ByOption = Annotated[str | None, typer.Option(help="Who proposes. Else the user's name.")]
SeedsOption = Annotated[int, typer.Option(min=1, max=32, help="How many, from the trial's on.")]


@app.command()
def lineage(
    study: StudyArgument,
    dot: Annotated[bool, typer.Option("--dot", help="Print the tree for Graphviz.")] = False,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """What was tried on what: the tree of programs and knobs that people and agents proposed.

    Each line is a program with its knobs, over all its seeds: the score, the difference to what it
    changes with its 95 % interval, the idea, the proposer. Discarded and failed ones stay.

    Example: pgolf-sweep lineage demo
    Example: pgolf-sweep lineage demo --dot | dot -Tsvg > tree.svg
    """
    from pgolf_sweep.cli.detached import look
    from pgolf_sweep.workflows.lineage import read_lineage

    paths = look(runs, study)
    tree = read_lineage(paths)
    if json_output:
        untried = [
            {"variant": one.id, "parent": one.parent, "idea": one.idea, "proposer": one.by}
            for one in tree.untried.values()
        ]
        nodes = [node.to_json() | {"depth": depth} for depth, node in tree.walk()]
        emit(named({"study": paths.name, "nodes": nodes, "untried": untried}, tree.metric))
        return
    if dot:
        out.out(tree.dot(), end="", highlight=False)
        return
    for depth, node in tree.walk():
        out.print("   " * depth + node.text, markup=False, soft_wrap=True)
    for one in tree.untried.values():
        out.print(f'not run yet: program {one.id}  "{one.idea}"  by {one.by}', markup=False)
    if not tree.nodes and not tree.untried:
        say(f"nothing was proposed yet; next: pgolf-sweep propose {paths.name} --program FILE")


@app.command()
def show(
    study: StudyArgument,
    trial: TrialArgument,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """One trial: what its program changes, what its log says, its curve.

    Example: pgolf-sweep show demo 7
    """
    from pgolf_sweep.cli.detached import look
    from pgolf_sweep.workflows.lineage import named_trial, shown_trial

    paths = look(runs, study)
    found = shown_trial(paths, named_trial(paths, trial))
    if json_output:
        emit(named(_shown(found) | {"study": paths.name}, found.record.metric))
        return
    record = found.record
    if found.node is not None:
        out.print(found.node.text, markup=False, soft_wrap=True)
    else:
        name = record.metric or SCORE
        score = "" if record.val_bpb is None else f"  {name} {record.val_bpb:.4f}"
        out.print(f"trial {record.number}  {record.outcome.value}{score}", markup=False)
    if record.reason:
        out.print(record.reason, markup=False, soft_wrap=True)
    knobs = "  ".join(f"{name}={value}" for name, value in sorted(record.knobs.items()))
    out.print(f"knobs  {knobs}", markup=False, soft_wrap=True)
    if found.curve:
        scores = "  ".join(f"{value:.4f}" for _, value in found.curve)
        out.print(f"curve  {scores}", markup=False, soft_wrap=True)
    for key, value in found.log.items():
        out.print(f"log    {key} {value}", markup=False, soft_wrap=True)
    for line in found.tail:
        out.print(f"       {line}", markup=False, soft_wrap=True)
    if found.diff:
        out.out(found.diff, end="", highlight=False)


def _shown(found: ShownTrial) -> dict[str, Any]:
    """The document of ``show --json``; keys stay stable."""
    return {
        "trial": found.record.to_json(),
        "variant": found.variant,
        "diff": found.diff,
        "log": dict(found.log),
        "tail": list(found.tail),
        "curve": [{"validation": ordinal, "val_bpb": value} for ordinal, value in found.curve],
        "node": None if found.node is None else found.node.to_json(),
    }


@app.command()
def checkout(
    study: StudyArgument,
    trial: Annotated[
        str,
        typer.Argument(metavar="N|best|program", help="A trial, or the study's own program."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go.")],
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """Write a trial's program into a folder, readable, to change it and propose it again.

    Example: pgolf-sweep checkout demo best idea
    """
    from pgolf_sweep.cli.detached import look
    from pgolf_sweep.workflows.lineage import checkout as write

    paths = look(runs, study)
    files = write(paths, trial, folder)
    if json_output:
        emit({"study": paths.name, "trial": trial, "folder": folder, "files": files})
        return
    for file in files:
        out.print(str(file), markup=False, soft_wrap=True)


@app.command()
def merge(
    study: StudyArgument,
    first: TrialArgument,
    second: TrialArgument,
    by: ByOption = None,
    idea: Annotated[str, typer.Option(help="One line; else both trials' ideas.")] = "",
    seeds: SeedsOption = 1,
    wait: Annotated[bool, typer.Option("--wait", help="Until the trials have ended.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Most seconds to wait; else no limit.")
    ] = None,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """Propose the program that holds the changes of two trials, where git merges them cleanly.

    Exit code 1: both change the same lines, or what `propose` says.

    Example: pgolf-sweep merge demo 12 17 --wait
    """
    from pgolf_sweep.cli.detached import passed_on
    from pgolf_sweep.cli.propose import answer
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.workflows.lineage import merge as propose_merge

    paths = StudyPaths.existing(runs, study)
    by = by or getpass.getuser()
    words = [first, second, f"--by={by}", f"--seeds={seeds}"] + [f"--idea={idea}"] * bool(idea)
    words += [f"--timeout={timeout}"] if timeout is not None else []
    words += ["--wait"] * wait + ["--json"] * json_output
    if passed_on(paths, "merge", paths.name, *words, opens_study=True):
        return
    asked = propose_merge(paths, first, second, by=by, idea=idea, seeds=seeds)
    answer(paths, asked, wait=wait, timeout=timeout, json_output=json_output)


@app.command()
def ablate(
    study: StudyArgument,
    trial: TrialArgument,
    patches: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATCH]...", help="Diffs against its program, for --forward."),
    ] = None,
    forward: Annotated[
        bool, typer.Option("--forward", help="Add changes one by one instead; PATCHes imply it.")
    ] = False,
    by: ByOption = None,
    seeds: SeedsOption = 1,
    wait: Annotated[
        bool, typer.Option("--wait", help="With --forward: until the selection is over.")
    ] = False,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """Propose a trial's program without each change of its lineage, to see what each is worth.

    A change that later ones build on cannot be left out alone; it is named with the reason.

    With --forward changes are added instead of left out: each round tries all that are left on top
    of what is accepted and accepts the best that the study's `accept` rule keeps, until it keeps
    none. PATCHes are added to the trial's program; without any, the changes of its lineage are
    added to the study's own program. The state is in the study: the same command goes on.

    Exit code 1: no change can be left out; or with --forward, all are tried and none is kept.

    Example: pgolf-sweep ablate demo best --seeds 3
    Example: pgolf-sweep ablate demo 0 patches/*.diff --wait
    """
    if forward or patches:
        _forward(
            runs, study, trial, patches or [], by=by, seeds=seeds, wait=wait, as_json=json_output
        )
        return
    from pgolf_sweep.cli.detached import passed_on
    from pgolf_sweep.cli.propose import document
    from pgolf_sweep.core.errors import AnswerNoError
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.workflows.lineage import ablate as propose_each

    paths = StudyPaths.existing(runs, study)
    by = by or getpass.getuser()
    words = [trial, f"--by={by}", f"--seeds={seeds}", *["--json"] * json_output]
    if passed_on(paths, "ablate", paths.name, *words, opens_study=True):
        return
    found = propose_each(paths, trial, by=by, seeds=seeds)
    if json_output:
        rows = [
            {
                "variant": one.variant,
                "idea": one.idea,
                "problem": one.problem,
                "proposal": None
                if one.proposal is None
                else document(one.proposal, one.proposal.requests, one.proposal.earlier),
            }
            for one in found
        ]
        emit({"study": paths.name, "ablations": rows})
    else:
        for one in found:
            follows = one.problem if one.proposal is None else one.proposal.follows
            reason = "" if one.proposal is None else one.proposal.refusal
            text = f"without {one.idea or one.variant}: {follows or reason}"
            out.print(text, markup=False, soft_wrap=True)
    if all(one.proposal is None for one in found):
        raise AnswerNoError(
            "no change of this lineage can be left out alone",
            got=found[0].problem,
            next_step=f"pgolf-sweep lineage {paths.name}",
        )


def _forward(
    runs: Path,
    study: str,
    trial: str,
    patches: list[Path],
    *,
    by: str | None,
    seeds: int,
    wait: bool,
    as_json: bool,
) -> None:
    from pgolf_sweep.cli.detached import passed_on
    from pgolf_sweep.core.errors import AnswerNoError
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.workflows.forward import forward, select
    from pgolf_sweep.workflows.lineage import named_trial
    from pgolf_sweep.workflows.variants import sent_along

    paths = StudyPaths.existing(runs, study)
    by = by or getpass.getuser()
    words = [trial, "--forward", f"--by={by}", f"--seeds={seeds}"]
    words += ["--wait"] * wait + ["--json"] * as_json
    files: dict[str, bytes] = {}
    if paths.detached.is_file():
        for patch in patches:
            files |= sent_along(None, patch)[1]
        words[1:1] = [patch.name for patch in patches]
    if passed_on(paths, "ablate", paths.name, *words, opens_study=True, files=files):
        return
    trial = str(named_trial(paths, trial))  # what is best now may not be then
    if wait:
        found = select(paths, trial, patches, by=by, seeds=seeds, report=say)
    else:
        found = forward(paths, trial, patches, by=by, seeds=seeds)
    if as_json:
        emit(found.to_json())
    else:
        _show_rounds(found)
    if found.waits_for:
        say(f"waits for {len(found.waits_for)} runs; the same command with {trial} goes on")
    elif not found.accepted:
        raise AnswerNoError(
            "no change is kept", next_step=f"pgolf-sweep lineage {paths.name} shows what was tried"
        )


def _show_rounds(found: Selection) -> None:
    for one in found.rounds:
        out.print(f"on trial {one.base}", markup=False)
        for tried in one.tried:
            effect = "" if tried.effect is None else f" {tried.effect:+.5f}"
            number = "" if tried.trial is None else f" (trial {tried.trial})"
            text = tried.problem or f"{tried.decision}{effect}"
            star = "*" if tried.change == one.kept else " "
            out.print(f" {star} {tried.change}{number}: {text}", markup=False, soft_wrap=True)
    if found.accepted:
        out.print(f"accepted: {', '.join(found.accepted)}: trial {found.trial}", markup=False)


@app.command("next")
def next_(
    study: StudyArgument,
    top: Annotated[int, typer.Option(min=1, help="How many of each.")] = 5,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """Where a change promises most: trials worth extending, and programs worth combining.

    Parents are sorted by how far they are behind the best, how often they were changed already and
    how new their code is; combinations merge cleanly, and neither part is clearly worse than what
    it changes.

    Example: pgolf-sweep next demo --json
    """
    from pgolf_sweep.cli.detached import look
    from pgolf_sweep.workflows.lineage import next_steps

    paths = look(runs, study)
    found = next_steps(paths, top=top)
    if json_output:
        emit(named(_steps(found) | {"study": paths.name}, found.metric))
        return
    out.print("worth extending", markup=False)
    for one in found.parents:
        text = f"  {one.node.text}  {one.behind:.1f} sd behind, changed {one.tried} times"
        out.print(text, markup=False, soft_wrap=True)
    if found.combine:
        out.print("worth combining", markup=False)
    for first, second in found.combine:
        text = f"  pgolf-sweep merge {paths.name} {first.number} {second.number}"
        out.print(f"{text}  {_idea(first)} + {_idea(second)}", markup=False, soft_wrap=True)


def _idea(node: Node) -> str:
    return f'"{node.idea}"' if node.idea else f"trial {node.number}"


def _steps(found: NextSteps) -> dict[str, Any]:
    """The document of ``next --json``; keys stay stable."""
    return {
        "run_std_bpb": found.std,
        "run_std_measured": found.measured,
        "parents": [
            one.node.to_json()
            | {
                "behind_sd": one.behind,
                "tried": one.tried,
                "novelty": one.novelty,
                "worth": one.worth,
            }
            for one in found.parents
        ],
        "combine": [
            {"first": one.number, "second": two.number, "ideas": [one.idea, two.idea]}
            for one, two in found.combine
        ],
    }

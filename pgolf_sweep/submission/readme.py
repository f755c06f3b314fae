"""The submission's README: what a reviewer looks for, in the order they look for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pgolf_sweep import __version__
from pgolf_sweep.core.trial import knob_text
from pgolf_sweep.script.knobs.knobs import read_knobs, worded
from pgolf_sweep.script.source import decoded
from pgolf_sweep.submission.evidence import largest, mean_bpb
from pgolf_sweep.submission.stats import sample

if TYPE_CHECKING:
    from pgolf_sweep.submission.types import Submission


def readme(submission: Submission) -> str:
    """The text of README.md."""
    sections = (
        _headline(submission),
        _by_seed(submission),
        _approach(submission),
        *_attribution(submission),
        _reproduce(submission),
        _compliance(submission),
        _provenance(submission),
    )
    return "\n\n".join(sections) + "\n"


def _headline(submission: Submission) -> str:
    runs = submission.runs
    std = sample([run.val_bpb for run in runs]).std
    spread = "" if std is None else f" ± {std:.5f}"
    seeds = f"mean of {len(runs)} seeds" if len(runs) > 1 else "one seed"
    return (
        f"# {submission.name}\n\n"
        f"**val_bpb = {mean_bpb(runs):.5f}{spread}** ({seeds}) | "
        f"**{largest(runs).artifact_bytes or 0:,} bytes** | {submission.provenance.hardware}"
        f"\n\n{submission.blurb}"
    )


def _by_seed(submission: Submission) -> str:
    runs = submission.runs
    rows = [
        "## Results",
        "",
        "| Seed | val_bpb | val_loss (nats) | Artifact (bytes) | Steps | Train (s) | Eval (s) |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for run in runs:
        said = run.summary
        artifact = "?" if run.artifact_bytes is None else f"{run.artifact_bytes:,}"
        rows.append(
            f"| {run.seed} | {run.val_bpb:.8f} | {run.val_loss_nats:.8f} | {artifact} "
            f"| {_text(said.steps)} | {_text(said.train_seconds)} | {_text(said.eval_seconds)} |"
        )
    bpb, loss = sample([r.val_bpb for r in runs]), sample([r.val_loss_nats for r in runs])
    rows.append(f"| **mean** | **{bpb.mean:.8f}** | {loss.mean:.8f} | | | | |")
    if bpb.std is not None and loss.std is not None:
        rows.append(f"| std (n - 1) | {bpb.std:.8f} | {loss.std:.8f} | | | | |")
        rows += [
            "",
            (
                f"{loss.confidence:.0%} interval of the mean loss: "
                f"{loss.low:.5f} to {loss.high:.5f} nats."
            ),
        ]
    beaten, record = submission.comparison, submission.rules.record
    if beaten is not None and record is not None:
        rows += [
            "",
            (
                f"Against {record.source} ({record.date}, {record.val_loss_nats:.5f} nats): "
                f"{beaten.improvement_nats:+.5f} nats better; p = {beaten.p_value:.2g} that the "
                f"true improvement is {beaten.margin_nats:g} nats or less "
                f"({beaten.method}, one-sided)."
            ),
        ]
    rows += [f"- {margin}." for margin in submission.margins]
    rows += [
        "",
        (
            "The seeds were fixed before any of them ran and none is the search's own; "
            "every one that was declared is in the table."
        ),
    ]
    return "\n".join(rows)


def _attribution(submission: Submission) -> tuple[str, ...]:
    """Which change came from whom, and what it is worth; nothing where nothing was changed."""
    came = submission.provenance
    if not came.lineage and not came.based_on:
        return ()
    rows = ["## Who found what", ""]
    if came.based_on:
        link, licence = came.based_on.get("link"), came.based_on.get("licence")
        name = came.based_on.get("name", link or "published work")
        named = f"[{name}]({link})" if link else name
        rows += [f"The program began as {named}{f', {licence}' if licence else ''}.", ""]
    if came.lineage:
        rows += [
            "| Trial | Of | By | Idea | Effect (bpb) | 95 % | Runs |",
            "| ---: | ---: | --- | --- | ---: | --- | ---: |",
        ]
    for step in came.lineage:
        parent = "" if step.parent is None else str(step.parent)
        idea = step.idea.replace("|", "\\|")
        effect = "" if step.effect_bpb is None else f"{step.effect_bpb:+.5f}"
        interval = "" if step.low_bpb is None else f"{step.low_bpb:+.5f} to {step.high_bpb:+.5f}"
        runs = f"{step.runs[0]} and {step.runs[1]}" if step.parent is not None else ""
        cells = (str(step.trial), parent, f"`{step.proposer}`", idea, effect, interval, runs)
        rows.append(f"| {' | '.join(cells)} |")
    tried = ", ".join(f"{count} by `{name}`" for name, count in came.tried.items())
    rows += ["", f"Tried in this study: {tried}."]
    return ("\n".join(rows),)


def _approach(submission: Submission) -> str:
    came, candidate = submission.provenance, submission.candidate
    counts = ", ".join(f"{count} {name}" for name, count in came.trials.items() if count)
    unit = "GPU-hours" if came.gpus else "slot-hours on CPU"
    hours = came.slot_seconds / 3600 * max(1, came.gpus)
    values = worded(candidate.knobs, read_knobs(decoded(submission.script)))
    knobs = "\n".join(
        f"| `{name}` | `{knob_text(value)}` |" for name, value in sorted(values.items())
    )
    return (
        "## What was searched, and how\n\n"
        f"Study `{candidate.study}`: {counts}; {hours:.2f} {unit}. Sampler: {came.sampler}. "
        f"Trial {candidate.number}, proposed by `{candidate.proposer}`, scored "
        f"{candidate.val_bpb:.5f} on the search's seed and was promoted."
        f"{_race(submission)}\n\nIts values are the "
        f"defaults of `train_gpt.py`:\n\n"
        f"| Knob | Value |\n| --- | --- |\n{knobs}\n\n"
        "<details><summary>The sweep file</summary>\n\n"
        f"```yaml\n{came.sweep_text.rstrip()}\n```\n\n</details>"
    )


def _race(submission: Submission) -> str:
    race = submission.race
    if race is None:
        return ""
    lines = "".join(f"\n- {line}" for line in race.summary)
    tied = ", ".join(map(str, race.tied))
    told = "" if race.confident else f" Trial {tied} was not told apart from it."
    return (
        f"\n\nIt was chosen in a race of {len(race.summary)} trials on fresh seeds "
        f"({race.runs} runs), and the limit on p is divided by {len(race.summary)} for it.{told}"
        f"\n{lines}"
    )


def _reproduce(submission: Submission) -> str:
    came = submission.provenance
    run = (
        f"torchrun --standalone --nproc_per_node={came.gpus} train_gpt.py"
        if came.gpus > 1
        else "python train_gpt.py"
    )
    seed = submission.runs[0].seed
    return (
        "## Reproduce\n\n"
        f"With the `{came.dataset}` shards and their tokenizer at hand, in an empty folder:\n\n"
        "```bash\n"
        "pip install -r requirements.txt\n"
        "export DATA_PATH=/path/to/shards TOKENIZER_PATH=/path/to/tokenizer.model\n"
        f"SEED={seed} {run}\n"
        "```"
    )


def _compliance(submission: Submission) -> str:
    rules, runs = submission.rules, submission.runs
    size = largest(runs)
    train = max((run.summary.train_seconds or 0.0 for run in runs), default=0.0)
    shipped = (
        ""
        if not (submission.include_model and size.artifact)
        else (f" (the compressed model in this folder is seed {size.seed}'s, the largest)")
    )
    lines = [
        f"## Compliance ({rules.title})",
        "",
        (
            f"- Artifact: {len(submission.script):,} bytes of `train_gpt.py` + "
            f"{size.model_bytes or 0:,} bytes of compressed model = {size.artifact_bytes or 0:,} "
            f"<= {rules.artifact_cap_bytes:,}{shipped}."
        ),
        f"- Training: at most {train:.1f} s of {rules.train_seconds:g} s in every log.",
        f"- Seeds: {len(runs)} distinct of at least {rules.min_seeds}; no selection among them.",
        "- The logs were written by the very `train_gpt.py` in this folder.",
        "- `val_bpb` is measured after the compressed model was written and read back.",
    ]
    if submission.pack is not None and submission.documents:
        lines.append(
            f"- `train_gpt.py` is minified and compressed from {submission.pack.before_bytes:,} "
            f"bytes; {', '.join(f'`{name}`' for name in submission.documents)} is its text for "
            "reading. Both gave the same artifact, bit for bit, in a run."
        )
    evals = [run.summary.eval_seconds for run in runs if run.summary.eval_seconds is not None]
    if evals:
        lines.insert(4, f"- Evaluation: at most {max(evals):.1f} s of {rules.eval_seconds:g} s.")
    return "\n".join(lines)


def _provenance(submission: Submission) -> str:
    came = submission.provenance
    versions = ", ".join(f"{name} {version}" for name, version in sorted(came.versions.items()))
    nodes = sorted({run.end.node for run in submission.runs})
    return (
        "## Provenance\n\n"
        f"- Written by pgolf-sweep {__version__} on {submission.date} from study "
        f"`{submission.candidate.study}`, trial {submission.candidate.number}.\n"
        f"- Program that was searched: sha256 `{came.program_sha256}`; data: `{came.dataset}`.\n"
        f"- Seeds ran on {len(nodes)} node{'s' if len(nodes) != 1 else ''}: "
        f"{came.hardware}.\n"
        f"- Versions: {versions or 'not recorded'}.\n"
        f"- Knobs as JSON: `{json.dumps(dict(submission.candidate.knobs), sort_keys=True)}`"
    )


def _text(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"

"""The submission folder in the contest's form, written whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep import __version__
from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.script.source import decoded
from pgolf_sweep.script.unpack import unpack
from pgolf_sweep.submission.evidence import SCRIPT_NAME, largest, mean_bpb
from pgolf_sweep.submission.readme import readme
from pgolf_sweep.submission.source import imported_modules
from pgolf_sweep.submission.stats import sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pgolf_sweep.submission.types import Submission

READABLE_NAME = "readable/train_gpt.py"
"""Where a packed script's text lies for reviewers; it is not what runs, nor is it counted."""

SCORE_DIGITS = 8
"""As many as the scripts print."""


def write_submission(
    submission: Submission, parent: Path, *, check: Callable[[Path], None] | None = None
) -> Path:
    """Write the folder below `parent` and return it.

    The folder is staged under a temporary name, checked, and renamed. A folder that already
    holds the same files is left as it is.

    Args:
        submission: What to write.
        parent: Folder of submissions.
        check: Called on the staged folder; what it raises leaves nothing behind.

    Raises:
        InputError: A folder of that name holds other files.
        InfraError: The disk refused.
    """
    target = parent / submission.folder_name
    with staged(submission, parent) as folder:
        if check is not None:
            check(folder)
        model = largest(submission.runs).artifact
        if model is not None and not submission.include_model:
            (folder / model.name).unlink()
        if not target.exists():
            folder.chmod(0o755)
            folder.replace(target)
        elif not _same(target, folder):
            raise InputError(
                "the submission folder exists and holds something else",
                where=str(target),
                next_step="move it away, or promote under another --name",
            )
    return target


@contextlib.contextmanager
def staged(submission: Submission, parent: Path) -> Iterator[Path]:
    """The folder under a temporary name below `parent`, its model with it; gone afterwards.

    The model is there even if it does not go along, so that its true size is checked.

    Raises:
        InfraError: The disk refused.
    """
    made = not parent.exists()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=f".{submission.folder_name}."))
        try:
            for name, content in _files(submission).items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            yield folder
        finally:
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
            if made:
                with contextlib.suppress(OSError):
                    parent.rmdir()  # where nothing was renamed into it
    except OSError as error:
        raise InfraError(
            f"could not write the submission: {error.strerror or error}",
            where=str(parent / submission.folder_name),
        ) from error


def _files(submission: Submission) -> dict[str, bytes]:
    files: dict[str, bytes] = {**submission.documents, **submission.files}
    files[SCRIPT_NAME] = submission.script
    for run in submission.runs:
        files[f"train_seed{run.seed}.log"] = run.log.read_bytes()
    shipped = largest(submission.runs)
    if shipped.artifact is not None:
        files[shipped.artifact.name] = shipped.artifact.read_bytes()
    files["requirements.txt"] = requirements(
        decoded(submission.script), submission.provenance.versions
    ).encode()
    files["submission.json"] = (json.dumps(manifest(submission), indent=2) + "\n").encode()
    files["README.md"] = readme(submission).encode()
    return files


def manifest(submission: Submission) -> dict[str, Any]:
    """What submission.json says; the bytes are those of the folder's own files."""
    runs = submission.runs
    bpb = sample([run.val_bpb for run in runs])
    loss = sample([run.val_loss_nats for run in runs])
    document: dict[str, Any] = {
        "author": submission.author,
        "github_id": submission.github_id,
        "name": submission.name,
        "blurb": submission.blurb,
        "date": submission.date,
        "track": submission.rules.track.removeprefix("track_"),
        "rules": submission.rules.name,
        "val_bpb": round(mean_bpb(runs), SCORE_DIGITS),
        "val_loss": round(loss.mean, SCORE_DIGITS),
        "bytes_total": largest(runs).artifact_bytes,
        "bytes_code": len(submission.script),
        "seeds": [run.seed for run in runs],
        "seed_results": {
            str(run.seed): {
                "val_bpb": run.val_bpb,
                "val_loss": run.val_loss_nats,
                "artifact_bytes": run.artifact_bytes,
                "steps": run.summary.steps,
            }
            for run in runs
        },
        "hardware": submission.provenance.hardware,
        "provenance": {
            "tool": f"pgolf-sweep {__version__}",
            "study": submission.candidate.study,
            "trial": submission.candidate.number,
            "proposer": submission.candidate.proposer,
            "searched_program_sha256": submission.provenance.program_sha256,
            "dataset": submission.provenance.dataset,
            "gpus": submission.provenance.gpus,
        },
    }
    came = submission.provenance
    if came.lineage or came.based_on:
        document["attribution"] = {
            "based_on": dict(came.based_on),
            "lineage": [dataclasses.asdict(step) for step in came.lineage],
            "tried": dict(came.tried),
        }
    if bpb.std is not None and loss.std is not None:
        document["val_bpb_std"] = round(bpb.std, SCORE_DIGITS)
        document["val_loss_std"] = round(loss.std, SCORE_DIGITS)
    if submission.comparison is not None:
        document["p_value"] = submission.comparison.p_value
        document["comparison_method"] = submission.comparison.method
    if submission.race is not None:
        document["provenance"]["raced"] = list(submission.race.summary)
    if submission.pack is not None:
        document["provenance"]["code_bytes_before_packing"] = submission.pack.before_bytes
    return document


def requirements(source: str, versions: Mapping[str, str]) -> str:
    """requirements.txt for what a script imports, pinned to the versions that the runs had."""
    distributions = metadata.packages_distributions()
    lines = []
    for module in sorted(imported_modules(unpack(source)) - sys.stdlib_module_names):
        known = distributions.get(module)
        if known is None:
            lines.append(f"# {module}: not from PyPI, or part of the image")
            continue
        version = versions.get(known[0]) or versions.get(module) or metadata.version(known[0])
        # "+cpu" and the like name a build that the package index does not have.
        lines.append(f"{known[0]}=={version.partition('+')[0]}")
    return "".join(f"{line}\n" for line in lines)


def _same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files."""
    first, second = (
        {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}
        for root in (one, other)
    )
    return first.keys() == second.keys() and all(
        path.read_bytes() == second[name].read_bytes() for name, path in first.items()
    )

"""A submission folder as it lies on disk, anyone's: script, manifest, logs, model."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import TrialPaths
from pgolf_sweep.script.logs.stream import parse_log
from pgolf_sweep.submission.evidence import SCRIPT_NAME
from pgolf_sweep.submission.source import unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pgolf_sweep.core.trial import LogSummary

_SEED_IN_NAME = re.compile(r"seed[_-]?(\d+)|_s?(\d+)\.(?:log|txt)$", re.IGNORECASE)
_LOG_LIKE = re.compile(r"log|train|run|seed", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedLog:
    """One log of a folder.

    Attributes:
        name: Path relative to the folder.
        text: Its content.
        summary: What it says.
        name_seed: Seed in the file's name, or None.
        read_at: Label of the final score that was read instead of the log's last one, since all
            other logs end with it; None where the last one was read.
        last_bpb: The log's last final score.
    """

    name: str
    text: str
    summary: LogSummary
    name_seed: int | None
    read_at: str | None = None
    last_bpb: float | None = None

    @property
    def seed(self) -> int | None:
        """The seed that the log states, else the one in the file's name."""
        return self.name_seed if self.summary.seed is None else self.summary.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """What was found.

    Attributes:
        root: The folder.
        manifest_name: The JSON file's name, or None where there is none.
        manifest: Its keys; empty if it is missing or broken.
        manifest_problem: Why it could not be read, or None.
        script_name: The script's file name, or None.
        script: Its bytes.
        code: Source that decides, unpacked where the script is a packed one.
        packed: Whether the script carries its source packed.
        logs: Logs with a final score, without copies of one another, by name.
        unscored: Logs that have none.
        model: The compressed model, or None.
        modules: Python modules shipped beside the script.
    """

    root: Path
    manifest_name: str | None
    manifest: Mapping[str, Any]
    manifest_problem: str | None
    script_name: str | None
    script: bytes
    code: str
    packed: bool
    logs: tuple[ShippedLog, ...]
    unscored: tuple[ShippedLog, ...]
    model: Path | None
    modules: frozenset[str]

    @property
    def readme(self) -> bool:
        """Whether there is a README.md with something in it."""
        path = self.root / "README.md"
        return path.is_file() and path.stat().st_size > 0


def read_folder(root: Path) -> Folder:
    """Read a folder, with any content.

    Raises:
        InputError: There is no such folder.
    """
    if not root.is_dir():
        raise InputError(
            "no such submission folder", where=str(root), expected="a folder with a submission"
        )
    manifest_name, manifest, problem = _manifest(root)
    script_name = _script(root)
    script = (root / script_name).read_bytes() if script_name else b""
    text = script.decode(errors="replace")
    inner = unpacked(text, root / script_name) if script_name else None
    logs, unscored = _logs(root)
    return Folder(
        root=root,
        manifest_name=manifest_name,
        manifest=manifest,
        manifest_problem=problem,
        script_name=script_name,
        script=script,
        code=text if inner is None else inner,
        packed=inner is not None,
        logs=tuple(at_one_evaluation(logs)),
        unscored=tuple(unscored),
        model=TrialPaths(root).artifact(),
        modules=frozenset(path.stem for path in root.glob("*.py")),
    )


def _manifest(root: Path) -> tuple[str | None, dict[str, Any], str | None]:
    paths = [root / "submission.json", *sorted(root.glob("submission*.json"))]
    path = next((p for p in paths if p.is_file()), None)
    if path is None:
        return None, {}, "missing"
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        return path.name, {}, f"not JSON: {error}"
    if not isinstance(document, dict):
        return path.name, {}, "not a JSON object"
    return path.name, document, None


def _script(root: Path) -> str | None:
    """The counted script: train_gpt.py, else the largest train*.py."""
    if (root / SCRIPT_NAME).is_file():
        return SCRIPT_NAME
    others = sorted(root.glob("train*.py"), key=lambda path: path.stat().st_size)
    return others[-1].name if others else None


def _logs(root: Path) -> tuple[list[ShippedLog], list[ShippedLog]]:
    logs: list[ShippedLog] = []
    unscored: list[ShippedLog] = []
    seen: set[bytes] = set()
    paths = [p for p in root.rglob("*") if p.suffix in {".log", ".txt"} and p.is_file()]
    for path in sorted(paths, key=lambda p: (len(p.parts), _seed_in(p.name) is None, p.name)):
        name = path.relative_to(root).as_posix()
        if path.name.startswith("requirements") or not _LOG_LIKE.search(name):
            continue
        content = path.read_bytes()
        digest = hashlib.sha256(content).digest()
        summary = parse_log(path)
        log = ShippedLog(
            name=name,
            text=content.decode(errors="replace"),
            summary=summary,
            name_seed=_seed_in(path.name),
        )
        if summary.val_bpb is None:
            unscored.append(log)
        elif digest not in seen or _seed_in(path.name) is not None:
            # A plain train.log is often a copy of one seed's; a copy under the name of another
            # seed is a claim, and stays to be judged.
            logs.append(log)
        seen.add(digest)
    return logs, unscored


def at_one_evaluation(logs: Sequence[ShippedLog]) -> list[ShippedLog]:
    """Logs of one configuration read at one and the same evaluation.

    A run may go on to an evaluation that the others did not make, which then is no score of the
    submission. Where most logs end with one label and the others have it too, that one is read.
    """
    last = [_last_label(log) for log in logs]
    usual, count = Counter(last).most_common(1)[0] if last else (None, 0)
    if usual is None or 2 * count <= len(logs) or count == len(logs):
        return list(logs)
    return [
        log if label == usual or usual not in log.summary.finals else _read_at(log, usual)
        for log, label in zip(logs, last, strict=True)
    ]


def _last_label(log: ShippedLog) -> str | None:
    """The label of the final score that was read as the log's score."""
    finals, score = log.summary.finals, log.summary.val_bpb
    found = [label for label, value in finals.items() if value == score]
    return found[-1] if found else None


def _read_at(log: ShippedLog, label: str) -> ShippedLog:
    said = log.summary
    score, loss = said.finals[label], said.val_loss_nats
    if loss is not None and said.val_bpb:
        loss *= score / said.val_bpb  # bpb / nats is constant for one tokenizer and text
    return replace(
        log,
        summary=replace(said, val_bpb=score, val_loss_nats=loss),
        read_at=label,
        last_bpb=said.val_bpb,
    )


def _seed_in(name: str) -> int | None:
    match = _SEED_IN_NAME.search(name)
    return int(match[1] or match[2]) if match else None

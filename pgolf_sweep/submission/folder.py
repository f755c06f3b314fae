"""A submission folder as it lies on disk, anyone's: script, manifest, logs, model."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.logs.stream import read_log
from pgolf_sweep.script.source import decoded
from pgolf_sweep.script.unpack import unpack
from pgolf_sweep.submission.evidence import SCRIPT_NAME
from pgolf_sweep.submission.reading import FolderReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pgolf_sweep.core.trial import LogSummary, StepReport

MOST_SCRIPT_BYTES = 2_000_000
"""The longest script of the contest has 0.2 MB; parsing 2 MB of terms takes a minute."""
MOST_LOG_BYTES = 64_000_000
MOST_TEXT_BYTES = 4_000_000
MOST_MODEL_BYTES = 256_000_000
README = "README.md"

_SEED_IN_NAME = re.compile(r"seed[_-]?(\d{1,18})|_s?(\d{1,18})\.(?:log|txt)$", re.IGNORECASE)
_CHECKPOINTS = frozenset({".pt", ".safetensors"})
_WIDE = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
MOST_EXECUTED = 16
"""Files beside the script that it may name, as those do that exec one of them."""
_LOG_LIKE = re.compile(r"log|train|run|seed", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedLog:
    """One log of a folder.

    Attributes:
        name: Path relative to the folder.
        text: Its content.
        summary: What it says.
        name_seed: Seed in the file's name, or None.
        reports: Every step of the training that it shows.
        read_at: Label of the final score that was read instead of the log's last one, since all
            other logs end with it; None where the last one was read.
        last_bpb: The log's last final score.
    """

    name: str
    text: str
    summary: LogSummary
    name_seed: int | None
    reports: tuple[StepReport, ...] = ()
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
        model: Name of the compressed model, or None.
        siblings: Source of the Python modules beside the script, by name.
        readme: Text of README.md; empty if there is none.
        requirements: Text of requirements.txt, or None if there is none.
        reader: Reads the folder's files.
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
    model: str | None
    siblings: Mapping[str, str]
    readme: str
    requirements: str | None
    reader: FolderReader

    @property
    def modules(self) -> frozenset[str]:
        """Names under which the script imports what lies beside it."""
        folders = {PurePosixPath(name).parts[0] for name in self.siblings if "/" in name}
        return frozenset({PurePosixPath(name).stem for name in self.siblings} | folders)

    @property
    def model_bytes(self) -> int | None:
        """Size of the compressed model, or None."""
        return None if self.model is None else self.reader.sizes[self.model]


def read_folder(root: Path) -> Folder:
    """Read a folder, with any content.

    Raises:
        InputError: There is no such folder.
    """
    reader = FolderReader.of(root)
    manifest_name, manifest, problem = _manifest(reader)
    script_name = _script(reader)
    script = (reader.read(script_name, MOST_SCRIPT_BYTES) or b"") if script_name else b""
    text = decoded(script)
    siblings = {
        name: reader.text(name, MOST_SCRIPT_BYTES)
        for name in reader.named(".py")
        if name != script_name
    }
    code = _unpacked(text, reader)
    logs, unscored = _logs(reader)
    has_requirements = "requirements.txt" in reader.sizes
    return Folder(
        root=root,
        manifest_name=manifest_name,
        manifest=manifest,
        manifest_problem=problem,
        script_name=script_name,
        script=script,
        code=code,
        packed=code != text,
        logs=tuple(at_one_evaluation(logs)),
        unscored=tuple(unscored),
        model=_model(reader),
        siblings=siblings,
        readme=reader.text(README, MOST_TEXT_BYTES),
        requirements=reader.text("requirements.txt", MOST_TEXT_BYTES) if has_requirements else None,
        reader=reader,
    )


def _unpacked(text: str, reader: FolderReader) -> str:
    """The source that a self-extracting script carries, read without running it, else itself."""
    beside = [name for name in reader.sizes if "/" not in name and name in text]
    files = {name: reader.read(name, MOST_SCRIPT_BYTES) for name in beside[:MOST_EXECUTED]}
    known = {name: data for name, data in files.items() if data is not None}
    return unpack(text, path=reader.root / SCRIPT_NAME, files=known)


def _manifest(reader: FolderReader) -> tuple[str | None, dict[str, Any], str | None]:
    names = [name for name in reader.named(".json") if "/" not in name]
    found = [name for name in names if name.startswith("submission")]
    name = "submission.json" if "submission.json" in found else next(iter(found), None)
    if name is None:
        return None, {}, "missing"
    data = reader.read(name, MOST_TEXT_BYTES)
    if data is None:
        return name, {}, f"cannot be read: {reader.unreadable[name]}"
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except ValueError as error:
        return name, {}, f"not JSON: {error}"
    except RecursionError:
        return name, {}, "not JSON that can be read: nested too deeply"
    if not isinstance(document, dict):
        return name, {}, "not a JSON object"
    return name, document, None


def _script(reader: FolderReader) -> str | None:
    """The counted script: train_gpt.py, else the largest train*.py."""
    if SCRIPT_NAME in reader.sizes:
        return SCRIPT_NAME
    others = [n for n in reader.named(".py") if "/" not in n and n.startswith("train")]
    return max(others, key=reader.sizes.__getitem__, default=None)


def _model(reader: FolderReader) -> str | None:
    """The compressed model: ``final_model.*`` that is no raw checkpoint, the largest of several."""
    found = [
        name
        for name in reader.sizes
        if name.startswith("final_model") and PurePosixPath(name).suffix not in _CHECKPOINTS
    ]
    return max(found, key=reader.sizes.__getitem__, default=None)


def _logs(reader: FolderReader) -> tuple[list[ShippedLog], list[ShippedLog]]:
    logs: list[ShippedLog] = []
    unscored: list[ShippedLog] = []
    seen: set[bytes] = set()
    names = [PurePosixPath(name) for name in reader.named(".log", ".txt")]
    for path in sorted(names, key=lambda p: (len(p.parts), _seed_in(p.name) is None, p.name)):
        name = path.as_posix()
        if path.name.startswith("requirements") or not _LOG_LIKE.search(name):
            continue
        content = reader.read(name, MOST_LOG_BYTES)
        if content is None:
            continue
        digest = hashlib.sha256(content).digest()
        summary, reports = read_log(content)
        log = ShippedLog(
            name=name,
            text=_decoded(content),
            summary=summary,
            name_seed=_seed_in(path.name),
            reports=tuple(reports),
        )
        if summary.val_bpb is None:
            unscored.append(log)
        elif digest not in seen or _seed_in(path.name) is not None:
            # A plain train.log is often a copy of one seed's; a copy under the name of another
            # seed is a claim, and stays to be judged.
            logs.append(log)
        seen.add(digest)
    return logs, unscored


def _decoded(content: bytes) -> str:
    wide = next((n for m, n in _WIDE.items() if content.startswith(m)), "utf-8-sig")
    return content.decode(wide, errors="replace")


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

"""The bundle of a sweep that is driven on a cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.config.rules import load_rules, preset_names
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.driver.session import calibration_store, located_at, read_sweep
from pgolf_sweep.gate.store import USER
from pgolf_sweep.script.program import BUILTIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.config.sweep_file import SweepSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class JobBundle:
    """A sweep, checked as far as can be without the cluster's data, and the files it needs.

    Attributes:
        study: The study's name.
        text: The sweep file's text.
        sweep: The sweep file, a key of `files`.
        files: Content by relative path; they lie to each other as they do here.
    """

    study: str
    text: str
    sweep: str
    files: Mapping[str, bytes]


def build_bundle(sweep: Path, *, name: str | None = None) -> JobBundle:
    """Check a sweep and gather what its driver needs elsewhere.

    Data does not travel: it is looked for on the cluster.

    Args:
        sweep: The sweep file.
        name: Name of the study instead of the sweep file's.

    Raises:
        SpecError: The sweep file has problems, all of them listed.
        InputError: A file that it names is missing or broken, or is named by an absolute path.
    """
    spec, program = read_sweep(sweep, name=name)
    base = sweep.resolve().parent
    with located_at(spec, "pgolf", "rules"):
        load_rules(spec.pgolf.rules, base=base)
    _check_data(spec)
    found = {base / sweep.name: sweep.read_bytes()}
    if spec.program != BUILTIN:
        script = _beside(spec, spec.program, "program")
        found |= {script.parent / path: content for path, content in program.files.items()}
    if spec.pgolf.rules not in preset_names():
        rules = _beside(spec, spec.pgolf.rules, "pgolf", "rules")
        found[rules] = rules.read_bytes()
    if spec.pgolf.gate_calibration not in {None, USER}:
        store = _beside(spec, str(spec.pgolf.gate_calibration), "pgolf", "gate", "calibration")
        calibration_store(spec, base=base)
        found[store] = store.read_bytes()
    root = os.path.commonpath([path.parent for path in found])
    files = {path.relative_to(root).as_posix(): content for path, content in found.items()}
    own = (base / sweep.name).relative_to(root).as_posix()
    return JobBundle(study=spec.name, text=spec.text, sweep=own, files=files)


def _beside(spec: SweepSpec, path: str, *key: str) -> Path:
    """A file that a sweep file names; it must be named as it can be found elsewhere, too."""
    if Path(path).is_absolute():
        with located_at(spec, *key):
            raise InputError(
                "an absolute path is of this machine only",
                got=path,
                expected="a path relative to the sweep file, which can travel with it",
            )
    return Path(os.path.normpath(spec.source.resolve().parent / path))


def _check_data(spec: SweepSpec) -> None:
    block = spec.pgolf.data
    if block is None:
        return
    for key, path in (("path", block.path), ("tokenizer", block.tokenizer)):
        if path is not None and not Path(path).is_absolute():
            with located_at(spec, "pgolf", "data", key):
                raise InputError(
                    "data does not travel, so a path of it is the cluster's",
                    got=path,
                    expected="an absolute path there, or the name of a data set below HOME/data",
                )

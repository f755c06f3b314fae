"""The notebooks' cells run from top to bottom, on the study that lies among the tests' data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run(path: Path) -> dict[str, Any]:
    """Execute a notebook's code cells in one namespace, which is returned."""
    names: dict[str, Any] = {"__name__": "notebook"}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            code = compile("".join(cell["source"]), f"{path.name}:{cell['id']}", "exec")
            exec(code, names)  # noqa: S102 - our own notebook
    return names


def test_there_are_notebooks_without_outputs() -> None:
    assert [path.name for path in NOTEBOOKS] == ["analysis.ipynb", "gate.ipynb"]
    cells = [cell for path in NOTEBOOKS for cell in json.loads(path.read_text())["cells"]]
    assert not any(cell.get("outputs") for cell in cells)


def test_the_analysis_reads_a_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOLF_STUDY", str(ROOT / "tests" / "data" / "studies" / "demo"))
    names = run(ROOT / "notebooks" / "analysis.ipynb")
    assert len(names["trials"]) == 21
    assert len(names["completed"]) == 5


def test_the_gate_explains_its_prediction() -> None:
    names = run(ROOT / "notebooks" / "gate.ipynb")
    answer, by_bits = names["answer"], names["by_bits"]
    parts = names["groups"]["model_bytes"].sum() + answer.verdict.code_bytes
    assert parts == pytest.approx(answer.artifact_bytes.mid)
    assert by_bits["mid"].is_monotonic_increasing
    assert len(names["wide"].suggestions) > 0

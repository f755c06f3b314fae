from __future__ import annotations

import base64
import json
import lzma
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pgolf_sweep.config.rules import Record, load_rules
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.verify.check import CheckVerdict
from pgolf_sweep.verify.verify import Verification, verify

if TYPE_CHECKING:
    from pathlib import Path

    from support.promotions import Bench


@pytest.fixture
def folder(bench: Bench) -> Path:
    return bench.promote().folder


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "submission.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def failed(found: Verification) -> set[str]:
    return {check.rule for check in found.failures}


def logs(folder: Path) -> list[Path]:
    return sorted(folder.glob("train_seed*.log"))


def test_our_own_folder_passes_every_check(folder: Path) -> None:
    found = verify(folder)
    odd = {c.rule: c for c in found.checks if c.verdict is not CheckVerdict.PASS}
    assert found.rules == "demo"
    assert set(odd) == {"log_source"}  # our scripts do not print themselves
    assert odd["log_source"].verdict is CheckVerdict.UNKNOWN


@pytest.mark.parametrize("name", ["README.md", "submission.json", "train_gpt.py"])
def test_missing_file_is_caught(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert "files" in failed(verify(folder, load_rules("demo", base=folder)))


def test_a_byte_order_mark_is_no_fault_of_the_script(folder: Path) -> None:
    script = folder / "train_gpt.py"
    script.write_bytes(b"\xef\xbb\xbf" + script.read_bytes())
    found = {check.rule: check.verdict for check in verify(folder).checks}
    assert found["code"] is CheckVerdict.PASS
    assert found["imports"] is CheckVerdict.PASS


def test_folder_of_hundreds_of_logs_is_no_wall_of_names(folder: Path) -> None:
    for number in range(20):
        (folder / f"other{number}.log").write_text("step:1/2 train_loss:1.0\n")
    (files,) = [check for check in verify(folder).checks if check.rule == "files"]
    assert "and 14 more" in files.detail


def test_missing_log_is_caught(folder: Path) -> None:
    logs(folder)[0].unlink()
    assert "seeds" in failed(verify(folder))


def test_model_over_the_cap_is_caught(folder: Path) -> None:
    with (folder / "final_model.int8.ptz").open("ab") as file:
        file.write(b"\0" * 200_000)
    assert failed(verify(folder)) == {"artifact", "artifact_content"}


def test_exactly_the_cap_passes_and_one_byte_more_fails(folder: Path) -> None:
    total = json.loads((folder / "submission.json").read_text())["bytes_total"]
    rules = load_rules("demo", base=folder)
    assert verify(folder, replace(rules, artifact_cap_bytes=total)).ok
    over = failed(verify(folder, replace(rules, artifact_cap_bytes=total - 1)))
    assert over == {"artifact", "logged_artifact", "totals_add_up"}


def test_model_of_another_run_is_caught(folder: Path) -> None:
    with (folder / "final_model.int8.ptz").open("ab") as file:
        file.write(b"\0")
    assert failed(verify(folder)) == {"artifact", "artifact_content"}


def test_copied_log_under_another_seed_is_caught(folder: Path) -> None:
    first, second = logs(folder)
    shutil.copy(first, second)
    assert {"seeds", "log_seeds"} <= failed(verify(folder))


def test_seed_listed_twice_is_caught(folder: Path) -> None:
    seed = json.loads((folder / "submission.json").read_text())["seeds"][0]
    edit(folder, seeds=[seed, seed])
    assert failed(verify(folder)) == {"seeds", "evidence"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("val_bpb", 1.1),
        ("val_loss", 1.9),
        ("bytes_total", 150_000),
        ("bytes_code", 12),
        ("val_bpb_std", 0.1),
    ],
)
def test_tampered_number_is_caught_by_the_check_of_its_name(
    folder: Path, key: str, value: float
) -> None:
    edit(folder, **{key: value})
    assert failed(verify(folder)) == {key}


def test_tampered_seed_result_is_caught(folder: Path) -> None:
    results = json.loads((folder / "submission.json").read_text())["seed_results"]
    results[next(iter(results))]["val_bpb"] = 1.0
    edit(folder, seed_results=results)
    assert failed(verify(folder)) == {"seed_results"}


def test_population_std_is_noticed(folder: Path) -> None:
    std = json.loads((folder / "submission.json").read_text())["val_bpb_std"]
    edit(folder, val_bpb_std=std / 2**0.5)  # two values: ddof 0 is ddof 1 over sqrt 2
    found = {check.rule: check for check in verify(folder).checks}
    assert found["val_bpb_std"].verdict is CheckVerdict.WARN
    assert "ddof 0" in found["val_bpb_std"].detail


def test_rounded_numbers_are_no_lie(folder: Path) -> None:
    said = json.loads((folder / "submission.json").read_text())
    edit(folder, val_bpb=round(said["val_bpb"], 4), val_loss=round(said["val_loss"], 3))
    assert verify(folder).ok


def test_script_changed_after_the_runs_is_caught(folder: Path) -> None:
    with (folder / "train_gpt.py").open("a") as file:
        file.write("x = 1\n")
    assert failed(verify(folder)) == {"logged_code_bytes"}


def test_script_that_does_not_compile_is_caught(folder: Path) -> None:
    (folder / "train_gpt.py").write_text("def f(:\n")
    assert "code" in failed(verify(folder))


@pytest.mark.parametrize(
    "line",
    [
        "import urllib.request; urllib.request.urlopen('http://a')",
        "import subprocess; subprocess.run(['pip', 'install', 'x'])",
        "import os; os.system('wget http://a')",
    ],
)
def test_reaching_out_is_caught(folder: Path, line: str) -> None:
    (folder / "train_gpt.py").write_text(f"{line}\n")
    assert "network" in failed(verify(folder))


def test_module_that_requirements_lack_is_caught(folder: Path) -> None:
    (folder / "train_gpt.py").write_text("import mamba_ssm\n")
    assert "imports" in failed(verify(folder))


def late(text: str, train_ms: int) -> str:
    """A log whose training took so long."""
    last = f"train_time:{train_ms}ms step_avg:{train_ms / 500:.2f}ms"
    return text.replace("train_time:50000ms step_avg:100.00ms", last)


def test_late_training_is_caught_beyond_the_grace(folder: Path) -> None:
    log = logs(folder)[0]
    text = log.read_text()
    log.write_text(late(text, 120_400))
    assert verify(folder).ok
    log.write_text(late(text, 120_600))
    assert failed(verify(folder)) == {"train_seconds"}


def test_log_of_another_source_is_caught(folder: Path) -> None:
    log = logs(folder)[0]
    script = (folder / "train_gpt.py").read_text()
    other = "import os\nimport sys\nfrom math import pi\n"
    log.write_text(f"{other}{script}{log.read_text()}")
    assert "log_source" not in failed(verify(folder))
    log.write_text(log.read_text().replace("layers", "depth"))
    assert "log_source" in failed(verify(folder))


def test_record_is_judged_only_on_its_own_tokenizer_and_later(folder: Path) -> None:
    rules = load_rules("demo", base=folder)

    def judged(ratio: float, date: str, val_bpb: float) -> CheckVerdict:
        record = Record(val_bpb=val_bpb, val_loss_nats=val_bpb / ratio, source="t", date=date)
        found = verify(folder, replace(rules, record=record, p_value=0.05))
        return next(check.verdict for check in found.checks if check.rule == "record")

    assert judged(0.59226, "2023-01-01", 1.21) is CheckVerdict.PASS
    assert judged(0.59226, "2023-01-01", 1.19) is CheckVerdict.FAIL
    assert judged(0.38713, "2023-01-01", 1.21) is CheckVerdict.UNKNOWN
    assert judged(0.59226, "2027-01-01", 1.19) is CheckVerdict.UNKNOWN


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"val_bpb": NaN}', '{"val_bpb": "1"}'])
def test_broken_manifest_is_a_finding_not_a_crash(folder: Path, content: str) -> None:
    (folder / "submission.json").write_text(content)
    found = verify(folder, load_rules("demo", base=folder))
    assert "submission_json" in failed(found)


def test_empty_and_absent_folders(tmp_path: Path) -> None:
    assert not verify(tmp_path).ok
    with pytest.raises(InputError, match="no such submission folder"):
        verify(tmp_path / "nowhere")


def test_packed_script_is_judged_by_the_source_it_carries(folder: Path) -> None:
    inner = "import mamba_ssm\nimport urllib.request\nurllib.request.urlopen('http://a')\n"
    blob = base64.b85encode(lzma.compress(inner.encode())).decode()
    packed = f"import lzma,base64\nexec(lzma.decompress(base64.b85decode({blob!r})))\n"
    (folder / "train_gpt.py").write_text(packed)
    assert {"imports", "network"} <= failed(verify(folder))
    code = next(check for check in verify(folder).checks if check.rule == "code")
    assert "self-extracting" in code.detail

"""The check of a node; GPUs are those of a stand-in for nvidia-smi."""

from __future__ import annotations

import dataclasses
import errno
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from support import smi

from pgolf_sweep.nodes import check
from pgolf_sweep.nodes.check import CheckOrder, look, mark

if TYPE_CHECKING:
    from pathlib import Path

    from pgolf_sweep.core.errors import Finding

EIGHT = [smi.Card(index) for index in range(8)]


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Tells nvidia-smi what to say."""
    folder = smi.install(tmp_path / "bin", sys.executable)
    said = tmp_path / "smi.json"
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_SMI", str(said))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return lambda *cards, **more: smi.say(said, *cards, **more)


@pytest.fixture
def no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


def torch_sees(count: int, *speeds: float) -> Any:
    return lambda _order: {"gpus": count, "tokens_per_second": list(speeds)}


def faults(order: CheckOrder, scratch: Path, **more: Any) -> list[Finding]:
    more.setdefault("probe", torch_sees(order.gpus))
    found = look(dataclasses.replace(order, node="h100-3"), scratch, **more).faults
    for fault in found:
        assert all(dataclasses.asdict(fault).values()), "each part of a refusal says something"
        assert "h100-3" in fault.where
    return list(found)


def test_sound_node_has_no_fault_and_says_what_it_is(tmp_path: Path, gpus: Any) -> None:
    gpus(*EIGHT)
    before = time.time()
    report = look(CheckOrder(node="n", gpus=8), tmp_path, probe=torch_sees(8))
    assert report.faults == ()
    assert report.compared["GPU"] == "NVIDIA H100 80GB HBM3"
    assert report.compared["NVIDIA driver"] == "550.90.07"
    assert report.compared["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert report.compared["torch"].startswith("2.")
    assert before <= report.began_at <= report.ended_at <= time.time()


def test_missing_gpu_is_told(tmp_path: Path, gpus: Any) -> None:
    gpus(*EIGHT[:7])
    (fault,) = faults(CheckOrder(gpus=8), tmp_path)
    assert fault.what == "GPUs are missing"
    assert fault.got.startswith("7 (")


def test_gpu_in_use_is_told_with_the_process_that_holds_it(tmp_path: Path, gpus: Any) -> None:
    cards = [*EIGHT[:5], smi.Card(5, used_mib=71_234), *EIGHT[6:]]
    gpus(*cards, apps=(("GPU-5", 4242, "python"), ("GPU-1", 7, "dcgm")))
    (fault,) = faults(CheckOrder(gpus=8), tmp_path)
    assert fault.what == "1 of 8 GPUs are in use"
    assert fault.where.endswith("GPU 5")
    assert fault.got == "71234 MiB in use by process 4242 (python)"


def test_gpus_of_other_jobs_are_not_our_business(
    tmp_path: Path, gpus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(*EIGHT[:7], smi.Card(7, used_mib=70_000))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert faults(CheckOrder(gpus=1), tmp_path) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-7")
    assert [fault.what for fault in faults(CheckOrder(gpus=1), tmp_path)] == [
        "1 of 1 GPUs are in use"
    ]


def test_driver_that_fails_or_hangs_is_told(
    tmp_path: Path, gpus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(error="Failed to initialize NVML: Driver/library version mismatch")
    (fault,) = faults(CheckOrder(gpus=8), tmp_path)
    assert fault.what == "nvidia-smi does not answer"
    assert "version mismatch" in fault.got
    gpus(*EIGHT, hang_seconds=30.0)
    monkeypatch.setattr(check, "SMI_SECONDS", 0.3)
    (fault,) = faults(CheckOrder(gpus=8), tmp_path)
    assert "no answer in 0.3 s" in fault.got


def test_gpus_that_torch_cannot_use_are_told(tmp_path: Path, gpus: Any) -> None:
    gpus(*EIGHT)
    (fault,) = faults(CheckOrder(gpus=8), tmp_path, probe=torch_sees(7))
    assert fault.what == "torch cannot use the GPUs"
    assert fault.got == "7 GPUs that torch can use"
    broken = {"error": "ImportError: libcudart.so.12: cannot open shared object file"}
    (fault,) = faults(CheckOrder(gpus=8), tmp_path, probe=lambda _order: broken)
    assert "libcudart" in fault.got


def test_parts_of_a_card_are_not_taken_for_missing(
    tmp_path: Path, gpus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(*EIGHT)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1c2d")
    assert faults(CheckOrder(gpus=1), tmp_path) == []


@pytest.mark.usefixtures("no_driver")
def test_node_without_any_driver_is_left_to_the_comparison(tmp_path: Path) -> None:
    def asked(_order: CheckOrder) -> Any:
        raise AssertionError("torch is not loaded for GPUs that only Ray believes in")

    report = look(CheckOrder(node="n", gpus=8, speed=True), tmp_path, probe=asked)
    assert report.faults == ()
    assert report.compared["NVIDIA driver"] == "none"
    assert report.tokens_per_second is None


def test_speed_is_that_of_the_slowest_gpu(tmp_path: Path, gpus: Any) -> None:
    gpus(*EIGHT[:2])
    order = CheckOrder(node="n", gpus=2, speed=True)
    report = look(order, tmp_path, probe=torch_sees(2, 2e6, 1.7e6))
    assert report.tokens_per_second == 1.7e6


def test_real_probe_measures_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "SPEED_SECONDS", 0.2)
    report = look(CheckOrder(node="n", gpus=0, speed=True), tmp_path)
    assert report.faults == ()
    assert report.tokens_per_second is not None
    assert report.tokens_per_second > 1


def test_probe_that_dies_says_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcuda.so.1: wrong ELF class')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (fault,) = faults(CheckOrder(gpus=0, speed=True), tmp_path, probe=None)
    assert fault.what == "torch does not work"
    assert "wrong ELF class" in fault.got


def test_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "FREE_DISK_BYTES", 1 << 60)
    (fault,) = faults(CheckOrder(gpus=0), tmp_path / "not" / "there")
    assert fault.what == "the disk has no room for trials"
    assert fault.got.endswith("GB free")


# ---- data -------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> CheckOrder:
    folder = tmp_path / "datasets" / "demo_sp512"
    folder.mkdir(parents=True)
    for name in ("fineweb_train_000000.bin", "fineweb_train_000001.bin", "fineweb_val_000000.bin"):
        (folder / name).write_bytes(bytes(range(256)) * 1000)
    files = {
        str(path): mark(path, whole="val" in path.name) for path in sorted(folder.glob("*.bin"))
    }
    shards = (str(folder), "fineweb_train_*.bin")
    return CheckOrder(gpus=0, files=files, remedy="pgolf-sweep data demo", shards=shards)


def test_whole_data_is_no_fault(data: CheckOrder, tmp_path: Path) -> None:
    assert faults(data, tmp_path) == []
    report = look(data, tmp_path)
    assert report.compared["training shards"] == "2 of 512000 bytes"


def test_missing_files_are_counted_and_told_with_what_mends_them(
    data: CheckOrder, tmp_path: Path
) -> None:
    for path in list((tmp_path / "datasets").rglob("*train*")):
        path.unlink()
    (fault,) = faults(data, tmp_path)
    assert fault.what == "2 of 3 files of the data set are missing"
    assert "fineweb_train_000000.bin: No such file" in fault.got
    assert fault.next_step == "on h100-3: pgolf-sweep data demo"


@pytest.mark.parametrize(
    ("name", "at", "told"),
    [("val_000000", 123_457, True), ("train_000001", 255_990, True), ("train_000001", 5000, False)],
)
def test_validation_is_hashed_whole_and_training_by_samples(
    data: CheckOrder, tmp_path: Path, name: str, at: int, told: bool
) -> None:
    path = tmp_path / "datasets" / "demo_sp512" / f"fineweb_{name}.bin"
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    found = faults(data, tmp_path)
    assert len(found) == told
    if told:
        assert found[0].what == "1 of 3 files of the data set differ"
        assert found[0].got.startswith("sha256 ")


def test_shard_that_is_a_dangling_link_is_told_by_its_name(
    data: CheckOrder, tmp_path: Path
) -> None:
    (tmp_path / "datasets" / "demo_sp512" / "fineweb_train_000002.bin").symlink_to("gone")
    (fault,) = faults(data, tmp_path)
    assert fault.what == "a training shard cannot be read"
    assert fault.where.endswith("fineweb_train_000002.bin")
    assert fault.got == "No such file or directory"


def test_disk_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(path: Path) -> None:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    monkeypatch.setattr("shutil.disk_usage", stale)
    (fault,) = faults(CheckOrder(gpus=0), tmp_path)
    assert (fault.what, fault.got) == ("the disk for trials cannot be read", "Stale file handle")


def test_nvidia_smi_that_cannot_be_killed_is_not_waited_for(
    tmp_path: Path, gpus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(*EIGHT, hang_seconds=20.0)
    monkeypatch.setattr(check, "SMI_SECONDS", 0.3)
    left: list[subprocess.Popen[str]] = []

    def powerless(process: subprocess.Popen[str]) -> None:
        left.append(process)

    monkeypatch.setattr(subprocess.Popen, "kill", powerless)
    before = time.monotonic()
    (fault,) = faults(CheckOrder(gpus=8), tmp_path)
    assert "no answer in 0.3 s" in fault.got
    assert time.monotonic() - before < 4.0
    monkeypatch.undo()
    left[0].kill()
    left[0].wait()


def test_truncated_shard_is_told_by_its_size(data: CheckOrder, tmp_path: Path) -> None:
    path = tmp_path / "datasets" / "demo_sp512" / "fineweb_train_000000.bin"
    path.write_bytes(path.read_bytes()[:-1000])
    (fault,) = faults(data, tmp_path)
    assert (fault.got, fault.expected) == ("255000 bytes", "256000 bytes")

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from trainer.checkpoint import load_checkpoint, save_checkpoint
from trainer.config import TrainerError
from trainer.runtime import Log
from trainer.train import Run, main

CPU = torch.device("cpu")
EVERYTHING = {
    "EMA_DECAY": 0.9,
    "NUM_LOOPS": 1,
    "LOOP_START": 1,
    "LOOP_END": 1,
    "MUON_MOMENTUM_WARMUP_STEPS": 8,
    "EVAL_STRIDE": 8,
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    previous = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, previous)


@pytest.fixture
def run_main(tiny_env, monkeypatch, capsys):
    """The lines of a whole run in this process, without its times."""

    def run(**knobs):
        for name, value in tiny_env(**EVERYTHING, **knobs).items():
            monkeypatch.setenv(name, value)
        main()
        out = capsys.readouterr().out
        return re.sub(r"(train_time|step_avg|eval_time):\S+", r"\1", out).splitlines()

    return run


def since(lines, start):
    """Lines from the first that starts so, but for the memory that a process took before."""
    at = next(index for index, line in enumerate(lines) if line.startswith(start))
    return [line for line in lines[at:] if not line.startswith("peak memory")]


def test_a_training_that_goes_on_from_a_checkpoint_is_the_whole_training(
    tiny_config, run_main, monkeypatch, capsys
):
    whole = run_main(TRAIN_LOG_EVERY=1)
    config = tiny_config(**EVERYTHING, TRAIN_LOG_EVERY=1, CHECKPOINT="half")
    run = Run(config, CPU, Log(config))
    step = run.step

    def stopped_in_the_fifth(*given):
        loss, seconds, stop = step(*given)
        return loss, seconds, stop or run.steps == 4

    monkeypatch.setattr(run, "step", stopped_in_the_fifth)
    with pytest.raises(SystemExit) as ended:
        run.train()
    assert ended.value.code == 128 + signal.SIGTERM
    assert "stopped: SIGTERM step:5 checkpoint:half" in capsys.readouterr().out
    rest = run_main(TRAIN_LOG_EVERY=1, CHECKPOINT="half")
    assert not any(line.startswith("step:5/") for line in rest)
    assert since(rest, "step:6/") == since(whole, "step:6/")


def test_export_and_eval_from_what_a_run_left_are_those_of_the_whole_run(run_main, tmp_path):
    whole = run_main(CHECKPOINT="done")
    blob = (tmp_path / "final_model.int6.ptz").read_bytes()
    (tmp_path / "final_model.int6.ptz").unlink()
    exported = run_main(CHECKPOINT="done", START_AT="export")
    assert (tmp_path / "final_model.int6.ptz").read_bytes() == blob
    assert since(exported, "Code size") == since(whole, "Code size")
    assert not any(line.startswith("step:") for line in exported)
    scored = run_main(CHECKPOINT="", START_AT="eval")
    assert since(scored, "final_") == since(whole, "final_")
    assert not any("Serialized" in line for line in scored)
    coarser = run_main(CHECKPOINT="done", START_AT="export", MATRIX_BITS=5)
    assert since(coarser, "final_int5")


def test_what_is_not_there_is_said(tiny_env, monkeypatch):
    for knobs, message in (
        ({"START_AT": "export", "CHECKPOINT": "none"}, "none.0: no such checkpoint"),
        ({"START_AT": "eval"}, "final_model.int6.ptz: no such artifact"),
        ({"START_AT": "export"}, "START_AT=export needs CHECKPOINT"),
        ({"START_AT": "end"}, "START_AT must be one of train, export, eval"),
    ):
        with monkeypatch.context() as patch:
            for name, value in tiny_env(**knobs).items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit, match=message):
                main()


def test_a_training_in_the_middle_is_of_its_number_of_processes(tiny_config):
    config = tiny_config(CHECKPOINT="half")
    save_checkpoint(Run(config, CPU, Log(config)))
    other = tiny_config(CHECKPOINT="half", WORLD_SIZE=2)
    with pytest.raises(TrainerError, match="of a training by 1 processes, now 2"):
        load_checkpoint(Run(other, CPU, Log(other)))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_leaves_a_checkpoint_soon_and_the_next_run_goes_on(
    process_env, tmp_path, processes
):
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "trainer.train"]
    env = process_env(CHECKPOINT="left", ITERATIONS=10**6, VAL_LOSS_EVERY=0, TRAIN_LOG_EVERY=5)
    with subprocess.Popen(
        command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step:15/"):
                break
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        rest = process.stdout.read()
        process.wait()
    # Five seconds where the processors are its own; tests share theirs.
    assert time.monotonic() - asked < 30
    stopped = re.search(r"stopped: SIGTERM step:(\d+) checkpoint:left", rest)
    assert stopped
    assert len(list(tmp_path.glob("left.*"))) == processes
    steps = int(stopped[1])
    env |= {"ITERATIONS": str(steps + 2), "TRAIN_LOG_EVERY": "1"}
    done = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"step:(\d+)/\d+ train_loss", done.stdout) == [
        str(steps + 1),
        str(steps + 2),
    ]
    assert sorted(path.name for path in tmp_path.glob("left.*")) == ["left.0"]


def test_sigterm_amid_a_validation_leaves_the_training_as_it_was(tiny_config, monkeypatch, capsys):
    config = tiny_config(CHECKPOINT="left", VAL_LOSS_EVERY=6)
    run = Run(config, CPU, Log(config))
    forward = run.forward

    def asked_in_the_second_validation(inputs, targets):
        if run.scoring and run.steps == 6:
            run.on_sigterm()
        return forward(inputs, targets)

    monkeypatch.setattr(run, "forward", asked_in_the_second_validation)
    with pytest.raises(SystemExit):
        run.train()
    assert "stopped: SIGTERM step:6 checkpoint:left" in capsys.readouterr().out
    other = Run(config, CPU, Log(config))
    assert load_checkpoint(other)
    assert (other.steps, other.trained) == (6, False)
    for mine, kept in zip(run.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, kept)

"""Around the training loop: log, clock, what all ranks agree on, averaged weights."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainer.muon import all_gather

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.config import Config


class Log:
    """Lines on stdout of rank 0, and in ``logs/<RUN_ID>.txt`` where a run id is set."""

    def __init__(self, config: Config) -> None:
        self.speaks = config.rank == 0
        self.path = Path("logs", f"{config.run_id}.txt") if config.run_id else None
        if self.speaks and self.path:
            self.path.parent.mkdir(exist_ok=True)

    def __call__(self, line: str) -> None:
        """Write one line."""
        if not self.speaks:
            return
        print(line, flush=True)
        if self.path:
            with self.path.open("a", encoding="utf-8") as file:
                print(line, file=file)


class Stopwatch:
    """Training seconds: what lies between `resume` and `pause`, the device's work included."""

    def __init__(self, device: torch.device, before: float = 0.0) -> None:
        self.device = device
        self.before = before
        self.started = time.perf_counter()

    def wait(self) -> None:
        """Let the device finish what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self) -> float:
        """Time so far, while running."""
        return self.before + time.perf_counter() - self.started

    def pause(self) -> None:
        """Stop counting."""
        self.wait()
        self.before = self.seconds()

    def resume(self) -> None:
        """Count again."""
        self.wait()
        self.started = time.perf_counter()


class LossAndClock:
    """Mean loss, latest clock and whether to stop, of all ranks, so that each decides the same.

    On a GPU the answer travels while the backward pass runs: `post` before it, `read` after it
    has been queued, and no kernel waits for the processor.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        self.world_size = config.world_size
        self.device = device
        self.on_gpu = device.type == "cuda"
        shape = (config.world_size, 3)
        self.answer = torch.zeros(shape, dtype=torch.float64, pin_memory=self.on_gpu)
        self.arrived = torch.cuda.Event() if self.on_gpu else None

    def post(self, loss: Tensor, seconds: float, *, stop: bool) -> None:
        """Tell the other ranks this rank's loss, its clock and whether it was asked to stop."""
        rest = torch.tensor((seconds, stop), dtype=torch.float64, device=self.device)
        everyone = mine = torch.cat((loss.double()[None], rest))[None]
        if self.world_size > 1:
            everyone = mine.new_empty(self.world_size, 3)
            all_gather(everyone, mine)
        self.answer.copy_(everyone, non_blocking=True)
        if self.arrived:
            self.arrived.record()

    def read(self) -> tuple[float, float, bool]:
        """Mean loss, latest clock, and whether any rank stops."""
        if self.arrived:
            self.arrived.synchronize()
        seconds, stop = self.answer[:, 1:].max(dim=0).values.tolist()
        return self.answer[:, 0].mean().item(), seconds, stop > 0


class Ema:
    """Exponential moving average of the weights, with a shorter memory in the first steps."""

    def __init__(self, weights: list[Tensor], decay: float) -> None:
        self.weights = weights
        self.decay = decay
        self.steps = 0
        self.mean = [weight.detach().clone() for weight in weights] if decay else []

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights of a step."""
        if self.decay:
            self.steps += 1
            decay = min(self.decay, self.steps / (self.steps + 9.0))
            torch._foreach_lerp_(self.mean, self.weights, 1.0 - decay)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the average in the weights' place."""
        if self.decay:
            torch._foreach_copy_(self.weights, self.mean)

"""What a run leaves behind to go on from: in the middle of the training, or at its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainer.config import require

if TYPE_CHECKING:
    from trainer.train import Run


def optimizer_state(run: Run) -> list[torch.Tensor]:
    """The tensors beside the weights that the next step depends on, in a fixed order."""
    moments = (*run.adam.first.values(), *run.adam.second.values())
    return [*(bank.momentum for bank in run.muon.banks), *moments, *run.ema.mean]


def save_checkpoint(run: Run) -> None:
    """Write CHECKPOINT.RANK: all that this rank needs to go on; after training the weights alone.

    After training one file serves all ranks.
    """
    config, stream = run.config, run.stream
    path = Path(f"{config.checkpoint}.{config.rank}")
    if run.trained and config.rank:
        path.unlink(missing_ok=True)
        return
    state: dict[str, Any] = {
        "world_size": config.world_size,
        "counts": (run.steps, run.seconds, run.adam.steps, run.ema.steps),
        "trained": run.trained,
        "stream": run.began_at if run.ahead else (stream.shard_index, stream.position),
        "model": run.model.state_dict(),
        "optimizers": [] if run.trained else optimizer_state(run),
    }
    torch.save(state, f"{path}.part")
    Path(f"{path}.part").replace(path)


@torch.no_grad()
def load_checkpoint(run: Run) -> bool:
    """Go on from CHECKPOINT; whether there was one.

    Raises:
        TrainerError: It is of a training in the middle, by another number of processes.
    """
    config = run.config
    path = Path(f"{config.checkpoint}.{config.rank}")
    if not path.exists():
        path = Path(f"{config.checkpoint}.0")
    if not path.exists():
        return False
    state = torch.load(path, map_location=run.device, weights_only=True)
    run.trained = state["trained"]
    require(
        run.trained or state["world_size"] == config.world_size,
        f"{path}: of a training by {state['world_size']} processes, now {config.world_size}",
    )
    run.model.load_state_dict(state["model"])
    run.steps, run.seconds, run.adam.steps, run.ema.steps = state["counts"]
    run.stream.seek(*state["stream"])
    if not run.trained:
        for tensor, saved in zip(optimizer_state(run), state["optimizers"], strict=True):
            tensor.copy_(saved)
    return True

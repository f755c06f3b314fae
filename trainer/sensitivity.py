"""How much the loss rises where one group of tensors is quantized; not in the bundle.

    python -m trainer.sensitivity TOKENS MATRIX_BITS=4,5,6 EMBED_BITS=4,6,8

takes a run's environment with CHECKPOINT and prints one JSON document: the loss and the bits per
byte of the trained weights on the validation's first TOKENS, and the rise of the loss for each
value of each knob, all other tensors as trained.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from trainer.checkpoint import load_checkpoint
from trainer.config import Config, TrainerError, read_config, require
from trainer.quantize import dequantize_all, quantize_all, tensor_bits
from trainer.runtime import Log
from trainer.train import Run, start_device

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainer.quantize import Floats


def group(config: Config, knob: str, weights: Mapping[str, Floats]) -> list[str]:
    """Names of the tensors whose bits a knob decides."""
    few, many = (replace(config, **{knob.lower(): bits}) for bits in (4, 8))
    return [
        name
        for name, tensor in weights.items()
        if tensor_bits(few, name, tensor.ndim) != tensor_bits(many, name, tensor.ndim)
    ]


def rises(run: Run, tokens: int, knobs: Mapping[str, list[int]]) -> dict[str, object]:
    """The document that is printed."""
    length = run.config.train_seq_len
    part = run.validation.first(max(1, tokens // length) * length)
    parameters = dict(run.model.named_parameters())
    weights = {name: p.detach().float().cpu().numpy().copy() for name, p in parameters.items()}

    def score(changed: Mapping[str, Floats]) -> tuple[float, float]:
        with torch.no_grad():
            for name, values in {**weights, **changed}.items():
                parameters[name].copy_(torch.from_numpy(values))
        return run.score(part)

    loss, bpb = score({})
    found: dict[str, dict[str, float]] = {}
    for knob, values in knobs.items():
        names = group(run.config, knob, weights)
        for bits in values:
            config = replace(run.config, lqer_rank=0, **{knob.lower(): bits})
            stored = quantize_all(config, {name: weights[name] for name in names})
            rise = score(dequantize_all(stored))[0] - loss
            found.setdefault(knob, {})[str(bits)] = rise
    tensors = {knob: group(run.config, knob, weights) for knob in knobs}
    scored = len(part.target_bytes)
    return {"loss": loss, "bpb": bpb, "rises": found, "tensors": tensors, "tokens": scored}


def main() -> None:
    """Measure what the arguments name; exit code 1 and one line where that cannot be."""
    try:
        knobs = {}
        for word in sys.argv[2:]:
            name, _, values = word.partition("=")
            knobs[name] = [int(value) for value in values.split(",")]
        config = read_config()
        run = Run(config, start_device(config), Log(config))
        require(load_checkpoint(run), f"{config.checkpoint}.0: no such checkpoint")
        run.finish()
        print(json.dumps(rises(run, int(sys.argv[1]), knobs)))
    except TrainerError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

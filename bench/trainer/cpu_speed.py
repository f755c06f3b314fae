"""Tokens per CPU-second of our trainer and of the contest's algorithm, side by side in one process.

    python bench/trainer/cpu_speed.py CHECKOUT FOLDER [2x64 3x96 4x256]

CHECKOUT is a checkout of openai/parameter-golf; FOLDER takes synthetic shards. The contest's model,
Muon and Adam are imported from its `train_gpt.py` with their arithmetic in float32 and nothing
compiled, and take the same batches as ours, one micro-batch a step, on one thread. Turns of a few
steps alternate; a line has each side's CPU milliseconds a step (least and median of the turns) and
the ratio of the medians.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "records")]
TURNS, STEPS, TOKENS, LENGTH = 5, 2, 4096, 256


def contest_step(source: str, shape: dict[str, int], batch: Callable[[], Any]) -> Callable[[], Any]:
    """One step of the contest's training in float32 on the CPU."""
    import torch
    from baseline_cpu import on_cpu

    text = (
        on_cpu(source).replace("bfloat16()", "float()").replace("torch.bfloat16", "torch.float32")
    )
    theirs = types.ModuleType("theirs")
    exec(compile(text, "train_gpt.py", "exec"), theirs.__dict__)  # noqa: S102 - what is measured
    args = theirs.Hyperparameters()
    model = theirs.GPT(
        vocab_size=1024, num_layers=shape["layers"], model_dim=shape["width"], num_heads=4,
        num_kv_heads=2, mlp_mult=2, tie_embeddings=True, logit_softcap=30.0, rope_base=10000.0,
        tied_embed_init_std=0.005, qk_gain_init=1.5,
    )  # fmt: skip
    control = theirs.CONTROL_TENSOR_NAME_PATTERNS
    named = list(model.blocks.named_parameters())
    vectors = [p for n, p in named if p.ndim < 2 or any(part in n for part in control)]
    known = {id(p) for p in vectors}
    matrices = [p for _, p in named if id(p) not in known]
    adam = {"betas": (0.9, 0.95), "eps": 1e-8}
    optimizers = [
        torch.optim.Adam([model.tok_emb.weight], lr=args.tied_embed_lr, **adam),
        theirs.Muon(matrices, lr=args.matrix_lr, momentum=0.95, backend_steps=5),
        torch.optim.Adam([*vectors, model.skip_weights], lr=args.scalar_lr, **adam),
    ]

    def step() -> float:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = model(*batch())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return loss.item()

    return step


def our_step(folder: Path, shape: dict[str, int]) -> tuple[Callable[[], Any], Any]:
    """One step of ours, and the run."""
    import torch

    from trainer.config import read_config
    from trainer.runtime import Log, Stopwatch
    from trainer.train import Run

    knobs = {
        "DATA_PATH": folder / "data", "TOKENIZER_PATH": folder / "tokenizer.model",
        "VOCAB_SIZE": 1024, "NUM_LAYERS": shape["layers"], "MODEL_DIM": shape["width"],
        "NUM_HEADS": 4, "NUM_KV_HEADS": 2, "TRAIN_BATCH_TOKENS": TOKENS, "TRAIN_SEQ_LEN": LENGTH,
        "VAL_BATCH_SIZE": 4096, "MAX_WALLCLOCK_SECONDS": 0,
    }  # fmt: skip
    os.environ.update({name: str(value) for name, value in knobs.items()})
    config = read_config()
    run = Run(config, torch.device("cpu"), Log(config))
    watch = Stopwatch(run.device)
    return lambda: run.step(1.0, 0.95, watch)[0], run


def main(checkout: Path, folder: Path, shapes: list[str]) -> None:
    """Print one line a shape."""
    import synthetic
    import torch

    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    synthetic.TRAIN_TOKENS = 1_000_000
    synthetic.main(folder)
    source = (checkout / "train_gpt.py").read_text()
    for text in shapes:
        layers, width = map(int, text.split("x"))
        shape = {"layers": layers, "width": width}
        ours, run = our_step(folder, shape)
        theirs = contest_step(source, shape, lambda run=run: run.micro_batches()[0])
        spent: dict[str, list[float]] = {"ours": [], "theirs": []}
        for turn in range(TURNS + 1):
            for side, step in (("ours", ours), ("theirs", theirs)):
                begun = time.process_time()
                for _ in range(STEPS):
                    step()
                if turn:  # the first one warms up
                    spent[side].append(1000 * (time.process_time() - begun) / STEPS)
        middle = {side: statistics.median(times) for side, times in spent.items()}
        cells = (f"{side} {min(spent[side]):.1f} {middle[side]:.1f} ms" for side in spent)
        print(text, *cells, f"ratio {middle['theirs'] / middle['ours']:.2f}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or ["2x64", "3x96", "4x256"])

"""One run: train, quantize, write the artifact, read it back, score it.

Speaks the contest's protocol: environment variables in, log lines on stdout of rank 0 out.
"""

from __future__ import annotations

import math
import resource
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import torch
import torch.distributed as dist

from trainer.adapt import evaluate_adapting
from trainer.artifact import compress, pack, pack_body, unpack
from trainer.attention import choose_attention
from trainer.calibrate import input_products
from trainer.checkpoint import load_checkpoint, save_checkpoint
from trainer.config import Config, TrainerError, read_config, require
from trainer.data import TokenStream, find_shards
from trainer.evaluate import Validation, byte_tables, evaluate, validation_set
from trainer.export import smaller_exports
from trainer.model import GPT
from trainer.muon import (
    NEWTON_SCHULZ,
    POLAR_EXPRESS,
    Adam,
    Muon,
    clip_gradients,
    orthogonalize,
)
from trainer.qat import Rounding, rounded
from trainer.quantize import FLOAT_NAMES, dequantize_all, quantize_all
from trainer.runtime import Ema, Log, LossAndClock, Stopwatch
from trainer.schedule import loops, lr_scale, muon_momentum, rounds, should_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from trainer.quantize import Floats


class Run:
    """The model with its optimizers and its data, on this rank's device."""

    def __init__(self, config: Config, device: torch.device, log: Log) -> None:
        self.config = config
        self.device = device
        self.log = log
        on_gpu = device.type == "cuda"
        self.shares = config.accumulation(on_gpu=on_gpu)
        self.validation = validation_set(config, byte_tables(config))
        self.train_shards = find_shards(config.data_path, "train")
        self.stream = TokenStream(self.train_shards, config.vocab_size)
        rows = config.train_batch_tokens // config.train_seq_len // self.shares // config.world_size
        self.kernel = choose_attention(config, rows, device) if on_gpu else "torch"
        torch.manual_seed(config.seed)
        half = on_gpu if config.dtype == "auto" else config.dtype == "bf16"
        self.model = GPT(config, torch.bfloat16 if half else torch.float32).to(device)
        self.compiled = on_gpu if config.compile == "auto" else config.compile == "1"
        self.forward: Callable[[Tensor, Tensor], Tensor] = self.model
        orthogonalizer: Callable[..., Tensor] = orthogonalize
        rounding: Callable[..., Tensor] = rounded
        if self.compiled:
            self.forward = torch.compile(self.model, dynamic=False, fullgraph=True)
            orthogonalizer = torch.compile(orthogonalize, dynamic=False, fullgraph=True)
            rounding = torch.compile(rounded, dynamic=False, fullgraph=True)
        self.rounding = Rounding(config, self.model, rounding)
        matrices, scalars = split_parameters(self.model)
        self.muon = Muon(
            matrices,
            weight_decay=config.weight_decay,
            newton_schulz_steps=config.muon_backend_steps,
            rank=config.rank,
            world_size=config.world_size,
            orthogonalizer=partial(
                orthogonalizer,
                quintics=POLAR_EXPRESS if config.polar_express else NEWTON_SCHULZ,
                rows_alike=config.muon_row_normalize,
            ),
            dtype=torch.bfloat16 if on_gpu else torch.float32,
        )
        embed_lr = config.tied_embed_lr if config.tie_embeddings else config.embed_lr
        groups = [
            ([self.model.embed.weight], embed_lr, config.embed_wd),
            (scalars, config.scalar_lr, config.adam_wd),
        ]
        if self.model.head is not None:
            groups.append(([self.model.head.weight], config.head_lr, config.embed_wd))
        self.adam = Adam(
            groups,
            betas=(config.beta1, config.beta2),
            eps=config.adam_eps,
            world_size=config.world_size,
        )
        self.agreed = LossAndClock(config, device)
        self.reads_ahead = on_gpu
        self.ahead: list[tuple[Tensor, Tensor]] = []
        self.ema = Ema(list(self.model.parameters()), config.ema_decay)
        self.steps, self.seconds, self.trained = 0, 0.0, False
        self.scoring, self.asked_to_stop = False, False

    def micro_batches(self) -> list[tuple[Tensor, Tensor]]:
        """Inputs and targets of this rank's part of the next step, read from the stream."""
        config, stream = self.config, self.stream
        self.began_at = stream.shard_index, stream.position
        rows = stream.batch(config.train_batch_tokens // config.train_seq_len, config.train_seq_len)
        parts = np.split(rows, self.shares * config.world_size)[config.rank :: config.world_size]
        batches = []
        for part in parts:
            tokens = torch.from_numpy(np.array(part))
            if self.device.type == "cuda":
                tokens = tokens.pin_memory().to(self.device, non_blocking=True)
            batches.append((tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()))
        return batches

    def step(self, lr: float, momentum: float, stopwatch: Stopwatch) -> tuple[float, float, bool]:
        """One training step; a loss that is not finite leaves the weights as they are.

        Args:
            lr: Factor on all learning rates.
            momentum: Muon's momentum.
            stopwatch: Read for the other ranks.

        Returns:
            Mean loss in nats per token, the clock in seconds and whether to stop, the same on every
            rank.
        """
        total = torch.zeros((), device=self.device)
        batches = self.ahead or self.micro_batches()
        with self.rounding:
            for index, (inputs, targets) in enumerate(batches, start=1):
                loss = self.forward(inputs, targets) / len(batches)
                total += loss.detach()
                if index == len(batches):
                    self.agreed.post(total, stopwatch.seconds(), stop=self.asked_to_stop)
                loss.backward()
        self.ahead = self.micro_batches() if self.reads_ahead else []  # while the GPU works
        train_loss, seconds, stop = self.agreed.read()
        if math.isfinite(train_loss):
            self.muon.reduce()
            self.adam.reduce()
            if self.config.grad_clip_norm > 0:
                limit = self.config.grad_clip_norm
                clip_gradients(self.muon, self.adam, limit, self.config.world_size)
            self.muon.step(lr * self.config.matrix_lr, momentum)
            self.adam.step(lr)
        for parameter in self.model.parameters():
            parameter.grad = None
        return train_loss, seconds, stop

    def warm_up(self) -> None:
        """Steps that make the compiler do its work; weights, optimizers and data start afresh."""
        initial = {name: value.clone() for name, value in self.model.state_dict().items()}
        stopwatch = Stopwatch(self.device)
        self.rounding.on = self.config.qat_frac > 0
        for looping in {False, self.config.num_loops > 0}:
            self.model.looping = looping
            for index in range(1, self.config.warmup_steps + 1):
                self.step(1.0, self.config.muon_momentum, stopwatch)
                self.log(f"warmup_step:{index}/{self.config.warmup_steps}")
        self.model.looping = self.rounding.on = False
        self.model.load_state_dict(initial)
        self.muon.reset()
        self.adam.reset()
        self.stream = TokenStream(self.train_shards, self.config.vocab_size)
        self.ahead = []

    def score(self, validation: Validation, stride: int = 0) -> tuple[float, float]:
        """Validation loss in nats and bits per byte, the same on every rank."""
        self.scoring = True
        with self.rounding:
            found = evaluate(
                self.config,
                self.forward,
                validation,
                shares=self.shares * self.config.world_size,
                device=self.device,
                stride=stride,
            )
        self.scoring = False
        return found

    def train(self) -> None:
        """All steps, with the validations and lines that belong to them.

        Raises:
            TrainerError: A loss is not finite; nothing is written then.
        """
        config, log = self.config, self.log
        stopwatch = Stopwatch(self.device, self.seconds)
        length = config.train_seq_len
        interim_tokens = math.ceil(config.val_interim_tokens / length) * length
        interim = self.validation.first(interim_tokens) if interim_tokens else self.validation
        stopping = should_stop(config, self.steps, self.seconds)
        stopwatch.resume()
        while True:
            step = self.steps
            planned = f"step:{step}/{config.iterations}"
            last = step == config.iterations or stopping
            self.model.looping = loops(config, step, self.seconds)
            self.rounding.on = rounds(config, step, self.seconds)
            if last:
                self.finish()
            if last or (config.val_loss_every > 0 and step % config.val_loss_every == 0):
                stopwatch.pause()
                val_loss, val_bpb = self.score(self.validation if last else interim)
                log(
                    f"{planned} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} "
                    f"{timing(stopwatch.before, step)}"
                )
                require(math.isfinite(val_loss), f"non-finite val_loss {val_loss} at step {step}")
                stopwatch.resume()
            if last:
                break
            train_loss, self.seconds, stop = self.step(
                lr_scale(config, step, self.seconds), muon_momentum(config, step), stopwatch
            )
            finite = math.isfinite(train_loss)
            self.steps = step = step + 1
            if finite:
                self.ema.update()
            stopping = should_stop(config, step, self.seconds)
            every = config.train_log_every
            if not finite or (every > 0 and (step <= 10 or step % every == 0 or stopping)):
                log(
                    f"step:{step}/{config.iterations} train_loss:{train_loss:.4f} "
                    f"{timing(stopwatch.seconds(), step)}"
                )
            require(
                finite,
                f"non-finite train_loss {train_loss} at step {step}: stopped before the update",
            )
            if stop:
                self.leave()
        if step < config.iterations:
            log(
                f"stopping_early: wallclock_cap train_time:{1000 * stopwatch.before:.0f}ms "
                f"step:{step}/{config.iterations}"
            )
        log(peak_memory(self.device))

    def finish(self) -> None:
        """Put the weights that are scored and shipped in place."""
        self.model.looping = self.config.num_loops > 0
        self.rounding.on = self.config.qat_frac > 0
        if not self.trained:
            self.ema.apply()
            self.trained = True
            if self.config.checkpoint:
                save_checkpoint(self)

    def on_sigterm(self, *_: object) -> None:
        """Leave a checkpoint: amid a validation now, else all ranks together after a step."""
        self.asked_to_stop = True
        if self.scoring or self.trained:
            self.leave()

    def leave(self) -> NoReturn:
        """End the process, with a checkpoint to go on from."""
        self.rounding.__exit__()
        if not self.trained:
            save_checkpoint(self)
            self.log(f"stopped: SIGTERM step:{self.steps} checkpoint:{self.config.checkpoint}")
        sys.exit(128 + signal.SIGTERM)

    def export_and_score(self) -> None:
        """Write the artifact, load what was written and score it.

        One over ARTIFACT_CAP_BYTES is followed by another of the same weights, at the first of
        SMALLER_EXPORTS that is within; the last one counts, and alone stays on disk.
        """
        weights = {  # copies, since loading overwrites the model's own
            name: parameter.detach().float().cpu().numpy().copy()
            for name, parameter in self.model.named_parameters()
        }
        self.products: dict[str, Floats] = {}
        self.stopwatch = Stopwatch(self.device, self.seconds)
        if self.config.gptq_batches:
            self.products = self.calibrate()
        over = self.export(self.config, weights)
        for setting, config in smaller_exports(self.config).items():
            if over > 0:
                over = self.export(config, weights, setting)

    def calibrate(self) -> dict[str, Floats]:
        """What GPTQ knows of each matrix's inputs, from the first training batches."""
        self.stream.seek(0, 0)
        batches = (
            inputs for _ in range(self.config.gptq_batches) for inputs, _ in self.micro_batches()
        )
        with self.rounding:
            products = input_products(self.model, batches)
        if self.config.world_size > 1:
            for product in products.values():
                dist.all_reduce(product)
        return {name: product.cpu().numpy() for name, product in products.items()}

    def export(self, config: Config, weights: Mapping[str, Floats], setting: str = "") -> int:
        """Quantize, write, load and score; bytes over the cap, the same on every rank.

        Args:
            config: How to quantize and compress.
            weights: The trained ones.
            setting: What makes it smaller than the first; one that is over the cap is dropped.

        Raises:
            TrainerError: A weight or a step does not fit its storage; nothing is written then.
        """
        log, bits = self.log, least_bits(config)
        path = Path(f"final_model.int{bits}.ptz")
        label = f"int{bits}+{config.codec}"
        code_bytes = Path(__file__).stat().st_size
        size = torch.zeros((), dtype=torch.int64, device=self.device)
        refusal = ""
        if config.rank == 0:
            try:
                products = self.products if config.gptq_batches else {}
                stored = quantize_all(config, weights, products)
                if products and not setting:  # calibration and rounding count as training
                    log(f"gptq:quantized {timing(self.stopwatch.seconds(), self.steps)}")
                blob = pack(config, stored)
                size += code_bytes + len(blob)
            except TrainerError as error:
                refusal = str(error)
        if config.world_size > 1:
            dist.broadcast(size, 0)
        if size == 0:  # on every rank, or the others would wait for rank 0
            raise TrainerError(refusal)
        cap = config.artifact_cap_bytes
        excess = int(size.item()) - cap if cap > 0 else 0
        if setting and excess > 0:
            log(f"artifact:over_cap by:{excess} setting:{setting}")
            return excess
        if config.rank == 0:
            if setting:
                log(f"artifact:smaller_export setting:{setting}")
                Path(f"final_model.int{least_bits(self.config)}.ptz").unlink()
            path.write_bytes(blob)
            raw_bytes = sum(weight.nbytes for weight in weights.values())
            payload_bytes = sum(map(len, pack_body(stored, shuffle=config.byte_shuffle)))
            log(f"Code size: {code_bytes} bytes")
            log(
                f"Serialized model {label}: {len(blob)} bytes (payload:{payload_bytes} "
                f"raw:{raw_bytes} ratio:{raw_bytes / len(blob):.2f}x)"
            )
            log(f"Total submission size {label}: {size} bytes")
        if config.world_size > 1:
            dist.barrier()
        self.load_and_score(config)
        return excess

    def load_and_score(self, config: Config) -> None:
        """Score the artifact that lies in the working folder.

        Raises:
            TrainerError: There is none of that name.
        """
        bits = least_bits(config)
        path = Path(f"final_model.int{bits}.ptz")
        require(path.is_file(), f"{path.resolve()}: no such artifact")
        started = time.perf_counter()
        self.load(path.read_bytes())
        self.model.looping = config.num_loops > 0
        final = f"final_int{bits}_{config.codec}_roundtrip"
        self.final_score(final, started)
        if config.eval_stride:
            self.final_score(f"{final}_sliding", started, config.eval_stride)
        if config.ttt_enabled:
            self.log_final(
                f"{final}_ttt", started, *evaluate_adapting(config, self.model, self.validation)
            )

    def final_score(self, label: str, started: float, stride: int = 0) -> None:
        """Score what was loaded, and log it with the time since the evaluation started."""
        self.log_final(label, started, *self.score(self.validation, stride))

    def log_final(self, label: str, started: float, val_loss: float, val_bpb: float) -> None:
        """The lines of a final score."""
        eval_ms = 1000 * (time.perf_counter() - started)
        self.log(f"{label} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} eval_time:{eval_ms:.0f}ms")
        self.log(f"{label}_exact val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}")

    @torch.no_grad()
    def load(self, blob: bytes) -> None:
        """Give the model an artifact's weights."""
        self.rounding.on = False
        weights = dequantize_all(unpack(blob))
        for name, parameter in self.model.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))


def split_parameters(model: GPT) -> tuple[list[Tensor], list[Tensor]]:
    """The blocks' matrices for Muon, and the scales, mixes and gates for Adam."""
    matrices: list[Tensor] = []
    scalars: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if any(part in name for part in FLOAT_NAMES):
            scalars.append(parameter)
        elif name.startswith("blocks."):
            matrices.append(parameter)
    return matrices, scalars


def least_bits(config: Config) -> int:
    """Bits of the blocks' most coarsely stored weights, which name the artifact."""
    return min(config.attn_bits or config.matrix_bits, config.mlp_bits or config.matrix_bits)


def timing(seconds: float, step: int) -> str:
    """The end of a progress line."""
    milliseconds = 1000 * seconds
    return f"train_time:{milliseconds:.0f}ms step_avg:{milliseconds / max(step, 1):.2f}ms"


def peak_memory(device: torch.device) -> str:
    """The line about memory; on a CPU the process's largest resident set stands for both."""
    if device.type == "cuda":
        allocated = torch.cuda.max_memory_allocated(device) >> 20
        reserved = torch.cuda.max_memory_reserved(device) >> 20
    else:
        allocated = reserved = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return f"peak memory allocated: {allocated} MiB reserved: {reserved} MiB"


def start_device(config: Config) -> torch.device:
    """This rank's device, with the process group started where there are several ranks."""
    if torch.cuda.is_available():
        device = torch.device("cuda", config.local_rank)
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
    else:
        device = torch.device("cpu")
    if config.world_size > 1:
        if device.type == "cuda":
            dist.init_process_group("nccl", device_id=device)
        else:
            dist.init_process_group("gloo")
    return device


def describe(run: Run) -> None:
    """The lines that say what is about to run."""
    config, log = run.config, run.log
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    log(
        f"train_loader:dataset:{Path(config.data_path).name} train_shards:{len(run.train_shards)} "
        f"val_tokens:{len(run.validation.target_bytes)}"
    )
    log(f"model_params:{parameters}")
    log(
        f"world_size:{config.world_size} grad_accum_steps:{run.shares} device:{run.device.type} "
        f"dtype:{run.model.dtype} compiled:{run.compiled} threads:{torch.get_num_threads()} "
        f"attention:{run.kernel}"
    )
    log(
        f"train_batch_tokens:{config.train_batch_tokens} train_seq_len:{config.train_seq_len} "
        f"iterations:{config.iterations} warmup_steps:{config.warmup_steps} "
        f"max_wallclock_seconds:{config.max_wallclock_seconds:.3f}"
    )
    log(f"seed:{config.seed}")


def check_codec(config: Config) -> None:
    """Fail before training, not after it, where the codec's package is missing."""
    try:
        compress(config.codec, 0, [b""])
    except ImportError as error:
        raise TrainerError(f"CODEC={config.codec} needs a package: {error}") from error


def main() -> None:
    """Run as the environment says; exit code 1 and one line where it cannot go on."""
    rank = 0
    try:
        config = read_config()
        rank = config.rank
        for exported in (config, *smaller_exports(config).values()):
            check_codec(exported)
        run = Run(config, start_device(config), Log(config))
        describe(run)
        if run.compiled and config.start_at == "train":
            run.warm_up()
        if config.checkpoint:
            resumed = config.start_at != "eval" and load_checkpoint(run)
            require(
                resumed or config.start_at != "export", f"{config.checkpoint}.0: no such checkpoint"
            )
            signal.signal(signal.SIGTERM, run.on_sigterm)
        if config.start_at == "train":
            run.train()
        if config.start_at == "eval":
            run.load_and_score(config)
        else:
            run.finish()
            run.export_and_score()
    except TrainerError as error:
        sys.exit(f"error: {error}" if rank == 0 else 1)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    main()

"""A GPU that is not there: what a script puts on it stays on the CPU, or becomes unknown.

Floating-point tensors that go to a GPU are parameters, optimizer state or an export: they stay
real. Integers that go there are tokens: they become unknown.
"""

from __future__ import annotations

import contextlib
import functools
import types
from typing import TYPE_CHECKING, Any, Self

import torch

from pgolf_sweep.script.probe.dryrun.unknown import PASSES, Unknown, known, unknown_like

if TYPE_CHECKING:
    from collections.abc import Callable

CONSTRUCTORS = (
    "zeros", "ones", "empty", "full", "arange", "linspace", "logspace", "eye", "rand", "randn",
    "randint", "randperm", "tensor", "as_tensor", "asarray", "empty_strided", "tril_indices",
    "triu_indices", "zeros_like", "ones_like", "full_like", "empty_like", "rand_like",
    "randn_like", "randint_like",
)  # fmt: skip
METHODS = ("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor")
TOKENS = frozenset({torch.int32, torch.int64})
"""What a batch is made of; narrower integers are quantized weights."""
MOST_REAL_INTEGERS = 1
LONG_SEQUENCE = 1 << 14
"""Positions of a whole batch: each layer's tables of rotations over them would take 50 MB."""
MEMORY_BYTES = 80 << 30
_DRAWN = frozenset({"randint", "randint_like", "empty", "zeros", "ones", "full", "tensor",
                    "as_tensor"})  # fmt: skip


def install(seconds: Callable[[], float]) -> None:
    """Put the pretended GPU into torch, for the rest of this process.

    Args:
        seconds: The clock that GPU events are timed by.
    """
    from torch.utils._device import _device_constructors  # noqa: PLC0415

    _device_constructors()  # kept from here on: a device's context knows the functions of before
    for name in CONSTRUCTORS:
        setattr(torch, name, _on_cpu(getattr(torch, name), draws=name in _DRAWN))
    setattr(torch, "empty", _for_kernels(torch.empty))  # noqa: B010 - torch's types forbid it
    for name in METHODS:
        setattr(torch.Tensor, name, _on_cpu(getattr(torch.Tensor, name)))
    _patch_moves()
    _patch_values()
    _patch_cuda(seconds)
    _patch_contexts()


def is_gpu(device: Any) -> bool:
    """Whether this names an accelerator."""
    if isinstance(device, torch.device):
        return device.type == "cuda"
    if isinstance(device, str):
        return device.startswith("cuda")
    return isinstance(device, int) and not isinstance(device, bool)


def _on_cpu(function: Any, *, draws: bool = False) -> Any:
    @functools.wraps(function)
    def made(*args: Any, **keywords: Any) -> Any:
        device = keywords.get("device")
        keywords.pop("pin_memory", None)
        if device is None or not is_gpu(device):
            return function(*args, **keywords)
        keywords["device"] = "cpu"
        tensor = function(*args, **keywords)
        if function.__name__ == "arange" and tensor.numel() >= LONG_SEQUENCE:
            return unknown_like(tensor)
        return _token_like(tensor) if draws else tensor

    return made


def _for_kernels(function: Any) -> Any:
    """Unknown for what a forward pass allocates for a kernel to write its activations into."""

    @functools.wraps(function)
    def made(*args: Any, **keywords: Any) -> Any:
        tensor = function(*args, **keywords)
        if PASSES.depth and tensor.dtype.is_floating_point and tensor.device.type == "cpu":
            return unknown_like(tensor)
        return tensor

    return made


def _token_like(tensor: Any) -> Any:
    """Unknown for what may be a batch of tokens, else as it is."""
    if tensor.dtype in TOKENS and tensor.numel() > MOST_REAL_INTEGERS:
        return unknown_like(tensor)
    return tensor


def _without_gpu(args: Any, keywords: dict[str, Any]) -> tuple[Any, bool]:
    """Arguments of a `to` with the CPU in a GPU's place, and whether there was one."""
    if args and not isinstance(args[0], torch.dtype | torch.Tensor) and is_gpu(args[0]):
        return ("cpu", *args[1:]), True
    if is_gpu(keywords.get("device")):
        keywords["device"] = "cpu"
        return args, True
    return args, False


def _moved(before: Any, after: Any) -> Any:
    """What a tensor is on a GPU: unknown where it holds tokens."""
    numbers = after.dtype.is_floating_point or after.dtype.is_complex or after.dtype == torch.int8
    if isinstance(before, torch.nn.Parameter) or numbers or after.numel() <= MOST_REAL_INTEGERS:
        return after
    return unknown_like(after)


def _patch_moves() -> None:
    tensor: Any = torch.Tensor
    module: Any = torch.nn.Module
    to, module_to = tensor.to, module.to

    def moved(self: Any, *args: Any, **keywords: Any) -> Any:
        args, gpu = _without_gpu(args, keywords)
        result = to(self, *args, **keywords)
        return _moved(self, result) if gpu else result

    def module_moved(self: Any, *args: Any, **keywords: Any) -> Any:
        # A module's integers are tables that may be exported: they stay real.
        args, _ = _without_gpu(args, keywords)
        return module_to(self, *args, **keywords)

    tensor.to = moved
    tensor.cuda = lambda self, *_, **__: _moved(self, self)
    tensor.pin_memory = tensor.record_stream = _self
    tensor.is_pinned = lambda *_: True
    # Activations and weights lie there; an export asserts that its copies do not.
    tensor.is_cuda = property(lambda self: isinstance(self, Unknown | torch.nn.Parameter))
    module.to = module_moved
    module.cuda = _self


def _patch_values() -> None:
    """Reading values out of an unknown tensor into Python or numpy."""
    tensor: Any = torch.Tensor
    for name in ("numpy", "tolist", "__array__"):
        setattr(tensor, name, _reading(getattr(tensor, name)))


def _reading(read: Any) -> Any:
    @functools.wraps(read)
    def reading(self: Any, *args: Any, **keywords: Any) -> Any:
        return read(known(self) if isinstance(self, Unknown) else self, *args, **keywords)

    return reading


def _self(self: Any, *_: Any, **__: Any) -> Any:
    return self


class Nothing:
    """A stream, an event, a graph, a context: anything that only keeps a GPU busy."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.cuda_stream = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None

    def __call__(self, function: Any = None, *_: Any, **__: Any) -> Any:
        """As a decorator: what it decorates."""
        return function


def _patch_cuda(seconds: Callable[[], float]) -> None:
    properties = types.SimpleNamespace(
        name="NVIDIA H100 80GB HBM3", major=9, minor=0, total_memory=MEMORY_BYTES,
        multi_processor_count=132, warp_size=32, shared_memory_per_block_optin=232448,
        max_threads_per_multi_processor=2048, regs_per_multiprocessor=65536,
        gcnArchName="",
    )  # fmt: skip

    class Event(Nothing):
        def record(self, *_: Any) -> None:
            self.at = seconds()

        def elapsed_time(self, other: Any) -> float:
            return 1000.0 * (getattr(other, "at", 0.0) - getattr(self, "at", 0.0))

        def query(self) -> bool:
            return True

    answers: dict[str, Any] = {
        "is_available": True, "device_count": 1, "current_device": 0, "is_initialized": True,
        "get_device_capability": (9, 0), "get_device_name": properties.name,
        "get_device_properties": properties, "is_bf16_supported": True,
        "max_memory_allocated": 1 << 30, "max_memory_reserved": 1 << 30, "memory_allocated": 0,
        "memory_reserved": 0, "mem_get_info": (MEMORY_BYTES, MEMORY_BYTES),
        "get_rng_state": torch.zeros(8, dtype=torch.uint8),
        "memory_stats": {}, "memory_summary": "",
    }  # fmt: skip
    cuda: Any = torch.cuda
    for name in dir(cuda):
        value = getattr(cuda, name)
        if isinstance(value, types.FunctionType) and not name.startswith("_"):
            setattr(cuda, name, _constant(answers.get(name)))
    for name in ("stream", "device", "graph", "StreamContext", "Stream", "CUDAGraph"):
        setattr(cuda, name, Nothing)
    cuda.Event = Event
    cuda.current_stream = cuda.default_stream = Nothing
    cuda.nvtx = Nothing()
    cuda.amp.autocast = Nothing
    cuda_free: Any = torch
    cuda_free.Generator = _Generator
    cuda_free.autocast = cuda_free.amp.autocast = Nothing


_GENERATOR = torch.Generator


class _Instances(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _GENERATOR)


class _Generator(metaclass=_Instances):
    def __new__(cls, device: Any = "cpu") -> Any:
        return _GENERATOR("cpu" if is_gpu(device) else device)


def _patch_contexts() -> None:
    """`with torch.device("cuda")`, default devices, choices of kernels."""
    from torch.utils import _device  # noqa: PLC0415 - where torch keeps the mode

    context: Any = _device.DeviceContext
    init = context.__init__

    def made(self: Any, device: Any) -> None:
        init(self, torch.device("cpu") if is_gpu(device) else device)

    context.__init__ = made
    default = torch.set_default_device
    torch.set_default_device = lambda device: default("cpu" if is_gpu(device) else device)
    # A kernel that was ruled out would leave none for this CPU.
    for name in ("enable_flash_sdp", "enable_mem_efficient_sdp", "enable_math_sdp",
                 "enable_cudnn_sdp"):  # fmt: skip
        if hasattr(torch.backends.cuda, name):
            setattr(torch.backends.cuda, name, _constant(None))
    with contextlib.suppress(ImportError):
        from torch.nn import attention  # noqa: PLC0415

        kernels: Any = attention
        kernels.sdpa_kernel = Nothing


def _constant(answer: Any) -> Callable[..., Any]:
    return lambda *_, **__: answer

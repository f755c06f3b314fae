"""Everything of torch that a contest's script expects: ranks, kernels, compilers, linear algebra.

Packages that are missing are stood in for by `pgolf_sweep.script.probe.stubs`; here are those whose
results matter: attention keeps the shape of its queries, a collective of one rank is a copy.
"""

from __future__ import annotations

import contextlib
import sys
import types
from typing import TYPE_CHECKING, Any

import torch

from pgolf_sweep.script.probe.dryrun import mamba, rearranging, starts, surroundings
from pgolf_sweep.script.probe.dryrun.unknown import ATEN, Unknown, unknown

if TYPE_CHECKING:
    from collections.abc import Callable


def install(vocabulary: Callable[[], int]) -> None:
    """Put the stubs into torch and the module table, for the rest of this process.

    Args:
        vocabulary: Pieces of the tokenizer.
    """
    _patch_attention()
    _patch_kernels()
    _patch_losses()
    _patch_linear_algebra()
    starts.install()
    _patch_einsum()
    _patch_distributed()
    _patch_compile()
    surroundings.install(vocabulary)
    mamba.install()
    rearranging.install()


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
    """A tensor of the queries' shape and the values' width."""
    del key
    shape = (*query.shape[:-1], value.shape[-1])
    if isinstance(query, Unknown) or isinstance(value, Unknown):
        return unknown(shape, query.dtype)
    return torch.zeros(shape, dtype=query.dtype)


def _packed_attention(packed: Any, *_: Any, **__: Any) -> Any:
    query = packed.select(-3, 0)
    return _attention(query, query, query)


def _patch_attention() -> None:
    functional: Any = torch.nn.functional
    functional.scaled_dot_product_attention = _attention
    with contextlib.suppress(ImportError):
        from torch.nn.attention import flex_attention  # noqa: PLC0415

        flex: Any = flex_attention
        flex.flex_attention = _attention
        flex.create_block_mask = lambda *_, **__: None
    for name in ("flash_attn_interface", "flash_attn", "flash_attn.flash_attn_interface",
                 "flash_attn_3", "flash_attn_3.flash_attn_interface"):  # fmt: skip
        module = _module(
            name,
            flash_attn_func=_attention,
            flash_attn_varlen_func=_attention,
            flash_attn_with_kvcache=_attention,
            flash_attn_qkvpacked_func=_packed_attention,
            flash_attn_varlen_qkvpacked_func=_packed_attention,
        )
        module.__path__ = []
        sys.modules[name] = module
    sys.modules["flash_attn"].__dict__["flash_attn_interface"] = sys.modules[
        "flash_attn.flash_attn_interface"
    ]
    kernels = _module("kernels", get_kernel=lambda *_, **__: sys.modules["flash_attn_interface"])
    sys.modules["kernels"] = kernels


def _module(name: str, **members: Any) -> Any:
    module = types.ModuleType(name)
    module.__dict__.update(members, __version__="3.0.0")
    return module


class _Kernel:
    """A Triton kernel that computes nothing, and whatever else its language has names for."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getitem__(self, _grid: Any) -> Any:
        return lambda *_, **__: None

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self


def _name_of_triton(name: str) -> _Kernel:
    """Whatever a module of Triton is asked for; what Python asks every module for is not there."""
    if name.startswith("__"):
        raise AttributeError(name)
    return _Kernel()


def _patch_kernels() -> None:
    def decorator(*_: Any, **__: Any) -> Any:
        return lambda function: function

    def jit(function: Any = None, **_: Any) -> Any:
        return decorator() if function is None else _Kernel()

    triton = _module(
        "triton", jit=jit, autotune=decorator, heuristics=decorator, Config=_Kernel,
        cdiv=lambda one, other: -(-one // other),
        next_power_of_2=lambda number: 1 << (int(number) - 1).bit_length(),
        __getattr__=_name_of_triton,
    )  # fmt: skip
    triton.__path__ = []
    sys.modules["triton"] = triton
    for name in ("language", "tools", "tools.tensor_descriptor", "language.extra"):
        part = _module(f"triton.{name}", __getattr__=_name_of_triton)
        part.__path__ = []
        sys.modules[f"triton.{name}"] = part
        if "." not in name:
            setattr(triton, name, part)


def _patch_losses() -> None:
    functional: Any = torch.nn.functional
    true = functional.cross_entropy

    def cross_entropy(inputs: Any, target: Any, *args: Any, **keywords: Any) -> Any:
        if not (isinstance(inputs, Unknown) or isinstance(target, Unknown)):
            return true(inputs, target, *args, **keywords)
        shape = target.shape if keywords.get("reduction") == "none" else ()
        return unknown(shape, inputs.dtype)

    functional.cross_entropy = cross_entropy


def _patch_einsum() -> None:
    """Operands of two widths meet at the narrower one, as autocast has it on a GPU."""
    true = torch.einsum

    def einsum(equation: Any, *operands: Any) -> Any:
        given = operands[0] if len(operands) == 1 and isinstance(operands[0], list) else operands
        floats = {one.dtype for one in given if isinstance(one, torch.Tensor)}
        if len(floats) > 1 and all(dtype.is_floating_point for dtype in floats):
            narrow = min(floats, key=lambda one: torch.finfo(one).bits)
            given = [one.to(narrow) for one in given]
        return true(equation, *given)

    setattr(torch, "einsum", einsum)  # noqa: B010 - torch's types do not let it be assigned


def _patch_linear_algebra() -> None:
    """The Cholesky factors of a diagonal, as a Hessian of unknown activations is one."""
    linalg: Any = torch.linalg
    true = linalg.cholesky, torch.cholesky_inverse

    def diagonal_of(matrix: Any) -> Any:
        if isinstance(matrix, Unknown) or matrix.ndim != 2:
            return None
        diagonal = matrix.diagonal()
        if torch.count_nonzero(matrix) > matrix.shape[0] or not bool((diagonal > 0).all()):
            return None
        return diagonal

    def cholesky(matrix: Any, *args: Any, **keywords: Any) -> Any:
        diagonal = diagonal_of(matrix)
        if diagonal is None:
            return true[0](matrix, *args, **keywords)
        return torch.diag(diagonal.sqrt())

    def cholesky_inverse(matrix: Any, *args: Any, **keywords: Any) -> Any:
        diagonal = diagonal_of(matrix)
        if diagonal is None:
            return true[1](matrix, *args, **keywords)
        return torch.diag(diagonal.square().reciprocal())

    def cholesky_ex(matrix: Any, *args: Any, **keywords: Any) -> Any:
        return cholesky(matrix, *args, **keywords), torch.zeros((), dtype=torch.int32)

    linalg.cholesky = cholesky
    linalg.cholesky_ex = cholesky_ex
    setattr(torch, "cholesky", cholesky)  # noqa: B010 - torch's types do not let it be assigned
    setattr(torch, "cholesky_inverse", cholesky_inverse)  # noqa: B010


class _Work:
    """A collective that is done."""

    def wait(self, *_: Any) -> bool:
        return True

    def is_completed(self) -> bool:
        return True

    def get_future(self) -> _Work:
        return self

    def value(self) -> Any:
        return None

    def then(self, _: Any) -> _Work:
        return self


def _copies(out: Any, piece: Any = None, *_: Any, **__: Any) -> _Work:
    if isinstance(out, torch.Tensor) and isinstance(piece, torch.Tensor):
        with torch.no_grad():
            out.copy_(piece.reshape(-1)[: out.numel()].reshape(out.shape))
    elif isinstance(out, list) and isinstance(piece, torch.Tensor):
        for one in out:
            one.copy_(piece)
    return _Work()


def _objects(out: Any, item: Any = None, *_: Any, **__: Any) -> None:
    if isinstance(out, list) and out and item is not None:
        out[:] = [item] * len(out)


def _chunk(out: Any, pieces: Any, *_: Any, **__: Any) -> _Work:
    return _copies(out, pieces[0] if isinstance(pieces, list | tuple) else pieces)


def _patch_distributed() -> None:
    import torch.distributed  # noqa: PLC0415 - of the child alone
    import torch.nn.parallel  # noqa: PLC0415

    dist: Any = torch.distributed

    answers: dict[str, Any] = {
        "is_available": True, "is_initialized": True, "get_rank": 0, "get_world_size": 1,
        "get_backend": "nccl", "get_node_local_rank": 0, "is_nccl_available": True,
    }  # fmt: skip
    for name, answer in answers.items():
        setattr(dist, name, lambda *_, answer=answer, **__: answer)
    for name in ("init_process_group", "destroy_process_group", "barrier", "monitored_barrier",
                 "broadcast_object_list", "new_group"):  # fmt: skip
        setattr(dist, name, lambda *_, **__: None)
    for name in ("all_reduce", "broadcast", "reduce", "send", "recv", "isend", "irecv",
                 "all_reduce_coalesced", "scatter"):  # fmt: skip
        setattr(dist, name, lambda *_, **__: _Work())
    for name in ("all_gather_into_tensor", "all_gather", "_all_gather_base", "all_to_all_single"):
        setattr(dist, name, _copies)
    for name in ("reduce_scatter_tensor", "reduce_scatter", "_reduce_scatter_base"):
        setattr(dist, name, _chunk)
    for name in ("all_gather_object", "gather_object"):
        setattr(dist, name, _objects)
    parallel: Any = torch.nn.parallel
    parallel.DistributedDataParallel = parallel.distributed.DistributedDataParallel = OneRank


class OneRank(torch.nn.Module):
    """`DistributedDataParallel` of one rank."""

    def __init__(self, module: Any, *_: Any, **__: Any) -> None:
        super().__init__()
        self.module = module
        self.require_backward_grad_sync = True

    def forward(self, *args: Any, **keywords: Any) -> Any:
        """What the module says."""
        return self.module(*args, **keywords)

    def no_sync(self) -> Any:
        """Nothing is synchronised."""
        return contextlib.nullcontext()


_MARKS = (
    "reset", "mark_dynamic", "mark_static", "maybe_mark_dynamic", "cudagraph_mark_step_begin",
    "mark_static_address", "graph_break",
)  # fmt: skip


def _patch_compile() -> None:
    from torch import _dynamo  # noqa: PLC0415 - of the child alone

    dynamo: Any = _dynamo
    compiler: Any = torch.compiler
    for module in (dynamo, compiler):
        for name in ("disable", "allow_in_graph", "assume_constant_result"):
            setattr(module, name, _decorator)
        for name in _MARKS:
            setattr(module, name, lambda *_, **__: None)
    checkpoint: Any = __import__("torch.utils.checkpoint", fromlist=["checkpoint"])
    checkpoint.checkpoint = _call


def _call(function: Any, *args: Any, **keywords: Any) -> Any:
    for name in ("use_reentrant", "preserve_rng_state", "determinism_check", "context_fn", "debug"):
        keywords.pop(name, None)
    return function(*args, **keywords)


def _decorator(function: Any = None, *_: Any, **__: Any) -> Any:
    return function if callable(function) else _decorator


def zeros_for_products(func: Any, args: Any) -> Any:
    """Zeros in the place of a matrix product; None for another operation."""
    if func in (ATEN.mm.default, ATEN.bmm.default):
        left, right = args[0], args[1]
        return left.new_zeros((*left.shape[:-1], right.shape[-1]))
    if func in (ATEN.addmm.default, ATEN.baddbmm.default):
        return torch.zeros_like(args[0]).expand(
            (*args[1].shape[:-1], args[2].shape[-1])
        ).clone()  # fmt: skip
    return None

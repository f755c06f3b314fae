"""The model and its training, watched: what the optimizers get, and what an update does to it.

The model is counted when the first optimizer is made, else when its state is first asked for.
Gradients are zeros, so that one true step of each optimizer shows its decay and nothing else; the
steps after it do nothing but let the clock jump.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pgolf_sweep.script.probe.dryrun.environment import zeros_for_products
from pgolf_sweep.script.probe.dryrun.repeats import Repeats
from pgolf_sweep.script.probe.dryrun.unknown import PASSES, Unknown, inner_product

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgolf_sweep.script.probe.dryrun.clock import Clock

LEAST_DECAY, MOST_DECAY = 0.9, 1.0
"""A factor between these on a parameter is weight decay."""
PASSES_UNTRAINED = 10
"""Passes of data without any optimizer after which there will be none: evolution strategies. Where
no parameter of the model asks for a gradient, the first pass shows it."""


class Watch:
    """The script's model and optimizers.

    Args:
        clock: Jumps at each step.
        counted: Called once, when the model is complete.
        stepped: Called after the first step of every optimizer.

    Attributes:
        root: The model; None until it was seen.
        groups: What is known of each group of parameters, see `_group_facts`.
        factors: By address of a parameter's first number, the factors that it was multiplied by.
    """

    def __init__(
        self, clock: Clock, counted: Callable[[], None], stepped: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._counted = counted
        self._stepped = stepped
        self.root: Any = None
        self.groups: list[dict[str, Any]] = []
        self.factors: dict[int, list[float]] = {}
        self._optimizers: list[Any] = []
        self._initial: dict[int, list[dict[str, float]]] = {}
        self._done: set[int] = set()
        self._repeats = Repeats()
        self._measuring = False
        self._passes = 0
        self._untrained = False
        self._zeros: dict[torch.dtype, Any] = {}
        self._root_of_trained: Any = None
        self._trained: list[Any] = []

    def install(self) -> None:
        """From here on, for the rest of this process."""
        # Nothing flows back: what a pass keeps for that, each weight cast to bf16 among it, goes.
        autograd: Any = torch._C._autograd
        autograd._push_saved_tensors_default_hooks(lambda _: None, lambda _: None)
        self._patch_optimizers()
        self._patch_modules()
        self._patch_backward()
        self._patch_factors()

    @property
    def optimizers(self) -> int:
        """How many were made."""
        return len(self._optimizers)

    def parameters(self) -> list[tuple[str, Any]]:
        """The model's parameters by name, each once."""
        return [] if self.root is None else list(self.root.named_parameters())

    def find(self, among: Iterable[Any] = ()) -> None:
        """Find the model: the largest module that is no part of another and holds one of these.

        Args:
            among: Parameters of an optimizer; none accepts any module.
        """
        if self.root is None and (found := _largest(among)) is not None:
            self.root = _unwrapped(found)
            self._watch_methods(type(self.root))
            self._counted()

    def _watch_methods(self, kind: Any) -> None:
        """Look up the model's other ways forward, too, as ``forward_logits``."""
        for name, true in list(vars(kind).items()):
            if name.startswith("forward_") and callable(true):
                setattr(kind, name, self._watched(name, true))

    def _watched(self, name: str, true: Any) -> Any:
        def called(module: Any, *args: Any, **keywords: Any) -> Any:
            return self._repeats.call(
                module, name, lambda *a, **k: true(module, *a, **k), args, keywords
            )

        return called

    def _patch_optimizers(self) -> None:
        kind: Any = torch.optim.Optimizer
        init = kind.__init__
        watch = self

        def made(optimizer: Any, params: Any, *args: Any, **keywords: Any) -> None:
            init(optimizer, params, *args, **keywords)
            watch._made(optimizer)

        kind.__init__ = made
        kind.__init_subclass__ = classmethod(_notify(watch._wrap_step))
        for cls in _subclasses(kind):
            self._wrap_step(cls)

    def _wrap_step(self, cls: Any) -> None:
        if "step" not in cls.__dict__:
            return
        true, watch = cls.__dict__["step"], self

        def step(optimizer: Any, *args: Any, **keywords: Any) -> Any:
            return watch._step(optimizer, lambda: true(optimizer, *args, **keywords))

        cls.step = step

    def _made(self, optimizer: Any) -> None:
        self._optimizers.append(optimizer)
        self._initial[id(optimizer)] = [_numbers(group) for group in optimizer.param_groups]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.find(parameters)

    def _step(self, optimizer: Any, true: Callable[[], Any]) -> Any:
        if self._measuring:
            return true()
        if id(optimizer) not in self._done:
            self._done.add(id(optimizer))
            self._measure(optimizer, true)
            if len(self._done) >= len(self._optimizers):
                self._stepped()
        if self._optimizers and optimizer in (self._optimizers[0], self._optimizers[-1]):
            self._clock.jump()
        return None

    def _measure(self, optimizer: Any, true: Callable[[], Any]) -> None:
        """One true step at zero gradients, of one parameter a shape; weights stay as they were."""
        everything = [group["params"] for group in optimizer.param_groups]
        few = [_one_a_shape(params) for params in everything]
        for parameter in (p for params in everything for p in params):
            self._zero_gradient(parameter)
        for parameter in (p for params in few for p in params):
            if parameter.grad is not None:
                parameter.grad = torch.zeros_like(parameter)  # its own: a step may write there
        before = {id(p): p.detach().clone() for params in few for p in params}
        if not self._try(optimizer, few, everything, true):
            before |= {id(p): p.detach().clone() for params in everything for p in params
                       if id(p) not in before}  # fmt: skip
            few = everything
            self._try(optimizer, everything, everything, true)
        for group, params in zip(optimizer.param_groups, few, strict=True):
            self.groups.append(self._group_facts(optimizer, group, params, before))
        for facts, initial in zip(
            self.groups[-len(few) :], self._initial[id(optimizer)], strict=False
        ):
            facts["initial"] = initial  # a warm-up may have lowered them by now
        with torch.no_grad():
            for parameter in (p for params in few for p in params):
                parameter.copy_(before[id(parameter)])

    def _zero_gradient(self, parameter: Any) -> None:
        """Give a parameter a gradient if it has none: zeros that all of its type share."""
        if not parameter.requires_grad or parameter.grad is not None:
            return
        shared = self._zeros.get(parameter.dtype)
        if shared is None or shared.numel() < parameter.numel():
            most = max((one.numel() for _, one in self.parameters()), default=0)
            shared = torch.zeros(max(most, parameter.numel()), dtype=parameter.dtype)
            self._zeros[parameter.dtype] = shared
        parameter.grad = shared[: parameter.numel()].view(parameter.shape)

    def _try(
        self, optimizer: Any, few: list[Any], everything: list[Any], true: Callable[[], Any]
    ) -> bool:
        """Whether a step of some parameters goes through; groups are whole again after it."""
        for group, params in zip(optimizer.param_groups, few, strict=True):
            group["params"] = params
        self._measuring = True
        try:
            zeros: Any = ZeroProducts
            with zeros():
                true()
        except Exception:
            return False
        finally:
            self._measuring = False
            for group, params in zip(optimizer.param_groups, everything, strict=True):
                group["params"] = params
        return True

    def _group_facts(
        self, optimizer: Any, group: Any, params: list[Any], before: dict[int, Any]
    ) -> dict[str, Any]:
        """Rate, momentum and decay of a group; decay as the step's share that it took away."""
        names = {id(parameter): name for name, parameter in self.parameters()}
        shares = []
        for parameter in params:
            was = before[id(parameter)]
            if parameter.dtype != torch.float32 or parameter.ndim < 2:
                continue
            size = inner_product(was, was)
            if size > 0:
                shares.append(1.0 - inner_product(parameter, was) / size)
        return {
            "optimizer": type(optimizer).__name__,
            "numbers": _numbers(group),
            "initial": {},
            "betas": [float(one) for one in group.get("betas", ())],
            "decay": max(shares, default=0.0),
            "members": [names[id(p)] for p in group["params"] if id(p) in names],
        }

    def _patch_modules(self) -> None:
        module: Any = torch.nn.Module
        call, state = module.__call__, module.state_dict
        watch = self

        def called(self: Any, *args: Any, **keywords: Any) -> Any:
            if not (watch._optimizers or PASSES.depth) and any(
                isinstance(a, Unknown) for a in args
            ):
                watch._passed_untrained(self)
            return watch._repeats.call(
                self, "forward", lambda *a, **k: call(self, *a, **k), args, keywords
            )

        def state_dict(self: Any, *args: Any, **keywords: Any) -> Any:
            if not args and not keywords.get("prefix"):
                watch.find(list(self.parameters()))
            return state(self, *args, **keywords)

        module.__call__ = called
        module.state_dict = state_dict

    def _passed_untrained(self, module: Any) -> None:
        """Another pass of data, and no optimizer so far."""
        self._passes += 1
        if self._passes < PASSES_UNTRAINED and not self._is_frozen(module):
            return
        if not self._untrained:
            self._untrained = True
            self.find()
            self._stepped()
        self._clock.jump()

    def _is_frozen(self, module: Any) -> bool:
        """Whether this is the whole model, and none of its parameters asks for a gradient."""
        parameters = list(module.parameters())
        if not parameters or any(one.requires_grad for one in parameters):
            return False
        whole = self.root if self.root is not None else _unwrapped(_largest())
        return whole is _unwrapped(module)

    def _patch_backward(self) -> None:
        tensor: Any = torch.Tensor
        autograd: Any = torch.autograd

        def backward(*_: Any, **__: Any) -> None:
            if not self._optimizers:
                self._clock.jump()  # it updates its weights itself
            if self._root_of_trained is not self.root:
                self._root_of_trained = self.root
                self._trained = [parameter for _, parameter in self.parameters()]
            for parameter in self._trained:
                self._zero_gradient(parameter)

        def grad(_outputs: Any, inputs: Any, *_: Any, **__: Any) -> Any:
            inputs = inputs if isinstance(inputs, list | tuple) else [inputs]
            return tuple(torch.zeros_like(one) for one in inputs)

        tensor.backward = autograd.backward = backward
        autograd.grad = grad
        # Of unknown gradients nothing is left; of zeros the norm is zero.
        utilities: Any = torch.nn.utils
        utilities.clip_grad_norm_ = lambda *_, **__: torch.zeros(())

    def _patch_factors(self) -> None:
        """Decay that a script applies itself, as in ``p.mul_(1 - lr * wd)``."""
        tensor: Any = torch.Tensor
        true = tensor.mul_
        foreach: Any = torch._foreach_mul_

        watch = self

        def mul_(self: Any, factor: Any) -> Any:
            if isinstance(factor, float) and LEAST_DECAY < factor < MOST_DECAY:
                watch._note_factor(self, factor)
            return true(self, factor)

        def foreach_mul_(tensors: Any, factor: Any) -> Any:
            if isinstance(factor, float) and LEAST_DECAY < factor < MOST_DECAY:
                for one in tensors:
                    watch._note_factor(one, factor)
            return foreach(tensors, factor)

        tensor.mul_ = mul_
        setattr(torch, "_foreach_mul_", foreach_mul_)  # noqa: B010 - not in torch's types

    def _note_factor(self, tensor: Any, factor: float) -> None:
        if self._measuring or isinstance(tensor, Unknown) or tensor.ndim < 2:
            return
        self.factors.setdefault(tensor.data_ptr(), []).append(factor)


class ZeroProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Matrix products give zeros: of zero gradients they are, and Newton-Schulz is slow."""

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        zeros = zeros_for_products(func, args)
        return func(*args, **(kwargs or {})) if zeros is None else zeros


def _numbers(group: dict[str, Any]) -> dict[str, float]:
    """What of an optimizer's group is a number."""
    return {
        key: float(value)
        for key, value in group.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _notify(told: Callable[[Any], None]) -> Any:
    def subclassed(cls: Any, **_: Any) -> None:
        told(cls)

    return subclassed


def _largest(among: Iterable[Any] = ()) -> Any:
    """The largest module that is no part of another and holds one of these; None without any.

    Args:
        among: Parameters; none accepts any module.
    """
    wanted = {id(one) for one in among}
    modules = [one for one in gc.get_objects() if isinstance(one, torch.nn.Module)]
    inner = {id(child) for one in modules for child in one.children()}
    best, most = None, 0
    for one in modules:
        if id(one) in inner:
            continue
        parameters = list(one.parameters())
        size = sum(tensor.numel() for tensor in parameters)
        if size > most and (not wanted or any(id(p) in wanted for p in parameters)):
            best, most = one, size
    return best


def _unwrapped(module: Any) -> Any:
    """What a wrapper of one module, as `DistributedDataParallel`, wraps."""
    children = list(module.children())
    if len(children) == 1 and not list(module.parameters(recurse=False)):
        inner = getattr(module, "module", None) or getattr(module, "_orig_mod", None)
        if inner is not None:
            return _unwrapped(inner)
    return module


def _subclasses(kind: Any) -> list[Any]:
    found = [kind]
    for cls in kind.__subclasses__():
        found += _subclasses(cls)
    return found


def _one_a_shape(params: list[Any]) -> list[Any]:
    found: dict[Any, Any] = {}
    for one in params:
        found.setdefault((tuple(one.shape), one.dtype), one)
    return list(found.values())

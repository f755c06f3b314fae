"""Domains of one parameter: what it can be, and how a sampler is asked for it.

Every distribution of W&B's sweep schema is one of six domains. A sampler offers three questions
(`Suggester`); what it cannot be asked directly (normal, beta, weighted choices) is asked as the
quantile ``u`` in [0, 1], so that a sampler models a plain interval and the prior stays what the
sweep file says.
"""

from __future__ import annotations

import bisect
import itertools
import json
import math
from dataclasses import dataclass, field
from decimal import Decimal
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeGuard

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping, Sequence

    from pgolf_sweep.core.trial import KnobValue

TAIL = 1e-6
"""Probability that is cut off each end of an unbounded distribution (4.75 sigma of a normal)."""


class Suggester(Protocol):
    """What a space asks of a sampler: the signatures of an Optuna trial."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A float in [low, high], a multiple of `step` above `low` if given."""
        ...

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """An int in [low, high], a multiple of `step` above `low`."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`."""
        ...


class RandomSuggester:
    """Draws from the prior."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A uniform draw, on a logarithmic scale if `log`."""
        del name
        if step is not None:
            return low + step * self.rng.randint(0, round((high - low) / step))
        if log:
            value = math.exp(self.rng.uniform(math.log(low), math.log(high)))
            return min(max(value, low), high)
        return self.rng.uniform(low, high)

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """A uniform draw from ``low, low + step, ...``."""
        if log:
            return round(self.suggest_float(name, low, high, log=True))
        return low + step * self.rng.randint(0, (high - low) // step)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """A uniform draw from the choices."""
        del name
        return self.rng.choice(choices)


class Domain(Protocol):
    """What one parameter can be."""

    def suggest(self, trial: Suggester, name: str) -> KnobValue:
        """Ask a sampler for a value."""
        ...

    def encode(self, value: KnobValue) -> Any:
        """What a sampler has to answer for `suggest` to give this value.

        Raises:
            ValueError: The domain does not hold the value; the message says what it holds.
        """
        ...

    def count(self) -> int | None:
        """Number of distinct values, None if there is no end of them."""
        ...

    def values(self) -> Iterator[KnobValue]:
        """Every value, where `count` is not None."""
        ...

    def examples(self) -> tuple[KnobValue, ...]:
        """Values whose types are all the types that the domain gives."""
        ...

    def describe(self) -> str:
        """The domain in a few words, for messages."""
        ...

    def nearest(self, value: KnobValue) -> KnobValue | None:
        """The value of the domain that is nearest to any value; None if none is nearer."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """One value."""

    value: KnobValue

    def suggest(self, trial: Suggester, name: str) -> KnobValue:
        """The value; no sampler is asked."""
        del trial, name
        return self.value

    def encode(self, value: KnobValue) -> Any:
        """The value, if it is this one."""
        if _position(value, (self.value,)) is None:
            raise ValueError(self.describe())
        return self.value

    def count(self) -> int | None:
        """One."""
        return 1

    def values(self) -> Iterator[KnobValue]:
        """The value."""
        yield self.value

    def examples(self) -> tuple[KnobValue, ...]:
        """The value."""
        return (self.value,)

    def describe(self) -> str:
        """``always 512``."""
        return f"always {self.value}"

    def nearest(self, value: KnobValue) -> KnobValue | None:
        """The value."""
        del value
        return self.value


@dataclass(frozen=True, slots=True)
class Choices:
    """A list of distinct values, each as likely as the others; ``1`` and ``true`` are distinct.

    A list of numbers is asked by the place of the value in ascending order: a sampler then knows
    that 5 lies between 4 and 6.
    """

    options: tuple[KnobValue, ...]

    @property
    def ordered(self) -> tuple[KnobValue, ...]:
        """The options in ascending order; empty where they are not all numbers."""
        numbers = [option for option in self.options if _is_number(option)]
        return tuple(sorted(numbers)) if len(numbers) == len(self.options) else ()

    def suggest(self, trial: Suggester, name: str) -> KnobValue:
        """One of the options."""
        if self.ordered:
            return self.ordered[trial.suggest_int(name, 0, len(self.options) - 1)]
        choice: KnobValue = trial.suggest_categorical(name, self._answers())
        if self._plain():
            return choice
        return self.options[self._answers().index(choice)]

    def encode(self, value: KnobValue) -> Any:
        """The answer that stands for the option that equals the value, or its place."""
        index = _position(value, self.options)
        if index is None:
            raise ValueError(self.describe())
        return _position(value, self.ordered) if self.ordered else self._answers()[index]

    def nearest(self, value: KnobValue) -> KnobValue | None:
        """The option that equals the value, else the nearest number."""
        index = _position(value, self.options)
        if index is not None:
            return self.options[index]
        if self.ordered and _is_number(value):
            return min(self.ordered, key=lambda option: abs(float(str(option)) - float(value)))
        return None

    def count(self) -> int | None:
        """Number of options."""
        return len(self.options)

    def values(self) -> Iterator[KnobValue]:
        """The options in their order."""
        return iter(self.options)

    def examples(self) -> tuple[KnobValue, ...]:
        """The options."""
        return self.options

    def describe(self) -> str:
        """``one of 4, 5, 6, 8``."""
        return f"one of {', '.join(str(option) for option in self.options)}"

    def _plain(self) -> bool:
        """Whether a sampler can tell the options apart: it holds ``1`` and ``true`` for equal."""
        scalars = all(isinstance(one, bool | int | float | str | None) for one in self.options)
        return scalars and len({*self.options}) == len(self.options)

    def _answers(self) -> tuple[Any, ...]:
        """What a sampler chooses from: the options, or texts where it knows no such values."""
        return self.options if self._plain() else tuple(value_key(one) for one in self.options)


@dataclass(frozen=True, slots=True)
class WeightedChoices(Choices):
    """A list of values with probabilities (positive, summing to one), asked as a quantile."""

    probabilities: tuple[float, ...]

    def suggest(self, trial: Suggester, name: str) -> KnobValue:
        """The option whose share of [0, 1] holds the quantile."""
        quantile = trial.suggest_float(name, 0.0, 1.0)
        index = bisect.bisect_right(self._edges(), quantile)
        return self.options[min(index, len(self.options) - 1)]

    def encode(self, value: KnobValue) -> Any:
        """The middle of the option's share of [0, 1]."""
        index = _position(value, self.options)
        if index is None:
            raise ValueError(self.describe())
        return min(self._edges()[index] - self.probabilities[index] / 2, 1.0)

    def _edges(self) -> list[float]:
        return list(itertools.accumulate(self.probabilities))


@dataclass(frozen=True, slots=True)
class Range:
    """Every float between two bounds, both possible."""

    low: float
    high: float
    log: bool = False

    def suggest(self, trial: Suggester, name: str) -> KnobValue:
        """A float, on a logarithmic scale if `log`."""
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def encode(self, value: KnobValue) -> Any:
        """The value as a float."""
        if _is_number(value) and self.low <= float(value) <= self.high:
            return float(value)
        raise ValueError(self.describe())

    def count(self) -> int | None:
        """No end of values."""
        return None

    def values(self) -> Iterator[KnobValue]:
        """Never called: `count` is None."""
        raise NotImplementedError

    def examples(self) -> tuple[KnobValue, ...]:
        """The lower bound."""
        return (float(self.low),)

    def nearest(self, value: KnobValue) -> KnobValue | None:
        """The value, or the bound that it lies beyond."""
        return min(max(float(value), self.low), self.high) if _is_number(value) else None

    def describe(self) -> str:
        """``0.015 to 0.08 (log)``."""
        return f"{self.low:g} to {self.high:g}{' (log)' if self.log else ''}"


@dataclass(frozen=True, slots=True)
class Multiples:
    """The multiples ``first * q`` to ``last * q``; ints where `q` is an int.

    With `log` the sampler answers a float on a logarithmic scale, rounded to the next multiple;
    the interval reaches half a step beyond the ends so that they keep their share (then
    ``first >= 1``).
    """

    first: int
    last: int
    q: int | float = 1
    log: bool = False

    def value(self, index: int) -> int | float:
        """``index * q`` without the noise of binary fractions: 3 * 0.1 is 0.3."""
        return index * self.q if isinstance(self.q, int) else float(Decimal(str(self.q)) * index)

    def suggest(self, trial: Suggester, name: str) -> KnobValue:
        """A multiple."""
        if self.log:
            low, high = (self.first - 0.5) * self.q, (self.last + 0.5) * self.q
            return self.multiple(trial.suggest_float(name, low, high, log=True))
        low, high = self.value(self.first), self.value(self.last)
        if isinstance(low, int) and isinstance(high, int) and isinstance(self.q, int):
            return trial.suggest_int(name, low, high, step=self.q)
        return self.multiple(trial.suggest_float(name, low, high, step=self.q))

    def encode(self, value: KnobValue) -> Any:
        """The value itself, an int or a float as `suggest` asks for it."""
        if _is_number(value):
            index = round(float(value) / self.q)
            if self.first <= index <= self.last and math.isclose(
                self.value(index), float(value), rel_tol=1e-9, abs_tol=1e-12
            ):
                return float(self.value(index)) if self.log else self.value(index)
        raise ValueError(self.describe())

    def count(self) -> int | None:
        """Number of multiples."""
        return self.last - self.first + 1

    def values(self) -> Iterator[KnobValue]:
        """The multiples, ascending."""
        return (self.value(index) for index in range(self.first, self.last + 1))

    def examples(self) -> tuple[KnobValue, ...]:
        """The smallest."""
        return (self.value(self.first),)

    def describe(self) -> str:
        """``384 to 640 in steps of 64``."""
        steps = "" if self.q == 1 else f" in steps of {self.q:g}"
        return f"{self.value(self.first)} to {self.value(self.last)}{steps}"

    def nearest(self, value: KnobValue) -> KnobValue | None:
        """The nearest multiple."""
        return self.multiple(float(value)) if _is_number(value) else None

    def multiple(self, raw: float) -> int | float:
        """The nearest one."""
        return self.value(min(max(round(raw / self.q), self.first), self.last))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantile:
    """A normal, log-normal or beta distribution, asked as a quantile; rounded if `q` is given.

    Attributes:
        kind: Which distribution.
        shape: ``(mu, sigma)``, of the logarithm for the log-normal; ``(a, b)`` for beta.
        q: Values are multiples of it, ints where it is an int.
    """

    kind: Literal["normal", "log_normal", "beta"]
    shape: tuple[float, float]
    q: int | float | None = None

    def suggest(self, trial: Suggester, name: str) -> KnobValue:
        """The value at the quantile that the sampler answers."""
        value = self._at(trial.suggest_float(name, TAIL, 1 - TAIL))
        return value if self.q is None else self._multiples(self.q).multiple(value)

    def encode(self, value: KnobValue) -> Any:
        """The quantile of a value."""
        low, high = self._support()
        if not _is_number(value) or not low <= float(value) <= high:
            raise ValueError(self.describe())
        if self.q is not None:
            self._multiples(self.q).encode(value)
        return min(max(self._share_below(float(value)), TAIL), 1 - TAIL)

    def count(self) -> int | None:
        """No end of values."""
        return None

    def values(self) -> Iterator[KnobValue]:
        """Never called: `count` is None."""
        raise NotImplementedError

    def examples(self) -> tuple[KnobValue, ...]:
        """A float, or an int where the multiples are ints."""
        return (1.0 if self.q is None else self._multiples(self.q).value(1),)

    def describe(self) -> str:
        """``normal(0, 1)``."""
        steps = "" if self.q is None else f" in steps of {self.q:g}"
        return f"{self.kind}({self.shape[0]:g}, {self.shape[1]:g}){steps}"

    def nearest(self, value: KnobValue) -> KnobValue | None:
        """The value itself or the bound of the support that it lies beyond, as a multiple."""
        if not _is_number(value):
            return None
        low, high = self._support()
        inside = min(max(float(value), low), high)
        return inside if self.q is None else self._multiples(self.q).nearest(inside)

    def _multiples(self, q: float) -> Multiples:
        low, high = self._support()
        first = math.ceil(low / q) if math.isfinite(low) else -(2**62)
        return Multiples(first, math.floor(high / q) if math.isfinite(high) else 2**62, q)

    def _support(self) -> tuple[float, float]:
        return {
            "normal": (-math.inf, math.inf),
            "log_normal": (0.0, math.inf),
            "beta": (0.0, 1.0),
        }[self.kind]

    def _at(self, quantile: float) -> float:
        first, second = self.shape
        if self.kind == "beta":
            from scipy.special import betaincinv  # noqa: PLC0415 - heavy, and rarely needed

            return float(betaincinv(first, second, quantile))
        value = NormalDist(first, second).inv_cdf(quantile)
        return math.exp(value) if self.kind == "log_normal" else value

    def _share_below(self, value: float) -> float:
        first, second = self.shape
        if self.kind == "beta":
            from scipy.special import betainc  # noqa: PLC0415 - heavy, and rarely needed

            return float(betainc(first, second, value))
        if self.kind == "log_normal":
            value = math.log(value) if value > 0 else -math.inf
        return NormalDist(first, second).cdf(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One knob of a search space.

    Attributes:
        name: The environment variable or flag that carries it; of a nested one all names around
            it, with dots between.
        distribution: Its name in W&B's schema.
        domain: What it can be.
        when: Values of other parameters under which it exists; all must hold.
        path: The names of `name`, one by one; a name may have dots of its own.
        spelled: Text of values that W&B keeps as they are written (``1e3``), by `value_key`.
    """

    name: str
    distribution: str
    domain: Domain
    when: Mapping[str, tuple[KnobValue, ...]] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    spelled: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """Where it stands in the sweep file."""
        names = self.path or (self.name,)
        return tuple(key for name in names for key in ("parameters", name))

    @property
    def searched(self) -> bool:
        """Whether there is anything to choose."""
        return self.domain.count() != 1

    def active(self, knobs: Mapping[str, Any]) -> bool:
        """Whether the parameter exists, given the knobs that it depends on."""
        return all(
            name in knobs and _position(knobs[name], allowed) is not None
            for name, allowed in self.when.items()
        )


Number: TypeAlias = int | float


def _is_number(value: KnobValue) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def value_key(value: KnobValue) -> str:
    """A text by which values are told apart: ``1``, ``1.0``, ``true`` and ``"1"`` are four."""
    return json.dumps(value, sort_keys=True, default=repr)


def _position(value: KnobValue, options: tuple[KnobValue, ...]) -> int | None:
    """Where a value stands among options: the same one, else an equal number; None if nowhere."""
    keys = [value_key(option) for option in options]
    if value_key(value) in keys:
        return keys.index(value_key(value))
    if not _is_number(value):
        return None
    equal = (i for i, option in enumerate(options) if _is_number(option) and option == value)
    return next(equal, None)

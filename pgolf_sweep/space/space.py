"""The search space: parameters, the conditions between them, and what a configuration must meet.

Pure: no sampler is imported. A sampler is anything that answers `Suggester`, an Optuna trial
included.
"""

from __future__ import annotations

import ast
from functools import cached_property
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.space.domains import (
    Constant,
    Parameter,
    RandomSuggester,
    Suggester,
    value_key,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pgolf_sweep.core.trial import KnobValue

__all__ = ["Parameter", "Space", "Suggester", "check_expression", "is_seed"]

MOST_EXPRESSION_CHARS = 1000
MOST_EXPRESSION_DEPTH = 60
_TRIED = (1, 2, 3, 8, 0.5, "a")
"""Values of every knob with which a requirement is tried once before it is believed."""
_FUNCTIONS = {"min": min, "max": max, "abs": abs, "round": round, "int": int, "float": float}


class Space:
    """What a sweep searches.

    Attributes:
        parameters: By knob name, in the sweep file's order.
        require: Expressions over knobs that a configuration must make true.
        one_at_a_time: Whether a grid changes one parameter at a time; see `grid`.
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        require: Sequence[str] = (),
        *,
        one_at_a_time: bool = False,
    ) -> None:
        """Build a space.

        Raises:
            graphlib.CycleError: The conditions form a circle.
        """
        self.parameters: Mapping[str, Parameter] = {p.name: p for p in parameters}
        self.require = tuple(require)
        self.one_at_a_time = one_at_a_time
        graph = {p.name: set(p.when) & set(self.parameters) for p in self.parameters.values()}
        # Parents first: a condition is decided before what depends on it is asked for.
        self._ordered = [self.parameters[name] for name in TopologicalSorter(graph).static_order()]

    def suggest(self, trial: Suggester) -> dict[str, KnobValue]:
        """One configuration by a sampler; parameters whose condition does not hold are left out."""
        knobs: dict[str, KnobValue] = {}
        for parameter in self._ordered:
            if parameter.active(knobs):
                knobs[parameter.name] = parameter.domain.suggest(trial, parameter.name)
        return self._in_file_order(knobs)

    def sample(self, rng: random.Random) -> dict[str, KnobValue]:
        """One configuration drawn from the prior."""
        return self.suggest(RandomSuggester(rng))

    def grid(self) -> Iterator[dict[str, KnobValue]]:
        """Every configuration, each once; the parameter that is first in the file varies slowest.

        One at a time, these are the configuration of all first values and those that differ from
        it in one parameter. A seed does not count, and neither does what a conditional parameter
        depends on: it changes beside the value under which it exists.

        Raises:
            InputError: A parameter has no end of values.
        """
        for parameter in self.parameters.values():
            if parameter.domain.count() is None:
                raise InputError(
                    f"a grid over {parameter.name} has no end: {parameter.distribution} is "
                    f"continuous ({parameter.domain.describe()})",
                    expected="values, int_uniform or q_uniform for each parameter",
                )
        return (self._in_file_order(knobs) for knobs in self._expand(0, {}, frozenset()))

    def size(self) -> int | None:
        """Number of configurations of `grid`, or None where a parameter is continuous."""
        if any(parameter.domain.count() is None for parameter in self.parameters.values()):
            return None
        return self._count(0, {}, frozenset())

    def encode(self, knobs: Mapping[str, KnobValue]) -> dict[str, Any]:
        """What a sampler has to answer for `suggest` to give these knobs.

        Args:
            knobs: A configuration, or a part of one; the sampler chooses what is left out.

        Raises:
            InputError: A knob is no parameter, its value is outside the space, or its condition
                does not hold; all of them are named.
        """
        problems, encoded = [], {}
        for name, value in knobs.items():
            parameter = self.parameters.get(name)
            if parameter is None:
                problems.append(f"{name} is not a parameter of this sweep")
                continue
            if not parameter.active(knobs):
                problems.append(f"{name} exists only when {_condition(parameter)}")
                continue
            try:
                answer = parameter.domain.encode(value)
            except ValueError as error:
                problems.append(f"{name}={value} is outside the space: {error}")
                continue
            if not isinstance(parameter.domain, Constant):  # which no sampler is asked for
                encoded[name] = answer
        if problems:
            raise InputError("; ".join(problems))
        return encoded

    def nearest(self, values: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
        """The configuration nearest to given values, one knob at a time.

        Args:
            values: Values that may lie outside the space, such as a program's defaults.

        Returns:
            The knobs that exist; one that has no value, or no nearest one, is left out.
        """
        knobs: dict[str, KnobValue] = {}
        for parameter in self._ordered:
            if not parameter.active(knobs):
                continue
            known = values.get(parameter.name)
            value = _only(parameter)
            if value is None and known is not None:
                value = parameter.domain.nearest(known)
            if value is not None:
                knobs[parameter.name] = value
        return self._in_file_order(knobs)

    def decode(self, answers: Mapping[str, Any]) -> dict[str, KnobValue]:
        """Inverse of `encode`: the knobs that a sampler's answers stand for."""
        given = _Answers(answers)
        knobs: dict[str, KnobValue] = {}
        for parameter in self._ordered:
            if not parameter.active(knobs):
                continue
            only = _only(parameter)
            if only is not None:
                knobs[parameter.name] = only
            elif parameter.name in answers:
                knobs[parameter.name] = parameter.domain.suggest(given, parameter.name)
        return self._in_file_order(knobs)

    def ordered(self) -> Sequence[Parameter]:
        """The parameters, parents before those that depend on them."""
        return self._ordered

    def violations(
        self, knobs: Mapping[str, KnobValue], defaults: Mapping[str, KnobValue] | None = None
    ) -> list[str]:
        """The requirements that a configuration does not meet.

        Args:
            knobs: The configuration.
            defaults: The program's own values of knobs that the configuration leaves out.

        Returns:
            The failing expressions, each with its reason where it could not be evaluated.
        """
        from simpleeval import InvalidExpression  # noqa: PLC0415 - only where there are requirements

        failing = []
        names = {**(defaults or {}), **knobs}
        for expression, parsed in self._parsed:
            try:
                met = bool(_evaluator(names).eval(expression, previously_parsed=parsed))
            except (
                InvalidExpression,
                ArithmeticError,
                LookupError,
                TypeError,
                ValueError,
            ) as error:
                failing.append(f"{expression} ({error})")
            else:
                failing += [] if met else [expression]
        return failing

    @cached_property
    def _parsed(self) -> list[tuple[str, Any]]:
        return [(expression, _evaluator({}).parse(expression)) for expression in self.require]

    def _in_file_order(self, knobs: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
        return {name: knobs[name] for name in self.parameters if name in knobs}

    def _expand(
        self, index: int, knobs: dict[str, KnobValue], changed: frozenset[str]
    ) -> Iterator[dict[str, KnobValue]]:
        if index == len(self._ordered):
            yield knobs
            return
        parameter = self._ordered[index]
        if not parameter.active(knobs):
            yield from self._expand(index + 1, knobs, changed)
            return
        values = parameter.domain.values()
        yield from self._expand(index + 1, {**knobs, parameter.name: next(values)}, changed)
        if self._may_change(parameter, changed):
            changed |= {parameter.name}
            for value in values:
                yield from self._expand(index + 1, {**knobs, parameter.name: value}, changed)

    def _count(self, index: int, knobs: dict[str, Any], changed: frozenset[str]) -> int:
        """Configurations from a parameter on; only values that a condition names are told apart."""
        if index == len(self._ordered):
            return 1
        parameter = self._ordered[index]
        if not parameter.active(knobs):
            return self._count(index + 1, knobs, changed)
        first = next(parameter.domain.values())
        total = self._count(index + 1, {**knobs, parameter.name: first}, changed)
        if not self._may_change(parameter, changed):
            return total
        changed |= {parameter.name}
        known = value_key(first)
        named = [v for v in self._named_values(parameter) if value_key(v) != known]
        total += sum(self._count(index + 1, {**knobs, parameter.name: v}, changed) for v in named)
        others = (parameter.domain.count() or 0) - len(named) - 1
        if others:
            unnamed = {**knobs, parameter.name: object()}
            total += others * self._count(index + 1, unnamed, changed)
        return total

    def _may_change(self, parameter: Parameter, changed: frozenset[str]) -> bool:
        """Whether a parameter may have another value than its first beside what changed before."""
        if not self.one_at_a_time or is_seed(parameter.name):
            return True
        needed, parents = set(), list(parameter.when)
        while parents:
            name = parents.pop()
            needed.add(name)
            parents += self.parameters[name].when if name in self.parameters else ()
        return all(name in needed or is_seed(name) for name in changed)

    def _named_values(self, parameter: Parameter) -> list[KnobValue]:
        """The parameter's values that some condition asks for."""
        asked = [v for p in self._ordered for v in p.when.get(parameter.name, ())]
        keys = [value_key(value) for value in asked]
        return [value for i, value in enumerate(asked) if keys[i] not in keys[:i]]


def is_seed(name: str) -> bool:
    """Whether a knob is the seed, under which runs are repeats of one configuration."""
    return name.lower() == "seed"


def _only(parameter: Parameter) -> KnobValue | None:
    """The value of a parameter that has no other."""
    return next(parameter.domain.values()) if parameter.domain.count() == 1 else None


class _Answers:
    """A sampler that gives prepared answers."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._answers = answers

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        del low, high, step, log
        return float(self._answers[name])

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        del low, high, step, log
        return int(self._answers[name])

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        del choices
        return self._answers[name]


def check_expression(expression: str) -> set[str]:
    """The knobs that a requirement speaks of.

    Raises:
        ValueError: It is not an expression that `Space.violations` can evaluate.
    """
    from simpleeval import InvalidExpression  # noqa: PLC0415 - only where there are requirements

    if len(expression) > MOST_EXPRESSION_CHARS:
        raise ValueError(f"longer than {MOST_EXPRESSION_CHARS} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"not an expression: {error.msg}") from error
    except (MemoryError, RecursionError, ValueError) as error:
        raise ValueError("not an expression that can be read") from error
    if _depth(tree) > MOST_EXPRESSION_DEPTH:
        raise ValueError(f"nested more than {MOST_EXPRESSION_DEPTH} deep")
    raised: list[Exception] = []
    for value in _TRIED:
        try:
            _evaluator(lambda _, value=value: value).eval(expression)
        except InvalidExpression as error:
            raise ValueError(f"not an expression: {error}") from error
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raised.append(error)  # with real values it may well be defined
    if len(raised) == len(_TRIED):
        first = raised[0]
        raise ValueError(f"raises {type(first).__name__} whatever the values are: {first}")
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} - set(_FUNCTIONS)


def _evaluator(names: Any) -> Any:
    from simpleeval import DEFAULT_OPERATORS, SimpleEval  # noqa: PLC0415 - where requirements are

    operators = DEFAULT_OPERATORS | {ast.Mod: _remainder}
    return SimpleEval(names=names, functions=_FUNCTIONS, operators=operators)


def _remainder(left: Any, right: Any) -> Any:
    """The operator ``%`` of numbers; that of texts could fill the memory."""
    if isinstance(left, str | bytes):
        raise TypeError("% takes numbers")
    return left % right


def _depth(tree: ast.AST) -> int:
    """Levels of an expression's tree."""
    depth, level = 0, [tree]
    while level:
        depth += 1
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


def _condition(parameter: Parameter) -> str:
    return " and ".join(
        f"{name} is {' or '.join(str(value) for value in allowed)}"
        for name, allowed in parameter.when.items()
    )

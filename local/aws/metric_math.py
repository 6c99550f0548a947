"""Metric math: the operators and functions that our dashboards and alarms use; any other is refused by name."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Series = dict[int, float]
Value = Series | list[Series] | float

_OPERATORS: dict[type[ast.AST], Callable[[float, float], float | None]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: a / b if b else None,
    ast.BitXor: operator.pow,
    ast.Gt: lambda a, b: float(a > b),
    ast.GtE: lambda a, b: float(a >= b),
    ast.Lt: lambda a, b: float(a < b),
    ast.LtE: lambda a, b: float(a <= b),
    ast.Eq: lambda a, b: float(a == b),
    ast.NotEq: lambda a, b: float(a != b),
    ast.And: lambda a, b: float(bool(a) and bool(b)),
    ast.Or: lambda a, b: float(bool(a) or bool(b)),
}
_AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "SUM": math.fsum,
    "MAX": max,
    "MIN": min,
    "AVG": lambda values: math.fsum(values) / len(values),
}
_EACH: dict[str, Callable[[float], float]] = {"ABS": abs, "CEIL": math.ceil, "FLOOR": math.floor}


@dataclass(frozen=True, slots=True)
class Context:
    """What an expression may look at.

    Parameters
    ----------
    grid
        The start of each period in the range.
    lookup
        The value of another query, by id.
    metrics
        The ids that METRICS() stands for.
    search
        What SEARCH(expression, statistic, period) finds.
    """

    grid: range
    period: int
    lookup: Callable[[str], Value]
    metrics: Sequence[str]
    search: Callable[[str, str, int], list[Series]]


def evaluate(expression: str, context: Context) -> Value:
    """Return the expression's value.

    Raises
    ------
    ValueError
        When it is malformed, or uses an operator or a function that is not served here.
    """
    text = expression.strip().replace("&&", " and ").replace("||", " or ")
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        raise ValueError(f"{error.msg}: {expression}") from error
    return _Evaluator(context).value(tree.body)


class _Evaluator:
    def __init__(self, context: Context) -> None:
        self._context = context

    def value(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.Name(id=name):
                return self._context.lookup(name)
            case ast.List(elts=items):
                return [series for item in items for series in self._several(self.value(item))]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._apply(_OPERATORS[ast.Mult], -1.0, self.value(operand))
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _OPERATORS:
                return self._apply(_OPERATORS[type(op)], self.value(left), self.value(right))
            case ast.Compare(ops=[op], left=left, comparators=[right]) if type(op) in _OPERATORS:
                return self._apply(_OPERATORS[type(op)], self.value(left), self.value(right))
            case ast.BoolOp(op=op, values=values):
                result = self.value(values[0])
                for other in values[1:]:
                    result = self._apply(_OPERATORS[type(op)], result, self.value(other))
                return result
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self._call(name, arguments)
        raise ValueError(f"local AWS: not supported in metric math: {ast.unparse(node)}")

    def _call(self, name: str, arguments: list[ast.expr]) -> Value:
        if name in _AGGREGATES:
            return self._aggregate(_AGGREGATES[name], [self.value(argument) for argument in arguments])
        if name in _EACH:
            each = _EACH[name]
            return self._apply(lambda a, _: each(a), self.value(arguments[0]), 0.0)
        if name == "FILL":
            return self._fill(self.value(arguments[0]), arguments[1])
        if name == "IF":
            return self._choose(*[self.value(argument) for argument in arguments])
        if name == "METRICS":
            return [
                series for key in self._context.metrics for series in self._several(self._context.lookup(key))
            ]
        if name == "PERIOD":
            return float(self._context.period)
        if name == "SEARCH":
            expression, statistic, *period = [ast.literal_eval(argument) for argument in arguments]
            return self._context.search(
                expression, statistic, int(period[0]) if period else self._context.period
            )
        raise ValueError(f"local AWS: metric math function not supported: {name}")

    def _several(self, value: Value) -> list[Series]:
        if isinstance(value, list):
            return value
        return [value] if isinstance(value, dict) else [dict.fromkeys(self._context.grid, value)]

    def _apply(self, function: Callable[[float, float], float | None], left: Value, right: Value) -> Value:
        """Combine point by point; a point that one side lacks, or a division by zero, gives none."""
        if isinstance(left, list) or isinstance(right, list):
            lefts = left if isinstance(left, list) else [left] * len(self._several(right))
            rights = right if isinstance(right, list) else [right] * len(lefts)
            return [
                s
                for a, b in zip(lefts, rights, strict=True)
                for s in self._several(self._apply(function, a, b))
            ]
        if isinstance(left, dict) or isinstance(right, dict):
            times = set.intersection(*[set(side) for side in (left, right) if isinstance(side, dict)])
            found = {at: function(_at(left, at), _at(right, at)) for at in times}
            return {at: float(value) for at, value in found.items() if value is not None}
        single = function(left, right)
        return math.nan if single is None else float(single)

    def _aggregate(self, function: Callable[[Sequence[float]], float], values: list[Value]) -> Value:
        """Over an array: point by point, of those present. Over one series: one number."""
        if len(values) == 1 and isinstance(values[0], dict):
            return function(list(values[0].values())) if values[0] else math.nan
        several = [series for value in values for series in self._several(value)]
        times = {at for series in several for at in series}
        return {at: float(function([series[at] for series in several if at in series])) for at in times}

    def _fill(self, value: Value, filler: ast.expr) -> Value:
        if isinstance(value, list):
            return [series for one in value for series in self._several(self._fill(one, filler))]
        series = self._several(value)[0]
        if isinstance(filler, ast.Name) and filler.id == "REPEAT":
            filled: Series = {}
            last: float | None = None
            for at in self._context.grid:
                last = series.get(at, last)
                if last is not None:
                    filled[at] = last
            return filled
        if isinstance(filler, ast.Name):
            raise ValueError(f"local AWS: FILL with {filler.id} is not supported")
        other = self.value(filler)
        return {
            at: series.get(at, _at(other, at)) for at in self._context.grid if at in series or _has(other, at)
        }

    def _choose(self, condition: Value, then: Value, otherwise: Value | None = None) -> Value:
        for side in (condition, then, otherwise):
            if isinstance(side, list):
                raise ValueError("local AWS: IF over arrays is not supported")
        sides = [side for side in (condition, then, otherwise) if isinstance(side, dict)]
        times = set(condition) if isinstance(condition, dict) else set().union(*sides) if sides else set()
        if not sides:
            picked: Any = then if condition else otherwise
            return math.nan if picked is None else picked
        result: Series = {}
        for at in times:
            side = then if _at(condition, at) else otherwise
            if side is not None and _has(side, at):
                result[at] = _at(side, at)
        return result


def _has(value: Value, at: int) -> bool:
    return at in value if isinstance(value, dict) else not isinstance(value, list)


def _at(value: Value, at: int) -> float:
    if isinstance(value, list):
        raise ValueError("local AWS: an array where a series is expected")
    return value[at] if isinstance(value, dict) else value

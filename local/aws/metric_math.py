"""Metric math: what our alarms and dashboards use, arithmetic and FILL; anything else is refused by name."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable

Series = dict[int, float]
Value = Series | float

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def evaluate(expression: str, lookup: Callable[[str], Series], grid: range) -> Series:
    """Return the expression's series.

    Parameters
    ----------
    lookup
        The series of another query, by its id.
    grid
        The start of each period in the range: what FILL fills, and where a constant has its points.

    Raises
    ------
    ValueError
        When it is malformed, or uses an operator or a function that is not served here.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"{error.msg}: {expression}") from error

    def value(node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.Name(id=name):
                return lookup(name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return _combine(operator.sub, 0.0, value(operand))
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _OPERATORS:
                return _combine(_OPERATORS[type(op)], value(left), value(right))
            case ast.Call(
                func=ast.Name(id="FILL"), args=[filled, ast.Constant(value=int() | float() as number)]
            ):
                series = value(filled)
                return {at: _at(series, at, float(number)) for at in grid}
        raise ValueError(f"local AWS: not supported in metric math: {ast.unparse(node)}")

    result = value(tree.body)
    return result if isinstance(result, dict) else dict.fromkeys(grid, result)


def _combine(function: Callable[[float, float], float], left: Value, right: Value) -> Value:
    """Combine point by point; a point that one side lacks, or a division by zero, gives none."""
    sides = [set(side) for side in (left, right) if isinstance(side, dict)]
    if not sides:
        return function(_at(left, 0), _at(right, 0))
    result: Series = {}
    for at in set.intersection(*sides):
        divided_by_zero = function is operator.truediv and _at(right, at) == 0
        if not divided_by_zero:
            result[at] = function(_at(left, at), _at(right, at))
    return result


def _at(value: Value, at: int, otherwise: float = 0.0) -> float:
    return value.get(at, otherwise) if isinstance(value, dict) else value

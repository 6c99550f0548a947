"""Metric math: what our alarms and dashboards use, arithmetic and FILL; anything else is refused by name."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from functools import lru_cache
from threading import Lock

Series = dict[int, float]

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


# Some Pythons raise a SystemError where two threads parse: https://github.com/python/cpython/issues/106905
_PARSING = Lock()


@lru_cache(maxsize=256)
def _parse(expression: str) -> ast.Expression:
    try:
        return ast.parse(expression.strip(), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"{error.msg}: {expression}") from error


def evaluate(expression: str, lookup: Callable[[str], Series], grid: range) -> Series:
    """Return the expression's series.

    Parameters
    ----------
    lookup
        The series of another query, by its id.
    grid
        The start of each period in the range.

    Raises
    ------
    ValueError
        When it is malformed, or uses an operator or a function that is not served here.
    """
    with _PARSING:
        tree = _parse(expression)

    def value(node: ast.expr, at: int) -> float | None:
        match node:
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.Name(id=name):
                return lookup(name).get(at)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return _combine(operator.sub, 0.0, value(operand, at))
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _OPERATORS:
                return _combine(_OPERATORS[type(op)], value(left, at), value(right, at))
            case ast.Call(
                func=ast.Name(id="FILL"), args=[filled, ast.Constant(value=int() | float() as number)]
            ):
                found = value(filled, at)
                return float(number) if found is None else found
        raise ValueError(f"local AWS: not supported in metric math: {ast.unparse(node)}")

    values = {at: value(tree.body, at) for at in grid}
    return {at: found for at, found in values.items() if found is not None}


def _combine(
    function: Callable[[float, float], float], left: float | None, right: float | None
) -> float | None:
    """Combine two values; where one is missing, and in a division by zero, there is none."""
    if left is None or right is None or (function is operator.truediv and right == 0):
        return None
    return function(left, right)

"""How ours gets around MiniStack's: one of its functions is called by ours, under its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ministack.core.responses import error_response_json

Function = Callable[..., Any]


def around(module: Any, name: str, invalid: str = "") -> Callable[[Function], Function]:
    """Put a function in the place of one of MiniStack's, which it gets as its first argument.

    Parameters
    ----------
    invalid
        The error as which the service answers a ValueError.
    """
    stock = getattr(module, name)

    def put(ours: Function) -> Function:
        def call(*arguments: Any, **more: Any) -> Any:
            try:
                return ours(stock, *arguments, **more)
            except ValueError as error:
                if not invalid:
                    raise
                return error_response_json(invalid, str(error), 400)

        setattr(module, name, call)
        return ours

    return put

"""What MiniStack keeps of a function."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from ministack.core.responses import request_scope
from ministack.services import lambda_svc

Record = Mapping[str, Any]


def current(reference: str) -> Record | None:
    """Return a function as it is now, by its name or ARN; None when there is none, or not that version."""
    record, config, _ = lambda_svc._get_func_record_for_ref(reference)
    return None if record is None else {**record, "config": config}


def account_of(config: Record) -> contextlib.AbstractContextManager[None]:
    """Return a context in which MiniStack's stores are those of the function's account and region."""
    _, _, _, region, account, *_ = config["FunctionArn"].split(":")
    scope: contextlib.AbstractContextManager[None] = request_scope(account, region)
    return scope


def reserved_concurrency(record: Record) -> int | None:
    """Return the function's reserved concurrency, None when it has none."""
    reserved = record.get("concurrency")
    if isinstance(reserved, Mapping):
        reserved = reserved.get("ReservedConcurrentExecutions")
    return None if reserved is None else int(reserved)

"""Provisioned concurrency: what is configured on a function's versions and aliases, listed.

API reference of Lambda, ListProvisionedConcurrencyConfigs; MiniStack keeps them, and has no list.
"""

from __future__ import annotations

from typing import Any

from ministack.core.responses import json_response
from ministack.services import lambda_svc

from local.aws.around import Function, around


def install() -> None:
    """Answer the list, which asks for no qualifier."""

    @around(lambda_svc, "_get_provisioned_concurrency")
    def get_provisioned_concurrency(stock: Function, name: str, qualifier: str | None) -> Any:
        record = lambda_svc._functions.get(name)
        if qualifier or record is None:
            return stock(name, qualifier)
        arn = record["config"]["FunctionArn"]
        found = record.get("provisioned_concurrency", {})
        listed = [{"FunctionArn": f"{arn}:{each}", **config} for each, config in found.items()]
        return json_response({"ProvisionedConcurrencyConfigs": listed})

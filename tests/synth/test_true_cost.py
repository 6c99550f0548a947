"""What the templates say of a function's price, and of the daily reconciliation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aws_cdk import Size, Stack
from aws_cdk.assertions import Match

from agentops_constructs import MonitoredAgent

from .conftest import synth


@pytest.mark.parametrize(("mebibytes", "said"), [(512, ""), (2048, "|tmp=2048")])
def test_storage_that_costs_is_in_the_name_by_which_ingest_prices(
    stack: Stack, agent: Callable[..., MonitoredAgent], mebibytes: int, said: str
) -> None:
    agent(ephemeral_storage_size=Size.mebibytes(mebibytes))
    name = f"agentops|team|helper|arm64{said}"
    template = synth(stack)
    template.has_resource_properties("AWS::Logs::SubscriptionFilter", {"FilterName": name})
    # The alarm on lines that do not arrive finds the filter by its name.
    watched = {"Dimensions": Match.array_with([{"Name": "FilterName", "Value": name}])}
    template.has_resource_properties("AWS::CloudWatch::Alarm", {**watched, "MetricName": "DeliveryErrors"})

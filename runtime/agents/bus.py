"""How the agents tell one another: events on their bus."""

from __future__ import annotations

import json
import os
from typing import Any

from . import clients

SOURCE = "agentops.agents"


class NotSentError(Exception):
    """EventBridge refused an event."""


def send(to: str, message_type: str, detail: dict[str, Any]) -> None:
    """Put an event on the bus, for the agent named.

    Raises
    ------
    NotSentError
        EventBridge took the call and refused the event.
    botocore.exceptions.ClientError
        It refused the call.
    """
    entry = {
        "EventBusName": os.environ["EVENT_BUS_NAME"],
        "Source": SOURCE,
        "DetailType": message_type,
        "Detail": json.dumps({"environment": os.environ["ENVIRONMENT"], "to": to, **detail}),
    }
    (result,) = clients.events().put_events(Entries=[entry])["Entries"]  # type: ignore[list-item]
    if result.get("ErrorCode"):
        raise NotSentError(f"{message_type} to {to}: {result['ErrorCode']}: {result.get('ErrorMessage')}")

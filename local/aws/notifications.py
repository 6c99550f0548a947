"""SNS: a mailbox for e-mail subscriptions, and asynchronous invocation of subscribed functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ministack.services import sns

from local.aws import clock, permissions
from local.aws.around import around

_mail: list[dict[str, Any]] = []


def mail() -> list[dict[str, Any]]:
    """Return every e-mail that SNS would have sent, oldest first."""
    return list(_mail)


def _post(topic_arn: str, message: str, subject: str, structure: str, attributes: dict[str, Any]) -> None:
    topic = sns._topic_by_arn_any_scope(topic_arn)
    for subscription in topic["subscriptions"] if topic else []:
        protocol = subscription.get("protocol")
        body = sns._resolve_message_for_protocol(message, structure, protocol)
        if protocol in ("email", "email-json") and sns._matches_filter_policy(subscription, attributes, body):
            address = subscription["endpoint"]
            letter = {"to": address, "subject": subject or "AWS Notification Message", "body": body}
            _mail.append({**letter, "topic": topic_arn, "at": clock.now()})


def install(submit: Callable[[Any, Any], object]) -> None:
    """Put the mailbox behind every publish."""

    @around(sns, "_fanout")
    def fan_out(
        stock: Callable[..., None], topic: str, key: str, message: str, subject: str, structure: str = "",
        attributes: dict[str, Any] | None = None, **more: Any,
    ) -> None:  # fmt: skip
        stock(topic, key, message, subject, structure, attributes, **more)
        _post(topic, message, subject, structure, attributes or {})

    def deliver_to_lambda(endpoint: str, envelope: str, topic: str, subscription: str, *_: Any) -> None:
        if function := permissions.invocable("sns.amazonaws.com", topic, endpoint):
            source = {"EventVersion": "1.0", "EventSource": "aws:sns", "EventSubscriptionArn": subscription}
            submit(function, {"Records": [{**source, "Sns": json.loads(envelope)}]})

    sns._deliver_to_lambda = deliver_to_lambda

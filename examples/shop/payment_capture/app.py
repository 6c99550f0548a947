"""Capture payments at a gateway that times out now and then."""

from __future__ import annotations

MAX_ATTEMPTS = 3


class GatewayTimeout(Exception):
    """The gateway did not answer; the payment may be tried again."""


class Gateway:
    """The gateway's answers as recorded in the event: per payment "ok", "timeout" or "declined", in turn."""

    def __init__(self, payments):
        self.answers = {payment["id"]: list(payment["answers"]) for payment in payments}
        self.calls = []

    def capture(self, payment_id):
        self.calls.append(payment_id)
        answer = self.answers[payment_id].pop(0)
        if answer == "timeout":
            raise GatewayTimeout("the payment gateway did not answer")
        return {"ok": "captured", "declined": "declined"}[answer]


def capture_all(payment_ids, gateway):
    """State of each payment; a payment is tried MAX_ATTEMPTS times before the timeout is passed on."""
    states = {}
    attempts = 0
    for payment_id in payment_ids:
        while payment_id not in states:
            attempts += 1
            try:
                states[payment_id] = gateway.capture(payment_id)
            except GatewayTimeout:
                if attempts >= MAX_ATTEMPTS:
                    raise
    return states


def handler(event, _context):
    payments = event["payments"]
    return {"states": capture_all([payment["id"] for payment in payments], Gateway(payments))}

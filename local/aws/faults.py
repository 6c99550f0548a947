"""Faults to order, seeded: calls that fail before or after their effect, deliveries that go wrong.

``PUT /_local/faults {"seed": 7, "rules": [rule, …]}`` replaces every rule. A rule hits calls or deliveries:

``{"call": "dynamodb:Transact*", "by": "agentops-ingest-*", "fault": …, "when": "before"}``
    Calls by IAM action, and by the name of the function that makes them: any function unless it says so, and
    any other caller for a pattern that matches the empty name. ``throttle`` and ``error`` (5xx) answer as the
    service does, DynamoDB to half of the throttled transactions with reasons. ``timeout`` gives no answer for
    ``seconds``, then ends the connection. ``conflict`` is another transaction's on an item. ``kill`` ends the
    environment that calls. ``"when": "after"`` lets the call have its effect first; a throttled call and a
    conflict never have one.
``{"invoke": "agentops-*", "fault": …}``
    What Lambda delivers: asynchronous events, log subscriptions among them, and batches of streams (who waits
    for an answer, calls). ``throttle`` refuses an attempt, ``kill`` ends one after ``seconds``. ``twice``
    delivers once more, ``late`` after ``seconds``, ``reordered`` once a later event of its function ended,
    ``seconds`` later at most. A stream keeps its order: ``reordered`` passes it by.

``probability`` (1), ``skip`` so many matches first (0), fire at ``most`` so often (no end). The n-th match of
a rule meets the n-th draw of its own dice, whatever other rules do; of those that would fire the first does.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import threading
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random
from typing import Any

from ministack import app
from ministack.core import iam_actions
from ministack.core.responses import error_response_json

from local.aws.around import around
from local.aws.runtime_api import Environment

Json = Mapping[str, Any]

# What a rule may say, and the errors that calls answer with.
TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
TRANSACTIONS = ("dynamodb:TransactWriteItems", "dynamodb:TransactGetItems")
WRITES = ("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem")


class NoAnswerError(Exception):
    """The connection ends without an answer."""


@dataclass(slots=True)
class Rule:
    """One rule, as it was given, and what became of it."""

    given: Json
    dice: Random
    picks: Random
    matched: int = 0
    fired: int = 0

    @property
    def fault(self) -> str:
        """What happens."""
        return str(self.given["fault"])

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return float(self.given["seconds"])

    def fires(self) -> bool:
        """Count a match and return whether it is to be hit."""
        self.matched += 1
        hit = self.dice.random() < self.given.get("probability", 1)
        return bool(
            hit and self.given.get("skip", 0) < self.matched and self.fired < self.given.get("most", math.inf)
        )


class Faults:
    """The rules in force."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self._lock = threading.Lock()

    def order(self, document: Json) -> Json:
        """Replace every rule; return them as ``state`` does.

        Raises
        ------
        ValueError
            Naming the field that is wrong, and what was expected.
        """
        _expect(isinstance(document, dict), "body", "an object", document)
        _expect(set(document) <= {"seed", "rules"}, "body", "no fields but seed and rules", list(document))
        seed: Any = document.get("seed", 0)
        rules: Any = document.get("rules")
        _expect_form("seed", seed)
        _expect(isinstance(rules, list), "rules", "a list", rules)
        for index, given in enumerate(rules):
            _check(f"rules[{index}]", given)
        dice = ((Random(f"{seed} {index}"), Random(f"{seed} {index} picks")) for index in range(len(rules)))
        with self._lock:
            self.rules = [Rule(given, *two) for given, two in zip(rules, dice, strict=True)]
        return self.state()

    def state(self) -> Json:
        """Return each rule with how often it has matched and fired."""
        with self._lock:
            return {"rules": [{**r.given, "matched": r.matched, "fired": r.fired} for r in self.rules]}

    def of_delivery(self, function: str, *faults: str) -> Rule | None:
        """Return what is to happen to a delivery, of the faults that are possible at this point of it."""
        return self._choose(
            lambda rule: (
                "invoke" in rule and rule["fault"] in faults and fnmatchcase(function, rule["invoke"])
            )
        )

    def of_call(self, action: str, caller: str) -> Rule | None:
        """Return what is to happen to a call; ``caller`` is a function's name, or empty."""

        def hits(rule: Json) -> bool:
            possible = {"kill": bool(caller), "conflict": action in TRANSACTIONS + WRITES}
            return (
                fnmatchcase(action, rule.get("call", ""))
                and fnmatchcase(caller, rule.get("by", "?*"))
                and possible.get(rule["fault"], True)
            )

        return self._choose(hits)

    def _choose(self, hits: Callable[[Json], bool]) -> Rule | None:
        if not self.rules:
            return None
        with self._lock:
            chosen = [rule for rule in self.rules if hits(rule.given) and rule.fires()]
            if not chosen:
                return None
            chosen[0].fired += 1
            return chosen[0]


def _expect(holds: bool, field: str, what: str, found: object) -> None:
    if not holds:
        raise ValueError(f"{field}: expected {what}, found {json.dumps(found)}")


def _expect_form(name: str, value: object, where: str = "") -> None:
    what, form = TABLES["forms"][name]
    _expect(re.fullmatch(form, json.dumps(value)) is not None, f"{where}{name}", what, value)


def _check(where: str, rule: Any) -> None:
    _expect(isinstance(rule, dict), where, "an object", rule)
    kinds = [kind for kind in ("call", "invoke") if kind in rule]
    _expect(len(kinds) == 1, where, "either call or invoke", list(rule))
    faults, fault = TABLES[kinds[0]], str(rule.get("fault"))
    _expect(fault in faults, f"{where}.fault", " or ".join(faults), fault)
    known = {"fault", *kinds, *faults[fault], "probability", "skip", "most"}
    for name in known & {"seconds", *rule} - {"fault"}:
        _expect_form(name, rule.get(name), f"{where}.")
    unknown = ", ".join(sorted(set(rule) - known))
    _expect(not unknown, f"{where}.{unknown}", f"no such field with {fault}", rule)


def _cancelled(rule: Rule, body: bytes) -> Any:
    """Return the answer to a transaction that the fault cancels, for some of its items."""
    count = len(json.loads(body)["TransactItems"])
    hit = set(rule.picks.sample(range(count), rule.picks.randint(1, count)))
    code, told = rule.picks.choice(list(TABLES["reasons"][rule.fault].items()))
    reasons = [{"Code": code, "Message": told} if i in hit else {"Code": "None"} for i in range(count)]
    codes = ", ".join(reason["Code"] for reason in reasons)
    text = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
    extra = {"Message": text, "CancellationReasons": reasons}
    return error_response_json("TransactionCanceledException", text, 400, extra)


def install(faults: Faults, environment_of: Callable[[str], Environment | None]) -> None:
    """Put the rules before every call; ``environment_of`` an access key is the one that calls with it."""

    @around(app, "_dispatch_service_request")
    async def dispatch(stock: Callable[..., Any], *request: Any) -> Any:
        if not faults.rules:
            return await stock(*request)
        method, path, headers, body, query, request_id = request
        parameters = app._routing_params(method, path, headers, body, query)
        service = app.detect_service(method, path, headers, parameters)
        action = iam_actions.extract_iam_action(service, method, path, headers, body, parameters) or ""
        caller = environment_of(app.extract_access_key_id(headers, query) or "")
        rule = faults.of_call(action, caller.function if caller else "")
        answer: Any = None
        if rule is None or rule.given.get("when") == "after":
            answer = await stock(*request)
        if rule is None:
            return answer
        match rule.fault:
            case "conflict" if action in WRITES:
                told = TABLES["reasons"]["conflict"]["TransactionConflict"]
                return error_response_json("TransactionConflictException", told, 400)
            case "conflict":
                return _cancelled(rule, body)
            case "throttle" if action in TRANSACTIONS and rule.picks.random() < 0.5:
                return _cancelled(rule, body)
            case "timeout":
                await asyncio.sleep(rule.seconds)
                raise NoAnswerError
            case "kill" if caller is not None:
                await asyncio.to_thread(caller.kill)
                raise NoAnswerError
        code, status = TABLES["errors"].get(action.partition(":")[0], TABLES["errors"]["*"])[rule.fault]
        told = "Rate exceeded" if rule.fault == "throttle" else "The request failed for an internal reason."
        _, sent, content = iam_actions.access_denied_response(
            service, action, "", request_id, error_code=code, message=told, headers=headers
        )
        return status, {**sent, "x-amzn-requestid": request_id}, content

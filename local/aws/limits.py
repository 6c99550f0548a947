"""EventBridge and Lambda: what AWS refuses by its size or its form, and MiniStack takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ministack.core.responses import error_response_json, json_response
from ministack.services import eventbridge, lambda_svc

from local.aws.around import Function, around

PUT_EVENTS_BYTES = 1_048_576  # PutEvents, API reference: all entries together
PAYLOAD_BYTES = {"Event": 1_048_576}  # Lambda quotas, invocation payload; other kinds:
SYNCHRONOUS_PAYLOAD_BYTES = 6_291_456
POLICY_BYTES = 20_480  # Lambda quotas, resource-based policy


def _size(entry: Mapping[str, Any]) -> int:
    """Return an entry's bytes (EventBridge user guide, Calculating PutEvents event entry size)."""
    texts = [entry.get(name) or "" for name in ("Source", "DetailType", "Detail")]
    return 14 * ("Time" in entry) + sum(len(text.encode()) for text in [*texts, *entry.get("Resources", ())])


def _problem(entry: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the result of an entry that fails (PutEventsResultEntry, API reference)."""
    for name in ("Source", "DetailType", "Detail"):
        if not entry.get(name):
            reason = f"Parameter {name} is not valid. Reason: {name} is a required argument."
            return {"ErrorCode": "InvalidArgument", "ErrorMessage": reason}
    try:
        detail = json.loads(entry["Detail"])
    except ValueError:
        detail = None
    malformed = {"ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is malformed."}
    return None if isinstance(detail, dict) else malformed


def install() -> None:
    """Put our checks in front of MiniStack's."""

    @around(eventbridge, "_put_events", invalid="ValidationException")
    def put_events(stock: Function, data: dict[str, Any], *more: Any, **options: Any) -> Any:
        entries = data.get("Entries") or []
        if sum(map(_size, entries)) > PUT_EVENTS_BYTES:
            raise ValueError("Total size of the entries in the request is over the limit.")
        problems = [_problem(entry) for entry in entries]
        if len(entries) > 10 or not any(problems):
            return stock(data, *more, **options)
        sound = [entry for entry, problem in zip(entries, problems, strict=True) if not problem]
        put = iter(json.loads(stock({**data, "Entries": sound}, *more, **options)[2])["Entries"])
        results = [problem or next(put) for problem in problems]
        failed = sum("ErrorCode" in result for result in results)
        return json_response({"FailedEntryCount": failed, "Entries": results})

    @around(lambda_svc, "_invoke")
    async def invoke(
        stock: Function, name: str, event: Any, headers: Mapping[str, str], *more: Any, **options: Any
    ) -> Any:
        kind = headers.get("x-amz-invocation-type", "RequestResponse")
        most, size = PAYLOAD_BYTES.get(kind, SYNCHRONOUS_PAYLOAD_BYTES), int(headers.get("content-length", 0))
        if size > most:
            text = f"{size} byte payload is too large for the {kind} invocation type (limit {most} bytes)"
            return error_response_json("RequestTooLargeException", text, 413)
        return await stock(name, event, headers, *more, **options)

    @around(lambda_svc, "_add_permission", invalid="PolicyLengthExceededException")
    def add_permission(stock: Function, name: str, *arguments: Any, **options: Any) -> Any:
        answer = stock(name, *arguments, **options)
        if answer[0] == 201:
            policy = lambda_svc._functions[name]["policy"]
            if (size := len(json.dumps(policy, separators=(",", ":")))) > POLICY_BYTES:
                policy["Statement"].pop()
                raise ValueError(f"The final policy size ({size}) is bigger than the limit ({POLICY_BYTES}).")
        return answer

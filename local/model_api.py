"""Bedrock's Converse API as botocore describes it: what a request may hold, and how errors look."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, Shape, StructureShape
from botocore.validate import ParamValidator

# Text, stop reason, usage.
Answer = tuple[str, str, dict[str, int]]


class ApiError(Exception):
    """An error as Bedrock gives it.

    Parameters
    ----------
    status
        Of the HTTP response.
    kind
        The error's name in the API.
    message
        For people.
    """

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class RequestCheck:
    """Checks Converse requests against botocore's service model."""

    def __init__(self) -> None:
        service = botocore.session.get_session().get_service_model("bedrock-runtime")
        shape = service.operation_model("Converse").input_shape
        if shape is None:
            raise RuntimeError("botocore describes no input for Converse")
        self._shape: Shape = shape

    def __call__(self, request: Mapping[str, Any]) -> None:
        """Raise a ValidationException for what the API would refuse."""
        found = ParamValidator().validate(request, self._shape)
        unknown = list(_unknown(request, self._shape, ""))
        if found.has_errors() or unknown:
            raise ApiError(
                400, "ValidationException", "; ".join([found.generate_report(), *unknown]).strip("; \n")
            )
        messages = request.get("messages") or []
        if not messages or messages[0]["role"] != "user":
            raise ApiError(400, "ValidationException", "A conversation must start with a user message.")
        if any(before["role"] == after["role"] for before, after in pairwise(messages)):
            raise ApiError(400, "ValidationException", "Roles must alternate between user and assistant.")
        blocks = [block for message in messages for block in message["content"]]
        if any("text" in block and not block["text"].strip() for block in blocks):
            raise ApiError(400, "ValidationException", "The text field in a ContentBlock is blank.")


def _unknown(value: Any, shape: Shape, path: str) -> list[str]:
    """Members that the API does not know; botocore's validator leaves them be, the service does not."""
    if isinstance(shape, StructureShape) and isinstance(value, Mapping) and not shape.is_document_type:
        extra = [f"unknown member {path}.{name}" for name in value if name not in shape.members]
        known = [name for name in value if name in shape.members]
        return extra + [
            found for name in known for found in _unknown(value[name], shape.members[name], f"{path}.{name}")
        ]
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [
            found
            for index, item in enumerate(value)
            for found in _unknown(item, shape.member, f"{path}[{index}]")
        ]
    if isinstance(shape, MapShape) and isinstance(value, Mapping):
        return [
            found for name, item in value.items() for found in _unknown(item, shape.value, f"{path}.{name}")
        ]
    return []

"""Texts of any size in DynamoDB, whose items end at 400 kB: plain, compressed, or over several items."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

PLAIN_BYTES = 8_000
"""Longer texts are compressed: an item is billed by the kilobyte."""
ITEM_BYTES = 350_000
"""What fits beside an item's other attributes."""

Attributes = dict[str, dict[str, Any]]


def pack(text: str, name: str = "data") -> tuple[Attributes, list[bytes]]:
    """Return the attributes that hold a text, and the pieces that go to items of their own.

    `<name>` holds a plain text, `<name>_z` a compressed one, `<name>_parts` says how many pieces there are.
    """
    if len(text) <= PLAIN_BYTES:
        return {name: {"S": text}}, []
    packed = zlib.compress(text.encode("utf-8", "surrogatepass"), 3)
    if len(packed) <= ITEM_BYTES:
        return {f"{name}_z": {"B": packed}}, []
    pieces = [packed[start : start + ITEM_BYTES] for start in range(0, len(packed), ITEM_BYTES)]
    return {f"{name}_parts": {"N": str(len(pieces))}}, pieces


def unpack(item: Mapping[str, Any], name: str = "data", pieces: list[bytes] | None = None) -> str | None:
    """Return the text that an item in DynamoDB's JSON holds; None when it holds none, or lacks its pieces."""
    if name in item:
        return str(item[name]["S"])
    if f"{name}_z" in item:
        return _inflate(bytes(item[f"{name}_z"]["B"]))
    if pieces and f"{name}_parts" in item and len(pieces) == int(item[f"{name}_parts"]["N"]):
        return _inflate(b"".join(pieces))
    return None


def _inflate(packed: bytes) -> str:
    return zlib.decompress(packed).decode("utf-8", "surrogatepass")

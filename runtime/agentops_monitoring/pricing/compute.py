"""What a Lambda invocation costs.

Prices: AWS's public price file for its calculator,
https://calculator.aws/pricing/2.0/meteredUnitMaps/lambda/USD/current/lambda.json, first usage tier, no free
tier, as of 2025; the same figures stand on https://aws.amazon.com/lambda/pricing/.
"""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache

_EXACT = Context(prec=38, traps=[Inexact, InvalidOperation])

_GB_SECOND = {"x86_64": "0.0000166667", "arm64": "0.0000133334"}
_REQUEST = "0.0000002"

_REGIONS: dict[str, tuple[str, str, str]] = {
    # region: (x86_64 per GB-second, arm64 per GB-second, per request), where it is not the common price
    "af-south-1": ("0.0000221", "0.00001768", "0.00000027"),
    "ap-east-1": ("0.00002292", "0.0000183", "0.00000028"),
    "ap-southeast-5": ("0.000015", "0.000012", "0.00000018"),
    "eu-central-2": ("0.0000183334", "0.0000146667", "0.00000022"),
    "eu-south-1": ("0.0000195172", "0.0000156138", "0.00000023"),
    "me-central-1": ("0.0000206667", "0.0000165334", "0.00000025"),
    "me-south-1": ("0.0000206667", "0.0000165334", "0.00000025"),
}


@lru_cache(maxsize=64)
def _rates(architecture: str, region: str) -> tuple[Decimal, Decimal]:
    """Return USD per MB-millisecond and per request."""
    if architecture not in _GB_SECOND:
        raise ValueError(f"architecture {architecture!r}: expected x86_64 or arm64")
    common = (_GB_SECOND["x86_64"], _GB_SECOND["arm64"], _REQUEST)
    x86_64, arm64, request = _REGIONS.get(region, common)
    gb_second = Decimal(arm64 if architecture == "arm64" else x86_64)
    # 1/1024 and 1/1000 are finite in decimal, so no digit is lost.
    return _EXACT.multiply(gb_second, Decimal("0.0000009765625")), Decimal(request)


def lambda_cost(billed_ms: int, memory_mb: int, architecture: str, region: str) -> Decimal:
    """Return the USD of one invocation: its compute and its request fee.

    Parameters
    ----------
    billed_ms
        Billed duration in milliseconds, from Lambda's report line; it contains INIT.
    memory_mb
        The memory that the function is configured with.
    architecture
        "x86_64" or "arm64".
    region
        The AWS region. A region that the price file did not list is taken at the common price.

    Raises
    ------
    ValueError
        The architecture is unknown, or a number is negative.
    """
    if billed_ms < 0 or memory_mb < 0:
        raise ValueError("billed_ms and memory_mb cannot be negative")
    per_mb_ms, request = _rates(architecture, region)
    return _EXACT.add(_EXACT.multiply(per_mb_ms, Decimal(billed_ms * memory_mb)), request)

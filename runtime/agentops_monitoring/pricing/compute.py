"""What a Lambda invocation costs.

Prices: AWS's public price file for its calculator,
https://calculator.aws/pricing/2.0/meteredUnitMaps/lambda/USD/current/lambda.json, no free tier, as of 2025;
those of us-east-1 stand on https://aws.amazon.com/lambda/pricing/ too, with what follows:

- A month's GB-seconds cost less beyond 6 and 15 billion on x86_64, 7.5 and 18.75 billion on arm64 (about
  $100,000), counted over the account or its whole organization, which no log shows. All are taken at the
  first tier: beyond it the figure here is too high, by up to a quarter.
- An environment of provisioned concurrency runs at a lower rate. Where these tables have none (regions that
  are not listed, arm64 outside three) the on-demand rate stands in, which is never too low.
- Storage in `/tmp` costs beyond 512 MB, for as long as the compute is billed. Regions that are not listed are
  taken at the lowest rate, which may be too low: others cost up to nine tenths more.
"""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache

_EXACT = Context(prec=38, traps=[Inexact, InvalidOperation])

FREE_STORAGE_MB = 512
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
_MORE: dict[str, tuple[str, str, str]] = {
    # region: per GB-second of /tmp; on x86_64, of running in an environment that is kept ready, of keeping it
    "af-south-1": ("0.0000000404", "0.0000129", "0.00000553"),
    "ap-east-1": ("0.0000000407", "0.0000133358", "0.0000057153"),
    "ap-northeast-1": ("0.000000037", "0.0000125615", "0.0000053835"),
    "ap-northeast-2": ("0.0000000352", "0.0000119592", "0.0000051254"),
    "ap-northeast-3": ("0.000000037", "0.0000125615", "0.0000053835"),
    "ap-south-1": ("0.0000000352", "0.0000104966", "0.0000044985"),
    "ap-southeast-1": ("0.000000037", "0.0000121313", "0.0000051991"),
    "ap-southeast-2": ("0.000000037", "0.0000122173", "0.000005236"),
    "ap-southeast-4": ("0.000000037", "0.0000122173", "0.000005236"),
    "ap-southeast-5": ("0.0000000333", "0.0000109181", "0.0000046791"),
    "ca-central-1": ("0.000000034", "0.0000108407", "0.000004646"),
    "eu-central-1": ("0.0000000367", "0.0000117011", "0.0000050147"),
    "eu-central-2": ("0.0000000441", "0.0000128712", "0.0000055162"),
    "eu-north-1": ("0.0000000323", "0.0000103245", "0.0000044248"),
    "eu-south-1": ("0.0000000357", "0.0000113827", "0.0000048783"),
    "eu-west-1": ("0.000000034", "0.0000108407", "0.000004646"),
    "eu-west-2": ("0.0000000358", "0.0000112709", "0.0000048304"),
    "eu-west-3": ("0.0000000358", "0.0000113569", "0.0000048673"),
    "me-south-1": ("0.0000000374", "0.0000119251", "0.0000051108"),
    "sa-east-1": ("0.0000000586", "0.0000154867", "0.0000066372"),
    "us-east-1": ("0.0000000309", "0.0000097222", "0.0000041667"),
    "us-east-2": ("0.0000000309", "0.0000097222", "0.0000041667"),
    "us-west-1": ("0.000000037", "0.000011443", "0.0000049041"),
    "us-west-2": ("0.0000000309", "0.0000097222", "0.0000041667"),
}
_MORE_ARM64 = dict.fromkeys(("us-east-1", "us-east-2", "us-west-2"), ("0.0000077778", "0.0000033334"))
_COMMON_STORAGE = "0.0000000309"
# 1/1024 and 1/1000 are finite in decimal, so no digit is lost.
_MB_MS = Decimal("0.0000009765625")


@lru_cache(maxsize=64)
def _rates(architecture: str, region: str) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """Return USD per MB-millisecond of memory, on demand and provisioned, and of storage; per request."""
    if architecture not in _GB_SECOND:
        raise ValueError(f"architecture {architecture!r}: expected x86_64 or arm64")
    common = (_GB_SECOND["x86_64"], _GB_SECOND["arm64"], _REQUEST)
    x86_64, arm64, request = _REGIONS.get(region, common)
    memory = arm64 if architecture == "arm64" else x86_64
    storage = _MORE[region][0] if region in _MORE else _COMMON_STORAGE
    provisioned, _ = _provisioned(architecture, region) or (memory, "")
    on_demand, ready, disk = (
        _EXACT.multiply(Decimal(each), _MB_MS) for each in (memory, provisioned, storage)
    )
    return on_demand, ready, disk, Decimal(request)


def _provisioned(architecture: str, region: str) -> tuple[str, str] | None:
    """Return what a GB-second costs in an environment that is kept ready, and of keeping it, if known."""
    if architecture == "arm64":
        return _MORE_ARM64.get(region)
    return _MORE[region][1:] if region in _MORE else None


def ready_cost(
    environments: int, seconds: int, memory_mb: int, architecture: str, region: str
) -> Decimal | None:
    """Return the USD of keeping environments of provisioned concurrency ready; None without a known price.

    What runs in them costs beside that, see `lambda_cost`.
    """
    rates = _provisioned(architecture, region)
    if rates is None:
        return None
    rate = _EXACT.multiply(Decimal(rates[1]), _MB_MS)
    return _EXACT.multiply(rate, Decimal(environments * seconds * 1000 * memory_mb))


def lambda_cost(
    billed_ms: int,
    memory_mb: int,
    architecture: str,
    region: str,
    *,
    storage_mb: int = FREE_STORAGE_MB,
    provisioned: bool = False,
) -> Decimal:
    """Return the USD of one invocation: its compute, its storage beyond what is free, and its request fee.

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
    storage_mb
        The ephemeral storage that the function is configured with.
    provisioned
        Whether it ran in an environment of provisioned concurrency; what keeping that ready costs is not in
        any invocation.

    Raises
    ------
    ValueError
        The architecture is unknown, or a number is negative.
    """
    if billed_ms < 0 or memory_mb < 0 or storage_mb < 0:
        raise ValueError("billed_ms, memory_mb and storage_mb cannot be negative")
    on_demand, ready, storage, request = _rates(architecture, region)
    rate = ready if provisioned else on_demand
    cost = _EXACT.add(_EXACT.multiply(rate, Decimal(billed_ms * memory_mb)), request)
    if storage_mb > FREE_STORAGE_MB:
        beyond = Decimal(billed_ms * (storage_mb - FREE_STORAGE_MB))
        cost = _EXACT.add(cost, _EXACT.multiply(storage, beyond))
    return cost

"""The workload's source: a zip in S3 with one folder per function."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

from . import clients

_TEXT_SUFFIXES = frozenset({".py", ".json", ".toml", ".txt", ".md", ".cfg"})
_MAX_FILE_BYTES = 200_000


class SourceMissing(Exception):
    """No folder of the source belongs to the function."""


@dataclass(frozen=True, slots=True)
class Source:
    """A function's folder.

    Parameters
    ----------
    folder
        In the zip.
    files
        Text by path within the folder, tests included.
    """

    folder: str
    files: Mapping[str, str]

    def code(self) -> dict[str, str]:
        """Return the files that a patch may change."""
        return {path: text for path, text in self.files.items() if not is_test(path)}

    def tests(self) -> dict[str, str]:
        """Return the project's tests."""
        return {path: text for path, text in self.files.items() if is_test(path)}


def is_test(path: str) -> bool:
    """Tell whether a file belongs to the tests, by unittest's and pytest's conventions."""
    parts = PurePosixPath(path).parts
    return parts[-1].startswith("test_") or parts[-1].endswith("_test.py") or "tests" in parts[:-1]


def load(function: str) -> Source:
    """Return the source of a deployed function.

    The folder is the one whose name stands in the function's name, case and separators aside:
    `shop-demo-cart-total` is in `cart_total`. The longest such name wins.

    Raises
    ------
    SourceMissing
        There is no such folder, or no source at all.
    """
    bucket, key = os.environ.get("SOURCE_BUCKET"), os.environ.get("SOURCE_KEY")
    if not bucket or not key:
        raise SourceMissing("no source is configured (SOURCE_BUCKET, SOURCE_KEY)")
    files = _unzip(bucket, key)
    folders = {path.partition("/")[0] for path in files if "/" in path}
    fitting = [folder for folder in folders if f"-{_plain(folder)}-" in f"-{_plain(function)}-"]
    if not fitting:
        raise SourceMissing(f"no folder of the source belongs to {function}")
    folder = max(fitting, key=lambda name: (len(name), name))
    inside = {path.partition("/")[2]: text for path, text in files.items() if path.startswith(f"{folder}/")}
    return Source(folder, dict(sorted(inside.items())))


def _plain(name: str) -> str:
    """`CartTotal`, `cart_total` and `cart-total` are one name."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()).strip("-")


@lru_cache(maxsize=2)
def _unzip(bucket: str, key: str) -> Mapping[str, str]:
    """The key changes with the content, so what was read once stays right."""
    body = clients.s3().get_object(Bucket=bucket, Key=key)["Body"].read()
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        return {
            info.filename: archive.read(info).decode("utf-8")
            for info in archive.infolist()
            if PurePosixPath(info.filename).suffix in _TEXT_SUFFIXES and info.file_size <= _MAX_FILE_BYTES
        }

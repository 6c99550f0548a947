"""Build the wheel of a release into `dist/`, unless what it would ship is out of date: `make release`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BOOK = ROOT / "runtime" / "agentops_monitoring" / "pricing" / "book.json"
MAX_BOOK_AGE_DAYS = 90


def outdated(book: Mapping[str, Any], today: date) -> str | None:
    """Say why a price book is not to be released on a day; None when it may be."""
    generated = date.fromisoformat(book["generated"])
    age = (today - generated).days
    if age > MAX_BOOK_AGE_DAYS:
        return (
            f"the price book is {age} days old ({generated}, {book['source']} {book['version']}), "
            f"at most {MAX_BOOK_AGE_DAYS} are released: make prices"
        )
    return None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="check, and build nothing")
    parser.add_argument("--book", type=Path, default=BOOK, help="the price book to look at")
    options = parser.parse_args(argv)
    why_not = outdated(json.loads(options.book.read_text(encoding="utf-8")), datetime.now(UTC).date())
    if why_not:
        print(why_not, file=sys.stderr)
        return 1
    if options.check:
        return 0
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "dist", "."]
    return subprocess.run(build, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

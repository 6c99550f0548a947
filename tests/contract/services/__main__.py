"""Who agrees with AWS: ``python -m tests.contract.services`` prints docs/contract.md (`make docs`)."""

from __future__ import annotations

from tests.contract.services.probes import FOLDER, facts

INTRODUCTION = """\
# What we say of AWS, and who agrees

Each row is a fact that our code rests on, with where AWS says so. A test in `tests/contract/services` probes
it in the embedded AWS and in moto, and with `make contract ACCOUNT=…` in a real account; the day that a cell
is wrong, it fails. `make docs` writes this page.
"""


def _source(text: str) -> str:
    if text.startswith("botocore: "):
        return f"botocore `{text.removeprefix('botocore: ')}`"
    title, _, url = text.rpartition(": ")
    return f"[{title}]({url})" if url.startswith("https://") else text


def page() -> str:
    """Return the corpus as Markdown."""
    lines = [INTRODUCTION]
    for path in sorted(FOLDER.glob("facts/*.toml")):
        lines += [
            f"\n## {path.stem.replace('_', ' ').capitalize()}\n",
            "| AWS | embedded AWS | moto | source |",
        ]
        lines.append("|---|---|---|---|")
        for fact in facts(path.stem).values():
            cells = [fact.says, *(fact.deviates.get(where, "agrees") for where in ("local", "moto"))]
            cells.append("; ".join(map(_source, fact.source)))
            lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")

"""Who agrees with AWS: ``python -m tests.contract.services`` prints the corpus as a table."""

from __future__ import annotations

from tests.contract.services.probes import FOLDER, facts


def main() -> None:
    """Print a row for each fact; the probes hold each cell."""
    print("| service | AWS | embedded AWS | moto |\n|---|---|---|---|")
    for path in sorted(FOLDER.glob("facts/*.toml")):
        for fact in facts(path.stem).values():
            cells = [fact.deviates.get(where, "agrees") for where in ("local", "moto")]
            print(f"| {path.stem.replace('_', ' ')} | {fact.says} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

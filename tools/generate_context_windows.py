"""Write the models' context windows from the installed `genai-prices`: `make prices`.

They bound what a call may cost where nothing in its request does; only agents with a budget carry them.
"""

from __future__ import annotations

import json
from pathlib import Path

from genai_prices.data import providers

from agentops_monitoring import pricing
from agentops_monitoring.enforcement import prices

WINDOWS = Path(prices.__file__).with_name("windows.json")


def windows() -> dict[str, int]:
    """Return the windows of all models of the book that have one, in tokens."""
    known = {
        (provider.id, model.id): model.context_window
        for provider in providers
        for model in provider.models
        if model.context_window
    }
    found = {}
    for model in pricing.price_book().models():
        window = known.get((model.provider, model.id))
        name = pricing.resolve(f"{model.provider}/{model.id}")
        if window and name:
            found[name] = window
    return dict(sorted(found.items()))


def main() -> None:
    found = windows()
    WINDOWS.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{WINDOWS}: {len(found)} models")


if __name__ == "__main__":
    main()

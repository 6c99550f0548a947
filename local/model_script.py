"""A scripted model: answers the three agents as f(seed, defect, attempt), and counts tokens as a model would.

Of sixteen defects, ten are mended at once, three at the second attempt, one at the third and two never; the
seed says which. Stated confidence follows that most of the time, and is wrong now and then.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

PATCHES = Path(__file__).with_name("patches")
AT_ONCE, LATER, MAX_ATTEMPTS = 0.6, 0.25, 3
# How often a stated confidence is wrong, an answer is prose at first, a review has a concern.
MISTAKEN, FUMBLED, CONCERNED = 0.2, 0.12, 0.1
# Shorter prefixes are not cached (Bedrock user guide, "Prompt caching", Claude Sonnet 4.5).
MIN_CACHED_TOKENS = 1024
TOKENS_PER_TURN = 4
AGAIN = "Your answer could not be used"

_PIECE = re.compile(r"[A-Za-z]+|[0-9]+|\n[ \t]*|[^\sA-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class Call:
    """What a request is about.

    Parameters
    ----------
    role
        `manager`, `engineer` or `qa`; empty when it is none of them.
    function
        The workload's function.
    attempt
        Which patch of the workflow it is about, from 1.
    again
        Whether the last answer could not be used.
    """

    role: str
    function: str
    attempt: int
    again: bool


def count_tokens(text: str) -> int:
    """Return the number of tokens of a text.

    Our own rule, near to what models of this kind report for prose and Python: six letters or three digits
    are a token, every other sign is one, and so is a line's start with its indentation; blanks belong to what
    follows.
    """
    return sum(_piece_tokens(piece) for piece in _PIECE.findall(text))


def _piece_tokens(piece: str) -> int:
    if piece[0].isascii() and piece[0].isalpha():
        return -(-len(piece) // 6)
    return -(-len(piece) // 3) if piece[0].isdigit() and piece.isascii() else 1


def cut(text: str, max_tokens: int) -> str:
    """Return as much of the text as fits into `max_tokens`."""
    used = 0
    for match in _PIECE.finditer(text):
        used += _piece_tokens(match[0])
        if used > max_tokens:
            return text[: match.start()]
    return text


def usage(request: Mapping[str, Any], answer: str) -> dict[str, int]:
    """Return Converse's token counts. They depend on the request alone.

    A request with a cache point writes everything up to the last one. What the earlier call of the same
    conversation has written, it reads: everything up to our turn before the model's last one.
    """
    total = sum(count_tokens(block.get("text", "")) for block in request.get("system", []))
    ours = read = point = 0
    for message in request["messages"]:
        if message["role"] == "assistant":
            read = ours
        for block in message["content"]:
            total += count_tokens(block.get("text", ""))
            if "cachePoint" in block:
                point = total
        total += TOKENS_PER_TURN
        if message["role"] == "user":
            ours = total
    if point < MIN_CACHED_TOKENS:
        point = 0
    read = min(read, point) if read >= MIN_CACHED_TOKENS else 0
    output = count_tokens(answer)
    return {
        "inputTokens": total - point,
        "outputTokens": output,
        "totalTokens": total + output,
        "cacheReadInputTokens": read,
        "cacheWriteInputTokens": point - read,
    }


def understand(request: Mapping[str, Any]) -> Call:
    """Return what an agent's request is about."""
    system = " ".join(block.get("text", "") for block in request.get("system", []))
    turns = [
        "".join(block.get("text", "") for block in message["content"])
        for message in request["messages"]
        if message["role"] == "user"
    ]
    role = re.search(r"You are the (\w+) agent", system)
    function = re.search(r"<function>(.*?)</function>", turns[0]) if turns else None
    patch = re.search(r'<patch attempt="(\d+)">', turns[0]) if turns else None
    rejected = sum("<test_result" in turn for turn in turns)
    return Call(
        role=role[1].lower() if role else "",
        function=function[1] if function else "",
        attempt=int(patch[1]) if patch else rejected + 1,
        again=bool(turns) and turns[-1].startswith(AGAIN),
    )


class Script:
    """The answers for one seed.

    Parameters
    ----------
    seed
        Decides which defects are mended when, and how sure the model says it is.
    folder
        One TOML file per defect: diagnosis, right patch, wrong patches.
    """

    def __init__(self, seed: int, folder: Path = PATCHES) -> None:
        self._seed = seed
        self._defects = {path.stem: tomllib.loads(path.read_text()) for path in sorted(folder.glob("*.toml"))}
        self.mended_at = self._plan(sorted(self._defects, key=lambda name: self._chance(name, 0, "skill")))

    def answer(self, call: Call) -> str:
        """Return the text of the answer; prose without a JSON object where the script knows nothing."""
        defect = self._defect(call.function)
        if defect == "" or call.role not in ("manager", "engineer", "qa"):
            return "I cannot tell from this what is wrong."
        script = self._defects[defect]
        if call.role == "manager":
            return self._manager(defect, script)
        if call.role == "qa":
            return self._qa(defect, call.attempt)
        if not call.again and self._chance(defect, call.attempt, "fumble") < FUMBLED:
            return f"{script['root_cause']} I would change the code accordingly; shall I write the patch?"
        return self._engineer(defect, script, call.attempt)

    def _manager(self, defect: str, script: Mapping[str, Any]) -> str:
        return _json(
            {
                "root_cause": script["root_cause"],
                "severity": script["severity"],
                "actionable": True,
                "reasoning": _steps(script["reasoning"]),
                "confidence": self._confidence(defect, 0, right=True),
            }
        )

    def _engineer(self, defect: str, script: Mapping[str, Any], attempt: int) -> str:
        mended_at = self.mended_at[defect]
        right = mended_at is not None and attempt >= mended_at
        wrong = script["wrong"]
        patch = script["right"] if right else wrong[(self._rank(defect) + attempt) % len(wrong)]
        edits = [{"path": "app.py", **edit} for edit in patch["edits"]]
        if mended_at is None and attempt == MAX_ATTEMPTS and self._rank(defect) % 2:
            # A model that has lost the thread edits what is not there.
            edits = [{"path": "app.py", "search": "def handler(event, context, retries):", "replace": ""}]
        done = f"replace {len(edits)} passage{'s' if len(edits) > 1 else ''} of app.py"
        steps = [
            [script["root_cause"], "read the source", script["reasoning"][-1][2]],
            [patch["explanation"], done, "to be tested"],
        ]
        return _json(
            {
                "explanation": patch["explanation"],
                "edits": edits,
                "reasoning": _steps(steps),
                "confidence": self._confidence(defect, attempt, right=right),
            }
        )

    def _qa(self, defect: str, attempt: int) -> str:
        concern = self._chance(defect, attempt, "concern") < CONCERNED
        comment = "It mends the cause, and the tests cover it."
        if concern:
            comment = "It mends the reported case; callers that relied on the old result should be looked at."
        confidence = self._confidence(defect, attempt, right=not concern)
        return _json(
            {"verdict": "concern" if concern else "approve", "comment": comment, "confidence": confidence}
        )

    def _defect(self, function: str) -> str:
        plain = re.sub(r"[^a-z0-9]+", "_", function.lower())
        return max((name for name in self._defects if name in plain), key=len, default="")

    def _plan(self, ranked: Sequence[str]) -> dict[str, int | None]:
        """Attempt at which each defect is mended; the shares are the same for every seed."""
        at_once = round(AT_ONCE * len(ranked))
        later = round(LATER * len(ranked))
        third = later // 4
        plan = [1] * at_once + [2] * (later - third) + [3] * third
        return dict(zip(ranked, [*plan, *[None] * (len(ranked) - len(plan))], strict=True))

    def _rank(self, defect: str) -> int:
        return list(self.mended_at).index(defect)

    def _confidence(self, defect: str, attempt: int, *, right: bool) -> float:
        if self._chance(defect, attempt, "mistaken") < MISTAKEN:
            right = not right
        low, high = (0.8, 0.97) if right else (0.45, 0.7)
        return round(low + (high - low) * self._chance(defect, attempt, "confidence"), 2)

    def _chance(self, defect: str, attempt: int, purpose: str) -> float:
        """A number from 0 to 1 that is the same on every run."""
        digest = sha256(f"{self._seed}/{defect}/{attempt}/{purpose}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64


def _steps(steps: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    return [dict(zip(("thought", "action", "observation"), step, strict=True)) for step in steps]


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)

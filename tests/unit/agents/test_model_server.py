"""The model server speaks Converse, counts as it says, and passes calls on when asked to."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from agentops_monitoring import transport
from local.model_script import Call, Script, count_tokens, cut, understand, usage
from local.model_server import DEFAULT_MODEL, ModelServer, main
from local.model_upstream import upstream

SYSTEM = [{"text": "You are the engineer agent of a team."}]
ASKED = {"role": "user", "content": [{"text": "<function>cart-total</function>"}]}


class _Nowhere:
    def write(self, lines: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def unrecorded() -> Iterator[None]:
    """Other tests have instrumented boto3 in this process; calls from here belong to no agent."""
    before = transport.replace(_Nowhere())
    yield
    transport.replace(before)


def client(url: str) -> Any:
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def server(model_factory: Callable[..., ModelServer], tmp_path: Path) -> ModelServer:
    return model_factory(record=tmp_path / "calls.jsonl")


def test_an_answer_and_its_record(server: ModelServer, tmp_path: Path) -> None:
    response = client(server.url).converse(modelId=DEFAULT_MODEL, system=SYSTEM, messages=[ASKED])
    text = response["output"]["message"]["content"][0]["text"]
    assert json.loads(text)["edits"]
    counts = response["usage"]
    assert counts["outputTokens"] == count_tokens(text)
    assert counts["totalTokens"] == counts["inputTokens"] + counts["outputTokens"]
    (call,) = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert (call["model"], call["role"], call["function"]) == (DEFAULT_MODEL, "engineer", "cart-total")
    assert (call["input_tokens"], call["output_tokens"]) == (counts["inputTokens"], counts["outputTokens"])
    assert call["request_id"] == response["ResponseMetadata"]["RequestId"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": [{"role": "model", "content": [{"text": "x"}]}], "system": "x"},
        {"messages": [{"role": "user", "content": "x"}]},
        {"messages": [{"role": "assistant", "content": [{"text": "x"}]}]},
        {"messages": [ASKED, ASKED]},
        {"messages": [{"role": "user", "content": [{"text": "  "}]}]},
        {"messages": [ASKED], "max_tokens": 5},
        {"messages": [ASKED], "inferenceConfig": {"maxTokens": "many"}},
        {"messages": [{"role": "user", "content": [{"text": "x", "cache": True}]}]},
    ],
)
def test_requests_that_the_api_would_refuse(server: ModelServer, tmp_path: Path, body: Any) -> None:
    import urllib.error
    import urllib.request

    call = urllib.request.Request(f"{server.url}/model/m/converse", json.dumps(body).encode())
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(call)
    assert refused.value.code == 400
    assert refused.value.headers["x-amzn-ErrorType"] == "ValidationException"
    assert (tmp_path / "calls.jsonl").read_text() == ""


def test_an_answer_that_is_cut_off(server: ModelServer) -> None:
    response = client(server.url).converse(
        modelId="m", system=SYSTEM, messages=[ASKED], inferenceConfig={"maxTokens": 7}
    )
    assert (response["stopReason"], response["usage"]["outputTokens"]) == ("max_tokens", 7)


@pytest.mark.parametrize("seed", range(20))
def test_the_mix_is_the_same_for_every_seed(seed: int) -> None:
    assert Counter(Script(seed).mended_at.values()) == {1: 10, 2: 3, 3: 1, None: 2}


def test_seeds_differ_and_answers_depend_on_nothing_else() -> None:
    assert Script(7).mended_at != Script(8).mended_at
    calls = [Call(role, f"shop-{name}", attempt, again) for role in ("manager", "engineer", "qa")
             for name in Script(7).mended_at for attempt in (1, 2, 3) for again in (False, True)]  # fmt: skip
    one, two = Script(7), Script(7)
    assert [one.answer(call) for call in calls] == [two.answer(call) for call in reversed(calls)][::-1]


def test_stated_confidence_is_wrong_now_and_then() -> None:
    script = Script(7)
    sure: dict[bool, set[bool]] = {True: set(), False: set()}
    for name, mended_at in script.mended_at.items():
        answer = json.loads(script.answer(Call("engineer", name, 1, True)))
        sure[mended_at == 1].add(answer["confidence"] >= 0.8)
    assert sure == {True: {True, False}, False: {True, False}}


def test_what_the_script_does_not_know() -> None:
    for call in (Call("engineer", "billing", 1, False), Call("", "cart-total", 1, False)):
        assert "{" not in Script(7).answer(call)


@given(st.text(), st.text(), st.integers(0, 50))
def test_tokens_add_up_over_lines_and_cutting_keeps_to_the_limit(one: str, two: str, limit: int) -> None:
    assert count_tokens(f"{one}\n{two}") >= max(count_tokens(one), count_tokens(two.lstrip()))
    kept = cut(one, limit)
    assert one.startswith(kept)
    assert count_tokens(kept) <= limit
    assert kept == one or count_tokens(one) > limit


def turn(role: str, words: int, *, point: bool = False) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"text": "word " * words}]
    return {"role": role, "content": [*content, {"cachePoint": {"type": "default"}}] if point else content}


def test_cache_points_write_and_then_read() -> None:
    first = {"messages": [turn("user", 2000, point=True)]}
    second = {"messages": [*first["messages"], turn("assistant", 50), turn("user", 100, point=True)]}
    third = {"messages": [*second["messages"], turn("assistant", 50), turn("user", 100)]}
    one, two, three = (usage(request, "ok") for request in (first, second, third))
    assert (one["cacheReadInputTokens"], one["cacheWriteInputTokens"]) == (0, 2000)
    assert two["cacheReadInputTokens"] >= 2000
    assert 150 <= two["cacheWriteInputTokens"] < 200
    assert three["cacheReadInputTokens"] == two["cacheReadInputTokens"] + two["cacheWriteInputTokens"]
    assert three["inputTokens"] >= 150
    for counts in (one, two, three):
        assert counts["totalTokens"] == sum(count for name, count in counts.items() if name != "totalTokens")


def test_short_prefixes_and_requests_without_points_are_not_cached() -> None:
    for request in ({"messages": [turn("user", 500, point=True)]}, {"messages": [turn("user", 5000)]}):
        counts = usage(request, "ok")
        assert (counts["cacheReadInputTokens"], counts["cacheWriteInputTokens"]) == (0, 0)


def test_an_agent_that_asks_again_is_understood() -> None:
    again = {"role": "user", "content": [{"text": "Your answer could not be used: no. Answer again"}]}
    request = {"system": SYSTEM, "messages": [ASKED, turn("assistant", 3), again]}
    assert understand(request) == Call("engineer", "cart-total", 1, True)


class _Chat(BaseHTTPRequestHandler):
    asked: list[Any]
    status = 200

    def do_POST(self) -> None:
        self.asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
        body = json.dumps(
            {
                "choices": [{"message": {"content": "hello"}, "finish_reason": "length"}],
                "usage": {
                    "prompt_tokens": 100,
                    "completion_tokens": 7,
                    "prompt_tokens_details": {"cached_tokens": 40},
                },
            }
        ).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def chat() -> Iterator[tuple[str, type[_Chat]]]:
    handler = type("Chat", (_Chat,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1", handler
    server.shutdown()
    server.server_close()


def test_upstream_is_asked_in_its_own_words(
    chat: tuple[str, type[_Chat]], model_factory: Callable[..., ModelServer]
) -> None:
    url, handler = chat
    server = model_factory(upstream(url, "small"))
    response = client(server.url).converse(
        modelId="m", system=[{"text": "be brief"}], messages=[turn("user", 1, point=True)],
        inferenceConfig={"maxTokens": 9},
    )  # fmt: skip
    assert handler.asked == [
        ("/v1/chat/completions", {"model": "small", "max_tokens": 9, "messages": [
            {"role": "system", "content": "be brief"}, {"role": "user", "content": "word "}]})
    ]  # fmt: skip
    assert response["stopReason"] == "max_tokens"
    assert response["output"]["message"]["content"] == [{"text": "hello"}]
    # Their prompt tokens include the cached ones, Converse's do not.
    assert (response["usage"]["inputTokens"], response["usage"]["cacheReadInputTokens"]) == (60, 40)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, "ThrottlingException"), (404, "ValidationException"), (500, "ServiceUnavailableException")],
)
def test_upstream_errors_are_bedrock_errors(
    chat: tuple[str, type[_Chat]], model_factory: Callable[..., ModelServer], status: int, kind: str
) -> None:
    url, handler = chat
    handler.status = status
    with pytest.raises(ClientError) as refused:
        client(model_factory(upstream(url, "small")).url).converse(modelId="m", messages=[ASKED])
    assert refused.value.response["Error"]["Code"] == kind


def test_upstream_that_is_not_there(model_factory: Callable[..., ModelServer]) -> None:
    with pytest.raises(ClientError) as refused:
        client(model_factory(upstream("http://127.0.0.1:9/v1", "m")).url).converse(
            modelId="m", messages=[ASKED]
        )
    assert refused.value.response["Error"]["Code"] == "ServiceUnavailableException"


def test_the_command_prints_its_url_first_and_names_a_port_in_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "local.model_server", "--record", str(tmp_path / "r.jsonl")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert client(url).converse(modelId=DEFAULT_MODEL, system=SYSTEM, messages=[ASKED])["usage"]
        assert main(["--port", url.rpartition(":")[2]]) == 1
        assert "choose another --port" in capsys.readouterr().err
    finally:
        process.terminate()
        process.wait(10)

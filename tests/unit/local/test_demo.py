"""What the demo says to wrong input, and which failures a run meets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local import scenario
from local.demo import _options, main
from local.processes import StartError, require_free


@pytest.fixture
def model_server() -> Iterator[str]:
    """Serve 404 for everything, as some model servers do for what they don't know."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workflows", "0"], "WORKFLOWS: expected a whole number from 1 to 1000, not '0'"),
        (["--workflows", "many"], "WORKFLOWS: expected a whole number"),
        (["--workflows", "99999999"], "WORKFLOWS: expected a whole number"),
        (["--seed", "x"], "SEED: expected a whole number"),
        (["--port", "99999"], "PORT: expected a whole number from 1 to 65535"),
        (["--model-url", "ollama", "--model", "m"], "MODEL_URL: expected one such as http://"),
        (["--model-url", "http://127.0.0.1:9/v1", "--model", "m"], "MODEL_URL: nothing answers at"),
        (["--model", "m"], "MODEL_URL and MODEL go together"),
    ],
)
def test_wrong_input_is_said_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"demo: {said}")


def test_a_model_server_that_answers_is_taken(model_server: str) -> None:
    assert _options(["--model-url", model_server, "--model", "m"]).model_url == model_server


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"port {port} is in use .* PORT="):
            require_free(port)
    assert require_free(port) == port


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 120))
def test_every_function_fails_once_before_any_fails_again(seed: int, count: int) -> None:
    root = Path(__file__).resolve().parents[3]
    known = {each["function"] for each in json.loads((root / "examples/shop/incidents.json").read_text())}
    met = [incident["function"] for incident in scenario.incidents(seed, count)]
    assert len(met) == count
    assert met == [incident["function"] for incident in scenario.incidents(seed, count)]
    for start in range(0, count, len(known)):
        turn = met[start : start + len(known)]
        assert len(set(turn)) == len(turn)
    assert set(met[: len(known)]) == known or count < len(known)

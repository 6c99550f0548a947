"""Start the embedded AWS: ``python -m local.aws --port 4566 [--function-env NAME=VALUE …]``.

Prints ``ready http://127.0.0.1:<port>`` when it serves. SIGTERM and SIGINT end it and everything it started.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from local.aws import sweep

try:
    from hypercorn.asyncio import serve
    from hypercorn.asyncio.tcp_server import TCPServer
    from hypercorn.config import Config
except ModuleNotFoundError as missing:
    sys.exit(f"local AWS: {missing}: run it with .venv-local/bin/python (`make setup` makes it)")

HOST = "127.0.0.1"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.aws", description="The embedded AWS, on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--function-env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--retry-seconds", type=float, default=1.0, help="before the first asynchronous retry (AWS: 60)"
    )
    parser.add_argument("--model-url", default="", help="a server of Bedrock's API that answers model calls")
    arguments = parser.parse_args()
    if not 0 <= arguments.port < 65_536:
        parser.error(f"--port wants 0 to 65535, not {arguments.port}")
    if not 0 <= arguments.retry_seconds <= 3600:
        parser.error(f"--retry-seconds wants 0 to 3600, not {arguments.retry_seconds:g}")
    if not (arguments.model_url + "http://").startswith(("http://", "https://")):
        parser.error(f"--model-url wants one such as http://127.0.0.1:8080, not {arguments.model_url}")
    for pair in arguments.function_env:
        if pair.find("=") < 1:
            parser.error(f"--function-env wants NAME=VALUE, not {pair}")
    return arguments


def _listen(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
    except OSError as error:
        sys.exit(f"local AWS: port {port} is in use on {HOST} ({error.strerror}): choose another with --port")
    sock.listen(512)
    return sock


def main() -> None:
    """Serve until a signal comes."""
    arguments = _arguments()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, 10_000) if files > 0 else 10_000, files))
    sock = _listen(arguments.port)
    port = sock.getsockname()[1]
    sweep.sweep_dead(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=sweep.PREFIX))
    lock = sweep.hold(folder)
    # In a session of its own: neither Ctrl-C nor what kills this process may end it first.
    command = [sys.executable, "-S", sweep.__file__, str(folder)]
    sweeper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    # MiniStack reads these when it is imported.
    os.environ |= {
        "AUTH": "true",
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "TMPDIR": str(folder),
        "MINISTACK_HOST": HOST,
    }
    os.environ.setdefault("LOG_LEVEL", "ERROR")
    tempfile.tempdir = str(folder)
    (folder / "code").mkdir()
    try:
        asyncio.run(_serve(sock, f"http://{HOST}:{port}", folder / "code", arguments))
    finally:
        sweeper.communicate()
        lock.close()
    # MiniStack's and our daemon threads have nothing to finish.
    sys.stdout.flush()
    os._exit(0)


def _close_with_the_client() -> None:
    """Hypercorn keeps the socket of a client that has gone as long as that of an idle one: not so here."""
    stock_read = TCPServer._read_data

    async def read_data(server: TCPServer) -> None:
        await stock_read(server)
        await server.idle_task.stop()

    TCPServer._read_data = read_data


async def _serve(sock: socket.socket, endpoint: str, code: Path, arguments: argparse.Namespace) -> None:
    from ministack.app import app

    from local.aws.gateway import Local, application

    variables = dict(pair.split("=", 1) for pair in arguments.function_env)
    local = Local(endpoint, code, variables, arguments.retry_seconds, arguments.model_url)
    _close_with_the_client()
    config = Config()
    config.bind = [f"fd://{sock.fileno()}"]
    # A busy server may not see that an idle client has called again, and close on it: so, seldom.
    config.keep_alive_timeout = 600
    config.graceful_timeout = 0.2
    config.loglevel = "ERROR"
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = asyncio.create_task(serve(application(app, local), config, shutdown_trigger=stop.wait))
    try:
        await asyncio.to_thread(_reach, sock.getsockname()[1])
        print(f"ready {endpoint}", flush=True)
        await stop.wait()
    finally:
        local.functions.close()
        with contextlib.suppress(asyncio.TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(server, 2)


def _reach(port: int) -> None:
    with contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=10)) as connection:
        connection.request("GET", "/_local/idle")
        connection.getresponse()


if __name__ == "__main__":
    main()

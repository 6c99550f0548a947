"""Start the embedded AWS: ``python -m local.aws --port 4566 [--function-env NAME=VALUE …]``.

Prints ``ready http://127.0.0.1:<port>`` when it serves. SIGTERM and SIGINT end it and everything it started.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path

HOST = "127.0.0.1"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.aws", description="The embedded AWS, on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--function-env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--retry-seconds", type=float, default=1.0, help="before the first asynchronous retry (AWS: 60)"
    )
    arguments = parser.parse_args()
    for pair in arguments.function_env:
        if "=" not in pair:
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
    folder = Path(tempfile.mkdtemp(prefix="local-aws-"))
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
        shutil.rmtree(folder, ignore_errors=True)
    # MiniStack's and our daemon threads have nothing to finish.
    sys.stdout.flush()
    os._exit(0)


async def _serve(sock: socket.socket, endpoint: str, code: Path, arguments: argparse.Namespace) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    from ministack.app import app

    from local.aws.gateway import Local, application

    variables = dict(pair.split("=", 1) for pair in arguments.function_env)
    local = Local(endpoint, code, variables, arguments.retry_seconds)
    config = Config()
    config.bind = [f"fd://{sock.fileno()}"]
    # A client that closes first keeps its socket here until then: short, or a busy client uses up the files.
    config.keep_alive_timeout = 10
    config.graceful_timeout = 0.2
    config.loglevel = "ERROR"
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = asyncio.create_task(serve(application(app, local), config, shutdown_trigger=stop.wait))
    try:
        await _reachable(sock.getsockname()[1])
        print(f"ready {endpoint}", flush=True)
        await stop.wait()
    finally:
        local.functions.close()
        with contextlib.suppress(asyncio.TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(server, 2)


async def _reachable(port: int) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(b"GET /_local/idle HTTP/1.1\r\nHost: local\r\nConnection: close\r\n\r\n")
            await reader.readline()
            writer.close()
            return
        except OSError:
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    main()

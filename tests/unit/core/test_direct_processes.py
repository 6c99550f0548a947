"""Processes that write directly, ended in every way: what a call returned for is in the ledger, once.

The oracle knows none of the code under test: each process notes the id of every call that returned, and the
tables must hold those, and count as many as they hold.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentops_monitoring import cli

from .direct_agents import PRELUDE, Agent, Agents
from .dynamodb_server import HANG, Fault, dynamodb_server


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    with dynamodb_server() as server:
        started = Agents(server, tmp_path)
        try:
            yield started
        finally:
            started.stop()


@pytest.fixture
def replay(agents: Agents, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the command reach the same tables."""
    for name, value in agents.env.items():
        monkeypatch.setenv(name, value)


_BUSY = """
def work(n):
    for i in range(100_000):
        record(1, text="x" * (150_000 if i % 40 == n else 10))
        time.sleep(0.01)
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.slow
def test_kill_9_at_a_random_moment_loses_nothing(agents: Agents, replay: None, full_size: bool) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    noted: list[Agent] = []
    for _ in range(100 if full_size else 1):
        pair = [agents.start(_BUSY), agents.start(_BUSY)]
        for agent in pair:
            agent.wait_for(1)
        time.sleep(chance.uniform(0, 1))
        for agent in pair:
            agent.process.kill()
            agent.process.wait()
        noted += pair
        assert cli.main(["replay"]) == 0
        assert agents.waiting == []
    agents.check(*noted, in_flight=8 * len(noted))


_WAIT = "sys.stdin.read()\n"
_OWN_HANDLER = """
def on_sigterm(number, frame):
    record(1, "issue_detected")
    if callable(before): before(number, frame)
    sys.exit(7)
"""
_SET = "before = signal.signal(signal.SIGTERM, on_sigterm)\n"


@pytest.mark.parametrize(
    ("code", "ends_with", "in_flight"),
    [
        ("record(30)\n" + _WAIT, -signal.SIGTERM, 0),
        ("while True: record(1); time.sleep(0.001)", -signal.SIGTERM, 1),
        (_OWN_HANDLER + _SET + "record(29)\n" + _WAIT, 7, 0),
        (_OWN_HANDLER + "record(29)\n" + _SET + _WAIT, 7, 0),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN); record(30)\n" + _WAIT, 0, 0),
        ("threading.Thread(target=record, args=(30,)).start()\n" + _WAIT, -signal.SIGTERM, 0),
    ],
    ids=["waiting", "recording", "own handler before", "own handler after", "ignored", "not the main thread"],
)  # fmt: skip
def test_sigterm(
    agents: Agents, replay: None, code: str, ends_with: int, in_flight: int, request: pytest.FixtureRequest
) -> None:
    agent = agents.start(code)
    agent.wait_for(29)
    if "own handler" not in request.node.callspec.id:
        agent.wait_for(30)
    time.sleep(0.05)
    agent.process.send_signal(signal.SIGTERM)
    if ends_with == 0:
        time.sleep(0.1)
        assert agent.process.poll() is None
    agent.end(ends_with)
    if "not the main thread" in request.node.callspec.id:
        # Only the main thread can have a handler set, so there was none; but nothing is lost.
        assert cli.main(["replay"]) == 0
    assert agents.waiting == []
    agents.check(agent, in_flight=in_flight)


def test_a_handler_that_was_there_ends_the_process_as_it_likes_and_the_worker_hurries(agents: Agents) -> None:
    agent = agents.start(
        "direct.LINGER_SECONDS = 1_000\nsignal.signal(signal.SIGTERM, lambda *_: None)\nrecord(30)\n" + _WAIT
    )
    agent.wait_for(30)
    time.sleep(0.05)
    agent.process.send_signal(signal.SIGTERM)
    until = time.monotonic() + 30
    while len(agents.server.tables.scan(TableName="agent-monitoring")["Items"]) < 30:
        assert time.monotonic() < until
        time.sleep(0.01)
    agent.end()
    agents.check(agent)


def test_where_sigterm_ends_nothing_events_wait_for_nothing_afterwards(agents: Agents) -> None:
    """The first process of a container has no default action."""
    agent = agents.start(
        "kill, os.kill = os.kill, lambda *_: None\n"
        "record(1)\n"
        "for i in range(2): kill(os.getpid(), signal.SIGTERM); print('alive', file=sys.stderr)\n"
        "from agentops_monitoring import transport\n"
        "transport.chosen.close = lambda seconds: print('waits', file=sys.stderr)\n"
        "record(1)\n"
        "print('recorded', file=sys.stderr)\n"
    )
    agent.end()
    assert agent.said.splitlines()[:3] == ["alive", "alive", "recorded"]
    agents.check(agent)


def test_the_plane_s_own_prices_hold_here_too(agents: Agents) -> None:
    agents.server.parameters["/agentops/prices"] = '{"our-own": {"input": 2, "output": 4}}'
    agent = agents.start(
        "monitor.track_llm_usage(model='our-own', input_tokens=1_000_000, output_tokens=10)",
        AGENTOPS_PRICES="ssm:/agentops/prices",
    )
    agent.end()
    (item,) = agents.server.tables.scan(TableName="agent-monitoring")["Items"]
    assert item["cost_usd"] == {"N": "2.000040"}


_FORKS = """
record(50)
children = []
for n in range({children}):
    child = os.fork()
    if child == 0:
        record(20, "test_failed")
        os._exit(0) if n % 3 == 0 else sys.exit()
    children.append(child)
    record(5)
for child in children: os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_forks_write_what_is_theirs(agents: Agents, replay: None, full_size: bool) -> None:
    children = 40 if full_size else 4
    agent = agents.start(_FORKS.format(children=children))
    agent.end()
    assert len(agent.noted) == 50 + 25 * children
    # Those that ended without any handler left theirs.
    assert len(agents.waiting) == (children + 2) // 3
    assert cli.main(["replay"]) == 0
    assert agents.waiting == []
    agents.check(agent)


_FORK_WHILE_LOADING = """
class Slow:
    def find_spec(self, name, path, target=None):
        if name == "agentops_monitoring.ledger.requests":
            loading.set()
            time.sleep(0.5)
sys.meta_path.insert(0, Slow())
loading = threading.Event()
record(1)
loading.wait()
child = os.fork()
if child == 0:
    import agentops_monitoring.ledger.writer
    record(1, "test_failed")
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_fork_finds_no_module_half_loaded(agents: Agents) -> None:
    agent = agents.start(_FORK_WHILE_LOADING)
    agent.end()
    assert agents.waiting == []
    agents.check(agent)


_FORK_WHILE_CONNECTING = """
from agentops_monitoring.ledger import direct as ledger
real, asked, forked = ledger.line_writer, threading.Event(), threading.Event()
def slow(settings):
    asked.set()
    print("came first:", "the fork" if forked.wait(5) else "credentials", file=sys.stderr)
    return real(settings)
ledger.line_writer = slow
record(1)
asked.wait()
if (child := os.fork()) == 0: os._exit(0)
forked.set()
os.waitpid(child, 0)
"""


def test_a_fork_does_not_wait_for_credentials(agents: Agents) -> None:
    agent = agents.start(_FORK_WHILE_CONNECTING)
    agent.end()
    assert "came first: the fork" in agent.said
    agents.check(agent)


def test_after_it_has_connected_the_worker_loads_nothing_more(agents: Agents) -> None:
    """What a thread imports is locked in a child that is forked meanwhile."""
    chance = random.Random(3)
    agents.server.fault = lambda operation: (500, "InternalServerError") if chance.random() < 0.3 else None
    agents.server.parameters["p"] = "{}"
    agent = agents.start(
        "connect, before = direct._connect, set()\n"
        "def noting(settings):\n"
        "    write = connect(settings)\n"
        "    before.update(sys.modules)\n"
        "    return write\n"
        "direct._connect = noting\n"
        "record(100); record(1, text='x' * 500_000)\n"
        "monitor.track_llm_usage(model='claude-3-opus', input_tokens=1, output_tokens=1)\n"
        "from agentops_monitoring import transport\n"
        "assert transport.chosen.wait(100)\n"
        "print('loaded', sorted(set(sys.modules) - before), file=sys.stderr)\n",
        AGENTOPS_PRICES="ssm:p",
    )
    agent.end()
    assert "loaded []" in agent.said


_MAIN = (
    PRELUDE
    + """
if __name__ == "__main__":
    record(3)
    children = [multiprocessing.get_context(method).Process(target=record, args=(20,))
                for method in ("fork", "spawn", "forkserver")]
    for child in children: child.start()
    for child in children: child.join()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(record, [5] * 4)
        pool.close(); pool.join()
"""
)


def test_children_of_multiprocessing_write_all_before_they_end(agents: Agents, tmp_path: Path) -> None:
    main = tmp_path / "main.py"
    main.write_text(_MAIN)
    agent = agents.start(f"sys.stdout.flush(); os.execv(sys.executable, [sys.executable, {str(main)!r}])")
    agent.end()
    assert len(agent.noted) == 3 + 60 + 20
    assert agents.waiting == []
    agents.check(agent)


def test_a_server_that_hangs_holds_nobody_up(agents: Agents, replay: None) -> None:
    agents.server.fault = lambda operation: HANG
    agent = agents.start(
        "direct.EXIT_SECONDS = 0.5\n"
        "async def work():\n"
        "    async def one(n): record(20, task=n); await asyncio.sleep(0)\n"
        "    await asyncio.gather(*map(one, range(10)))\n"
        "asyncio.run(work())\n"
    )
    agent.end()
    assert len(agent.noted) == 200
    assert str(agents.folder) in agent.said
    assert "agentops-monitoring replay" in agent.said
    assert agents.server.tables.tables == {}
    agents.server.fault = lambda operation: None
    assert cli.main(["replay"]) == 0
    assert agents.waiting == []
    agents.check(agent)


def test_errors_of_the_tables_at_random(agents: Agents, full_size: bool) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    errors: list[Fault] = [
        (500, "InternalServerError"), (503, "ServiceUnavailable"), (400, "ThrottlingException"),
        (400, "ProvisionedThroughputExceededException"), (400, "ExpiredTokenException"),
    ]  # fmt: skip

    def fault(operation: str) -> Fault:
        return chance.choice(errors) if chance.random() < 0.2 else None

    agents.server.fault = fault
    agent = agents.start(f"record({5_000 if full_size else 300}); record(1, text='x' * 500_000)")
    agent.end()
    assert agents.waiting == []
    agents.check(agent)


def test_without_permission_all_is_left_to_a_replay_and_said_once(agents: Agents, replay: None) -> None:
    agents.server.fault = lambda operation: (400, "AccessDeniedException")
    agent = agents.start("record(10)\n" + _WAIT)
    until = time.monotonic() + 30
    while "agentops-monitoring replay" not in agent.said:
        assert time.monotonic() < until
        time.sleep(0.01)
    asked = len(agents.server.requests)
    # The process lives, and yet the files are another's to take.
    agents.server.fault = lambda operation: None
    assert cli.main(["replay"]) == 0
    agents.check(agent)
    assert asked <= 2
    agent.end()
    assert agent.said.count("AccessDenied") == 1
    assert agents.waiting == []


def test_in_lambda_the_line_is_on_stdout_whatever_the_tables_do(agents: Agents) -> None:
    env = {"AWS_LAMBDA_FUNCTION_NAME": "f", "MONITORING_TABLE_NAME": "agent-monitoring"}
    code = (
        "direct.EXIT_SECONDS = 0\n"
        "begun = time.monotonic()\n"
        "for i in range(20): monitor.record_event('test_passed', {'i': i})\n"
        "assert time.monotonic() - begun < 3 * direct.THROUGH_SECONDS\n"
    )
    agents.server.fault = lambda operation: HANG
    agent = agents.start(code, **env)
    agent.end()
    assert len(agent.noted) == 20
    assert agents.waiting == []

    agents.server.fault = lambda operation: None
    agent = agents.start("for i in range(3): monitor.record_event('test_passed')\nos._exit(0)", **env)
    agent.end()
    assert len(agents.server.tables.scan(TableName="agent-monitoring")["Items"]) == 3


def test_where_no_file_may_grow_events_wait_in_memory(agents: Agents) -> None:
    agent = agents.start(
        "import resource; from agentops_monitoring import outbox; outbox._NO_FILE_SECONDS = 60\n"
        "ids = [monitor.record_event('test_passed', {'i': i}) for i in range(2)]\n"
        "held, = os.listdir(os.environ['AGENTOPS_SPILL_DIR'])\n"
        "size = os.stat(os.path.join(os.environ['AGENTOPS_SPILL_DIR'], held)).st_size\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))\n"
        "ids += [monitor.record_event('test_passed', {'i': i}) for i in range(50)]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "for each in ids: os.write(1, (each + chr(10)).encode())\n"
    )
    agent.end()
    assert len(agent.noted) == 52
    assert agent.said.count("takes no more") == 1
    assert agents.waiting == []
    agents.check(agent)


def test_without_a_folder_and_with_a_full_queue_what_is_lost_is_said_and_counted(agents: Agents) -> None:
    in_the_way = agents.folder
    in_the_way.write_text("a file")
    agents.server.fault = lambda operation: HANG
    agent = agents.start(
        "from agentops_monitoring import outbox; direct.EXIT_SECONDS = 0.2\n"
        "direct.Outbox = lambda folder: outbox.Outbox(folder, max_queued=7)\n"
        "record(20)\n"
    )
    agent.end()
    assert "no file can be written" in agent.said
    assert agent.said.count("the queue is full, events are lost") == 1
    assert "20 events are lost" in agent.said
    in_the_way.unlink()

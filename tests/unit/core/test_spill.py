"""Files of lines, and the outbox that fills them: whole lines, one owner, nothing lost, nothing twice."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from itertools import count, islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as sized
from hypothesis import strategies as st

from agentops_monitoring import outbox as outbox_module
from agentops_monitoring import spill
from agentops_monitoring.outbox import MAX_BATCH, Outbox
from agentops_monitoring.spill import SpillFile, SpillFolder


@pytest.fixture
def folder(tmp_path: Path) -> SpillFolder:
    return SpillFolder(str(tmp_path / "spill"), "agent-monitoring")


def opened(path: str) -> SpillFile:
    file = SpillFile.open(path)
    assert file is not None
    return file


def test_only_its_user_can_read_a_file(folder: SpillFolder) -> None:
    before = os.umask(0)
    try:
        file = folder.new()
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(folder.path).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600


@pytest.mark.parametrize("lie", ["readable", "a link"])
def test_a_folder_that_somebody_else_may_have_made_is_not_used(
    lie: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = SpillFolder.from_environment("t")
    assert folder is not None
    if lie == "readable":
        Path(folder.path).mkdir(mode=0o755)
    else:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        Path(folder.path).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        folder.new()


def test_the_environment_names_the_folder_its_size_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOPS_SPILL_DIR", str(tmp_path))
    monkeypatch.setenv("AGENTOPS_SPILL_MB", "1")
    folder = SpillFolder.from_environment("t")
    assert folder is not None
    # A folder that is named is taken as it is, such as a mounted volume.
    tmp_path.chmod(0o755)
    assert folder.new().append(b"x" * 1_000_000)
    with pytest.raises(OSError, match="1 MB are full"):
        folder.new()
    monkeypatch.setenv("AGENTOPS_SPILL_DIR", "off")
    assert SpillFolder.from_environment("t") is None


def test_empty_files_of_processes_that_were_killed_are_swept_up(folder: SpillFolder) -> None:
    mine, empty, full = folder.new(), folder.new(), folder.new()
    full.append(b"1\n")
    for file in (empty, full):
        file.release()
    new = folder.new()
    assert set(folder.files()) == {mine.path, full.path, new.path}


def test_files_of_one_destination_are_not_those_of_another(tmp_path: Path) -> None:
    names = [
        "agent-monitoring",
        "agent-monitoring-test",
        "arn:aws:dynamodb:eu-west-1:1:table/agent-monitoring",
    ]
    folders = [SpillFolder(str(tmp_path), name) for name in names]
    made = [folder.new().path for folder in folders]
    assert [folder.files() for folder in folders] == [[path] for path in made]


def test_a_file_has_one_owner_and_a_child_is_none(folder: SpillFolder) -> None:
    file = folder.new()
    other = f"import sys; sys.path.insert(0, {str(Path(spill.__file__).parents[1])!r})\n" + (
        "from agentops_monitoring.spill import SpillFile\nprint(SpillFile.open(sys.argv[1]) is not None)"
    )

    def free_for_others() -> bool:
        command = [sys.executable, "-c", other, file.path]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"

    assert not free_for_others()
    inside, outside = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(inside, 1)
        os._exit(0)
    file.release()
    # The child lives, but it dropped what it inherited.
    free = free_for_others()
    os.write(outside, b"x")
    os.waitpid(child, 0)
    for each in (inside, outside):
        os.close(each)
    assert free


def test_what_is_no_plain_file_is_not_read(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "x")
    (tmp_path / "x").touch()
    for path in (pipe, link):
        with pytest.raises(OSError):
            SpillFile.open(str(path))
    assert SpillFile.open(str(tmp_path / "missing")) is None


@given(
    lines=st.lists(st.binary(max_size=60).map(lambda raw: raw.hex().encode() + b"\n"), max_size=40),
    torn=st.binary(max_size=20).map(lambda raw: raw.hex().encode()),
    most=st.integers(1, 10),
    size=st.integers(1, 100),
)
@sized(max_examples=60, deadline=None)
def test_whole_lines_come_back_in_order_and_a_torn_end_does_not(
    lines: list[bytes], torn: bytes, most: int, size: int
) -> None:
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill, "_READ_BYTES", size)
        path = Path(home) / "f"
        path.write_bytes(b"".join(lines) + torn)
        file = opened(str(path))
        found: list[bytes] = []
        while some := file.read(most):
            assert len(some) <= most
            found += some
            file.offset += sum(map(len, some))
        assert found == lines
        assert file.left == len(torn)
        file.release()


def emptied(box: Outbox) -> list[str]:
    found = [line for lines in box.batches() for line in lines]
    box.tidy()
    return found


def test_files_change_as_they_fill_and_are_deleted_as_they_are_written(
    folder: SpillFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "FILE_BYTES", 1_000)
    box = Outbox(folder)
    lines = [f"{number:09d}\n" for number in range(1_005)]
    for line in lines:
        box.put([line])
    assert len(folder.files()) == 11
    assert emptied(box) == lines
    assert len(folder.files()) == 1
    assert os.stat(folder.files()[0]).st_size == 0
    assert not box
    assert box.close(written=True) == ""
    assert folder.files() == []


def test_a_batch_that_was_not_written_comes_again(folder: SpillFolder) -> None:
    for box in (Outbox(folder), Outbox()):
        for number in range(2 * MAX_BATCH):
            box.put([f"{number}\n"])
        batches = box.batches()
        first, second = islice(batches, 2)
        batches.close()
        assert first[0] == "0\n"
        assert next(iter(box.batches())) == second
        assert box


def test_what_is_left_to_others_is_taken_back_unless_they_took_it(folder: SpillFolder) -> None:
    box = Outbox(folder)
    box.put(["1\n"])
    assert folder.path in box.leave()
    box.put(["2\n"])
    box.leave()
    box.put(["3\n"])
    first, second = (path for path in folder.files() if Path(path).read_text() in ("1\n", "2\n"))
    taken = opened(first)
    text = Path(second).read_text()
    assert sorted(emptied(box)) == sorted(["3\n", text])
    assert not Path(second).exists()
    assert taken.read(1)
    taken.release()


def test_memory_goes_to_a_file_as_soon_as_there_can_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outbox_module, "_NO_FILE_SECONDS", 0.0)
    folder = SpillFolder(str(tmp_path / "spill"), "t")
    in_the_way = tmp_path / "spill"
    in_the_way.touch()
    box = Outbox(folder)
    for number in range(3):
        box.put([f"{number}\n"])
    assert capsys.readouterr().err.count("no file can be written") == 1
    in_the_way.unlink()
    assert folder.path in box.close(written=False)
    (path,) = folder.files()
    assert Path(path).read_text() == "0\n1\n2\n"


def test_memory_is_bounded_in_events_and_in_bytes() -> None:
    few, small = Outbox(max_queued=3), Outbox(max_queued_bytes=10)
    for number in range(5):
        few.put([f"{number}\n"])
        small.put(["four", "\n"])
    assert (few.lost, small.lost) == (2, 3)
    assert emptied(few) == ["0\n", "1\n", "2\n"]
    few.put(["5\n"])
    assert emptied(few) == ["5\n"]


def test_what_the_ledger_never_takes_is_kept(folder: SpillFolder) -> None:
    box = Outbox(folder)
    box.refuse(["odd\n"])
    box.refuse(["queer\n"])
    box.close(written=True)
    (path,) = folder.files()
    assert Path(path).read_text() == "odd\nqueer\n"


@pytest.mark.slow
def test_threads_and_signal_handlers_that_record_while_a_worker_writes(
    folder: SpillFolder, full_size: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler interrupts its own thread anywhere, inside `put` too."""
    monkeypatch.setattr(spill, "FILE_BYTES", 2_000)
    box = Outbox(folder)
    per_thread = 20_000 if full_size else 1_500
    found: list[str] = []
    ended = threading.Event()
    numbers = count()
    signals: list[str] = []

    def work(name: str) -> None:
        for number in range(per_thread):
            box.put([f"{name}-{number}-a\n", f"{name}-{number}-b\n"])

    def write_out() -> None:
        chance = random.Random(3)
        while True:
            last = ended.is_set()
            batches = box.batches()
            for lines in batches:
                if chance.random() < 0.1:
                    batches.close()  # not written
                    break
                found.extend(lines)
            else:
                box.tidy()
                if last and not box:
                    return
            if chance.random() < 0.1:
                box.leave()

    def on_signal(_number: int, _frame: object) -> None:
        line = f"signal-{next(numbers)}\n"
        box.put([line])
        signals.append(line)
        # Not by itself: on a busy machine handlers would interrupt each other without end.
        if not ended.is_set():
            signal.setitimer(signal.ITIMER_REAL, 0.0005)

    before = signal.signal(signal.SIGALRM, on_signal)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    try:
        worker = threading.Thread(target=write_out)
        worker.start()
        threads = [threading.Thread(target=work, args=(str(number),)) for number in range(3)]
        for thread in threads:
            thread.start()
        work("main")
        for thread in threads:
            thread.join()
    finally:
        ended.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        worker.join()
    names = ["0", "1", "2", "main"]
    wanted = [f"{name}-{number}-{part}\n" for name in names for number in range(per_thread) for part in "ab"]
    assert len(signals) > 10
    # What was read and then left to others comes again, and counts once.
    assert set(found) == {*wanted, *signals}
    assert box.lost == 0
    box.close(written=True)
    assert folder.files() == []


def test_a_container_that_may_write_nowhere_has_no_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.delenv("AGENTOPS_SPILL_DIR", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert SpillFolder.from_environment("t") is None
    assert "events wait in memory" in capsys.readouterr().err


def test_a_slow_disk_is_left_alone_for_a_while_and_its_events_are_not_lost(
    folder: SpillFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outbox_module, "SLOW_SECONDS", -1.0)
    box = Outbox(folder)
    for number in range(3):
        box.put([f"{number}\n"])
    (path,) = folder.files()
    assert Path(path).read_text() == "0\n"
    monkeypatch.setattr(outbox_module, "SLOW_SECONDS", 60.0)
    box.close(written=False)
    assert Path(path).read_text() == "0\n1\n2\n"
    assert capsys.readouterr().err.count("is slow") == 1


def test_empty_files_of_other_programs_stay(folder: SpillFolder) -> None:
    folder.new()
    other = Path(folder.path) / "mine.jsonl"
    other.touch()
    folder.new()
    assert other.exists()

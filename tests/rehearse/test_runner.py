"""Starting, killing, starting again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from relume.rehearse.kills import Kill
from relume.rehearse.runner import Command, execute

LOGGING = """
import os, sys, time
from pathlib import Path
root = Path(os.environ["RELUME_ROOT"])
journal = root / "line" / "journal"
journal.mkdir(parents=True, exist_ok=True)
(root / "line" / "run.json").write_text("{}")
number = len(list(journal.iterdir())) + 1
with (journal / f"{number:04d}.jsonl").open("w") as file:
    for step in range(40):
        file.write('{"step": %d}\\n' % step)
        file.flush()
        time.sleep(0.002)
print("done", os.environ["RELUME_REHEARSAL"], os.environ.get("RELUME_EVERY"))
"""


def code(text: str, timeout_seconds: float | None = 60.0) -> Command:
    return Command((sys.executable, "-c", text), timeout_seconds)


def kill(step: int) -> Kill:
    return Kill("line", step, 0.0, "step", 1.0)


def test_a_script_is_started_again_after_each_kill_until_it_ends_by_itself(tmp_path: Path) -> None:
    said: list[str] = []
    execution = execute(
        code(LOGGING), tmp_path / "root", kills=[kill(5), kill(20)], every="7 steps", notice=said.append
    )
    assert [start.status for start in execution.starts] == [-signal.SIGKILL, -signal.SIGKILL, 0]
    first, second = (start.steps["line"] for start in execution.kills)
    assert 5 <= first < 40 and 20 <= second < 40
    assert execution.starts[-1].tail == "done 1 7 steps" and said == ["kill 1 of 2", "kill 2 of 2"]


def test_a_kill_that_comes_too_late_is_none(tmp_path: Path) -> None:
    execution = execute(code(LOGGING), tmp_path / "root", kills=[kill(1000), kill(2000)])
    assert (execution.kills, len(execution.starts), execution.has_failed) == ([], 1, False)


def test_a_script_that_fails_is_not_started_again_and_its_output_is_kept(tmp_path: Path) -> None:
    execution = execute(code("import sys; print('before'); sys.exit('no data')"), tmp_path / "root", kills=[kill(1)])
    assert execution.has_failed and execution.starts[0].status == 1
    assert set(execution.starts[0].tail.splitlines()) == {"before", "no data"}


def test_a_script_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    child = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    text = child + f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid)); p.wait()"
    execution = execute(code(text, timeout_seconds=3.0), tmp_path / "root")
    assert execution.starts[0].has_timed_out and execution.has_failed
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_rehearsal_leaves_no_child_and_no_folder(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "endless.py"
    script.write_text(f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-m", "relume", "rehearse", str(script)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )
    try:
        pid = wait_for(tmp_path / "pid")
        assert list(tmp_path.glob("relume-rehearsal-*"))
        process.send_signal(number)
        assert process.wait(30) in (130, 128 + number)
        assert gone(pid) and not list(tmp_path.glob("relume-rehearsal-*"))
    finally:
        process.kill()
        process.wait()


def wait_for(path: Path) -> int:
    deadline = time.monotonic() + 60
    while not (path.is_file() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(path.read_text())


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds; one that is not yet collected by init counts as ended."""
    try:
        process = psutil.Process(pid)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.02)
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True

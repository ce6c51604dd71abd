"""What a person sees: lines in a file, a live line on a terminal, a table in a notebook."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from relume.monitor.console import Plain, reporter
from relume.monitor.pace import Pace, duration, number

TRAIN = """
    import tempfile, torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset
    import relume
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(640, 4), torch.randint(0, 3, (640,)))
    model = nn.Linear(4, 3)
    trainer = relume.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
                             metrics={"accuracy": relume.accuracy}, device="cpu")
    result = trainer.fit(DataLoader(data, 4), DataLoader(data, 64), epochs=2, run="seen", root=tempfile.mkdtemp())
"""


def on_terminal(code: str, columns: int = 100) -> str:
    """What a program writes to a real (pseudo) terminal."""
    leader, follower = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "CI"} | {
        "TERM": "xterm-256color",
        "COLUMNS": str(columns),
    }
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=follower, stderr=follower, stdin=follower, env=environment
    )
    os.close(follower)
    seen = b""
    while select.select([leader], [], [], 100)[0]:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the program has ended
            break
        seen += part
    os.close(leader)
    assert child.wait() == 0, seen.decode()
    return seen.decode()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_terminal_shows_a_live_line_and_then_the_summary() -> None:
    seen = plain(on_terminal(TRAIN))
    assert "━" in seen and "/160" in seen and "samples/s" in seen
    assert re.search(r"epoch 2/2 +\d+\.\d s +train/loss_epoch \S+ +val/loss \S+ +val/accuracy", seen)
    assert "finished after" in seen and "at epoch" in seen and "stored in" in seen


def test_what_the_user_prints_stays_whole_above_the_live_line() -> None:
    seen = plain(
        on_terminal("""
            import tempfile, torch
            import relume
            with relume.Run("seen", root=tempfile.mkdtemp()) as run:
                for epoch in run.epochs(2):
                    for number, batch in enumerate(run.batches([torch.ones(4)] * 50)):
                        if number % 20 == 0:
                            print(f"<said at {epoch} {number}>")
        """)
    )
    for place in ("0 0", "0 20", "0 40", "1 0", "1 20", "1 40"):
        assert f"<said at {place}>" in seen


def test_a_pipe_gets_plain_lines_each_100_batches_and_each_epoch() -> None:
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(TRAIN)], capture_output=True, text=True, check=True)
    lines = ended.stdout.splitlines()
    assert "\x1b" not in ended.stdout and ended.stderr == ""
    assert lines[0].startswith("data: in memory: 640 samples")
    assert re.fullmatch(r"epoch 1/2  batch 100/160  train/loss \S+  [\d,]+ samples/s  .* left", lines[1])
    assert sum("done in" in line for line in lines) == 2
    assert lines[-1].startswith("  stored in ")


def test_a_notebook_shows_a_table(tmp_path: Path) -> None:
    code = f"""
        import json, sys, warnings
        warnings.simplefilter("ignore")
        import nbformat
        from nbclient import NotebookClient
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell({textwrap.dedent(TRAIN)!r})])
        NotebookClient(book, timeout=100).execute()
        html = [o["data"]["text/html"] for o in book.cells[0].outputs if "text/html" in o.get("data", {{}})]
        errors = [o for o in book.cells[0].outputs if o["output_type"] in ("error", "stream")]
        print(json.dumps([html, errors]))
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert ended.returncode == 0, ended.stderr
    html, errors = json.loads(ended.stdout)
    assert errors == [] and len(html) == 1
    assert html[0].count("<tr") == 4 and ">val/accuracy</th>" in html[0] and "finished after" in html[0]


def test_the_time_left_counts_the_epochs_to_come() -> None:
    pace = Pace()
    assert pace.seconds_left() is None
    pace.start(2, 4, 10)
    pace.done, pace.started = 5, pace.started - 5.0
    assert pace.seconds_left() == pytest.approx(25.0, abs=0.1)


def test_numbers_and_durations_are_short() -> None:
    assert [number(v) for v in (0.5, 1e-9, float("nan"), 123456.0)] == ["0.5", "1e-09", "nan", "123456"]
    assert [duration(s) for s in (0, 59.94, 61, 86400)] == ["0.0 s", "59.9 s", "1:01", "24:00:00"]


def test_the_reporter_fits_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(reporter()) is Plain
    assert type(reporter(quiet=True)).__name__ == "Quiet"


def test_a_console_that_is_gone_or_knows_no_umlaut_stops_no_training() -> None:
    code = TRAIN.replace('"accuracy"', '"größe[/x]"')
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert ended.returncode == 0 and b"gr\\xf6\\xdfe" in ended.stdout, ended.stderr
    code = textwrap.dedent(code) + "\nimport sys; sys.stderr.write(result.status)"
    ended = subprocess.run(f"{sys.executable} -c '{code}' | head -n 1", shell=True, capture_output=True, check=False)
    assert ended.stderr.startswith(b"finished")
    assert "größe[/x]" in plain(on_terminal(TRAIN.replace('"accuracy"', '"größe[/x]"')))

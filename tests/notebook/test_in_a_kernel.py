"""What a person meets in a notebook, in a real kernel: tables, the stop button, the magic, TensorBoard in the cell."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from kernels import Shown, execute

SETUP = """
%load_ext relume
import os, signal, threading
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
import relume

class Numbers(Dataset):  # in the notebook itself, and read by worker processes
    def __len__(self): return 160
    def __getitem__(self, index):
        return torch.randn(4, generator=torch.Generator().manual_seed(index)), index % 3

class PressStop(relume.Callback):
    def on_step_end(self, trainer):
        if trainer.run.cursor.step == 35:
            signal.raise_signal(signal.SIGINT)

def fit(run, hidden=3, epochs=4, workers=0, **more):
    torch.manual_seed(0)
    model = nn.Linear(4, 3) if hidden == 3 else nn.Sequential(nn.Linear(4, hidden), nn.Linear(hidden, 3))
    trainer = relume.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
                             metrics={"accuracy": relume.accuracy}, device="cpu", seed=0, **more)
    loader = DataLoader(Numbers(), 8, shuffle=True, num_workers=workers)
    return trainer.fit(loader, DataLoader(Numbers(), 80), epochs=epochs, run=run)
"""

CELLS = {
    "setup": SETUP,
    "stopped": "fit('a', callbacks=[PressStop()], workers=2)",
    "again": "again = fit('a', workers=2)",
    "result": "again",
    "straight": "fit('b').last == again.last",
    "finished": "_ = fit('a')",
    "extended": "_ = fit('a', epochs=30)",
    "other model": "fit('a', hidden=5, epochs=31)",
    "threads": """
threads = [threading.Thread(target=fit, args=(name,)) for name in ("left", "right")]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "reloaded": "%load_ext autoreload\n%autoreload 2\n_ = fit('c')",
    "progress bars": "from tqdm.auto import tqdm\nfor _ in tqdm(range(2)): fit('d', epochs=1)",
    "by hand": """
with relume.Run("<b>", root="runs") as run:
    pass
""",
    "run": """
with relume.Run("hand", config={"<b>bold</b>": "<script>alert(1)</script>"}) as run:
    for step in range(50): run.log({"<i>loss</i>": 1 / (step + 1), "odd/nan": float("nan"), "odd/inf": float("inf")})
    run.note("<img src=x onerror=alert(1)>")
run
""",
    "runs": "%relume runs",
    "show": "found = %relume show hand\nfound",
    "many": "relume_runs = __import__('relume.monitor.stored', fromlist=['x']).runs()\nrelume_runs[:2]",
    "chosen": "%relume runs --where \"val/accuracy > 0 and name != 'b'\" --sort val/loss",
    "bad condition": '%relume runs --where "val/accuracy >"',
    "compared": "%relume compare a b",
    "plotted": "%relume plot a b --metric val/loss --smooth 0.5",
    "unknown": "%relume shwo a",
    "no run": "%relume show aa",
    "wrong": "%relume tensorboard --height tall",
    "quoting": '%relume show "a',
    "one": "%relume compare a",
    "help": "%relume",
    "no port": "%relume tensorboard a --port 99999",
    "no folder": "%relume tensorboard --root nowhere",
    "board": "again.tensorboard(height=333, port=0)",
    "all": "%relume tensorboard --port 0",
    "two": "%relume tensorboard a b --port 0",
    "address": """
import json, time, urllib.request
from tensorboard import manager
port = next(info.port for info in manager.get_all() if info.logdir == os.path.abspath("runs"))
for _ in range(100):
    found = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs"))
    if found: break
    time.sleep(0.1)
print(found)
""",
    "as ever": "%load_ext tensorboard\n%tensorboard --logdir runs --port 0",
    "VS Code": "__vsc_ipynb_file__ = 'x'\nagain.tensorboard(port=0)\ndel __vsc_ipynb_file__",
    "Kaggle": "os.environ['KAGGLE_KERNEL_RUN_TYPE'] = 'Interactive'\nagain.tensorboard()\ndel os.environ['KAGGLE_KERNEL_RUN_TYPE']",
    "Colab": """
import sys, types
sys.modules["google.colab"] = types.ModuleType("google.colab")
again.tensorboard(port=0)
del sys.modules["google.colab"]
""",
    "hub": """
os.environ["JUPYTERHUB_SERVICE_PREFIX"] = "/user/ada/"
again.tensorboard(port=0)
""",
    "unloaded": "%unload_ext relume\n%relume runs",
    "loaded again": "%load_ext relume\n%load_ext relume\n%relume runs",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def cells(place: Path) -> dict[str, Shown]:
    """All cells, executed one after the other by one kernel."""
    return dict(zip(CELLS, execute(list(CELLS.values()), place), strict=True))


def epochs_in(shown: Shown) -> list[int]:
    """The epochs in the table of progress."""
    return [int(number) for number in re.findall(r"<tr [^>]*><td [^>]*>(\d+)</td>", shown.html)]


def test_the_stop_button_saves_and_the_cell_run_again_goes_on(cells: dict[str, Shown]) -> None:
    assert cells["stopped"].error.startswith("KeyboardInterrupt")
    assert (
        "interrupted after" in cells["stopped"].html and "the same command goes on from here" in cells["stopped"].html
    )
    assert cells["again"].error == "" and "at epoch 2, batch 16 (step 35)" in cells["again"].text
    assert cells["straight"].outputs[-1]["data"]["text/plain"] == "True"


def test_the_table_of_a_run_that_goes_on_begins_with_the_epochs_before(cells: dict[str, Shown]) -> None:
    assert epochs_in(cells["stopped"]) == [1]
    assert epochs_in(cells["again"]) == [1, 2, 3, 4] == epochs_in(cells["finished"])
    assert "4 epochs done" in cells["finished"].text and cells["again"].html.count("<svg") == 3
    assert (
        epochs_in(cells["extended"]) == list(range(16, 31)) and "15 earlier epochs not shown" in cells["extended"].text
    )


def test_one_output_holds_the_progress_as_html_and_as_text(cells: dict[str, Shown]) -> None:
    assert cells["again"].kinds == ["display_data"]
    assert re.search(r"\n +4 +\S+ +\S+ +\S+ +\d", cells["again"].text) and "finished after" in cells["again"].text
    assert "\x1b" not in cells["again"].text


def test_a_result_is_a_table_with_curves(cells: dict[str, Shown]) -> None:
    assert cells["result"].html.count("<svg") == 4 and "val/accuracy" in cells["result"].html
    assert "4 epochs, 80 steps" in cells["result"].text and "▁" in cells["result"].text


def test_a_changed_model_is_said_with_the_names_of_its_tensors(cells: dict[str, Shown]) -> None:
    said = cells["other model"].html
    assert "4 tensors of the model keep their present values: 0.weight" in said and "resumes from a@" in said


def test_two_trainings_in_two_threads_have_a_table_each(cells: dict[str, Shown]) -> None:
    assert cells["threads"].error == "" and cells["threads"].html.count("finished after") == 2
    assert "runs/left" in cells["threads"].html and "runs/right" in cells["threads"].html


def test_autoreload_and_other_progress_bars_stand_beside_it(cells: dict[str, Shown]) -> None:
    assert cells["reloaded"].error == "" and epochs_in(cells["reloaded"]) == [1, 2, 3, 4]
    assert cells["progress bars"].error == "" and cells["progress bars"].html.count("finished after") == 2


def test_what_is_hostile_is_only_text(cells: dict[str, Shown]) -> None:
    for name in ("by hand", "run", "runs", "show", "many"):
        page = cells[name].html
        assert not re.search(
            r"<(?!/?(div|span|table|thead|tbody|tr|th|td|svg|title|circle|polyline|polygon|details|summary)\b)", page
        )
        assert "javascript:" not in page and "http" not in page
    assert cells["by hand"].error.startswith("RunNameError")
    assert "&lt;i&gt;loss&lt;/i&gt;" in cells["run"].html and "&lt;script&gt;" in cells["run"].html
    assert "nan" in cells["run"].html and "inf" in cells["run"].html and "–" in cells["run"].html


def test_the_magic_shows_runs(cells: dict[str, Shown]) -> None:
    assert all(f">{name}</span>" in cells["runs"].html for name in ("a", "b", "left", "hand"))
    assert "runs/hand" in cells["show"].text and "2 runs" not in cells["many"].text
    assert cells["many"].html.count("finished") == 2 and cells["loaded again"].html.count("finished") >= 7


def test_the_magic_chooses_compares_and_draws(cells: dict[str, Shown]) -> None:
    assert ">a</span>" in cells["chosen"].html and ">b</span>" not in cells["chosen"].html
    assert "epochs" in cells["compared"].html and "31" in cells["compared"].text
    assert [sorted(output["data"]) for output in cells["plotted"].outputs] == [["image/png", "text/plain"]]


def test_mistakes_in_the_magic_are_one_line(cells: dict[str, Shown]) -> None:
    said = {name: cells[name].text for name in CELLS}
    assert "knows no 'shwo': did you mean 'show'?" in said["unknown"] and cells["unknown"].error == ""
    assert "there is no run 'aa' in runs: did you mean 'a'" in said["no run"]
    assert (
        "argument --height: invalid int value: 'tall'" in said["wrong"]
        and "usage: %relume tensorboard" in said["wrong"]
    )
    assert "val/accuracy >" in said["bad condition"] and cells["bad condition"].error == ""
    assert "No closing quotation" in said["quoting"]
    assert "a comparison needs two runs at least" in said["one"]
    assert "%relume runs" in said["help"]
    assert "port must be a number from 0 (any free one) to 65535, not 99999" in said["no port"]
    assert "there is no folder nowhere" in said["no folder"]
    assert "not found" in said["unloaded"]


def test_tensorboard_stands_in_the_cell(cells: dict[str, Shown], place: Path) -> None:
    assert 'height="333"' in cells["board"].html and "http://localhost:" in cells["board"].html
    assert "what it has logged until now is written for it" in cells["board"].text
    assert list((place / "runs" / "a" / "tensorboard").glob("**/*tfevents*"))
    assert "<iframe" in cells["all"].html and "'a/tensorboard" in cells["address"].text
    assert "<iframe" in cells["two"].html and "b was not made with" in cells["two"].text
    assert "<iframe" in cells["as ever"].html and "ERROR" not in cells["as ever"].text


def test_each_place_is_given_what_it_can_show(cells: dict[str, Shown]) -> None:
    assert re.search(r'<iframe src="http://localhost:\d+/"', cells["VS Code"].html)
    assert "no browser can reach a server" in cells["Kaggle"].text and "<svg" in cells["Kaggle"].html
    assert any("application/javascript" in output.get("data", {}) for output in cells["Colab"].outputs)
    assert re.search(r"403.*third-party cookies.*serve_kernel_port_as_window\(\d+\)", cells["Colab"].text, re.DOTALL)
    assert "/user/ada/proxy/" in cells["hub"].html and "jupyter-server-proxy" in cells["hub"].text


def test_a_kernel_that_died_leaves_its_table_and_a_new_one_goes_on(tmp_path: Path) -> None:
    dying = """
    class Die(relume.Callback):
        def on_step_end(self, trainer):
            if trainer.run.cursor.step == 35:
                trainer.run.wait()  # for the checkpoint of the first epoch
                os.kill(os.getpid(), signal.SIGKILL)
    fit('a', callbacks=[Die()])
    """
    _, before = execute([SETUP, textwrap.dedent(dying)], tmp_path)
    assert before.error == "" and epochs_in(before) == [1] and "epoch 2/4" in before.text
    _, after = execute([SETUP, "fit('a')"], tmp_path)
    assert "resumes from a@" in after.text and epochs_in(after) == [1, 2, 3, 4] and "finished after" in after.text

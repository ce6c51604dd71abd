"""run.log: numbers and other kinds, and whatever else it is given."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import relume
from relume import RelumeWarning, Run
from relume.errors import ConfigurationError, RunError
from relume.monitor.index import columns, index
from relume.monitor.journal import read_lines
from relume.monitor.kept import media
from relume.monitor.kinds import Histogram, Image, Mesh, Text


def lines(folder: Path) -> list[dict]:
    return [line for path in sorted((folder / "journal").iterdir()) for _, line in read_lines(path) if line]


# ------------------------------------------------------------------------------------------------------------------ kinds


def test_one_call_takes_all_kinds_and_gives_them_back(tmp_path: Path) -> None:
    import pandas
    from matplotlib.figure import Figure as Drawing
    from PIL import Image as Pillow

    drawing = Drawing(figsize=(1, 1))
    drawing.subplots().plot([1, 2])
    with Run("a", root=tmp_path, quiet=True) as run:
        run.log(
            {
                "loss": 0.5,
                "photo": Image(torch.zeros(3, 4, 5)),
                "w": Histogram(torch.ones(3)),
                "fig": drawing,
                "said": "three cats",
                "pil": Pillow.new("RGB", (6, 5)),
                "several": [Pillow.new("L", (2, 2)), Pillow.new("L", (3, 3))],
                "df": pandas.DataFrame({"x": [1.0]}),
                "val": {"report": relume.ClassReport(("a", "b"), ((1, 0), (0, 1))), "mesh": Mesh(np.zeros((1, 3)))},
            },
            step=7,
        )
        assert run.last == {"loss": 0.5}
    found = {one.name: one for one in media("a", tmp_path)}
    assert {name: one.kind for name, one in found.items()} == {
        "photo": "image",
        "w": "histogram",
        "fig": "figure",
        "said": "text",
        "pil": "image",
        "several": "image",
        "df": "table",
        "val/report": "confusion_matrix",
        "val/mesh": "mesh",
    }
    assert all(one.step == 7 and one.epoch == 0 and one.time > 1e9 for one in found.values())
    assert found["photo"].read().size == (5, 4) and found["w"].read()["count"] == 3
    assert found["df"].read() == {"columns": ["x"], "rows": [[1.0]]} and found["val/report"].read().accuracy == 1.0
    assert columns(tmp_path / "a")["loss"].tolist() == [0.5]


def test_a_run_lists_what_it_has_kept_by_name_and_kind_in_the_order_of_steps(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        for step in (3, 1, 2):
            run.log({"said": f"{step}", "w": Histogram([step])}, step=step)
    assert [one.read() for one in media(run.folder, name="said")] == ["1", "2", "3"]
    assert [one.step for one in media(run.folder, kind="histogram")] == [1, 2, 3]
    assert media(run.folder, name="said", kind="image") == []
    kept = media(run.folder)[0]
    (run.folder / "metrics.db").unlink()
    assert media(run.folder)[0] == kept
    for path in (run.folder / "journal").iterdir():
        path.write_text("{}\n")
    with pytest.raises(RunError, match="holds no 'said' where it was"):
        kept.read()


def test_what_is_logged_is_as_it_was_in_the_call(tmp_path: Path) -> None:
    values = torch.zeros(100, 100)
    with Run("a", root=tmp_path, quiet=True) as run:
        for step in range(30):
            values.fill_(step)
            run.log({"w": Histogram(values)}, step=step)
    assert [one.content["min"] for one in media(run.folder)] == list(range(30))


def test_a_checkpoint_stands_behind_all_that_was_logged_and_a_dead_branch_is_not_listed(
    tmp_path: Path, model: nn.Module, loader: DataLoader
) -> None:
    def train(epochs: int, dies_in: int | None = None) -> Run:
        torch.manual_seed(0)
        own = nn.Linear(4, 3)
        optimizer = torch.optim.SGD(own.parameters(), lr=0.1)
        with Run("a", model=own, optimizer=optimizer, root=tmp_path, quiet=True, seed=1) as run:
            for epoch in run.epochs(epochs):
                for x, _y in run.batches(loader):
                    own(x).sum().backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    run.log({"w": Histogram(own.weight), "loss": 0.1})
                    if epoch == dies_in:
                        raise KeyError("died")
        return run

    with pytest.raises(KeyError):
        train(4, dies_in=2)
    assert [one.step for one in media("a", tmp_path)] == [*range(1, 10)]
    folder = train(4).folder
    assert [one.step for one in media(folder)] == [*range(1, 17)]
    assert all(
        "media" in line or "values" in line or "event" in line for line in lines(folder) if "journal" not in line
    )


def test_hyperparameters_are_kept_at_the_start_and_with_the_best_values_at_the_end(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True, config={"lr": 0.1, "model": {"width": 64}}) as run:
        for loss in (0.5, 0.2, math.nan):
            run.log({"val/loss": loss})
    first, last = (one.content for one in media(run.folder, kind="hparams"))
    assert first == {"kind": "hparams", "values": {"lr": 0.1, "model/width": 64}, "metrics": {}}
    assert last["metrics"] == {"val/loss": 0.2} and lines(run.folder)[-1]["event"] == "end"
    with Run("b", root=tmp_path, quiet=True) as run:
        run.log({"loss": 1.0})
    assert media("b", tmp_path) == []


def test_files_come_before_their_line_and_survive_a_sigkill(tmp_path: Path) -> None:
    script = f"""
        import os, signal, time
        import numpy as np, relume
        from relume.monitor.kinds import Image
        run = relume.Run("a", root={str(tmp_path)!r}, quiet=True).__enter__()
        for step in range(200):
            run.log({{"photo": Image(np.full((40, 40), step % 250, np.uint8)), "step": float(step)}}, step=step)
        while not list((run.folder / "media").rglob("*.png")):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(columns(tmp_path / "a")["step"]) == 200
    found = media("a", tmp_path)
    assert [one.step for one in found] == [*range(len(found))]
    assert all(np.asarray(one.read())[0, 0] == one.step % 250 for one in found)


# -------------------------------------------------------------------------------------------------------------- bad input


def test_nan_and_infinity_are_kept_as_such(tmp_path: Path) -> None:
    odd = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": torch.tensor(math.nan), "e": np.float32("inf")}
    with Run("a", root=tmp_path, quiet=True) as run:
        run.log({"a": 1.0})
        run.log(odd, step=1)
        assert math.isnan(run.last["a"]) and run.best["a"] == 1.0 and run.last["c"] == -math.inf
    (line,) = [line["values"] for line in lines(run.folder) if line.get("step") == 1 and "values" in line]
    assert line == {"a": "NaN", "b": "Infinity", "c": "-Infinity", "d": "NaN", "e": "Infinity"}
    table = columns(run.folder)
    assert table["b"][-1] == math.inf and table["c"][-1] == -math.inf and math.isnan(table["a"][-1])


def test_a_metric_whose_kind_changes_is_kept_as_both_and_said_once(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        for step in range(3):
            run.log({"x": float(step), "y": Histogram([step])}, step=2 * step)
            run.log({"x": "text now", "y": Image(np.zeros((2, 2)))}, step=2 * step + 1)
    notes = [line["text"] for line in lines(run.folder) if line.get("event") == "note"]
    assert len(notes) == 2 and all("each kind is kept, as a series of its own" in note for note in notes)
    assert any("'x' is logged as numbers and as a text" in note for note in notes)
    assert any("'y' was logged as a histogram and is an image now" in note for note in notes)
    assert columns(run.folder)["x"].tolist() == [0, 1, 2]
    assert [len(media(run.folder, kind=kind)) for kind in ("text", "histogram", "image")] == [3, 3, 3]


ODD = [
    "",
    " ",
    "a/b/c",
    "../../x",
    "val loss (%)",
    "ä逃🎉",
    'quote"\\',
    "tab\tline\n",
    "\x1b[31m",
    "\x00",
    "step",
    "DROP TABLE value; --",
]


def test_names_may_be_any_text(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        run.log({name: float(place) for place, name in enumerate(ODD)} | {"\ud800": 99.0})
        run.log({f"m{name}": Text(name) for name in ODD})
    table = columns(run.folder)
    assert [table["logged/step" if name == "step" else name][0] for name in ODD] == [*range(len(ODD))]
    assert table["?"].tolist() == [99.0]  # half of a surrogate pair is no text
    assert [(one.name, one.read()) for one in media(run.folder)] == [(f"m{name}", name) for name in ODD]
    for wrong in (5, None, ("a", "b"), b"x"):
        with (
            pytest.raises(ConfigurationError, match="the name of a metric must be text"),
            Run("a", root=tmp_path, quiet=True) as run,
        ):
            run.log({wrong: 1.0})


def test_ten_thousand_names_are_ten_thousand_metrics(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        run.log({f"layer/{number}": float(number) for number in range(10_000)})
        for number in range(0, 10_000, 2_500):
            run.log({f"layer/{number}": -1.0}, step=1)
    table = columns(run.folder)
    assert len(table) == 10_003 and table["layer/9999"][0] == 9999 and table["layer/2500"].tolist() == [2500, -1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 3)), r"a array of shape \(2, 3\) is no single number. .*relume.Histogram.*relume.Image"),
        (torch.zeros(2, 3), r"a tensor of shape \(2, 3\) is no single number. .*relume.Histogram.*relume.Image"),
        (torch.zeros(0), r"a tensor of shape \(0,\) is no single number"),
        ([1.0, 2.0], "a list of length 2 is no single number"),
        (None, "a NoneType is no number"),
        (1j, "a complex is no number"),
        (torch.tensor(1j), r"a complex is no number \(torch.complex64\)"),
        (torch.zeros((), device="meta"), "a tensor without a value is no number"),
        (b"text", "a bytes is no number"),
        (10**400, "the number has 401 digits"),
        (object(), "a object is no number"),
    ],
)
def test_what_cannot_be_logged_is_named_and_nothing_of_the_call_is_kept(
    tmp_path: Path, value: object, message: str
) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        with pytest.raises(ConfigurationError, match=f"cannot log 'val/wrong': {message}"):
            run.log({"good": 1.0, "said": "x", "val": {"wrong": value}})
        assert run.last == {}
    assert not [line for line in lines(run.folder) if "values" in line or "media" in line]


@pytest.mark.parametrize("step", [-1, 1.5, "3", True, 2**63, torch.tensor(3)])
def test_a_step_that_is_none_is_refused_for_all_kinds(tmp_path: Path, step: object) -> None:
    with (
        Run("a", root=tmp_path, quiet=True) as run,
        pytest.raises(ConfigurationError, match="step must be a whole number"),
    ):
        run.log({"said": "x"}, step=step)  # type: ignore[arg-type]
    assert media(run.folder) == []


def test_steps_may_go_backwards_and_the_later_of_two_values_counts(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        for step, value in ((5, 0.5), (3, 0.3), (4, 0.4), (3, 0.33)):
            run.log({"x": value}, step=step)
    table = columns(run.folder)
    assert table["step"].tolist() == [3, 4, 5] and table["x"].tolist() == [0.33, 0.4, 0.5]


def test_logging_before_and_after_a_run_is_refused(tmp_path: Path) -> None:
    run = Run("a", root=tmp_path, quiet=True)
    with pytest.raises(ConfigurationError, match=r"run 'a' is not open \(new\)"):
        run.log({"said": "x"})
    with run:
        pass
    for call in (lambda: run.log({"x": 1.0}), lambda: run.log({"said": "x"}), lambda: run.note("x")):
        with pytest.raises(ConfigurationError, match=r"run 'a' is not open \(finished\): use it inside"):
            call()
    assert lines(run.folder)[-1]["event"] == "end"


def test_two_runs_in_one_process_are_apart(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as one, Run("b", root=tmp_path, quiet=True) as other:
        for step in range(20):
            one.log({"x": 1.0, "said": "one"}, step=step)
            other.log({"x": 2.0, "said": "other"}, step=step)
    for run, number, text in ((one, 1.0, "one"), (other, 2.0, "other")):
        assert set(columns(run.folder)["x"]) == {number}
        assert [kept.read() for kept in media(run.folder)] == [text] * 20


def test_several_threads_log_at_once_and_no_line_is_lost_or_torn(tmp_path: Path, model: nn.Module) -> None:
    failures: list[BaseException] = []
    with Run("a", model=model, root=tmp_path, quiet=True) as run:

        def work(number: int) -> None:
            try:
                for step in range(200):
                    run.log({f"thread{number}/{step % 50}": float(step), "loss": float(200 * number + step)}, step=step)
                    if step % 20 == 0:
                        run.log({f"w{number}": Histogram([step])}, step=step)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            run._saved_at = None
            run.checkpoint()
        for thread in threads:
            thread.join()
    assert not failures
    assert len([line for line in lines(run.folder) if "values" in line]) == 800
    assert len(media(run.folder)) == 40 and run.best["loss"] == 0.0
    assert len(columns(run.folder)) == 3 + 4 * 50 + 1


class Logging(Dataset):
    """A dataset that logs from the worker that reads it."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __len__(self) -> int:
        return 4

    def __getitem__(self, place: int) -> str:
        for call in (lambda: self.run.log({"x": 1.0}), lambda: self.run.note("x"), lambda: self.run.log({"t": "x"})):
            try:
                call()
                return "nothing was raised"
            except ConfigurationError as error:
                said = str(error)
        return said


def test_a_forked_worker_cannot_write_into_the_journal_of_its_parent(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        run.log({"x": 0.5, "said": "before"})
        loader = DataLoader(Logging(run), batch_size=None, num_workers=1, multiprocessing_context="fork")
        said = list(loader)
        assert all(f"belongs to process {os.getpid()}, and this is a forked one" in text for text in said), said
        run.log({"x": 0.7})
    assert columns(run.folder)["x"].tolist() == [0.7] and run.status == "finished"
    assert len([line for line in lines(run.folder) if "values" in line]) == 2


def test_a_run_is_not_sent_to_a_spawned_worker(tmp_path: Path) -> None:
    with (
        Run("a", root=tmp_path, quiet=True) as run,
        pytest.raises(ConfigurationError, match="cannot be copied or sent"),
    ):
        pickle.dumps(Logging(run))


def test_what_cannot_be_written_is_one_warning_and_a_note_and_the_rest_is_kept(tmp_path: Path) -> None:
    message = "the image 'photo' of step 3 was not kept"
    with pytest.warns(RelumeWarning, match=message) as caught, Run("a", root=tmp_path, quiet=True) as run:
        (run.folder / "media").write_text("a file where the folder should be")
        run.log({"photo": Image(np.zeros((2, 2))), "said": "still here", "loss": 0.5}, step=3)
    assert len(caught) == 1
    assert [one.name for one in media(run.folder)] == ["said"] and run.status == "finished"
    (note,) = [line["text"] for line in lines(run.folder) if line.get("event") == "note"]
    assert "'photo' of step 3 was not kept" in note and "The training goes on" in note


def test_a_warning_that_is_an_error_stops_neither_the_thread_nor_the_run(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Run("a", root=tmp_path, quiet=True) as run:
            (run.folder / "media").write_text("")
            for step in range(100):
                run.log({"photo": Image(np.full((2, 2), step / 100))}, step=step)
            run.log({"said": "after"})
    assert [one.read() for one in media(run.folder)] == ["after"]


def test_empty_calls_write_nothing(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        run.log({})
        run.log({"nested": {}})
    assert [line for line in lines(run.folder) if "values" in line or "media" in line] == []


def test_hostile_lines_of_media_in_a_journal_do_no_harm(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        run.log({"x": 1.0})
    path = run.folder / "journal" / "0001.jsonl"
    hostile = [
        {"media": 5},
        {"media": {"a": 5, "b": None}},
        {
            "step": "x",
            "epoch": 2**70,
            "time": "y",
            "media": {"\ud800": {"kind": ["image"]}, "t": {"kind": "text", "text": [1]}},
        },
        {"step": 1, "media": {"p": {"kind": "image", "file": "../../../etc/passwd"}}},
    ]
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in hostile)
    found = media(run.folder)
    assert [one.name for one in found] == ["?", "t", "p"]
    for one in (found[0], found[2]):
        with pytest.raises(RunError):
            one.read()
    with index(run.folder) as connection:
        assert connection.execute("SELECT count(*) FROM media").fetchone() == (3,)


# ------------------------------------------------------------------------------------------------------------ predictions


def test_predictions_are_a_picture_a_text_and_a_table_the_worst_first(tmp_path: Path) -> None:
    scores = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.3, 0.7]])
    true = torch.tensor([0, 0, 1, 1])
    with Run("a", root=tmp_path, quiet=True) as run:
        run.log_predictions(torch.rand(4, 3, 8, 8), scores, true, ["cat", "dog"], count=3, step=5)
        run.log_predictions(torch.rand(4, 8, 8), scores.log(), true, ["cat", "dog"], name="logits")
    found = {one.name: one for one in media(run.folder, kind="table")} | {one.name: one for one in media(run.folder)}
    assert {name: one.kind for name, one in found.items() if "predictions" in name} == {
        "predictions": "image",
        "predictions/text": "text",
        "predictions/table": "table",
    }
    for name in ("predictions", "logits"):
        table = found[f"{name}/table"].read()
        assert [row[:4] for row in table["rows"]] == [
            [2, "dog", "cat", False],
            [1, "cat", "dog", False],
            [3, "dog", "dog", True],
            [0, "cat", "cat", True],
        ]
        assert [row[4] for row in table["rows"]] == pytest.approx([0.2, 0.4, 0.7, 0.9], abs=1e-6)
    text = found["predictions/text"].read()
    assert text.startswith("2 of 4 samples right, the least likely true class first\n\n|")
    assert text.splitlines()[4].split() == [
        "|",
        "WRONG",
        "|",
        "2",
        "|",
        "dog",
        "|",
        "cat",
        "|",
        "0.200",
        "|",
        "0.800",
        "|",
    ]
    assert found["predictions"].content["caption"] == text.splitlines()[0] and found["predictions"].step == 5


def test_right_and_wrong_differ_by_more_than_colour(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        for name, predicted in (("right", [1]), ("wrong", [0])):
            run.log_predictions(np.zeros((1, 8, 8)), predicted, [1], ["cat", "dog"], name=name)
    right, wrong = (
        np.asarray(media(run.folder, name=name)[0].read().convert("L")) < 200 for name in ("right", "wrong")
    )
    assert right.shape == wrong.shape and (right != wrong).sum() > 500


def test_predictions_of_texts_and_of_samples_without_a_class(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        run.log_predictions(["good | film", "bad\nfilm", "?"], [1, 1, 0], [1, 0, -100], ["bad", "good"])
    found = {one.name: one.read() for one in media(run.folder)}
    assert set(found) == {"predictions/text", "predictions/table"}
    assert [row[:4] for row in found["predictions/table"]["rows"]] == [
        [1, "bad\nfilm", "bad", "good"],
        [0, "good | film", "good", "good"],
    ]
    assert (
        "good \\| film" in found["predictions/text"]
        and "1 of 2 samples right, wrong first" in found["predictions/text"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 1, 4, 4), [0], [0, 1]), "2 samples, 1 predicted, 2 true"),
        ((torch.zeros(1, 4, 4), [0.5], [0]), "Give numbers of classes"),
        ((torch.zeros(4, 4), [0], [0]), r"images of shape \(4, 4\) are no batch"),
        ((torch.zeros(1, 1, 4, 4), [[0.5, 0.5]], [0], ["a"]), "scores of 2 classes, and 1 class_names"),
        ((torch.zeros(1, 1, 4, 4), [[0.5, 0.5]], [2]), "a true class is 2, and there are 2 classes"),
        (([], [], []), "0 samples"),
    ],
)
def test_predictions_that_do_not_belong_together_are_refused(tmp_path: Path, arguments: tuple, message: str) -> None:
    with Run("a", root=tmp_path, quiet=True) as run, pytest.raises(ConfigurationError, match=message):
        run.log_predictions(*arguments)
    with (
        Run("a", root=tmp_path, quiet=True) as run,
        pytest.raises(ConfigurationError, match="count must be from 1 to 400"),
    ):
        run.log_predictions(torch.zeros(1, 1, 4, 4), [0], [0], count=0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_no_kind_waits_for_the_device(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        images, scores = torch.rand(4, 3, 8, 8).cuda(), torch.rand(4, 2).cuda()
        true, loss = torch.tensor([0, 1, 0, 1]).cuda(), torch.ones((), device="cuda")
        run.log({"warm": Image(images)})
        run._media.settle(run)
        torch.cuda.synchronize()
        torch.cuda._sleep(1_000_000_000)
        busy = torch.cuda.Event()
        busy.record()
        run.log({"photo": Image(images), "w": Histogram(scores), "val": {"loss": loss}})
        run.log_predictions(images, scores, true)
        assert not busy.query(), "a call has waited for the device"
    assert {"photo", "w", "predictions"} <= {one.name for one in media(run.folder)} and run.last["val/loss"] == 1.0

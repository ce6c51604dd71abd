"""Event files written by torch and by tensorboard itself become runs; hostile and damaged ones are errors that say why."""

from __future__ import annotations

import math
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorboard")

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch.utils.tensorboard import SummaryWriter

from relume.errors import RelumeWarning, RunError, RunNameError
from relume.monitor.journal import live_lines
from relume.recorded import compare, facts_of, history
from relume.recorded.imports import import_tensorboard


def record(event: Event) -> bytes:
    data = event.SerializeToString()
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", masked_crc32c(head)) + data + struct.pack("<I", masked_crc32c(data))


def scalar(step: int, value: float, tag: str = "loss") -> bytes:
    return record(
        Event(step=step, wall_time=1e9 + step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))
    )


def write_logs(folder: Path) -> None:
    with SummaryWriter(folder) as writer:
        for step in range(20):
            writer.add_scalar("train/loss", 1 / (step + 1), step, walltime=1e9 + step)
        writer.add_scalar("bad", math.nan, 3)
        writer.add_scalar("new style", 0.5, 4, new_style=True)
        writer.add_histogram("weights", np.array([0.0, 1.0, 1.0, 5.0]), 2)
        writer.add_image("picture", np.zeros((3, 4, 6), np.float32), 7)
        writer.add_text("words", "hello\n**world**", 8)
        writer.add_pr_curve("curve", np.array([0, 1]), np.array([0.1, 0.9]), 9)


def media(folder: Path) -> dict[str, dict]:
    return {name: {"step": line["step"], **content} for line in live_lines(folder) for name, content in line.get("media", {}).items()}  # fmt: skip


def test_all_kinds_come_in_with_their_steps_and_times(tmp_path: Path) -> None:
    write_logs(tmp_path / "logs" / "exp 1")
    (found,) = import_tensorboard(tmp_path / "logs" / "exp 1", tmp_path / "runs")
    assert found.name == "exp 1" and found.is_new and found.values == 22
    assert found.media == {"histogram": 1, "image": 1, "text": 1} and found.skipped == {"pr_curves": 1}
    table = history("exp 1", root=tmp_path / "runs")
    assert table["train/loss"][:3].tolist() == [1.0, 0.5, float(np.float32(1 / 3))]
    assert table["step"][-3:].tolist() == [17, 18, 19] and table["time"][-1] == 1e9 + 19 and math.isnan(table["bad"][3])
    assert table["new style"][4] == 0.5
    kept = media(found.folder)
    assert kept["words"]["text"] == "hello\n**world**" and kept["words"]["step"] == 8
    picture = kept["picture"]
    assert (picture["width"], picture["height"]) == (6, 4) and (found.folder / picture["file"]).read_bytes()[
        :4
    ] == b"\x89PNG"
    histogram = kept["weights"]
    assert (
        len(histogram["edges"]) == len(histogram["counts"]) + 1 and sum(histogram["counts"]) == histogram["count"] == 4
    )
    assert (histogram["min"], histogram["max"], histogram["sum"], histogram["sum_squares"]) == (0.0, 5.0, 7.0, 27.0)
    facts = facts_of(found.folder)
    assert facts["status"] == "finished" and facts["created"] == 1e9 and "imported from" in facts["reason"]


def test_a_second_import_names_the_run_that_is_there(tmp_path: Path) -> None:
    write_logs(tmp_path / "logs")
    import_tensorboard(tmp_path / "logs", tmp_path / "runs", "mine")
    (again,) = import_tensorboard(tmp_path / "logs", tmp_path / "runs")
    assert (again.name, again.is_new) == ("mine", False)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["mine"]


def test_each_folder_is_a_run_and_hyperparameters_are_its_config(tmp_path: Path) -> None:
    for lr in (0.1, 0.01):
        with SummaryWriter(tmp_path / "sweep" / f"lr={lr}") as writer:
            writer.add_hparams({"lr": lr, "model": "small", "amp": True}, {"accuracy": 1 - lr}, run_name=".")
    found = import_tensorboard(tmp_path / "sweep", tmp_path / "runs")
    assert [entry.name for entry in found] == ["sweep-lr=0.01", "sweep-lr=0.1"]
    compared = compare(*(entry.folder for entry in found))
    assert {d.name: d.values for d in compared.config}["lr"] == (0.01, 0.1)
    assert next(m for m in compared.metrics if m.name == "accuracy").winner == 0


def test_what_a_resume_purged_does_not_count(tmp_path: Path) -> None:
    for purge, steps in ((None, range(6)), (4, range(4, 8))):
        with SummaryWriter(tmp_path / "logs", purge_step=purge, filename_suffix=f".{purge}") as writer:
            for step in steps:
                writer.add_scalar("loss", step + (100 if purge else 0), step)
    (found,) = import_tensorboard(tmp_path / "logs", tmp_path / "runs")
    assert history(found.folder)["loss"].tolist() == [0, 1, 2, 3, 104, 105, 106, 107] and found.values == 8


@pytest.mark.parametrize("harm", ["cut", "flipped", "huge"])
def test_what_stands_before_a_damage_is_imported_and_the_damage_said(tmp_path: Path, harm: str) -> None:
    data = b"".join(scalar(step, step) for step in range(10))
    head = struct.pack("<Q", 2**62)
    data = {
        "cut": data[:-3],
        "flipped": data[:-6] + bytes([data[-6] ^ 1]) + data[-5:],
        "huge": data[: -len(scalar(9, 9))] + head + struct.pack("<I", masked_crc32c(head)) + b"x" * 40,
    }[harm]
    (tmp_path / "events.out.tfevents.1").write_bytes(data)
    with pytest.warns(RelumeWarning, match=r"what stands before it was imported \(9 events\)"):
        (found,) = import_tensorboard(tmp_path, tmp_path / "runs", "cut")
    assert history(found.folder)["step"].tolist() == list(range(9))
    assert any("what stands before it" in line.get("text", "") for line in live_lines(found.folder))


@pytest.mark.parametrize(
    "data", [b"", b"no events at all, but text", b"\0" * 100, record(Event(file_version="brain.Event:2"))]
)
def test_a_file_without_anything_is_an_error_and_leaves_no_run(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "events.out.tfevents.1").write_bytes(data)
    with pytest.raises(RunError, match=r"cannot be read|nothing in the event files .* can be kept"):
        import_tensorboard(tmp_path / "logs", tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*")) and not list((tmp_path / "runs").glob(".*"))


def test_hostile_values_are_left_out_and_counted(tmp_path: Path) -> None:
    value = Summary.Value(tag="bomb")
    value.metadata.plugin_data.plugin_name = "scalars"
    value.tensor.dtype = 1
    value.tensor.tensor_shape.dim.add(size=10**12)
    value.tensor.float_val.append(1.0)
    histogram = Summary.Value(tag="backwards")
    histogram.histo.min, histogram.histo.max, histogram.histo.num = 5.0, -5.0, 1
    histogram.histo.bucket_limit.append(1.0)
    histogram.histo.bucket.append(1.0)
    image = Summary.Value(tag="image")
    image.image.encoded_image_string = b"<svg onload=alert(1)>"
    events = [record(Event(step=1, wall_time=math.inf, summary=Summary(value=[v]))) for v in (value, histogram, image)]
    name = "\x1b[31m" + "x" * 3000 + "/../../etc"
    (tmp_path / "events.out.tfevents.1").write_bytes(b"".join(events) + scalar(2**62, 1.0, name) + scalar(-5, 2.0, ""))
    (found,) = import_tensorboard(tmp_path, tmp_path / "runs", "hostile")
    assert found.skipped == {"damaged scalars": 1, "damaged histograms": 1, "images that are no PNG": 1}
    assert history(found.folder)["step"].tolist() == [-5, 2**62] and name in history(found.folder)


def test_wrong_folders_and_names_are_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no event files of TensorBoard in .*nowhere"):
        import_tensorboard(tmp_path / "nowhere", tmp_path / "runs")
    write_logs(tmp_path / "logs")
    with pytest.raises(RunNameError, match="'a/b' cannot be the name of a run"):
        import_tensorboard(tmp_path / "logs", tmp_path / "runs", "a/b")


def test_of_several_runs_one_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    for name in ("a", "c"):
        write_logs(tmp_path / "logs" / name)
    bad = tmp_path / "logs" / "b" / "events.out.tfevents.1.x"
    bad.parent.mkdir()
    bad.write_bytes(b"no event file at all")
    with pytest.warns(RelumeWarning, match=r"Left out: .*b/events.out.tfevents.1.x cannot be read"):
        found = import_tensorboard(tmp_path / "logs", tmp_path / "runs")
    assert [one.name for one in found] == ["logs-a", "logs-c"]
    with pytest.warns(RelumeWarning, match="Left out"):
        again = import_tensorboard(tmp_path / "logs", tmp_path / "runs")
    assert [one.is_new for one in again] == [False, False]


def test_what_a_killed_import_has_left_is_swept_and_one_that_goes_on_is_not(tmp_path: Path) -> None:
    write_logs(tmp_path / "logs")
    for name, age in (("old", 7200), ("new", 10)):
        journal = tmp_path / "runs" / f".importing-{name}" / "journal" / "0001.jsonl"
        journal.parent.mkdir(parents=True)
        journal.write_text("{}")
        os.utime(journal, (time.time() - age,) * 2)
    import_tensorboard(tmp_path / "logs", tmp_path / "runs")
    assert [p.name for p in (tmp_path / "runs").glob(".importing-*")] == [".importing-new"]

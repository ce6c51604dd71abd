"""What TensorBoard's own readers find in the files: each kind with its values, steps and times, before and after a resume."""

from __future__ import annotations

import builtins
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.util import tensor_util
from tests.trackers.kinds_logged import COLORS, CURVE, FACES, VERTICES, log_media, media, png, serving
from tests.trackers.kits import board_numbers
from tests.trackers.recording import begin, deliver, end, log, segment

from relume.errors import MissingPackageError
from relume.trackers.rebuilding import trackers_of
from relume.trackers.tensorboard import TensorBoard
from relume.trackers.tensorboard.events import event_files

ALL = {"scalars": 0, "images": 0, "histograms": 0, "tensors": 0, "compressedHistograms": 0, "audio": 0}


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard"), size_guidance=ALL).Reload()


def tensor(reader: EventAccumulator, tag: str, place: int = 0) -> np.ndarray[Any, Any]:
    return tensor_util.make_ndarray(reader.Tensors(tag)[place].tensor_proto)


def text(reader: EventAccumulator, tag: str) -> str:
    return bytes(tensor(reader, tag)[0]).decode()


def run_with_all_kinds(folder: Path, steps: tuple[int, ...] = (3,)) -> Path:
    begin(folder, config={"lr": 0.1, "net": {"width": 64, "bias": True}, "names": ["a", "b"], "none": None})
    with segment(folder) as journal:
        journal.write({"event": "note", "text": "*begun*", "step": 0, "epoch": 0, "time": 1.7e9})
        for step in steps:
            log(journal, range(step, step + 1))
            log_media(journal, folder, step)
            journal.write({"event": "epoch_end", "step": step, "epoch": step + 1, "time": 1.7e9})
        end(journal)
    return folder


def test_every_kind_is_found_with_its_values_and_steps(tmp_path: Path) -> None:
    folder = run_with_all_kinds(tmp_path / "run")
    assert deliver(folder, TensorBoard()).left_out == 0
    reader = read(folder)
    assert [(e.step, e.value) for e in reader.Scalars("loss")] == [(3, 0.25)]
    assert [(e.step, e.value) for e in reader.Scalars("epoch")] == [(3, 4.0)]
    (picture,) = reader.Images("pictures/one")
    assert (picture.step, picture.wall_time, picture.width, picture.height) == (3, 1.7e9 + 3, 4, 3)
    assert picture.encoded_image_string == png(4, 3, 3)
    assert reader.Images("plot")[0].encoded_image_string == png(6, 5, 3)
    (held,) = reader.Histograms("weights")
    value = held.histogram_value
    assert (held.step, value.min, value.max, value.num, value.sum, value.sum_squares) == (3, 0.25, 2.5, 6, 5.0, 7.5)
    assert (list(value.bucket_limit), list(value.bucket)) == ([1.0, 2.0, 3.0], [4.0, 0.0, 2.0])
    assert text(reader, "said") == "**step** 3 | ü"
    assert text(reader, "long") == "from a file 3"
    assert text(reader, "notes") == "*begun*"
    assert text(reader, "rows") == "| a | b\\|c |\n| --- | --- |\n| 1 | x y |\n| 3 | None |"
    assert "| cat | 8 | 2 |" in text(reader, "confusion")
    assert (reader.Images("large")[0].width, reader.Images("large")[0].height) == (40, 40)
    assert np.array_equal(tensor(reader, "body_VERTEX")[0], VERTICES + 3)
    assert np.array_equal(tensor(reader, "body_COLOR")[0], COLORS)
    assert np.array_equal(tensor(reader, "body_FACE")[0], FACES)
    for tag in ("curve", "curves/cat", "curves/dog"):
        expected = [CURVE[name] for name in ("tp", "fp", "tn", "fn", "precision", "recall")]
        assert np.allclose(tensor(reader, tag), expected)
    nodes = {node.name: node for node in reader.Graph().node}
    assert nodes["net/linear"].op == "Linear" and list(nodes["net/linear"].input) == ["input"]
    assert [d.size for d in nodes["net/linear"].attr["_output_shapes"].list.shape[0].dim] == [1, 4]
    plugins = reader.summary_metadata
    assert plugins["body_VERTEX"].plugin_data.plugin_name == "mesh"
    assert plugins["curve"].plugin_data.plugin_name == "pr_curves"


def test_the_hparams_plugin_finds_settings_and_status(tmp_path: Path) -> None:
    folder = run_with_all_kinds(tmp_path / "run")
    deliver(folder, TensorBoard())
    content = read(folder).PluginTagToContent("hparams")[hparams_metadata.SESSION_START_INFO_TAG]
    held = hparams_metadata.parse_session_start_info_plugin_data(content).hparams
    assert held["lr"].number_value == 0.1 and held["net/width"].number_value == 64
    assert held["net/bias"].bool_value is True and held["names"].string_value == '["a", "b"]'
    assert "none" not in held


def test_logged_hyperparameters_add_to_the_configuration(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run", config={"lr": 0.1})
    with segment(folder) as journal:
        log(journal, range(3))
        content = {"kind": "hparams", "values": {"width": 8}, "metrics": {"best/accuracy": 0.5}}
        journal.write({"step": 3, "epoch": 1, "time": 1.7e9, "media": {"hparams": content}})
        log(journal, range(3, 5))
        end(journal)
    assert deliver(folder, TensorBoard()).left_out == 0
    reader = read(folder)
    start = reader.PluginTagToContent("hparams")[hparams_metadata.SESSION_START_INFO_TAG]
    held = hparams_metadata.parse_session_start_info_plugin_data(start).hparams
    assert (held["lr"].number_value, held["width"].number_value) == (0.1, 8)
    assert [e.value for e in reader.Scalars("best/accuracy")] == [0.5]
    assert [e.step for e in reader.Scalars("loss")] == list(range(5))


def test_results_beside_hyperparameters_add_no_point_to_the_curves(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run", config={"lr": 0.1})
    with segment(folder) as journal:
        log(journal, range(3))
        content = {"kind": "hparams", "values": {"lr": 0.1}, "metrics": {"loss": 0.25, "accuracy": 0.5}}
        journal.write({"step": 2, "epoch": 1, "time": 1.0, "media": {"hparams": content}})
        end(journal)
    deliver(folder, TensorBoard())
    found = board_numbers(folder)
    assert [step for step, _ in found["loss"]] == [0, 1, 2] and found["loss"][-1][1] == pytest.approx(1 / 3)
    assert found["hparams/loss"] == [(2, 0.25)] and found["accuracy"] == [(2, 0.5)]


def test_a_resume_purges_every_kind(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run", config={"lr": 0.1})
    with segment(folder) as journal:
        for step in range(4):
            log_media(journal, folder, step)
            log(journal, range(step, step + 1))
            if step == 1:
                position = journal.position_bytes
        only_dead = {"only dead": {"kind": "text", "text": "of a branch that is gone"}}
        journal.write({"step": 3, "epoch": 1, "time": 1.0, "media": only_dead})
    deliver(folder, TensorBoard())
    assert [e.step for e in read(folder).Histograms("weights")] == [0, 1, 2, 3]
    with segment(folder, resumed=(1, position, 1)) as journal:
        log_media(journal, folder, 2)
        log(journal, range(2, 3))
    deliver(folder, TensorBoard())
    reader = read(folder)
    assert [e.step for e in reader.Scalars("loss")] == [0, 1, 2]
    assert [e.step for e in reader.Histograms("weights")] == [0, 1, 2]
    for tag in ("pictures/one", "plot", "large"):
        assert [e.step for e in reader.Images(tag)] == [0, 1, 2]
    for tag in ("said", "long", "body_VERTEX", "body_FACE", "body_COLOR", "rows", "curve", "curves/dog", "confusion"):
        assert [e.step for e in reader.Tensors(tag)] == [0, 1, 2], tag
    assert "only dead" not in reader.Tags()["tensors"]


def test_a_server_that_runs_all_the_while_forgets_too_and_answers_for_every_kind(tmp_path: Path) -> None:
    """One server for the two: it read the dead branch, then the resume; all plugins are asked over HTTP."""
    root = tmp_path / "runs"
    folder = begin(root / "run", config={"lr": 0.1})
    with segment(folder) as journal:
        for step in range(4):
            log_media(journal, folder, step)
            log(journal, range(step, step + 1))
            if step == 1:
                position = journal.position_bytes
    deliver(folder, TensorBoard())
    name = "run/tensorboard"
    with serving(root, tmp_path / "server.log") as server:
        at = {"run": name}

        def steps_of(plugin: str, tag: str) -> list[int]:
            found = server.ask(f"plugin/{plugin}", **at, tag=tag)
            return [e["step"] if isinstance(e, dict) else e[1] for e in found]

        until(lambda: steps_of("scalars/scalars", "loss") == [0, 1, 2, 3])
        with segment(folder, resumed=(1, position, 1)) as journal:
            log_media(journal, folder, 2)
            log(journal, range(2, 3))
            end(journal)
        deliver(folder, TensorBoard())
        until(lambda: steps_of("scalars/scalars", "loss") == [0, 1, 2])
        assert steps_of("images/images", "pictures/one") == [0, 1, 2]
        assert steps_of("histograms/histograms", "weights") == [0, 1, 2]
        assert steps_of("text/text", "said") == [0, 1, 2]
        assert "<strong>step</strong> 2" in server.ask("plugin/text/text", **at, tag="said")[-1]["text"]
        curves = server.ask("plugin/pr_curves/pr_curves", tag="curve", run=name)[name]
        positives = [(curve["step"], curve["true_positives"]) for curve in curves]
        assert positives == [
            (step, CURVE["tp"][:2]) for step in (0, 1, 2)
        ]  # it leaves out thresholds that nothing reaches
        meshes = server.ask("plugin/mesh/meshes", **at, tag="body")
        assert sorted({m["step"] for m in meshes}) == [0, 1, 2] and len(meshes) == 9
        vertices = server.get("plugin/mesh/data", **at, tag="body", content_type="VERTEX", sample="0", step="2")
        assert np.array_equal(np.frombuffer(vertices, np.float32).reshape(-1, 3), VERTICES + 2)
        assert 'name: "net/linear"' in server.get("plugin/graphs/graph", **at).decode()
        shown = server.ask("plugin/images/images", **at, tag="pictures/one")[-1]
        assert server.get(f"plugin/images/individualImage?{shown['query']}") == png(4, 3, 2)
    with serving(root, tmp_path / "server2.log") as server:  # the HParams tab takes each session once
        columns = {"allowedStatuses": ["STATUS_SUCCESS"], "colParams": [], "startIndex": 0, "sliceSize": 10}
        until(lambda: bool(server.post("plugin/hparams/session_groups", columns).get("sessionGroups")))
        (group,) = server.post("plugin/hparams/session_groups", columns)["sessionGroups"]
        assert group["hparams"] == {"lr": 0.1}
        assert group["sessions"][0]["status"] == "STATUS_SUCCESS" and group["sessions"][0]["name"] == name


def until(holds: Any) -> None:
    """Wait for what a server that rereads its files each second comes to show."""
    import time
    import urllib.error

    for _ in range(300):
        try:
            if holds():
                return
        except urllib.error.HTTPError:
            pass
        time.sleep(0.1)
    assert holds()


def test_a_name_of_two_kinds_is_shown_as_two(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run")
    with segment(folder) as journal:
        log(journal, range(2))
        log_as_text = {"loss": {"kind": "text", "text": "a text now"}}
        journal.write({"step": 2, "epoch": 1, "time": 1.0, "media": log_as_text})
        position = journal.position_bytes
    deliver(folder, TensorBoard())
    with segment(folder, resumed=(1, position, 2)) as journal:  # and so behind a restart
        journal.write({"step": 3, "epoch": 1, "time": 1.0, "media": log_as_text})
        end(journal)
    deliver(folder, TensorBoard())
    reader = read(folder)
    assert [e.step for e in reader.Tensors("loss (text)")] == [2, 3]
    assert "loss" not in reader.Tags()["tensors"]


def test_media_whose_file_is_gone_or_no_picture_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run")
    wrong = {
        "lost": {"kind": "figure", "file": "media/ab/nowhere.png"},
        "text": {"kind": "image", "file": keep_text(folder)},
        "curve": {"kind": "pr_curve"},
        "bars": {"kind": "histogram", "edges": [0.0], "counts": [1, 2]},
    }
    with segment(folder) as journal:
        log(journal, range(2))
        for name, content in wrong.items():
            journal.write({"step": 2, "epoch": 1, "time": 1.0, "media": {name: content}})
        log(journal, range(2, 4))
        end(journal)
    state = deliver(folder, TensorBoard(), lambda seconds: False)
    assert (state.stage, state.left_out) == ("done", 4)
    assert [e.step for e in read(folder).Scalars("loss")] == [0, 1, 2, 3]


def keep_text(folder: Path) -> str:
    place = folder / "media" / "a.png"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("no picture")
    return "media/a.png"


def test_the_files_of_other_kinds_of_run_below_a_root_are_told_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = begin(tmp_path / name)
        with segment(folder) as journal:
            log(journal, range(2))
            end(journal)
        deliver(folder, TensorBoard(folder=str(tmp_path / "board")))
    assert len(event_files(tmp_path / "board" / "one")) == len(event_files(tmp_path / "board" / "two")) == 1


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "tensorboard" else real(name, *rest)
    )
    with pytest.raises(MissingPackageError, match=r'pip install "relume\[tensorboard\]"'):
        trackers_of("tensorboard")


def test_torch_is_not_needed(tmp_path: Path) -> None:
    import subprocess

    folder = run_with_all_kinds(tmp_path / "run")
    script = (
        "import sys; sys.modules['torch'] = None; sys.modules['tensorflow'] = None\n"
        "from pathlib import Path\n"
        "from relume.trackers.sync import sync\n"
        f"print(sync(Path({str(folder)!r}), ['tensorboard'])[0].is_complete)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr
    assert builtins.len(media(folder, 1)) == 12

"""Runs side by side: what differs is shown, as tables, as curves in the terminal and as pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from recorded_runs import make_resumed_run, make_run

from relume.errors import ConfigurationError, StorageError, UnknownNameError
from relume.provenance.record import Code, Provenance, Segment, SourceTree
from relume.recorded import compare, plot
from relume.recorded.chart import Curve, draw, legend
from relume.recorded.comparing import charts
from relume.recorded.plotting import smoothed


def test_only_what_differs_is_shown(tmp_path: Path) -> None:
    a, b = make_run(tmp_path, "a", 0.1), make_run(tmp_path, "b", 0.01, model="large")
    for folder, commit in ((a, "aaa"), (b, "bbb")):  # what the capture finds here differs from machine to machine
        tree = SourceTree(path="/anywhere", is_git=True, commit=commit, branch="main")
        start = Segment(segment=1, started=0.0, packages={"torch": "2.14"}, code=Code(trees=[tree]))
        Provenance(run=folder.name, id=folder.name, segments=[start]).save(folder)
    found = compare("a", "b", root=tmp_path)
    assert {d.name: d.values for d in found.config if d.differs}["optimizer.lr"] == (0.1, 0.01)
    assert {d.name for d in found.config} == {"seed", "optimizer.lr", "model", "epochs"}
    assert [d.name for d in found.code if d.differs] == ["code.commit"]
    assert not any(d.differs for d in found.environment) and "packages.torch" in {d.name for d in found.environment}
    metric = next(m for m in found.metrics if m.name == "val/accuracy")
    assert metric.winner == 0 and metric.best == metric.last and metric.best_step == (59, 59)
    text = str(found)
    assert "optimizer.lr" in text and "epochs" not in text and "bbb" in text and "main" not in text and "*" in text
    assert "epochs" in found._repr_html_() or "optimizer.lr" in found._repr_html_()
    assert json.loads(json.dumps(found.as_json(everything=False)))["code"] == [
        {"name": "code.commit", "values": ["aaa", "bbb"], "differs": True}
    ]


def test_a_damaged_provenance_and_missing_metrics_hide_nothing(tmp_path: Path) -> None:
    a, b = make_run(tmp_path, "a", 0.1), make_run(tmp_path, "b", 0.1, steps=0)
    (a / "provenance.json").write_text("[" * 100_000)
    (b / "provenance.json").write_text('"text"')
    found = compare(a, b)
    assert found.metrics[0].best[1] is None and found.metrics[0].winner is None and "—" in str(found)


def test_code_and_environment_are_those_that_runs_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RELUME_PROVENANCE", raising=False)
    folders = [make_run(tmp_path, name, 0.1) for name in ("a", "b")]
    found = compare(*folders)
    names = {difference.name for difference in (*found.code, *found.environment)}
    assert {"argv", "machine.python", "packages.torch", "numerics.deterministic"} <= names
    assert not {"run", "id", "segments"} & names
    assert not any(d.differs for d in (*found.code, *found.environment))


def test_a_comparison_of_one_or_of_the_same_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path, "a", 0.1)
    with pytest.raises(ConfigurationError, match="needs two runs at least, not 1"):
        compare("a", root=tmp_path)
    with pytest.raises(ConfigurationError, match="named twice"):
        compare("a", tmp_path / "a", root=tmp_path)
    with pytest.raises(UnknownNameError, match="no run 'aa'"):
        compare("a", "aa", root=tmp_path)


@pytest.mark.parametrize("width", [20, 80, 140])
def test_curves_fit_the_terminal_and_carry_their_letters(tmp_path: Path, width: int) -> None:
    folders = [make_run(tmp_path, name, lr) for name, lr in (("a", 0.1), ("b", 0.01))]
    lines = [line.plain for line in charts(folders, ["val/*"], width)]
    assert all(len(line) <= max(width, 40) for line in lines)
    assert sum("A" in line for line in lines) > 2 and sum("B" in line for line in lines) > 2
    assert lines[0] == "val/accuracy" and lines[-1].split() == ["A", "a", "B", "b"]


def test_a_spike_of_one_point_is_seen_in_a_chart() -> None:
    x = np.arange(200.0)
    high = np.zeros(200)
    high[77] = 9.0
    lines = [line.plain for line in draw("a", [Curve(x, np.zeros(200), high, np.zeros(200))], 80, 8)]
    assert all(line.split("│")[-1].split("┤")[-1].strip() for line in lines[1:9])


@pytest.mark.parametrize(
    "values", [[1.0], [2.0, 2.0], [math.nan, 1.0, math.nan], [math.inf, 1.0, -math.inf], [1e308, -1e308], []]
)
def test_odd_curves_are_drawn(values: list[float]) -> None:
    y = np.array(values)
    lines = draw("\x1b[31mname", [None, Curve(np.arange(float(len(y))), y, y, y)] if values else [None], 60, 6)
    assert all(len(line.plain) <= 60 and "\x1b" not in line.plain for line in lines)


# ----------------------------------------------------------------------------------------------------------------- pictures


def test_pictures_are_written_and_the_same_runs_give_the_same_svg(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    make_run(tmp_path, "a", 0.1), make_run(tmp_path, "b", 0.01)
    figure = plot("a", "b", metrics="val/*", smooth=0.9, log=True, out=tmp_path / "c.png", root=tmp_path)
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG") and [
        ax.get_title(loc="left") for ax in figure.axes
    ] == ["val/accuracy", "val/loss"]
    assert [len(ax.lines) for ax in figure.axes] == [4, 4]  # raw and smoothed of each
    texts = []
    for name in ("c.svg", "d.svg"):
        plot("a", "b", out=tmp_path / name, root=tmp_path)
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1] and "<svg" in texts[0]


def test_resumes_and_dead_branches_are_in_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = make_resumed_run(tmp_path)
    (axes,) = plot(folder, metrics="loss").axes
    assert len(axes.lines) == 2 and list(axes.lines[1].get_xdata()) == [10, 10]
    (axes,) = plot(folder, metrics="loss", branches=True, x="time").axes
    assert len(axes.lines) == 3 and list(axes.lines[0].get_ydata()) == [20.0, 21.0, 22.0]
    assert "since the run began" in axes.get_xlabel()


def test_a_picture_of_hostile_names_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    import relume

    with relume.Run(name="_under", root=tmp_path) as run:
        run.log({r"$\frac{$": 1.0, "_x": math.nan, "\x1b[1m": math.inf, "-": -1.0})
    plot(run.folder, log=True, out=tmp_path / "c.png")


def test_wrong_arguments_of_a_picture_are_named(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    make_run(tmp_path, "a", 0.1), make_run(tmp_path, "empty", 0.1, steps=0)
    (tmp_path / "file").write_text("")
    for arguments, message in (
        ({"smooth": 1.0}, "smooth=1.0 makes no sense"),
        ({"x": "hours"}, "'hours' is no axis"),
        ({"out": "a.gif"}, "'a.gif' is no picture"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            plot("a", root=tmp_path, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="there is no run to draw"):
        plot(root=tmp_path)
    with pytest.raises(ConfigurationError, match="no numbers were logged in empty"):
        plot("empty", root=tmp_path)
    with pytest.raises(StorageError, match="cannot be written"):
        plot("a", root=tmp_path, out=tmp_path / "file" / "a.png")


def test_smoothing_passes_over_what_is_not_finite() -> None:
    found = smoothed(np.array([1.0, math.nan, 1.0, math.inf, 1.0]), 0.9)
    assert np.allclose(found[[0, 2, 4]], 1.0) and math.isnan(found[1]) and found[3] == math.inf


def test_a_legend_breaks_its_lines_and_names_every_run() -> None:
    names = [f"a-run-with-a-long-name-{number}" for number in range(7)]
    lines = legend(names, 80).plain.splitlines()
    assert max(map(len, lines)) <= 80
    assert [part.split(" ", 1)[1] for line in lines for part in line.split("   ")] == names

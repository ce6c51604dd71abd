"""What is extreme is shown as what it is and hides nothing else: spikes, dates far away, numbers of other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_runs import make_run

import relume
from relume.monitor.journal import encode, values_line
from relume.recorded import choose, facts_below, history
from relume.recorded.imports.writing import Importing


def test_a_spike_of_one_step_is_seen_in_the_picture(tmp_path: Path) -> None:
    agg = pytest.importorskip("matplotlib.backends.backend_agg")
    folder = make_run(tmp_path, "spiky", 0.1, steps=1)
    values = np.ones(20_000)
    values[7000] = 500.0
    lines = [values_line(step, 0, 1e9 + step, {"spike": value}) for step, value in enumerate(values.tolist())]
    header = encode({"journal": 1, "run": "spiky", "segment": 1, "resumed": None})
    (folder / "journal" / "0001.jsonl").write_bytes(header + b"".join(lines))
    figure = relume.plot(folder, metrics="spike")
    canvas = agg.FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    x, y = (round(float(v)) for v in figure.axes[0].transData.transform((7000, 350)))
    around = pixels[pixels.shape[0] - 1 - y, x - 4 : x + 5]
    assert around.min(axis=0)[0] < 160  # red, of a blue line on white


@pytest.mark.parametrize("created", [1e300, -1e300, 253402300800.0, -1e12])
def test_a_date_that_no_calendar_has_hides_no_run(tmp_path: Path, created: float) -> None:
    from typer.testing import CliRunner

    from relume.cli.app import app

    make_run(tmp_path, "good", 0.1)
    path = make_run(tmp_path, "odd", 0.1) / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"created": created}))
    found = choose(facts_below(tmp_path), 'created > "2020-01-01"')
    assert [facts["name"] for facts in found] == ["good"]
    for arguments in (["runs"], ["runs", "--sort", "created"], ["runs", "--csv"], ["show", "odd"]):
        shown = CliRunner().invoke(app, [*arguments, "--root", str(tmp_path)])
        assert shown.exit_code == 0 and "odd" in shown.output, shown.output


@pytest.mark.parametrize("moment", [1e300, -1e300, 1e17])
def test_an_import_takes_no_time_that_no_calendar_has(tmp_path: Path, moment: float) -> None:
    with Importing(tmp_path, "far", "there", "test", "key") as run:
        run.add_values(1, moment, {"a": 1.0})
        run.add_values(2, 1e9, {"a": 2.0})
        found = run.finish()
    (facts,) = facts_below(tmp_path)
    assert facts["created"] == 1e9 and history(found.folder)["time"].tolist() == [0.0, 1e9]


def items_of(history_record: Any, values: dict[str, str]) -> Any:
    for key, text in values.items():
        item = history_record.item.add()
        item.key, item.value_json = key, text
    return history_record


def test_truth_values_and_endless_numbers_of_wandb_lose_no_other_number(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    from relume.recorded.imports.wandb import _Reading

    protocol: Any = wandb_internal_pb2
    endless = "9" * 400
    packed = f'{{"_type": "histogram", "values": [1], "packedBins": {{"min": {endless}, "size": 1}}}}'
    edges = f'{{"_type": "histogram", "values": [1], "bins": [0, {endless}]}}'
    rows = [
        {"_step": "1", "is_done": "true", "loss": "0.5", "endless": endless, "packed": packed, "edges": edges},
        {"_step": endless, "loss": "0.25"},
    ]
    with Importing(tmp_path, "odd", "there", "test", "key") as run:
        reading = _Reading(tmp_path / "run-x.wandb", run)
        for row in rows:
            reading._history(items_of(protocol.HistoryRecord(), row))
        found = run.finish()
    table = history(found.folder)
    assert sorted(table["loss"].tolist()) == [0.25, 0.5] and found.skipped == {"damaged histograms": 2}
    assert 1.0 in table["is_done"].tolist()

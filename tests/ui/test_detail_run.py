"""The answer on one run: its settings, checkpoints, commands, place in the data; and what is left of a damaged one."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detail_runs import as_json, blocks_model, trained
from typer.testing import CliRunner

import relume
from relume.cli.app import app
from relume.ui.answers.console import console
from relume.ui.answers.run import run
from relume.ui.answers.runs import Listing


def test_a_run_says_how_it_stands_and_what_it_was_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RELUME_PROVENANCE")
    folder = trained(tmp_path, tags="first", notes="a <b>try</b>")
    found = as_json(run(folder, tmp_path))
    assert found["problems"] == [] and (found["status"], found["epoch"], found["step"]) == ("finished", 3, 12)
    assert found["config"] == {"epochs": 3, "lr": 0.1} and found["metrics"]["val/loss"]["best"] == pytest.approx(1 / 3)
    assert (found["tags"], found["notes"], found["lineage"]) == (["first"], "a <b>try</b>", None)
    assert found["folder"] == str(folder) and torch.__version__.startswith(found["versions"]["torch"])
    assert found["environment"]["python"] and found["packages"]["torch"] and "16 samples" in found["data"][0]
    assert found["code"]["line"]


def test_its_row_is_that_of_the_table(tmp_path: Path) -> None:
    trained(tmp_path, "a", 1)
    folder = trained(tmp_path, "b", 1)
    row = Listing(tmp_path).row("b")
    assert row is not None and row["place"] == 1
    assert {name: run(folder, tmp_path, row=row)[name] for name in row} == row


def test_checkpoints_say_their_size_their_share_and_which_is_best(tmp_path: Path) -> None:
    folder = trained(tmp_path, epochs=4, keep=relume.Keep(last=2, monitor="val/loss", mode="max"))
    saved = as_json(run(folder, tmp_path))["checkpoints"]
    assert [row["epoch"] for row in saved["rows"]] == [1, 3, 4]
    assert [row["is_newest"] for row in saved["rows"]] == [False, False, True]
    best = next(row for row in saved["rows"] if row["is_best"])
    assert saved["metric"] == "val/loss" and best["metrics"]["val/loss"] == 0.25
    assert best["kept"] == "the best by val/loss: 0.25; the newest: a resume begins here; saved each epoch"
    for row in saved["rows"]:
        assert row["size_bytes"] > 0 and row["shared_bytes"] == max(0, row["size_bytes"] - row["stored_bytes"])
    assert saved["disk_bytes"] <= saved["apart_bytes"]


def test_what_is_frozen_is_shared_between_checkpoints(tmp_path: Path) -> None:
    model = blocks_model()
    relume.freeze(model, "body", "neck")
    rows = run(trained(tmp_path, model=model, keep=relume.Keep(last=9)), tmp_path)["checkpoints"]["rows"]
    frozen_bytes = 4 * (4 * 8 + 8 + 8 * 8 + 8)
    assert len(rows) == 3 and all(row["shared_bytes"] >= frozen_bytes for row in rows[1:])


def test_a_damaged_checkpoint_says_so_and_hides_no_other(tmp_path: Path) -> None:
    folder = trained(tmp_path)
    newest = sorted((folder / "checkpoints").glob("*.json"))[-1]
    newest.write_bytes(newest.read_bytes()[:-20])
    rows = as_json(run(folder, tmp_path))["checkpoints"]["rows"]
    assert [bool(row["problem"]) for row in rows] == [False, True]
    assert "does not match its own digest" in rows[1]["problem"] and rows[0]["is_newest"] and rows[0]["is_best"]


def test_the_place_in_the_data_is_that_of_the_journal_and_of_the_newest_checkpoint(tmp_path: Path) -> None:
    order = run(trained(tmp_path), tmp_path)["order"]
    place = {"epoch": 3, "batch": 0, "step": 12, "samples": 48}
    assert order == {"seed": 3, **place, "checkpoint": {"name": order["checkpoint"]["name"], **place}}


def test_a_run_without_checkpoints_knows_its_seed(tmp_path: Path) -> None:
    with relume.Run("a", root=tmp_path, quiet=True, seed=5) as one:
        one.log({"x": 1.0}, step=7)
    found = run(one.folder, tmp_path)
    assert found["order"]["seed"] == 5 and found["order"]["checkpoint"] is None
    assert found["checkpoints"]["rows"] == [] and "pack" not in [one["label"] for one in found["commands"]]


def test_a_resume_from_an_older_checkpoint_is_told_with_its_dead_branch(tmp_path: Path) -> None:
    folder = trained(tmp_path, epochs=3, keep=relume.Keep(last=9))
    trained(tmp_path, epochs=4, keep=relume.Keep(last=9), resume=1)
    found = as_json(run(folder, tmp_path))
    assert [(one["step"], one["epoch"]) for one in found["resumes"]] == [(4, 1)]
    (branch,) = found["branches"]
    assert (branch["number"], branch["first_step"], branch["last_step"]) == (1, 5, 12) and branch["points"] >= 10


def test_a_run_from_a_checkpoint_of_another_has_a_lineage(tmp_path: Path) -> None:
    trained(tmp_path, "a", 1)
    folder = trained(tmp_path, "b", 2, from_checkpoint="a@best")
    assert run(folder, tmp_path)["lineage"]["run"] == "a"


# ------------------------------------------------------------------------------------------------------------ commands


def test_commands_can_be_typed_where_one_is(tmp_path: Path) -> None:
    root = tmp_path / "my runs"
    folder = trained(root, "it=1 @+", 1)
    for directory, wanted in ((tmp_path, "my runs"), (root, "."), (Path("/"), str(root).lstrip("/"))):
        for one in run(folder, root, directory)["commands"]:
            if one["command"]:
                words = shlex.split(one["command"].partition(" && ")[0])
                assert words[0] == "relume" and words[words.index("--root") + 1] == wanted
    labels = [one["label"] for one in run(folder, root)["commands"]]
    assert {"resume", "show", "pack", "reproduce", "export the weights", "report as one file"} <= set(labels)


def test_commands_need_no_root_where_relume_looks_by_itself(tmp_path: Path) -> None:
    folder = trained(tmp_path / "runs", "a", 1)
    assert not any("--root" in one["command"] for one in run(folder, tmp_path / "runs", tmp_path)["commands"])


def test_commands_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = trained(tmp_path / "here", "a 1", 2)
    monkeypatch.chdir(tmp_path)
    commands = {one["label"]: one["command"] for one in run(folder, tmp_path / "here")["commands"]}
    for label in ("show", "list the checkpoints", "export the weights"):
        done = CliRunner().invoke(app, shlex.split(commands[label])[1:])
        assert done.exit_code == 0, (label, done.output, done.exception)
    assert (tmp_path / "a 1.safetensors").is_file()


def test_a_run_that_was_packed_can_be_checked_again_and_again(tmp_path: Path) -> None:
    commands = {one["label"]: one["command"] for one in run(trained(tmp_path, "a", 1), tmp_path)["commands"]}
    packing, checking = (shlex.split(part) for part in commands["reproduce"].split(" && "))
    assert "--force" in packing and packing[packing.index("-o") + 1] == checking[-1] == "a-check.relume"
    assert "--force" not in commands["pack"] and "a-check.relume" not in commands["pack"]


def test_a_run_that_cannot_be_resumed_says_why(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import relume, sys\n"
        "with relume.Run('a', root=sys.argv[1], quiet=True) as run:\n"
        "    run.log({'x': 1.0})\n"
        "    if len(sys.argv) < 3: raise ValueError('no')\n"
    )
    subprocess.run([sys.executable, str(script), str(tmp_path)], cwd=tmp_path, capture_output=True, check=False)
    first = run(tmp_path / "a", tmp_path, tmp_path)["commands"][0]
    assert (first["label"], first["command"], first["note"]) == ("resume", "relume resume a --root .", "")
    script.unlink()
    first = run(tmp_path / "a", tmp_path, tmp_path)["commands"][0]
    assert first["command"] == "" and "is not there any more" in first["note"]


# -------------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    "part", ["run.json", "metrics.db", "provenance.json", "classes.json", "journal", "checkpoints"]
)
@pytest.mark.parametrize("damage", ["gone", "garbage"])
def test_a_damaged_run_has_an_answer_all_the_same(tmp_path: Path, part: str, damage: str) -> None:
    folder = trained(tmp_path, epochs=1)
    path = folder / part
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if damage == "garbage":
        path.write_bytes(b"{\xff\x00 torn" * 50)
    found = as_json(run(folder, tmp_path))
    assert found["name"] == "a" and isinstance(found["checkpoints"]["rows"], list)
    assert as_json(console(folder))["lines"] is not None or part == "journal"


def test_a_torn_journal_is_read_up_to_its_tear(tmp_path: Path) -> None:
    folder = trained(tmp_path, epochs=2)
    path = folder / "journal" / "0001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:8]) + b"\x00\xff{\n" + lines[8] + lines[9][:11])
    (folder / "metrics.db").unlink()
    found = as_json(run(folder, tmp_path))
    assert found["metrics"]["train/loss"]["count"] >= 3 and found["problems"] == []


def test_strange_texts_arrive_as_they_are(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\u202e\ud800" + "x" * 5000
    with relume.Run("a", root=tmp_path, quiet=True, config={evil: evil}, seed=2**62, notes=evil) as one:
        one.log({evil[:200]: float("inf")}, step=1)
    found = as_json(run(one.folder, tmp_path))
    assert found["notes"].startswith("<script>alert(1)</script>\u202e") and found["seed"] == str(2**62)
    assert [entry["last"] for entry in found["metrics"].values()] == ["Infinity"] and len(found["config"]) == 1


def test_answers_on_a_run_do_not_import_torch(tmp_path: Path) -> None:
    folder = trained(tmp_path, epochs=1)
    program = (
        "import sys; from pathlib import Path\n"
        "from relume.ui.answers import console, media, run\n"
        "folder = Path(sys.argv[1])\n"
        "found = run.run(folder, folder.parent); console.console(folder)\n"
        "for one in media.names(folder)['names']: media.item(folder, one['items'][0]['id'])\n"
        "assert found['checkpoints']['rows'] and not found['problems'], found['problems']\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

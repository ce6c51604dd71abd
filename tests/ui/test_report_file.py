"""A report as a file: what is in it, how large it is, and what it does not tell."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import relume
from relume.errors import ConfigurationError, StorageError, UnknownNameError
from relume.monitor.stored import StoredRun, runs
from relume.ui.answers.frames import Series, decode
from relume.ui.report import make, save
from relume.ui.reporting.writing import is_report

PART = re.compile(rb'<script type="text/plain" id="(\w+)">([^<]*)</script>')
HOSTILE = "</script><script>alert(1)</script><!-- ]]> \u2028\u2029 \u202eevil <img src=x onerror=alert(1)>"


def parts(content: bytes) -> dict[str, bytes]:
    return {name.decode(): gzip.decompress(base64.b64decode(held)) for name, held in PART.findall(content)}


def answers(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(parts(content)["answers"])
    return found


def curves(content: bytes) -> dict[str, Series]:
    return {one.about["metric"]: one for one in decode(parts(content)["numbers"])}


def a_run(root: Path, name: str = "line", steps: int = 5, **options: Any) -> Path:
    with relume.Run(name, root=root, quiet=True, watch=False, **options) as run:
        for step in range(steps):
            run.log({"train/loss": 1 / (step + 1)}, step=step)
    return run.folder


@pytest.fixture
def long_run(tmp_path: Path) -> Path:
    with relume.Run("long", root=tmp_path / "runs", quiet=True, watch=False) as run:
        for step in range(6000):
            values = {f"train/metric_{number}": float(np.sin(step / 50 + number)) for number in range(10)}
            run.log(values | {"train/loss": 1000.0 if step == 4321 else 1.0}, step=step)
    return run.folder


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = a_run(tmp_path, "one"), a_run(tmp_path, "two")
    first = make([one, two]).content
    (one / "metrics.db").unlink()
    assert make([one, two]).content == first


def test_a_copy_of_a_run_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "runs")
    shutil.copytree(folder, tmp_path / "elsewhere" / "runs" / folder.name)
    assert make([tmp_path / "elsewhere" / "runs" / folder.name]).content == make([folder]).content


def test_few_points_are_all_there_and_exact(tmp_path: Path) -> None:
    held = curves(make([a_run(tmp_path)]).content)["train/loss"]
    assert held.columns["value"].tolist() == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]


def test_many_points_come_in_buckets_that_hide_no_spike_and_the_report_says_so(long_run: Path) -> None:
    made = make([long_run])
    held = curves(made.content)["train/loss"]
    assert held.about["bucketed"] and held.about["total"] == 6000
    assert held.columns["max"].max() == 1000 and held.columns["count"].sum() == 6000
    assert any("6,000 points stand behind the longest" in note for note in made.notes)
    assert answers(made.content)["report"]["notes"] == list(made.notes)


def test_a_report_without_images_stays_below_two_megabytes(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    with relume.Run("wide", root=tmp_path, quiet=True, watch=False) as run:
        for step, values in enumerate(generator.random((4000, 50)).tolist()):
            run.log({f"metric/{number}": value for number, value in enumerate(values)}, step=step)
    made = make([run.folder])
    assert len(made.content) < 2_000_000
    assert len(curves(made.content)) == 50


def test_what_is_not_finite_is_text_that_javascript_understands(tmp_path: Path) -> None:
    with relume.Run("odd", root=tmp_path, quiet=True, watch=False, config={"bound": float("inf")}) as run:
        run.log({"loss": float("nan"), "gain": float("-inf")})
    row = answers(make([run.folder]).content)["runs"]["runs"][0]
    assert row["metrics"]["loss"]["last"] == "NaN" and row["metrics"]["gain"]["last"] == "-Infinity"


def test_hostile_text_ends_no_element(tmp_path: Path) -> None:
    with relume.Run("a", root=tmp_path, quiet=True, watch=False, config={HOSTILE: HOSTILE}, notes=HOSTILE) as run:
        run.log({HOSTILE: 1.0})
        run.log({"said": HOSTILE})
        run.note(HOSTILE)
    content = make([run.folder], title=HOSTILE).content.decode()
    assert "alert(1)</script>" not in content and "<img src=x" not in content and "\u2028" not in content
    assert content.count("<!--") == 0
    assert content.count("</script>") == 4  # three parts and the page's own


def test_nothing_of_the_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RELUME_PROVENANCE", raising=False)
    folder = a_run(
        tmp_path / "runs", config={"data": str(tmp_path / "images" / "train")}, notes=f"see {tmp_path}/log.txt"
    )
    content = make([folder]).content
    known = b"".join(parts(content).values()) + content
    assert str(tmp_path).encode() not in known and str(Path.home()).encode() + b"/" not in known
    assert os.uname().nodename.encode() not in known or len(os.uname().nodename) < 5
    assert answers(content)["run"]["line"]["config"]["data"] == "train"  # only the last part of a path elsewhere


def test_a_run_that_goes_on_is_reported_as_it_stands(tmp_path: Path) -> None:
    with relume.Run("now", root=tmp_path, quiet=True, watch=False) as run:
        run.log({"loss": 1.0})
        first = make([run.folder]).content
        assert answers(first)["runs"]["runs"][0]["status"] == "running"
        assert make([run.folder]).content == first
        assert run.report(tmp_path / "now.html") == tmp_path / "now.html"


def test_a_damaged_run_hides_no_other(tmp_path: Path) -> None:
    good, bad = a_run(tmp_path, "good"), a_run(tmp_path, "bad")
    (bad / "run.json").write_text("{", "utf-8")
    for segment in (bad / "journal").iterdir():
        segment.write_bytes(b"\x00\xff torn")
    rows = answers(make([good, bad]).content)["runs"]["runs"]
    assert [row["status"] for row in rows] == ["finished", "damaged"]
    assert str(tmp_path) not in rows[1]["reason"]


def test_pictures_are_the_newest_and_no_more_than_asked_for(tmp_path: Path) -> None:
    with relume.Run("seen", root=tmp_path, quiet=True, watch=False) as run:
        for step in range(3):
            run.log({name: relume.Image(torch.full((3, 8, 8), step / 3)) for name in ("a", "b", "c")}, step=step)
    content = make([run.folder], images=2).content
    assert len(json.loads(parts(content)["files"])) == 2
    listed = answers(content)["media"]["seen"]["names"]
    assert [[item["step"] for item in entry["items"]] for entry in listed] in ([[2], [2], []], [[], [2], [2]])
    assert json.loads(parts(make([run.folder], images=0).content)["files"]) == {}


def test_what_is_largest_is_left_out_first_and_named(tmp_path: Path) -> None:
    with relume.Run("big", root=tmp_path, quiet=True, watch=False) as run:
        run.log({"noise": relume.Image(torch.rand(3, 700, 700)), "small": relume.Image(torch.zeros(3, 8, 8))})
    made = make([run.folder], max_mb=1)
    assert len(made.content) < 1_000_000
    assert [key.split("/")[0] for key in json.loads(parts(made.content)["files"])] == ["big"]
    assert any("Left out" in note and "noise (" in note for note in made.notes)
    assert len(make([run.folder]).content) > 1_000_000


def test_what_was_logged_at_many_steps_is_there_as_a_course(tmp_path: Path) -> None:
    with relume.Run("course", root=tmp_path, quiet=True, watch=False) as run:
        for step in range(30):
            run.log({"weights": relume.Histogram(torch.arange(9.0)), "said": f"step {step}"}, step=step)
    found = answers(make([run.folder]).content)
    assert len(found["items"]["course/weights"]["items"]) == 30
    texts = next(entry for entry in found["media"]["course"]["names"] if entry["name"] == "said")["items"]
    assert [item["step"] for item in texts] == list(range(10, 30))
    assert found["item"][f"course/{texts[-1]['id']}"]["text"] == "step 29"


# ------------------------------------------------------------------------------------------------------------ its file


def test_an_earlier_report_is_replaced_and_another_file_is_not(tmp_path: Path) -> None:
    folder, out = a_run(tmp_path), tmp_path / "out.html"
    out.write_text("mine", "utf-8")
    with pytest.raises(ConfigurationError, match=r"out\.html is there already and is no report of relume.*--force"):
        save([folder], out)
    assert out.read_text("utf-8") == "mine"
    save([folder], out, force=True)
    assert is_report(out)
    save([folder], out)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    folder = a_run(tmp_path)
    with pytest.raises(ConfigurationError, match="there is no folder"):
        save([folder], tmp_path / "gone" / "a.html")
    with pytest.raises(ConfigurationError, match="is a folder: name a file in it"):
        save([folder], tmp_path)
    full = Path("/dev/full")
    if full.exists():
        with pytest.raises(ConfigurationError, match="is no report"):
            save([folder], full)


def test_a_failing_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = a_run(tmp_path), tmp_path / "out.html"
    save([folder], out)
    before = out.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"out\.html cannot be written \(No space left on device\)"):
        save([folder], out, title="other")
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["line", "out.html"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": -1}, "images=-1: how many pictures"),
        ({"max_mb": 0}, "max_mb=0: the largest size"),
        ({"max_mb": float("nan")}, "max_mb=nan"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make([a_run(tmp_path)], **options)


def test_two_runs_of_one_name_and_no_run_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="two of these runs are called 'line'"):
        make([a_run(tmp_path / "a"), a_run(tmp_path / "b")])
    with pytest.raises(ConfigurationError, match="there is no run to report on"):
        runs(tmp_path / "none").report()


def test_runs_report_on_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = a_run(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert StoredRun(folder).report() == Path("line.html")  # no notebook: a file
    assert is_report(tmp_path / "line.html")
    a_run(tmp_path / "runs", "other")
    assert runs(tmp_path / "runs").report(title="All of them") == Path("report.html")
    assert b"<title>All of them</title>" in (tmp_path / "report.html").read_bytes()
    with pytest.raises(ConfigurationError, match="height=0"):
        StoredRun(folder).report(height=0)
    with pytest.raises(ConfigurationError, match="has not begun"):
        relume.Run("later", root=tmp_path).report()


def test_the_command_writes_one_file_and_says_what_is_in_it(tmp_path: Path) -> None:
    a_run(tmp_path / "runs", "one")
    a_run(tmp_path / "runs", "two")

    def relume_(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "relume", "report", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    made = relume_("one", "two", "-o", "both.html", "--title", "Two runs")
    assert made.returncode == 0, made.stderr
    assert re.search(r"Written: both\.html \(2 runs, [\d.]+ kB\)", made.stderr)
    assert is_report(tmp_path / "both.html")
    failed = relume_("ones")
    assert failed.returncode == 1 and "there is no run 'ones'" in failed.stderr and "one" in failed.stderr


def test_an_unknown_run_names_the_closest(tmp_path: Path) -> None:
    a_run(tmp_path)
    with pytest.raises(UnknownNameError, match="line"):
        StoredRun.find("lime", tmp_path)

"""What a chart asks for: all points, in whatever order they are logged, and the range that was chosen."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import relume
from relume.ui.answers.series import series
from relume.ui.assets import STATIC

NODE = shutil.which("node")

LOOKS_ON = """
import { Feed } from "./feed.mjs";
const steps = [2, 4, 6];
const answer = (wanted, more) => ({ run: "a", branch: 0, bucketed: false, total: wanted.length, length: wanted.length,
  columns: { step: Float64Array.from(wanted), value: Float64Array.from(wanted) }, ...more });
const asked = [];
const source = { async series({ since }) {
  asked.push(since === undefined ? "all" : since);
  const wanted = [...steps].sort((a, b) => a - b).filter((step) => since === undefined || step > since);
  return [answer(wanted, since === undefined ? {} : { before: steps.length - wanted.length })];
} };
const feed = new Feed(source, () => {});
const until = async (count) => {
  while (feed.series[0]?.length !== count) await new Promise((done) => { setTimeout(done, 5); });
  return [...feed.series[0].columns.step].join(" ");
};
feed.ask({ rows: [{ name: "a" }], metric: "x", axis: "step", low: null, high: null, buckets: 100, branches: false });
await until(3);
steps.push(3, 6, 8);
feed.grow(["a"]);
console.log(await until(6), "|", asked.join(" "));
feed.stop();
"""


def test_the_answer_for_what_is_new_says_how_much_is_known(tmp_path: Path) -> None:
    with relume.Run("a", root=tmp_path, quiet=True, watch=False) as run:
        for step in (2, 4, 6, 3, 6):
            run.log({"x": float(step)}, step=step)
    (found,) = series(run.folder, "x", since=4)
    assert (len(found), found.about["before"]) == (2, 3) and "before" not in series(run.folder, "x")[0].about


@pytest.mark.skipif(NODE is None, reason="node runs it")
def test_a_point_of_an_earlier_step_comes_live(tmp_path: Path) -> None:
    shutil.copyfile(STATIC / "charts" / "feed.js", tmp_path / "feed.mjs")
    script = tmp_path / "looks-on.mjs"
    script.write_text(LOOKS_ON, "utf-8")
    said = subprocess.run([NODE or "node", str(script)], capture_output=True, text=True, check=True, timeout=30)
    assert said.stdout == "2 3 4 6 6 8 | all 6 all\n"


@pytest.mark.skipif(NODE is None, reason="node runs it")
def test_a_zoom_is_exact_where_steps_are_large(tmp_path: Path) -> None:
    shutil.copyfile(STATIC / "charts" / "zoom.js", tmp_path / "zoom.mjs")
    script = tmp_path / "zooms.mjs"
    script.write_text(
        'import { rounded, scaled } from "./zoom.mjs";\n'
        "console.log(JSON.stringify([scaled([1e12, 1e12 + 1000], [1e12, 1e12 + 1000], 0.5), rounded([0, 1 / 3])]));\n",
        "utf-8",
    )
    said = subprocess.run([NODE or "node", str(script)], capture_output=True, text=True, check=True, timeout=30)
    assert said.stdout == "[[1000000000250,1000000000750],[0,0.3333333333]]\n"

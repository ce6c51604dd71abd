"""Runs that went wrong or mean harm: what other people may put into a folder of runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

import relume

SCRIPT = "<script>window.alerted = 1</script>"
PICTURE = '<img src="http://evil.invalid/a.png" onerror="window.alerted = 2">'
VECTOR = '<svg onload="window.alerted = 3"><a href="javascript:window.alerted=4">x</a></svg>'
TURNED = "\u202egnp.\u202cevil \u05e9\u05dc\u05d5\u05dd \u0627\u0644\u0633\u0644\u0627\u0645"
ENDING = "</script></style></textarea></title>"
LONG = "long " + "M" * 5000
EMOJI = "\uffff\U0001f525\U0001f468\u200d\U0001f469\u200d\U0001f467 caf\u00e9 'single' \"double\" `tick` & &amp; &lt; \\ ${x} {{y}}"
HOSTILE = (SCRIPT, PICTURE, VECTOR, TURNED, ENDING, LONG, EMOJI)

HOSTILE_NAME = "x@=.+- " + "\u05e9\u05dc\u05d5\u05dd" + "W" * 80
"""As unpleasant as relume itself allows."""

FOREIGN_NAME = 'it\'s <b onclick=alert(1)>"bold"&amp; #?%2e%2e\u202e'
"""A folder that was made by hand: relume would not make it, and lists it."""


def make_hostile(root: Path) -> None:
    config = {f"{place} {text}"[:5100]: text for place, text in enumerate(HOSTILE)}
    nested = {"lr": SCRIPT, "deep": {PICTURE: [VECTOR, {"a": ENDING}]}, "empty": "", "newlines": "a\nb\r\n\tc"}
    with relume.Run(
        HOSTILE_NAME,
        root=root,
        config=config | nested,
        quiet=True,
        notes="\n".join(HOSTILE[:5]),
        tags=["<b>tag</b>", "x" * 100],
    ) as run:
        for step in range(30):
            run.log({text: float(step) for text in HOSTILE}, step=step)
            run.log({"__proto__": 1.0, "constructor": float(step), "toString/x": 2.0, "//": 3.0, "": 4.0}, step=step)
            run.log(
                {"nan": float("nan"), "inf": float("inf") if step % 2 else float("-inf"), "huge": 1e300 * step},
                step=step,
            )
        run.log({f"text {place}": text for place, text in enumerate(HOSTILE)})
        run.log({PICTURE: relume.Image(torch.rand(3, 8, 8), caption=SCRIPT)})
        run.log({"table": relume.Table([[text] for text in HOSTILE], columns=[SCRIPT])})
        run.log({"confusion": relume.ConfusionMatrix([0, 1], [1, 1], [SCRIPT, TURNED])})
        for text in HOSTILE:
            run.note(text)
        run.stop(SCRIPT)


def make_foreign(root: Path) -> None:
    with relume.Run("foreign", root=root, quiet=True, watch=False) as run:
        for step in range(10):
            run.log({"train/loss": 1.0 / (step + 1)}, step=step)
    shutil.move(root / "foreign", root / FOREIGN_NAME)


_KILLED = """
import os, signal, sys, relume
with relume.Run("killed", root=sys.argv[1], quiet=True, config={"lr": 0.01}) as run:
    for step in range(200):
        run.log({"train/loss": 1 / (step + 1)}, step=step)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def make_killed(root: Path) -> None:
    """Its process is gone without a word."""
    environment = os.environ | {"PYTHONPATH": str(Path(relume.__file__).parents[1]), "RELUME_PROVENANCE": "off"}
    subprocess.run([sys.executable, "-c", _KILLED, str(root)], env=environment, capture_output=True, check=False)


def make_damaged(root: Path) -> None:
    """Three: a torn journal under a garbage index, a record that is no JSON, and one of which only the record is left."""
    for name in ("damaged", "damaged-record", "damaged-empty"):
        with relume.Run(name, root=root, quiet=True, watch=False) as run:
            for step in range(50):
                run.log({"train/loss": 2.0 / (step + 1)}, step=step)
    tear(root / "damaged")
    (root / "damaged" / "metrics.db").write_bytes(b"this is no database" * 500)
    (root / "damaged-record" / "run.json").write_text('{"name": "damaged-record", "config": {')
    shutil.rmtree(root / "damaged-empty" / "journal")
    (root / "damaged-empty" / "metrics.db").unlink(missing_ok=True)


def tear(folder: Path) -> None:
    """As a full disk leaves a journal: a line in its middle is garbage and the last one ends in its middle."""
    (journal,) = sorted((folder / "journal").iterdir())[-1:]
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[len(lines) // 2] = b"\x00\xff\xfe garbage \n"
    torn = json.dumps({"step": 1000, "values": {"train/loss": 1.0}})[:20].encode()
    journal.write_bytes(b"".join(lines[:-1]) + torn)

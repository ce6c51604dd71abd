"""The pages below docs/: their programs run, their commands exist, they print what the pages show, and links lead somewhere.

A page is a sequence of blocks. All ``python`` blocks are one program; one that begins with ``# name.py`` is that file. The
lines of ``sh`` blocks run after it, in order, and end with 0 unless ``# ends with N`` stands there. Each line of ``text``
blocks is printed by one of these, whatever its numbers. Commands in blocks without a language only have to exist.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from relume.cli.app import app
from relume.models.tensorfile import tensorfile_parts
from relume.share.archive import write_archive

PROJECT = Path(__file__).parent.parent
_SLOW = pytest.mark.long  # what they show runs in other tests, too
_SLOW_PAGES = ("checkpoints", "transfer")
PAGES = sorted((PROJECT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*(?:e-?\d+)?")


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(page.read_text("utf-8")) if language in languages]


def lines(page: Path, *languages: str) -> list[str]:
    return [line for block in blocks(page, *languages) for line in block.splitlines() if line.strip()]


def shape(line: str) -> str:
    """A line without what differs from one machine to another: numbers, their signs and spaces, hashes, bars."""
    line = re.sub(r"\b[0-9a-f]{8,}\b|…", "#", line)
    return re.sub(r"[\s─▁▂▃▄▅▆▇█]+", " ", NUMBER.sub("#", line)).strip()


def run(command: list[str] | str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CI": "true", "COLUMNS": "100", "PATH": path}
    return subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=_SLOW if page.stem in _SLOW_PAGES else ()) for page in PAGES],
    ids=lambda page: page.stem,
)
def test_a_page_runs_and_prints_what_it_shows(page: Path, tmp_path: Path) -> None:
    program, printed = [], ""
    for block in blocks(page, "python"):
        named = re.match(r"# (\w+\.py)\n", block)
        (tmp_path / named[1]).write_text(block) if named else program.append(block)
    if program:
        (tmp_path / "page.py").write_text("\n".join(program))
        ended = run([sys.executable, "-W", "error", "page.py"], tmp_path)
        assert ended.returncode == 0, ended.stderr
        printed += ended.stdout + ended.stderr
    for line in lines(page, "sh"):
        expected = re.search(r"# ends with (\d+)", line)
        ended = run(line, tmp_path)
        assert ended.returncode % 256 == int(expected[1] if expected else 0), f"{line}\n{ended.stdout}{ended.stderr}"
        printed += ended.stdout + ended.stderr
    shapes = {shape(line) for line in printed.splitlines()}
    missing = [line for line in lines(page, "text") if shape(line) not in shapes]
    assert not missing, f"not printed: {missing}\nprinted:\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_exist_with_their_options(page: Path) -> None:
    group: Any = typer.main.get_command(app)
    for line in lines(page, "", "sh"):
        if line.startswith("relume "):
            words = shlex.split(line, comments=True)[1:]
            command = group
            while hasattr(command, "commands"):
                assert words and words[0] in command.commands, line
                command = command.commands[words.pop(0)]
            known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
            given = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            assert given <= known, f"{line}: {given - known}"


@pytest.mark.parametrize("page", [*PAGES, PROJECT / "README.md"], ids=lambda page: page.stem)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)?(?:#[\w-]+)?\)", page.read_text("utf-8")):
        if target and not target.startswith("https://"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_short_and_in_the_table_of_contents(page: Path) -> None:
    text = page.read_text("utf-8")
    assert len(text.splitlines()) < 250
    if page.name != "README.md":
        assert f"]({page.name})" in (PROJECT / "docs" / "README.md").read_text("utf-8")


def test_the_reader_of_the_format_reads_a_bundle_and_finds_a_changed_byte(tmp_path: Path) -> None:
    reader = next(block for block in blocks(PROJECT / "docs" / "bundle-format.md", "python") if "# reader.py" in block)
    (tmp_path / "reader.py").write_text(reader)
    weights = {"layer.weight": torch.ones(3, 2)}
    files = {"model.safetensors": lambda: tensorfile_parts(weights), "README.md": lambda: ["# Ä".encode()]}
    path = tmp_path / "small.relume"
    manifest = write_archive(path, "small", files, "0.1.0")
    ended = run([sys.executable, "reader.py", str(path)], tmp_path)
    assert ended.stdout == f"small 2 files {manifest.digest[:12]}\n{{'layer.weight': [3, 2]}}\n", ended.stderr
    for text in ("# Ä".encode(), b'"name": "small"'):
        content = bytearray(path.read_bytes())
        content[content.rindex(text) + 2] ^= 1
        (tmp_path / "other.relume").write_bytes(content)
        ended = run([sys.executable, "reader.py", "other.relume"], tmp_path)
        assert ended.returncode == 1 and "Traceback" in ended.stderr and not ended.stdout

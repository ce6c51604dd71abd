"""What all errors have in common."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import relume
from relume import errors


@pytest.mark.parametrize("kind", [errors.ConfigurationError, errors.ModelFileError, errors.CheckpointError])
def test_names_out_of_files_do_nothing_to_a_terminal(kind: type[errors.RelumeError]) -> None:
    said = str(kind("in 'a\x1b[2Jb\u202ec\ud800\r': wrong\nUse ä, 漢 or π."))
    assert said == "in 'a\\x1b[2Jb\\u202ec\\ud800\\r': wrong\nUse ä, 漢 or π."


def test_every_error_stands_in_the_tree() -> None:
    tree = (errors.__doc__ or "").split("\n\n")[1]
    named = {
        line.split()[0].strip("├└│─ ")
        for line in tree.replace("│", " ").replace("├──", " ").replace("└──", " ").splitlines()
    }
    kinds = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.RelumeError)
    }
    assert kinds == named


def test_a_warning_points_to_the_users_own_line(tmp_path: Path) -> None:
    with pytest.warns(errors.RelumeWarning) as caught:
        relume.load_weights(torch.nn.Linear(2, 1), {"weight": torch.ones(1, 2)}, strict=False)
    assert [Path(one.filename).name for one in caught] == [Path(__file__).name]

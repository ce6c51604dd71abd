"""What of a bundle's command is started again."""

from __future__ import annotations

from pathlib import Path

import pytest

from relume.errors import BundleError
from relume.share.documents import CodeFacts
from relume.share.reproduce.command import checked_script, command_of


def facts(*arguments: str) -> CodeFacts:
    return CodeFacts(is_relume_command=True, arguments=["train", *arguments])


def test_known_options_go_into_the_new_command_and_places_do_not() -> None:
    given = facts(
        "fashion-mnist", "--epochs", "3", "--lr=0.01", "--augment", "--root", "/etc", "--mirror=/etc", "--name", "x",
        "--tracker", "wandb", "--notes", "hello", "--tag", "a", "--data", "/author", "--quiet", "--no-resume",
        "--max-time", "1 h", "--freeze", "backbone", "--freeze=layer[12]*", "--weights", "default",
    )  # fmt: skip
    made = command_of(given, Path("/here"))
    assert list(made.arguments) == [
        "-m", "relume", "train", "fashion-mnist", "--data=/here", "--epochs=3", "--lr=0.01", "--augment",
        "--freeze=backbone", "--freeze=layer[12]*", "--weights=default",
    ]  # fmt: skip
    assert not made.needs_code and "--mirror" in made.left_out


def test_a_folder_of_images_is_the_readers() -> None:
    assert list(command_of(facts("photos", "--epochs=1"), Path("/mine")).arguments)[3:] == ["/mine", "--epochs=1"]
    with pytest.raises(
        BundleError, match=r"the author's folder 'photos': say where those images are here, --data PATH"
    ):
        command_of(facts("photos"), None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mnist", "--from-checkpoint", "a@best"], "it begins from a checkpoint of another run"),
        (["mnist", "--weights", "/tmp/x.pt"], "a file or a run of the author's and not in the bundle"),
        (["mnist", "--weights=run@best"], "a file or a run of the author's and not in the bundle"),
        (["mnist", "--evil", "1"], "'--evil' of the bundle's command is not among the options"),
        (["mnist", "--root-it"], "is not among the options"),
        (["mnist", "-x"], "is not among the options"),
        (["mnist", "--epochs"], "--epochs of the bundle's command has no value"),
        (["mnist", "--epochs", "1; rm"], "is not of a form that is started without trust"),
        (["mnist", "--model", "timm/hf-hub:evil/model"], "is not of a form"),
        (["mnist", "--model", "os.system"], "is not of a form"),
        (["mnist", "cifar10"], "two datasets"),
    ],
)
def test_what_leads_elsewhere_or_is_not_known_is_refused(arguments: list[str], says: str) -> None:
    with pytest.raises(BundleError, match=says):
        command_of(facts(*arguments), None)


def test_what_is_no_training_is_refused() -> None:
    with pytest.raises(BundleError, match="'relume gc --root x' is no training"):
        command_of(CodeFacts(is_relume_command=True, arguments=["gc", "--root", "x"]), None)
    with pytest.raises(BundleError, match="does not say how the training was started"):
        command_of(CodeFacts(), None)
    with pytest.raises(BundleError, match="trained in a notebook"):
        command_of(CodeFacts(notebook="a.ipynb"), None)


@pytest.mark.parametrize(("script", "directory"), [("../x.py", ""), ("/etc/passwd", ""), ("a.py", ".."), ("b.py", "")])
def test_a_script_stays_below_the_code(tmp_path: Path, script: str, directory: str) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").touch()
    (tmp_path / "x.py").touch()
    with pytest.raises(BundleError, match="is not in the bundle"):
        checked_script(CodeFacts(script=script, directory=directory), tmp_path / "code")
    assert checked_script(CodeFacts(script="a.py"), tmp_path / "code").name == "a.py"

"""The command that trains again: of a bundle's ``relume train`` known options only, and none that leads elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from relume.errors import BundleError
from relume.share.documents import CODE_FOLDER, CodeFacts

NAMED_SETS = ("fashion-mnist", "mnist", "cifar10")
_NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?"
_WORD = r"\w+"
_TAKEN = {
    "--batch-size": _NUMBER, "--workers": r"\d{1,2}", "--image-size": r"\d{1,4}", "--val-share": _NUMBER, "--split-seed": r"\d+",
    "--model": r"(mlp|cnn|(torchvision|timm)/[\w.]+)", "--weights": r"[\w.]+", "--freeze": r"[\w.\[\]*?-]+",
    "--unfreeze-at": r"\d+", "--lr-backbone": _NUMBER, "--epochs": r"\d+", "--lr": _NUMBER, "--optimizer": _WORD,
    "--momentum": _NUMBER, "--weight-decay": _NUMBER, "--schedule": _WORD, "--accumulate": r"\d+", "--clip-norm": _NUMBER,
    "--precision": _WORD, "--device": r"[a-z]+(:\d+)?", "--seed": r"\d+", "--every": r"[\w .]+", "--keep-last": r"\d+",
    "--patience": r"\d+",
}  # fmt: skip
"""Options with a value that go into the new command, and the form of the value."""

_TAKEN_FLAGS = {
    "--shuffle", "--no-shuffle", "--in-memory", "--no-in-memory", "--augment", "--compile", "--cache-features",
    "--no-cache-features", "--deterministic",
}  # fmt: skip
_LEFT_OUT = {"--data", "--name", "--root", "--tracker", "--tag", "--notes", "--mirror", "--max-time", "--override"}
"""Options with a value that say where things are, what they are called, or when to stop: nothing of the result."""

_LEFT_OUT_FLAGS = {"--quiet", "-q", "--resume", "--no-resume"}


@dataclass(frozen=True)
class Command:
    """What is started.

    Attributes:
        arguments: behind the interpreter.
        directory: where, below the folder with the code; empty for anywhere.
        needs_code: whether it is a script of the bundle, which must be trusted.
        left_out: options of the author's that are not taken, in words.
    """

    arguments: Sequence[str]
    directory: str = ""
    needs_code: bool = False
    left_out: Sequence[str] = ()


def command_of(code: CodeFacts, data: Path | None) -> Command:
    """The command of a bundle.

    Args:
        data: where the data are: the folder of a named set's files, or the folder of images.

    Raises:
        BundleError: the bundle does not say how the training was started, it begins from what is not in the bundle, or it
            holds an option that is not known.

    Example:
        >>> facts = CodeFacts(is_relume_command=True, arguments=["train", "fashion-mnist", "--epochs", "1", "--root", "/x"])
        >>> command_of(facts, None).arguments
        ['-m', 'relume', 'train', 'fashion-mnist', '--epochs=1']
    """
    if code.is_relume_command:
        return _relume_command(list(code.arguments), data)
    if code.notebook and not code.script:
        raise BundleError(
            f"it was trained in a notebook ({code.notebook}): open it with relume unpack, and run its cells"
        )
    if not code.script:
        raise BundleError(
            "the bundle does not say how the training was started (packed without code, or provenance was off)"
        )
    return Command([code.script, *code.arguments], code.directory, True)


def _relume_command(words: list[str], data: Path | None) -> Command:
    if words[:1] != ["train"]:
        raise BundleError(f"'relume {' '.join(words)[:60]}' is no training: only relume train is started again")
    dataset, taken, left = "", [], []
    rest = iter(words[1:])
    for word in rest:
        option, sign, value = word.partition("=")
        if not word.startswith("-"):
            if dataset:
                raise BundleError(f"relume train was called with two datasets, {dataset!r:.60} and {word!r:.60}")
            dataset = word
        elif word in _TAKEN_FLAGS:
            taken.append(word)
        elif word in _LEFT_OUT_FLAGS:
            left.append(word)
        elif option in _TAKEN or option in _LEFT_OUT:
            value = value if sign else _next(rest, option)
            if option in _LEFT_OUT:
                left.append(option)
            else:
                taken.append(f"{option}={_checked(option, value)}")
        else:
            raise BundleError(_refused(option))
    return Command(["-m", "relume", "train", *_dataset(dataset, data), *taken], left_out=left)


def _next(rest: Iterator[str], option: str) -> str:
    value = next(rest, None)
    if value is None:
        raise BundleError(f"{option} of the bundle's command has no value")
    return value


def _checked(option: str, value: str) -> str:
    if not re.fullmatch(_TAKEN[option], value):
        if option == "--weights":
            raise BundleError(
                f"it begins from the weights {value!r:.100}, which are a file or a run of the author's and not in the bundle"
            )
        raise BundleError(
            f"{option} {value!r:.100} of the bundle's command is not of a form that is started without trust"
        )
    return value


def _refused(option: str) -> str:
    if option == "--from-checkpoint":
        return "it begins from a checkpoint of another run (--from-checkpoint), which is not in the bundle"
    return f"{option!r:.60} of the bundle's command is not among the options that are started again"


def _dataset(dataset: str, data: Path | None) -> list[str]:
    if dataset in NAMED_SETS:
        return [dataset, *([f"--data={data.absolute()}"] if data is not None else [])]
    if data is None:
        raise BundleError(
            f"it was trained on the author's folder {dataset!r:.100}: say where those images are here, --data PATH"
        )
    return [str(data.absolute())]


def checked_script(code: CodeFacts, folder: Path) -> Path:
    """The script below the folder with the code, and nowhere else.

    Raises:
        BundleError: it is not there, or leads out of it.
    """
    base = folder.resolve()
    for name, is_there in ((code.script, Path.is_file), (code.directory or ".", Path.is_dir)):
        place = (base / name).resolve()
        if not place.is_relative_to(base) or not is_there(place):
            raise BundleError(f"{CODE_FOLDER}{name:.200} is not in the bundle")
    return (base / code.script).resolve()

"""What ``relume train`` does with pretrained weights: where a model begins, what of it is frozen, and for how long."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relume.datasets import ToTensor
from relume.errors import ConfigurationError, warn
from relume.models import make_model
from relume.models.contents import INPUT
from relume.models.library import MAKERS, torchvision_weights_in
from relume.transfer import FreezeReport, freeze, inputs
from relume.transfer.backbones import backbone
from relume.transfer.classifiers import heads_of
from relume.transfer.phases import Phase
from relume.transfer.schedule import FreezeSchedule

BACKBONE = "backbone"
"""What ``--freeze`` understands besides patterns: all but the classifier."""

_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".json")


def is_source(weights: str) -> bool:
    """Whether weights are those of a file or a checkpoint, and not the name that a library gives to its own."""
    return weights.endswith(_ENDINGS) or "/" in weights or "@" in weights or Path(weights).exists()


def expected_input(model: str, weights: str | None) -> ToTensor | None:
    """How a model with pretrained weights wants its images: as the file says, else as the library's own weights do.

    Args:
        model: a name as `relume.models.make_model` takes it.
        weights: a file or a checkpoint, a library's name for its weights, or None.

    Returns:
        None where nothing is expected: new weights, or a model that no library has weights for.

    Raises:
        UnknownNameError, ModelFileError, CheckpointError: there is no such model, file or checkpoint.
    """
    if weights is None:
        return None
    if is_source(weights):
        from relume.models.files import open_model_file

        kept = open_model_file(weights).metadata.get(INPUT)
        if kept is not None:
            return ToTensor.of_config(json.loads(kept))
    spec = _spec_of(model, weights)
    if spec is None or spec.channels not in (1, 3):
        return None
    return ToTensor(min(spec.size), spec.channels, spec.mean, spec.std)


def _spec_of(model: str, weights: str) -> inputs.InputSpec | None:
    """What a library says; None where it does not know such a model or weights, which is an error when it is made."""
    package, _, name = model.partition("/")
    known = None if weights.lower() == "default" or is_source(weights) else weights
    try:
        if package == "torchvision":
            known = torchvision_weights_in(name, Path(weights).name) if is_source(weights) else known
            return inputs.of_torchvision(name, known)
        if package == "timm":
            import timm

            config: Any = timm.models.get_pretrained_cfg(f"{name.split('.')[0]}.{known}" if known else name)
            return None if config is None else inputs.of_timm(config.to_dict())
    except (ImportError, KeyError):
        pass
    return None


def starting_model(name: str, classes: int, channels: int, size: int, weights: str | None) -> nn.Module:
    """A model with the weights that it begins with; a head of another number of classes is new.

    Raises:
        MismatchError: a file's weights do not fit the model, the head aside.
        DownloadError: a library's weights did not arrive; says where to put them.
    """
    if weights is None:
        return make_model(name, classes, channels, size)
    if name.partition("/")[0] in MAKERS:
        return backbone(name, weights, classes=classes, channels=channels, size=size)
    if not is_source(weights):
        return make_model(name, classes, channels, size, weights)  # says that it has none
    model = make_model(name, classes, channels, size)
    plain = inputs.InputSpec((size, size), (0.0,) * channels, (1.0,) * channels)
    inputs.expect_input(model, plain)  # it takes no other size, and its head is found by running it
    return backbone(model, weights, classes=classes)


@dataclass(frozen=True)
class FineTuning:
    """What of a model is trained, and how fast.

    Attributes:
        report: what is frozen at the beginning; None where nothing is.
        schedule: the phases, for ``freeze=`` of the Trainer; None where what is frozen stays so.
        groups: the parameters for the optimizer.
    """

    report: FreezeReport | None
    schedule: FreezeSchedule | None
    groups: list[dict[str, Any]]


def check_fine_tuning(
    frozen: Sequence[str], unfreeze_at: int | None, lr_backbone: float | None, epochs: int, has_weights: bool
) -> None:
    """Whether the options make sense together; before any time is spent.

    Raises:
        ConfigurationError: they do not; says which and why.
    """
    if unfreeze_at is not None and not frozen:
        raise ConfigurationError(f"--unfreeze-at {unfreeze_at}: nothing is frozen. Say what with --freeze backbone.")
    if unfreeze_at is not None and unfreeze_at >= epochs:
        raise ConfigurationError(
            f"--unfreeze-at {unfreeze_at} would never happen: the training has {epochs} epochs. Give more with --epochs, or "
            "leave it out."
        )
    if lr_backbone is not None and frozen and unfreeze_at is None:
        raise ConfigurationError(
            f"--lr-backbone {lr_backbone:g}: what is frozen has no learning rate. Say with --unfreeze-at after how many "
            "epochs it is trained."
        )
    if lr_backbone is not None and not lr_backbone > 0:
        raise ConfigurationError(f"--lr-backbone {lr_backbone:g}: a learning rate is above 0.")
    if frozen and not has_weights:
        warn(
            f"--freeze {' '.join(frozen)} freezes new weights, which know nothing. --weights default takes pretrained ones."
        )


def fine_tuning(
    model: nn.Module,
    frozen: Sequence[str],
    unfreeze_at: int | None,
    lr: float,
    lr_backbone: float | None,
    example: torch.Tensor | None = None,
) -> FineTuning:
    """Freeze parts of a model, and say what the optimizer gets.

    Args:
        frozen: ``"backbone"`` or patterns as in :func:`relume.freeze`.
        unfreeze_at: after how many epochs everything is trained; None is never.
        lr, lr_backbone: learning rates of the head and of the rest; by default the same.
        example: a batch that the model takes, by which its head is found.

    Raises:
        NoMatchError: a pattern matches nothing; lists the closest names.
    """
    needs_head = BACKBONE in frozen or lr_backbone is not None
    heads = heads_of(model, example) if needs_head else ()
    report = _freeze(model, frozen, heads)
    if report is not None and not report.trainable:
        raise ConfigurationError(f"--freeze {' '.join(frozen)} freezes the whole model: nothing is left to train.")
    schedule = _phases(report, unfreeze_at) if report is not None and unfreeze_at is not None else None
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad or schedule is not None]
    if lr_backbone is None:
        return FineTuning(report, schedule, [{"params": [p for _, p in trained], "lr": lr}])
    prefixes = tuple(f"{head}." for head in heads)
    head = [p for name, p in trained if name.startswith(prefixes)]
    rest = [p for name, p in trained if not name.startswith(prefixes)]
    groups = [{"params": rest, "lr": lr_backbone, "name": BACKBONE}, {"params": head, "lr": lr, "name": "head"}]
    return FineTuning(report, schedule, groups)


def optimizer_of(
    groups: list[dict[str, Any]], name: str, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """``"adam"``, ``"adamw"`` or ``"sgd"``."""
    if name == "sgd":
        return torch.optim.SGD(groups, lr, momentum=momentum, weight_decay=weight_decay, fused=True)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(groups, lr, weight_decay=weight_decay, fused=True)


def scheduler_of(optimizer: torch.optim.Optimizer, name: str, updates: int) -> Any:
    """``"none"``, ``"cosine"`` or ``"onecycle"`` over so many updates; each group keeps its own learning rate."""
    from torch.optim import lr_scheduler

    if name == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=updates)
    if name == "onecycle":
        highest = [group["lr"] for group in optimizer.param_groups]
        return lr_scheduler.OneCycleLR(optimizer, max_lr=highest, total_steps=updates)
    return None


def _freeze(model: nn.Module, frozen: Sequence[str], heads: Sequence[str]) -> FreezeReport | None:
    patterns = [part for part in frozen if part != BACKBONE]
    report = freeze(model, trainable=list(heads)) if BACKBONE in frozen else None
    return freeze(model, *patterns) if patterns else report


def _phases(report: FreezeReport, unfreeze_at: int) -> FreezeSchedule:
    """First what is not frozen, then everything; pretrained statistics stay as they are, which small batches need."""
    first = Phase(list(report.trainable_names), epochs=unfreeze_at, name="head")
    return FreezeSchedule([first, Phase(name="all", batchnorm="eval")])

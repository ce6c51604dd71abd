"""Models of torchvision and timm, which are imported only when one is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relume.errors import ConfigurationError, DownloadError, MissingPackageError, UnknownNameError, closest

_IMAGE_CHANNELS = 3  # what both libraries' models are made for


def torchvision_model(name: str, classes: int, channels: int, size: int, weights: str | None) -> nn.Module:
    """A classification model of torchvision."""
    try:
        from torchvision import models
    except ImportError as error:
        raise _missing("torchvision", name) from error
    known = models.list_models(module=models)
    if name not in known:
        raise _unknown("torchvision", name, known)
    options = _torchvision_options(name, channels, size if weights is None else None)
    model: nn.Module = models.get_model(name, weights=None, num_classes=classes, **options)
    if weights is not None:
        model = _with_head_of(_pretrained(models, name, weights, options), model)
    if channels != _IMAGE_CHANNELS:
        _adapt_first_convolution(model, channels)
    return model


def timm_model(name: str, classes: int, channels: int, size: int, weights: str | None) -> nn.Module:
    """A model of timm, which adapts classes and channels by itself."""
    try:
        import timm
    except ImportError as error:
        raise _missing("timm", name) from error
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    full_name = name if weights in (None, "default") else f"{name.split('.')[0]}.{weights}"
    _require_timm_weights(timm, full_name, weights)
    options: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
    preset = timm.models.get_pretrained_cfg(full_name)
    if preset is not None and preset.fixed_input_size and preset.input_size[-1] != size:
        options["img_size"] = size
    try:
        model: nn.Module = timm.create_model(full_name, pretrained=weights is not None, **options)
    except OSError as error:
        raise _not_downloaded(f"timm/{full_name}", error, "the cache of the Hugging Face Hub ($HF_HOME)") from error
    return model


@dataclass(frozen=True)
class PretrainedInput:
    """What images a library's weights were trained on: side in pixels, mean and standard deviation by channel."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def pretrained_input(name: str, weights: str) -> PretrainedInput | None:
    """What a library says that its weights take; None for a model without any.

    Args:
        name: ``"torchvision/NAME"`` or ``"timm/NAME"``; any other has no pretrained weights.
        weights: ``"default"``, or the name of others.

    Raises:
        UnknownNameError: there is no such model, or no such weights; lists the closest names.
        MissingPackageError: the library is not installed.
    """
    source, _, inner = name.partition("/")
    if source == "torchvision" and inner:
        return _torchvision_input(inner, weights)
    return _timm_input(inner, weights) if source == "timm" and inner else None


def _torchvision_input(name: str, weights: str) -> PretrainedInput | None:
    try:
        from torchvision import models
    except ImportError as error:
        raise _missing("torchvision", name) from error
    known = models.list_models(module=models)
    if name not in known:
        raise _unknown("torchvision", name, known)
    preset = _weights_entry(models, name, weights).transforms()
    return PretrainedInput(int(preset.crop_size[0]), tuple(preset.mean), tuple(preset.std))


def _timm_input(name: str, weights: str) -> PretrainedInput | None:
    try:
        import timm
    except ImportError as error:
        raise _missing("timm", name) from error
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    preset = timm.models.get_pretrained_cfg(name if weights == "default" else f"{name.split('.')[0]}.{weights}")
    if preset is None:
        return None
    return PretrainedInput(int(preset.input_size[-1]), tuple(preset.mean), tuple(preset.std))


MAKERS: dict[str, Callable[[str, int, int, int, str | None], nn.Module]] = {
    "torchvision": torchvision_model,
    "timm": timm_model,
}


def _torchvision_options(name: str, channels: int, size: int | None) -> dict[str, Any]:
    """What some builders need besides the number of classes."""
    if name in ("googlenet", "inception_v3"):
        # One output instead of a tuple of three; and said explicitly, because the default warns that it will change.
        normalised = {} if channels == _IMAGE_CHANNELS else {"transform_input": False}
        return {"aux_logits": False, "init_weights": True, **normalised}
    if name.startswith("vit_") and size is not None:
        return {"image_size": size}
    return {}


def _weights_entry(models: Any, name: str, weights: str) -> Any:
    known = models.get_model_weights(name)
    chosen = "DEFAULT" if weights == "default" else weights
    if chosen not in known.__members__:
        names = closest(weights, ["default", *known.__members__])
        raise UnknownNameError(f"'torchvision/{name}' has no weights {weights!r}: {names}")
    return known[chosen]


def _pretrained(models: Any, name: str, weights: str, options: dict[str, Any]) -> nn.Module:
    entry = _weights_entry(models, name, weights)
    model_options = {key: value for key, value in options.items() if key != "init_weights"}
    try:
        model: nn.Module = models.get_model(name, weights=entry, **model_options)
    except (OSError, RuntimeError) as error:
        place = Path(torch.hub.get_dir(), "checkpoints", entry.url.rsplit("/")[-1])
        raise _not_downloaded(f"torchvision/{name}", error, f"{place} (from {entry.url})") from error
    return model


def _with_head_of(pretrained: nn.Module, fresh: nn.Module) -> nn.Module:
    """The pretrained model, with those layers of ``fresh`` whose shapes differ: the head."""
    for path, module in list(fresh.named_modules()):
        own = [(name, value.shape) for name, value in module.named_parameters(recurse=False)]
        theirs = pretrained.get_submodule(path).named_parameters(recurse=False)
        if own != [(name, value.shape) for name, value in theirs]:
            pretrained.set_submodule(path, module)
    return pretrained


def _adapt_first_convolution(model: nn.Module, channels: int) -> None:
    """Let the first convolution take ``channels`` instead of three, its weights changed as timm does it."""
    path, old = next(
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == _IMAGE_CHANNELS
    )
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        old.dilation,  # type: ignore[arg-type]
        old.groups,
        old.bias is not None,
        old.padding_mode,
    )
    with torch.no_grad():
        new.weight.copy_(_summed(old.weight, channels))
    new.bias = old.bias
    model.set_submodule(path, new)


def _summed(weight_oihw: torch.Tensor, channels: int) -> torch.Tensor:
    if channels == 1:
        return weight_oihw.sum(dim=1, keepdim=True)
    repeats = -(-channels // _IMAGE_CHANNELS)
    repeated = weight_oihw.repeat(1, repeats, 1, 1)[:, :channels]
    return repeated * (_IMAGE_CHANNELS / channels)


def _require_timm_weights(timm: Any, name: str, weights: str | None) -> None:
    if weights is None:
        return
    architecture = name.split(".")[0]
    tags = [known.partition(".")[2] for known in timm.list_models(f"{architecture}.*", pretrained=True)]
    if not tags:
        raise ConfigurationError(f"weights={weights!r}: timm has no pretrained weights for {architecture!r}.")
    if weights != "default" and weights not in tags:
        raise UnknownNameError(f"'timm/{architecture}' has no weights {weights!r}: {closest(weights, tags)}")


def _missing(package: str, name: str) -> MissingPackageError:
    return MissingPackageError(f"the model '{package}/{name}' needs {package}: pip install \"relume[vision]\".")


def _unknown(package: str, name: str, known: list[str]) -> UnknownNameError:
    near = closest(name, known)
    return UnknownNameError(f"{package} has no classification model {name!r}: {near}")


def _not_downloaded(name: str, error: Exception, place: str) -> DownloadError:
    return DownloadError(
        f"the weights of {name!r} did not arrive: {error}. Start again online, or put them into {place}."
    )

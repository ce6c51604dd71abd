"""Models of torchvision and timm, which are imported only when one is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relume.errors import ConfigurationError, DownloadError, MissingPackageError, UnknownNameError, closest

_IMAGE_CHANNELS = 3  # what both libraries' models are made for
_WITH_AUXILIARY = ("googlenet", "inception_v3")


Recipe = dict[str, Any]


def torchvision_model(name: str, classes: int, channels: int, size: int, weights: str | None) -> nn.Module:
    """A classification model of torchvision."""
    options = _torchvision_options(name, channels, size if weights is None else None)
    return _of_torchvision(name, classes, channels, options, weights)


def timm_model(name: str, classes: int, channels: int, size: int, weights: str | None) -> nn.Module:
    """A model of timm, which adapts classes and channels by itself."""
    return _of_timm(name, classes, channels, size, weights)[0]


MAKERS: dict[str, Callable[[str, int, int, int, str | None], nn.Module]] = {
    "torchvision": torchvision_model,
    "timm": timm_model,
}


def backbone_model(
    package: str, name: str, classes: int | None, channels: int, size: int | None, weights: str | None
) -> tuple[nn.Module, Recipe]:
    """A model as its library builds it, and the recipe of that call. None for classes and size: as the library has them."""
    if package == "timm":
        return _of_timm(name, classes, channels, size, weights)
    options = _torchvision_options(name, channels, size)
    if name in _WITH_AUXILIARY:
        # They were trained on images of another scale, and turn those of the usual one into them.
        options["transform_input"] = channels == _IMAGE_CHANNELS
    model = _of_torchvision(name, classes, channels, options, weights)
    kept = options | ({"init_weights": False} if "init_weights" in options else {})
    kwargs = kept | ({} if classes is None else {"num_classes": classes})
    return model, {"builder": f"torchvision.models:{name}", "args": [], "kwargs": kwargs}


def weights_of(package: str, name: str) -> list[str]:
    """The names of a model's pretrained weights in its library; none where the model is not known."""
    if package == "timm":
        timm = _timm(name)
        return _timm_tags(timm, name.split(".")[0])
    models = _torchvision(name)
    return list(models.get_model_weights(name).__members__) if name in models.list_models(module=models) else []


def torchvision_weights_in(name: str, file: str) -> str | None:
    """Which pretrained weights of a model a file is called after."""
    entries = _torchvision(name).get_model_weights(name)
    return next((entry.name for entry in entries if entry.url.rsplit("/")[-1] == file), None)


def _torchvision(name: str) -> Any:
    try:
        from torchvision import models
    except ImportError as error:
        raise _missing("torchvision", name) from error
    return models


def _timm(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise _missing("timm", name) from error
    return timm


def _of_torchvision(
    name: str, classes: int | None, channels: int, options: dict[str, Any], weights: str | None
) -> nn.Module:
    models = _torchvision(name)
    known = models.list_models(module=models)
    if name not in known:
        raise _unknown("torchvision", name, known)
    pretrained = None if weights is None else _pretrained(models, name, weights, options)
    if pretrained is None or classes is not None:
        number = {} if classes is None else {"num_classes": classes}
        model: nn.Module = models.get_model(name, weights=None, **number, **options)
        model = model if pretrained is None else _with_head_of(pretrained, model)
    else:
        model = pretrained
    if channels != _IMAGE_CHANNELS:
        _adapt_first_convolution(model, channels)
    return model


def _of_timm(
    name: str, classes: int | None, channels: int, size: int | None, weights: str | None
) -> tuple[nn.Module, Recipe]:
    timm = _timm(name)
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    full_name = name if weights in (None, "default") else f"{name.split('.')[0]}.{weights}"
    _require_timm_weights(timm, full_name, weights)
    options: dict[str, Any] = {"in_chans": channels} | ({} if classes is None else {"num_classes": classes})
    preset = timm.models.get_pretrained_cfg(full_name)
    if size is not None and preset is not None and preset.fixed_input_size and preset.input_size[-1] != size:
        options["img_size"] = size
    try:
        model: nn.Module = timm.create_model(full_name, pretrained=weights is not None, **options)
    except Exception as error:
        if weights is not None and _is_of_the_network(error):
            raise _not_downloaded(f"timm/{full_name}", error, _place_of_timm(preset)) from error
        raise
    return model, {"builder": "timm:create_model", "args": [full_name], "kwargs": options}


def _is_of_the_network(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _NETWORK


_NETWORK = ("httpx", "httpcore", "requests", "urllib3", "huggingface_hub")


def _place_of_timm(preset: Any) -> str:
    cache = "the cache of the Hugging Face Hub ($HF_HOME)"
    if preset is None or not preset.hf_hub_id:
        url = getattr(preset, "url", "") or ""
        folder = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/")[-1])
        return f"{folder} (from {url}); or give the file: weights=FILE" if url else cache
    repository, _, revision = preset.hf_hub_id.partition("@")
    file = preset.hf_hub_filename or "model.safetensors"
    url = f"https://huggingface.co/{repository}/resolve/{revision or 'main'}/{file}"
    return (
        f"{cache} by `hf download {repository} {file}` where there is a network; or give the file {url}: weights=FILE"
    )


def _torchvision_options(name: str, channels: int, size: int | None) -> dict[str, Any]:
    """What some builders need besides the number of classes."""
    if name in _WITH_AUXILIARY:
        # One output instead of a tuple of three; and said explicitly, because the default warns that it will change.
        normalised = {} if channels == _IMAGE_CHANNELS else {"transform_input": False}
        return {"aux_logits": False, "init_weights": True, **normalised}
    if name.startswith("vit_") and size is not None:
        return {"image_size": size}
    return {}


def _pretrained(models: Any, name: str, weights: str, options: dict[str, Any]) -> nn.Module:
    known = models.get_model_weights(name)
    chosen = "DEFAULT" if weights == "default" else weights
    if chosen not in known.__members__:
        names = closest(weights, ["default", *known.__members__])
        raise UnknownNameError(f"'torchvision/{name}' has no weights {weights!r}: {names}")
    entry = known[chosen]
    model_options = {key: value for key, value in options.items() if key not in ("init_weights", "transform_input")}
    try:
        model: nn.Module = models.get_model(name, weights=entry, **model_options)
    except (OSError, RuntimeError) as error:
        place = Path(torch.hub.get_dir(), "checkpoints", entry.url.rsplit("/")[-1])
        raise _not_downloaded(f"torchvision/{name}", error, f"{place} (from {entry.url})") from error
    if "transform_input" in options:  # the builder refuses another than that of its weights
        model.transform_input = options["transform_input"]
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
    tags = _timm_tags(timm, architecture)
    if not tags:
        raise ConfigurationError(f"weights={weights!r}: timm has no pretrained weights for {architecture!r}.")
    if weights != "default" and weights not in tags:
        raise UnknownNameError(f"'timm/{architecture}' has no weights {weights!r}: {closest(weights, tags)}")


def _timm_tags(timm: Any, architecture: str) -> list[str]:
    return [known.partition(".")[2] for known in timm.list_models(f"{architecture}.*", pretrained=True)]


def _missing(package: str, name: str) -> MissingPackageError:
    return MissingPackageError(f"the model '{package}/{name}' needs {package}: pip install \"relume[vision]\".")


def _unknown(package: str, name: str, known: list[str]) -> UnknownNameError:
    near = closest(name, known)
    return UnknownNameError(f"{package} has no classification model {name!r}: {near}")


def _not_downloaded(name: str, error: Exception, place: str) -> DownloadError:
    return DownloadError(
        f"the weights of {name!r} did not arrive: {error}. Start again online, or put them into {place}."
    )

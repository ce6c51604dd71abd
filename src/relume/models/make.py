"""A model by its name, as a command line gets it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from relume.errors import ConfigurationError, RelumeError, UnknownNameError, closest
from relume.models import library
from relume.models.recipe.building import remember
from relume.models.small import CNN, MLP

_OWN = ("cnn", "mlp")


def make_model(
    name: str, classes: int = 10, channels: int = 1, size: int = 28, weights: str | None = None
) -> nn.Module:
    """A model for square images, ready to train.

    Args:
        name: ``"mlp"`` (:class:`MLP`), ``"cnn"`` (:class:`CNN`), ``"torchvision/NAME"`` or ``"timm/NAME"`` with a name
            of that library's classification models. Their number of classes and of input channels is adapted, see
            below.
        classes: number of outputs.
        channels, size: channels and side in pixels of the images. Models of torchvision and timm whose size is part of
            the architecture (vision transformers) are built for ``size``.
        weights: ``None`` for new weights, ``"default"`` for the library's best pretrained ones, or their name there
            (torchvision ``"IMAGENET1K_V1"``, timm ``"a1_in1k"``). They are downloaded by the library; a head of another
            number of classes is new.

    For grey images the first convolution's weights are summed over the colours, so that an image gives exactly what its
    copy in three channels would give: pretrained weights keep their meaning, new ones their scale. For other numbers of
    channels the three colours' weights are repeated and scaled by ``3 / channels``.

    Returns:
        The model in training mode, which `relume.save_model` takes. One of a library has been tried on an image of
        zeros, in evaluation mode.

    Raises:
        UnknownNameError: there is no such model, or no such weights; the message lists the closest names.
        MissingPackageError: the library is not installed.
        ConfigurationError: a number below one, weights for a model that has none, or images that the model cannot take.
        DownloadError: pretrained weights did not arrive; the message says where to put them.

    Example:
        >>> import torch
        >>> from relume.models import make_model
        >>> make_model("cnn", classes=5)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 5])
    """
    for what, value in {"classes": classes, "channels": channels, "size": size}.items():
        if value < 1:
            raise ConfigurationError(f"{what}={value}: it is at least 1.")
    source, _, inner = name.partition("/")
    if source in library.MAKERS and inner:
        with names_the_images(name, channels, size):
            model = library.MAKERS[source](inner, classes, channels, size, weights)
            _try(model, channels, size)
        arguments = {"classes": classes, "channels": channels, "size": size}
        remember(model, {"builder": "relume.models:make_model", "args": [name], "kwargs": arguments})
    elif name in _OWN:
        if weights is not None:
            raise ConfigurationError(f"weights={weights!r}: {name!r} has no pretrained weights.")
        model = (MLP if name == "mlp" else CNN)(classes, channels, size)
    else:
        forms = "Models of a library are named 'torchvision/NAME' and 'timm/NAME', such as 'torchvision/resnet18'."
        raise UnknownNameError(f"there is no model {name!r}: {closest(name, _OWN)} {forms}")
    return model


def _try(model: nn.Module, channels: int, size: int) -> None:
    """Find out now whether the model takes such images, rather than from a stack trace in the first batch."""
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, channels, size, size))
    model.train()


@contextlib.contextmanager
def names_the_images(name: str, channels: int, size: int | None) -> Iterator[None]:
    """Whatever a library raises while it builds or tries a model, its names being right, is about the images."""
    try:
        yield
    except RelumeError:
        raise
    except (RuntimeError, TypeError, ValueError, AssertionError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        images = f"{channels} x {size} x {size}" if size else f"{channels} channels"
        problem = f"{name!r} cannot take images of {images} ({reason})"
        remedy = "Choose another model or another size (size=224 is what most models were made for)."
        raise ConfigurationError(f"{problem}. {remedy}") from error

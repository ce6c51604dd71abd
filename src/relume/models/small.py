"""Two small models for small images. Shapes: n batch, c channels, h height, w width."""

from __future__ import annotations

import torch
from torch import nn

from relume.errors import ConfigurationError
from relume.models.recipe.building import remember_own


class MLP(nn.Module):
    """The ``NeuralNetwork`` of PyTorch's basics tutorial: two hidden layers of 512 units with ReLU.

    With the default arguments its ``state_dict`` has the tutorial's names and shapes, and after the same
    ``torch.manual_seed`` its bits (https://docs.pytorch.org/tutorials/beginner/basics/buildmodel_tutorial.html).

    Args:
        classes: number of outputs.
        channels, size: channels and side in pixels of the square images.

    Called with float images of shape (n, channels, size, size), it gives logits of shape (n, classes).

    Example:
        >>> from relume.models import MLP
        >>> MLP()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, classes: int = 10, channels: int = 1, size: int = 28) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(channels * size * size, 512),
            nn.ReLU(),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Linear(512, classes),
        )
        remember_own(self, MLP, classes=classes, channels=channels, size=size)

    def forward(self, images_nchw: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear_relu_stack(self.flatten(images_nchw))
        return logits


class CNN(nn.Module):
    """A small convolutional network: four 3 x 3 convolutions with batch norm, then one linear layer.

    100,000 parameters and 6 million multiplications for an image of Fashion-MNIST, which makes it quick on a CPU.
    ``features`` is the backbone, ``classifier`` the head.

    Args:
        classes: number of outputs.
        channels, size: channels and side in pixels of the square images; at least 8 pixels.

    Called with float images of shape (n, channels, size, size), it gives logits of shape (n, classes).

    Raises:
        ConfigurationError: ``size`` is below 8.

    Example:
        >>> from relume.models import CNN
        >>> CNN(classes=3, channels=3, size=32)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 3])
    """

    def __init__(self, classes: int = 10, channels: int = 1, size: int = 28) -> None:
        super().__init__()
        side = size // 8
        if side < 1:
            raise ConfigurationError(
                f"size={size}: a CNN halves images three times, they need at least 8 pixels a side."
            )
        self.features = nn.Sequential(
            *_block(channels, 16),
            nn.MaxPool2d(2),
            *_block(16, 32),
            nn.MaxPool2d(2),
            *_block(32, 64),
            *_block(64, 128),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(0.25), nn.Linear(128 * side * side, classes))
        remember_own(self, CNN, classes=classes, channels=channels, size=size)

    def forward(self, images_nchw: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.features(images_nchw))
        return logits


def _block(channels_in: int, channels_out: int) -> list[nn.Module]:
    """The convolution has no bias: the batch norm that follows would subtract it again."""
    return [
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    ]

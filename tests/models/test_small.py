from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from relume.datasets import IdxImages, load
from relume.errors import ConfigurationError
from relume.models import CNN, MLP


class NeuralNetwork(nn.Module):
    """As PyTorch's basics tutorial has it."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(28 * 28, 512),
            nn.ReLU(),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Linear(512, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.flatten(x)
        return self.linear_relu_stack(x)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """On a busy machine two threads that wait for each other are many times slower than one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_mlp_is_the_tutorials_network_to_the_last_bit() -> None:
    torch.manual_seed(5)
    theirs = NeuralNetwork()
    torch.manual_seed(5)
    ours = MLP()
    expected, state = theirs.state_dict(), ours.state_dict()
    assert list(state) == list(expected)
    assert "linear_relu_stack.0.weight" in state
    assert all(torch.equal(state[name], expected[name]) for name in state)
    images = torch.rand(3, 1, 28, 28)
    assert torch.equal(ours(images), theirs(images))
    theirs.load_state_dict(state)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(8, 40))
def test_both_take_images_of_any_size_and_give_a_logit_for_each_class(classes: int, channels: int, size: int) -> None:
    images = torch.rand(2, channels, size, size)
    for kind in (MLP, CNN):
        assert kind(classes, channels, size)(images).shape == (2, classes)


def test_the_cnn_is_small() -> None:
    assert sum(parameter.numel() for parameter in CNN().parameters()) == 108_922


def test_the_cnn_learns(one_thread: None) -> None:
    """Two passes over 1,000 images. On all 60,000 it has 91 percent after four, with Adam and batches of 128."""
    torch.manual_seed(0)
    split = load("fashion-mnist", quiet=True)
    train, test = split.train, split.test
    assert isinstance(train, IdxImages) and isinstance(test, IdxImages)
    images, labels = (rows[:1000] for rows in train.relume_rows() or [])
    model = CNN()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(2):
        for indices in torch.randperm(1000).split(50):
            nn.functional.cross_entropy(model(images[indices]), labels[indices]).backward()
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    test_images, test_labels = (rows[:500] for rows in test.relume_rows() or [])
    with torch.no_grad():
        assert (model(test_images).argmax(1) == test_labels).float().mean() > 0.65


def test_images_too_small_for_the_cnn_are_an_error() -> None:
    with pytest.raises(ConfigurationError, match="size=7: a CNN halves images three times"):
        CNN(size=7)

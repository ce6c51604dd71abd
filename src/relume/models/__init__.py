"""Models for the command line and for examples: two small ones, and those of torchvision and timm by name."""

from relume.models.make import make_model
from relume.models.small import CNN, MLP

__all__ = ["CNN", "MLP", "make_model"]

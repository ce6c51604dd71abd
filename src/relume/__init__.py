"""relume: train, monitor, checkpoint, resume, fine-tune and share PyTorch models."""

__version__ = "0.1.0"

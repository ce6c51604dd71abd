"""What other tools have logged, brought into the local record as finished runs."""

from relume.recorded.imports.tensorboard import import_tensorboard
from relume.recorded.imports.wandb import import_wandb
from relume.recorded.imports.writing import Imported

__all__ = ["Imported", "import_tensorboard", "import_wandb"]

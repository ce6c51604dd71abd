"""Save, load, look into, convert and compare models, with nothing in any file ever executed.

python examples/05_model_files.py
relume inspect classifier.safetensors        # then also: relume diff A B, relume convert OLD NEW, relume summary ...
"""

import tempfile
from pathlib import Path

import torch
from torch import nn

import relume

folder = Path(tempfile.mkdtemp())

# Weights: the ending says the format; files are replaced whole or not at all.
model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 26 * 26, 10))
relume.save_weights(model, folder / "weights.safetensors")
relume.save_weights(model, folder / "weights.pt")  # plain torch.load opens it

# A whole model: architecture and weights, without pickle.
relume.save_model(model, folder / "classifier.safetensors")
again = relume.load_model(folder / "classifier.safetensors")
print(relume.diff(model, again).is_same)

# A new head for other classes: everything else is taken over, and the report says what was not.
tuned = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 26 * 26, 3))
print(relume.load_weights(tuned, folder / "weights.safetensors", skip_mismatched=True))

# An old checkpoint that somebody pickled whole: its weights come out, and nothing in it runs.
torch.save({"epoch": 7, "model": model, "loss": 0.25}, folder / "old.pth")
report = relume.load_weights(again, folder / "old.pth")
print(f"{report.coverage:.0%} of the parameters")
print(relume.convert(folder / "old.pth", folder / "new.safetensors"))

# The graph itself, for machines without the class, and for any batch size.
relume.save_model(model.eval(), folder / "classifier.pt2", example_inputs=torch.zeros(2, 1, 28, 28))
print(relume.load_model(folder / "classifier.pt2")(torch.zeros(5, 1, 28, 28)).shape)

print(relume.summary(model, (1, 28, 28)))

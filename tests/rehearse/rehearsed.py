"""Trainings to rehearse: one that is exact, and the same with one mistake each."""

from __future__ import annotations

from pathlib import Path

EXACT = '''"""Uses every generator: dropout, shuffled order, augmentation from torch, numpy and random, and a scheduler."""

import random
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import relume

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 3


class Noisy(Dataset):
    def __init__(self):
        self.inputs = torch.randn(64, 1, 6, 6, generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        noise = torch.randn(1, 6, 6) * np.random.rand() * random.random()
        return self.inputs[index] + noise, int(self.inputs[index].sum() > 0)


# seed
relume.seed_everything(3)
torch.set_num_threads(1)
model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(48, 2))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=48)
loader = DataLoader(Noisy(), batch_size=8, shuffle=True)
held_out = DataLoader(Noisy(), batch_size=32)
# before
with relume.Run("noisy", model=model, optimizer=optimizer, scheduler=scheduler, quiet=True) as run:
    for epoch in run.epochs(EPOCHS):
        # epoch
        for inputs, targets in run.batches(loader):
            # batch
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            run.log({"train/loss": loss, "seconds": time.time()})
            time.sleep(0.005)
        model.eval()
        with torch.no_grad():
            run.log({"val/loss": sum(nn.functional.cross_entropy(model(x), y) for x, y in held_out) / 2})
        model.train()
        # after
'''

MISTAKES = {
    "untracked generator": {
        "# before": "rng = np.random.default_rng(0)",
        "# batch": "inputs = inputs + float(rng.normal())",
    },
    "unseeded": {"# seed\nrelume.seed_everything(3)": "torch.manual_seed(3)"},
    "order of a set": {
        "# before": 'names = {"ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay", "kiwi", "lynx"}',
        "# batch": 'inputs = inputs * sum((place + 2) ** 2 * ord(name[0]) for place, name in enumerate(names)) / 1e4',
    },
    "time": {"# batch": "inputs = inputs + time.time() % 1"},
    "sum over an epoch": {
        "# epoch": "total = 0.0",
        "# batch": "total += float(inputs.mean())",
        "# after": 'run.log({"train/mean": total})',
    },
    "new runs": {"quiet=True": "quiet=True, resume=False"},
    "new names": {'relume.Run("noisy"': 'relume.Run(f"noisy-{time.time_ns()}"'},
    "fails again": {"# before": 'open("made.txt", "x")'},
}  # fmt: skip


def write(folder: Path, mistake: str | None = None) -> Path:
    """The script in ``folder``, exact or with a mistake."""
    text = EXACT
    for mark, replacement in MISTAKES[mistake].items() if mistake else ():
        assert text.count(mark) == 1, mark
        text = text.replace(mark, replacement)
    path = folder / "train.py"
    path.write_text(text)
    return path

"""A training that may be stopped at any moment: start the same command again and it goes on, bit for bit.

python examples/04_resume.py       # press Ctrl-C, or kill it; then start it again
relume checkpoints resume          # what is saved
relume rehearse examples/04_resume.py   # proves that it resumes exactly, by killing it
"""

import torch
from torch import nn, optim
from torch.utils.data import DataLoader, Subset

import relume


class Shifted(torch.utils.data.Dataset):
    """Images moved by up to two pixels, at random: the augmentation too is the same after a resume."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image, label = self.images[index]
        return image.roll(tuple(torch.randint(-2, 3, (2,)).tolist()), (1, 2)), label


train = Subset(relume.datasets.fashion_mnist(train=True), range(4000))
test = Subset(relume.datasets.fashion_mnist(train=False), range(1000))

relume.seed_everything(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
optimizer = optim.AdamW(model.parameters(), lr=2e-3)
trainer = relume.Trainer(
    model,
    loss=nn.CrossEntropyLoss(),
    optimizer=optimizer,
    scheduler=optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4),
    metrics={"accuracy": relume.accuracy},
    seed=0,
)
result = trainer.fit(
    DataLoader(Shifted(train), batch_size=64, shuffle=True),
    DataLoader(test, batch_size=500),
    epochs=4,
    run="resume",
    every=["1 epoch", "50 steps", "10 min"],
    keep=relume.Keep(last=2, best=1, monitor="val/accuracy"),
    stop=relume.EarlyStopping("val/loss", patience=2, restore_best=True),
)
print(f"{result.reason}; best accuracy {result.best['val/accuracy']:.3f} in epoch {result.best_epoch['val/accuracy']}")

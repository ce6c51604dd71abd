"""Alternating step freezing: body and head of a small network are trained in turns of 20 updates, and a stop costs nothing.

python examples/06_step_freezing.py
relume rehearse examples/06_step_freezing.py   # kills it at random moments and proves that it resumes exactly
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

import relume

train = Subset(relume.datasets.fashion_mnist(train=True), range(2000))
test = Subset(relume.datasets.fashion_mnist(train=False), range(500))

relume.seed_everything(0)
model = nn.Sequential(
    nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()),
    nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1)),
    nn.Linear(576, 10),
)
# The optimizer holds all that any turn trains: what is frozen has no gradient and is not moved, by weight decay neither.
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
schedule = relume.FreezeSchedule.alternate({"head": ["2"], "body": ["0", "1"]}, every="20 steps")
print(schedule)

trainer = relume.Trainer(
    model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, metrics={"accuracy": relume.accuracy}, seed=0
)
result = trainer.fit(
    DataLoader(train, batch_size=50, shuffle=True),
    DataLoader(test, batch_size=250),
    epochs=3,
    run="step-freezing",
    freeze=schedule,
    every=["1 epoch", "15 steps"],
)
print(f"{result.reason}; accuracy {result.last['val/accuracy']:.3f}")

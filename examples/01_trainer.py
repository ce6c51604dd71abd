"""The whole job with the Trainer: Fashion-MNIST, a small network, accuracy after each epoch.

python examples/01_trainer.py
"""

from torch import nn, optim
from torch.utils.data import DataLoader, Subset

import relume

relume.seed_everything(0)
train = relume.datasets.fashion_mnist(train=True)
test = relume.datasets.fashion_mnist(train=False)

model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
trainer = relume.Trainer(
    model,
    loss=nn.CrossEntropyLoss(),
    optimizer=optim.Adam(model.parameters(), lr=1e-3),
    metrics={"accuracy": relume.accuracy},
    seed=0,
)
result = trainer.fit(
    DataLoader(Subset(train, range(5000)), batch_size=64, shuffle=True),
    DataLoader(test, batch_size=500),
    epochs=2,
    run="trainer",
    config={"hidden": 128},
)
print(
    f"best accuracy {result.best['val/accuracy']:.3f} in epoch {result.best_epoch['val/accuracy']}, kept in {result.folder}"
)

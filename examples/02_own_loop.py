"""The loop one writes oneself, on a Run: the same exact data, journal and console as with the Trainer.

python examples/02_own_loop.py
"""

from torch import nn, optim
from torch.utils.data import DataLoader, Subset

import relume

train = Subset(relume.datasets.fashion_mnist(train=True), range(5000))
test = relume.datasets.fashion_mnist(train=False)
train_loader = DataLoader(train, batch_size=64, shuffle=True)
test_loader = DataLoader(test, batch_size=500)

relume.seed_everything(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = optim.SGD(model.parameters(), lr=0.1)
loss_fn = nn.CrossEntropyLoss()

with relume.Run("own-loop", model=model, optimizer=optimizer, config={"lr": 0.1}, seed=0) as run:
    for _epoch in run.epochs(2):
        for images, labels in run.batches(train_loader):
            loss = loss_fn(model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            run.log({"train/loss": loss})  # a tensor is fine
        run.log(relume.evaluate(model, test_loader, loss=loss_fn, metrics={"accuracy": relume.accuracy}, prefix="val/"))
        if run.last["val/accuracy"] > 0.9:
            run.stop("good enough")

curve = relume.history(run.folder)
print(f"{len(curve['train/loss'])} losses, the last one {run.last['train/loss']:.3f}")

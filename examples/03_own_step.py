"""A training step of one's own and a callback: mixup, and a stop when the loss no longer falls.

python examples/03_own_step.py
"""

import torch
from torch import nn, optim
from torch.utils.data import DataLoader, Subset

import relume


def mixup(trainer: relume.Trainer, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018."""
    images, labels = batch
    share = torch.distributions.Beta(0.2, 0.2).sample()
    other = torch.randperm(len(images))
    output = trainer.model(share * images + (1 - share) * images[other])
    loss = share * nn.functional.cross_entropy(output, labels) + (1 - share) * nn.functional.cross_entropy(
        output, labels[other]
    )
    return {"loss": loss, "share": share}


class StopWhenFlat(relume.Callback):
    def on_evaluation_end(self, trainer: relume.Trainer) -> None:
        best = trainer.run.best["val/loss"]
        if trainer.evaluation["val/loss"] > best * 1.05:
            trainer.stop("the loss no longer falls")


relume.seed_everything(0)
model = relume.models.MLP()
trainer = relume.Trainer(
    model,
    loss=nn.CrossEntropyLoss(),
    step=mixup,
    optimizer=optim.AdamW(model.parameters(), lr=1e-3),
    clip_norm=1.0,
    callbacks=[StopWhenFlat()],
    seed=0,
)
train = Subset(relume.datasets.fashion_mnist(train=True), range(5000))
test = relume.datasets.fashion_mnist(train=False)
result = trainer.fit(DataLoader(train, 64, shuffle=True), DataLoader(test, 500), epochs=3, run="mixup")
print(result.reason)

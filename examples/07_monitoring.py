"""What a training shows: curves, distributions, the mistakes it makes, the machine's load; in TensorBoard too.

python examples/07_monitoring.py
relume tensorboard monitored            # the same in a browser
relume show monitored --code            # the code that made it
relume plot monitored -o curves.png
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

import relume

CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]


class Mistakes(relume.Callback):
    """After each evaluation: the pictures that the model gets most wrong, and which class is taken for which."""

    def __init__(self, samples: Subset) -> None:
        self.loader = DataLoader(samples, batch_size=len(samples))

    def on_evaluation_end(self, trainer: relume.Trainer) -> None:
        images, labels = next(iter(self.loader))
        outputs = trainer.predict(self.loader)
        trainer.run.log_predictions(images, outputs, labels, CLASSES, name="mistakes")
        trainer.run.log({"confusion": relume.ConfusionMatrix(labels, outputs.argmax(1), CLASSES)})


train = Subset(relume.datasets.fashion_mnist(train=True), range(3000))
test = Subset(relume.datasets.fashion_mnist(train=False), range(500))

relume.seed_everything(0)
model = relume.models.MLP()
trainer = relume.Trainer(
    model,
    loss=nn.CrossEntropyLoss(),
    optimizer=torch.optim.Adam(model.parameters(), lr=1e-3),
    metrics={"accuracy": relume.accuracy},
    callbacks=[Mistakes(test)],
    seed=0,
)
result = trainer.fit(
    DataLoader(train, batch_size=50, shuffle=True),
    DataLoader(test, batch_size=250),
    epochs=3,
    run="monitored",
    tags=["example"],
    notes="how to watch a training",
    trackers=["tensorboard"],  # or relume.WandB(project="fashion"), relume.MLflow("http://127.0.0.1:5000")
    watch=[relume.Watch(every="50 steps"), relume.LearningRates(), relume.Speed(every="50 steps"), relume.NonFinite()],
)

print(result)
columns = relume.history("monitored", metrics=["val/*"])
print("accuracy by epoch:", [round(float(value), 3) for value in columns["val/accuracy"]])
for kept in relume.media("monitored", kind="confusion_matrix"):
    print(f"step {kept.step}: {kept.name} of {len(kept.content['classes'])} classes")

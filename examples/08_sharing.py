"""Share a model as one file that proves its own numbers: pack, open, predict, check, exchange, export.

python examples/08_sharing.py
relume reproduce clothes.relume           # what another person does first
relume predict clothes.relume shirt.png
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

import relume

relume.seed_everything(0)
train = Subset(relume.datasets.fashion_mnist(train=True), range(3000))
test = Subset(relume.datasets.fashion_mnist(train=False), range(1000))
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
trainer = relume.Trainer(
    model,
    loss=nn.CrossEntropyLoss(),
    optimizer=torch.optim.Adam(model.parameters(), lr=1e-3),
    metrics={"accuracy": relume.accuracy},
    seed=0,
)
trainer.fit(DataLoader(train, 50, shuffle=True), DataLoader(test, 500), epochs=2, run="clothes")

# Pack: weights, architecture, code, environment, examples, and the numbers with the data that they were measured on.
packed = relume.pack("clothes@best", data=test, title="A small network for clothes", authors=["Ada"], licence="MIT")
print(f"{packed.path}: {len(packed.files)} files; compare {packed.digest[:12]} with what the author published")

# Open: every byte is compared with the manifest first, and nothing in the file is executed.
again = relume.load_model("clothes.relume").eval()
with torch.no_grad():
    print("predicts", again(test[0][0][None]).argmax(1).item(), "for", test[0][1])

# Check: what another person does, on another machine.
report = relume.reproduce("clothes.relume", data=test)
print(report.conclusion)
report.save("report.md")

# Exchange: a folder, s3://bucket/folder, hf://user/name; a second push sends what is new. Any web server can be pulled from.
print("sent", relume.push("clothes.relume", "shelf").sent_bytes > 0, relume.push("clothes.relume", "shelf").sent_bytes)
relume.pull("shelf/clothes", "copy.relume")

# Export: for other runtimes, compared with the model on the examples.
print(relume.export("clothes.relume", "clothes.onnx"))

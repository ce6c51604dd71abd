"""Scripts that run without a word and train something else than was meant: each is told, and right ones are left in peace."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import relume
from relume.errors import RelumeError, RelumeWarning

STEPS = 5
Data = list[tuple[torch.Tensor, torch.Tensor]]


class Net(nn.Module):
    """A body with a batch norm and dropout, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


@dataclass
class Script:
    """What a user wrote: models, optimizers and what happens around a step."""

    model: Any
    optimizer: Any
    before_epoch: Callable[[], Any] = lambda: None
    after_step: Callable[[], Any] = lambda: None
    clears: bool = True
    options: dict[str, Any] = field(default_factory=dict)


def adam(parameters: Iterable[torch.Tensor], lr: float = 1e-2, **more: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=lr, **more)


def data() -> Data:
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(8, 4, generator=generator), torch.randint(0, 3, (8,), generator=generator)) for _ in range(STEPS)
    ]


def by_run(script: Script, root: Path, epochs: int = 2) -> relume.Run:
    """A loop written by hand."""
    optimizers = script.optimizer if isinstance(script.optimizer, list) else [script.optimizer]
    with relume.Run("a", model=script.model, optimizer=script.optimizer, root=root, quiet=True) as run:
        for _ in run.epochs(epochs):
            script.model.train()
            script.before_epoch()
            for x, y in run.batches(data()):
                nn.functional.cross_entropy(script.model(x), y).backward()
                for optimizer in optimizers:
                    optimizer.step()
                script.after_step()
                if script.clears:
                    for optimizer in optimizers:
                        optimizer.zero_grad()
    return run


def by_trainer(script: Script, root: Path) -> relume.Result:
    class Around(relume.Callback):
        def on_epoch_start(self, trainer: relume.Trainer) -> None:
            script.before_epoch()

        def on_step_end(self, trainer: relume.Trainer) -> None:
            script.after_step()

    trainer = relume.Trainer(
        script.model,
        loss=nn.CrossEntropyLoss(),
        optimizer=script.optimizer,
        device="cpu",
        quiet=True,
        callbacks=[Around()],
    )
    return trainer.fit(data(), epochs=2, run="a", root=root)


# ------------------------------------------------------------------------------------------------------ wrong scripts


def new_head_after_the_optimizer() -> Script:
    model = Net()
    optimizer = adam(model.parameters())
    model.head = nn.Linear(8, 3)
    return Script(model, optimizer)


def head_not_in_the_optimizer() -> Script:
    model = Net()
    return Script(model, adam(model.body.parameters()))


def filtered_before_unfreezing() -> Script:
    model = Net()
    model.body.requires_grad_(False).eval()
    optimizer = adam(p for p in model.parameters() if p.requires_grad)
    relume.unfreeze(model, "body")
    return Script(model, optimizer)


def optimizer_of_the_frozen_part() -> Script:
    model = Net()
    relume.freeze(model, "body")
    return Script(model, adam(model.body.parameters()))


def optimizer_of_a_copy() -> Script:
    model = Net()
    return Script(model, adam(copy.deepcopy(model).parameters()))


def assigned_after_the_optimizer() -> Script:
    model = Net()
    optimizer = adam(model.parameters())
    model.load_state_dict(Net().state_dict(), assign=True)
    return Script(model, optimizer)


def half_assigned_after_the_optimizer() -> Script:
    model = Net()
    optimizer = adam(model.parameters())
    model.body.load_state_dict(Net().body.state_dict(), assign=True)
    return Script(model, optimizer)


def replaced_by_a_conversion() -> Script:
    model = Net()
    optimizer = adam(model.parameters())
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        model.double().float()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
    return Script(model, optimizer)


def everything_frozen() -> Script:
    model = Net()
    optimizer = adam(model.parameters())
    relume.freeze(model)
    return Script(model, optimizer)


def misspelt_on_parameters() -> Script:
    model = Net()
    for parameter in model.body.parameters():
        parameter.requres_grad = False
    return Script(model, adam(model.parameters()))


def misspelt_to_unfreeze() -> Script:
    model = Net()
    relume.freeze(model, "body")
    model.body[4].weight.required_grad = True
    return Script(model, adam(model.parameters()))


def method_overwritten() -> Script:
    model = Net()
    model.head.bias.requires_grad_ = False
    return Script(model, adam(model.parameters()))


def attribute_of_a_module() -> Script:
    model = Net()
    model.body.requires_grad = False
    return Script(model, adam(model.parameters()))


def attribute_of_the_model() -> Script:
    model = Net()
    model.require_grads = False
    return Script(model, adam(model.parameters()))


def as_in_keras() -> Script:
    model = Net()
    model.body.trainable = False
    return Script(model, adam(model.parameters()))


def unused_branch() -> Script:
    model = Net()
    model.auxiliary = nn.Linear(8, 2)
    return Script(model, adam(model.parameters()))


class Detached(Net):
    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).detach()


class WithoutGradients(Net):
    def features(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.body(x)


class OfANewTensor(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).detach().requires_grad_()


class NothingLeft(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).detach()


class Dead(Net):
    def features(self, x: torch.Tensor) -> torch.Tensor:
        return (self.body(x) - 100).relu()


class InAList(Net):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(8, 8), nn.Linear(8, 8)]

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        for layer in self.layers:
            x = layer(x)
        return x


class PlainTensor(Net):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(8, requires_grad=True)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) * self.scale


class NotALeaf(PlainTensor):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8)) * 0.5


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        self.decoder = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
        self.decoder[0].weight = self.encoder[1].weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))


def made(kind: type[nn.Module]) -> Callable[[], Script]:
    def script() -> Script:
        model = kind()
        return Script(model, adam(model.parameters()))

    script.__name__ = kind.__name__
    return script


def tied_and_frozen() -> Script:
    model = Tied()
    relume.freeze(model, "encoder")
    return Script(model, adam(model.parameters()))


def tied_and_trained() -> Script:
    model = Tied()
    relume.freeze(model, "encoder")
    relume.unfreeze(model, "decoder")
    return Script(model, adam(model.parameters()))


def frozen_by_flag_only() -> Script:
    model = Net()
    model.body.requires_grad_(False)
    return Script(model, adam(model.head.parameters()))


def decay_by_hand() -> Script:
    model = Net()
    relume.freeze(model, "body")

    def decay() -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.999)

    return Script(model, adam(model.parameters()), after_step=decay)


def decay_through_data() -> Script:
    model = Net()
    relume.freeze(model, "body")

    def decay() -> None:
        for parameter in model.parameters():
            parameter.data.mul_(0.999)

    return Script(model, adam(model.parameters()), after_step=decay)


def frozen_with_a_gradient_left() -> Script:
    """Frozen by the flag between backward pass and step: the optimizer goes on with the gradient that is there."""
    model = Net()
    optimizer = adam(model.parameters())
    nn.functional.cross_entropy(model(data()[0][0]), data()[0][1]).backward()
    model.body[0].requires_grad_(False)
    model.head.zero_grad()
    script = Script(model, optimizer, clears=False)
    script.after_step = lambda: model.head.zero_grad()  # and the other gradients stay
    return script


def no_learning_rate() -> Script:
    model = Net()
    return Script(model, adam([{"params": model.body.parameters(), "lr": 0.0}, {"params": model.head.parameters()}]))


def half_precision_that_swallows_updates() -> Script:
    class Half(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.bfloat16()).float()

    model = Half().bfloat16()
    model.body[1].float().bfloat16()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(2.0)
    return Script(model, torch.optim.SGD(model.parameters(), lr=1e-7))


def in_two_groups() -> Script:
    model = Net()
    optimizer = adam(model.parameters())
    optimizer.param_groups.append({**optimizer.param_groups[0], "params": list(model.head.parameters()), "lr": 1e-3})
    return Script(model, optimizer)


def in_two_optimizers() -> Script:
    model = Net()
    return Script(model, [adam(model.parameters()), torch.optim.SGD(model.head.parameters(), lr=0.1)])


def one_optimizer_of_what_is_frozen() -> Script:
    model = Net()
    relume.freeze(model, "body")
    return Script(model, [adam(model.body.parameters()), adam(model.head.parameters())])


def evaluated_and_left_so() -> Script:
    model = Net()
    calls: list[int] = []

    def evaluation() -> None:
        if calls:
            model.eval()
        calls.append(1)

    return Script(model, adam(model.parameters()), before_epoch=evaluation)


def never_cleared() -> Script:
    model = Net()
    return Script(model, adam(model.parameters()), clears=False)


def infinite_gradients() -> Script:
    class Root(Net):
        def features(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x) + (self.head.weight[:1, :1] * 0).abs().sqrt()

    model = Root()
    return Script(model, torch.optim.SGD(model.parameters(), lr=0.1))


WRONG = {
    new_head_after_the_optimizer: r"2 of 8 trainable parameters of Net are in no optimizer and will not change: head.weight, "
    r"head.bias\. The optimizer holds 2 tensors that the model does not have \(shapes \(3, 8\), \(3,\)\): .*a new head",
    head_not_in_the_optimizer: r"are in no optimizer and will not change: head.weight, head.bias. Add them with",
    filtered_before_unfreezing: r"6 of 8 trainable parameters of Net are in no optimizer .*: body.0.weight.*and 1 more",
    optimizer_of_the_frozen_part: r"holds none of the 2 trainable parameters of Net; it holds only frozen ones: body.0.weight",
    optimizer_of_a_copy: r"holds none of the 8 trainable parameters of Net; it was made from another model",
    assigned_after_the_optimizer: r"holds none of the 8 .*before the parameters of this one were replaced. Make it from",
    half_assigned_after_the_optimizer: r"6 of 8 .*The optimizer holds 6 tensors .*load_state_dict\(assign=True\)",
    replaced_by_a_conversion: r"holds none of the 8 trainable parameters of Net; .*after any change of its layers",
    # the optimizer was made before: the Trainer tells it before the first batch, the Run when torch fails
    everything_frozen: r"all 8 parameters of Net are frozen \(requires_grad=False\): .*relume.unfreeze",
    misspelt_on_parameters: r"body.0.weight.requres_grad = False has no effect: body.0.weight is trainable. The attribute is "
    r"called requires_grad: .*relume.freeze\(model, 'body.0.weight'\)",
    misspelt_to_unfreeze: r"body.4.weight.required_grad = True has no effect: body.4.weight is frozen",
    method_overwritten: r"head.bias.requires_grad_ = False has no effect",
    attribute_of_a_module: r"body.requires_grad = False has no effect: a module has no such setting, and 6 of its parameters are "
    r"trainable. Say body.requires_grad_\(False\) with an underscore, or relume.freeze\(model, 'body'\)",
    attribute_of_the_model: r"the model.require_grads = False has no effect: .*8 of its parameters .*relume.freeze\(model\)",
    as_in_keras: r"body.trainable = False has no effect",
    unused_branch: r"2 trainable parameters got no gradient in 5 steps: auxiliary.weight, auxiliary.bias. That is a part of",
    made(Detached): r"6 trainable parameters got no gradient in 5 steps: body.0.weight.*before a detach\(\)",
    made(WithoutGradients): r"6 trainable parameters got no gradient .*torch.no_grad\(\)",
    made(Dead): r"the gradient of \d parameters was zero in every element at 3 of the first 5 steps: .*Dead units",
    made(InAList): r"layers is a plain list with 2 modules in it \(Linear …\): .*Make it an nn.ModuleList",
    made(PlainTensor): r"scale is a plain tensor of shape \(8,\) that gets gradients: .*self.scale = nn.Parameter",
    made(NotALeaf): r"scale was computed from a parameter of shape \(8,\) and is none itself",
    tied_and_frozen: r"decoder.0.weight is frozen, unlike all around it, because it is the same tensor as encoder.1.weight",
    tied_and_trained: r"encoder.1.weight is trainable, unlike all around it, because it is the same tensor as decoder.0.weight",
    frozen_by_flag_only: r"the running statistics of 1 frozen batch norms move in each forward pass.*: body.1. .*relume.freeze",
    decay_by_hand: r"5 frozen parameters changed in training: body.0.weight.*weight decay or a copy made by hand",
    decay_through_data: r"5 frozen parameters changed in training: body.0.weight",
    frozen_with_a_gradient_left: r"2 frozen parameters changed in training: body.0.weight, body.0.bias. They are in an optimizer "
    r"and have a gradient from before they were frozen",
    no_learning_rate: r"the learning rate of group 0 of optimizer is 0, so 6 parameters cannot move: body.0.weight",
    half_precision_that_swallows_updates: r"got gradients and did not change in 5 steps: .*bfloat16 can hold",
    in_two_groups: r"optimizer holds head.weight, head.bias in its groups 0 and 1: each step would move them twice",
    in_two_optimizers: r"optimizer0 and optimizer1 hold the same parameters.*: head.weight, head.bias. Give each",
    one_optimizer_of_what_is_frozen: r"optimizer0 holds only frozen parameters, so its step does nothing: body.0.weight",
    made(OfANewTensor): r"3 steps of optimizer found no gradient in any of its parameters.*is the loss detached",
}
ONLY_BY_HAND = {
    evaluated_and_left_so: r"Net is trained in evaluation mode: dropout is off .*\(body.1, body.3\). Call model.train\(\)",
    infinite_gradients: r"the gradient of 1 parameter is NaN or infinite at the first step: head.weight",
    made(
        NothingLeft
    ): r"does not require grad.*relume: the loss does not depend on any trainable parameter: look for detach",
    never_cleared: r"the gradients of optimizer are not cleared between its steps.*call optimizer.zero_grad\(\)",
}
NOT_WITH_THE_TRAINER = {frozen_with_a_gradient_left}
"""It clears gradients itself."""


def named(scripts: Iterable[Any]) -> list[Any]:
    return [pytest.param(script, id=script.__name__) for script in scripts]


def told(train: Callable[[Script, Path], Any], script: Callable[[], Script], root: Path, message: str) -> None:
    """It is told, once and in these words, as an error or as a warning; and nothing else is."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            train(script(), root)
            errors = []
        except (RelumeError, RuntimeError) as error:
            errors = ["\n".join([str(error), *getattr(error, "__notes__", [])])]
    texts = errors + [str(one.message) for one in said if issubclass(one.category, RelumeWarning)]
    texts = [text for text in texts if "was said to be constant" not in text]  # the store has found it too
    assert [text for text in texts if re.search(message, text, re.DOTALL)], texts or "nothing was said"
    assert len(texts) == 1, texts


@pytest.mark.parametrize("script", named({**WRONG, **ONLY_BY_HAND}))
def test_a_wrong_loop_is_told_what_is_wrong(script: Callable[[], Script], tmp_path: Path) -> None:
    told(by_run, script, tmp_path, {**WRONG, **ONLY_BY_HAND}[script])


@pytest.mark.parametrize("script", named(one for one in WRONG if one not in NOT_WITH_THE_TRAINER))
def test_the_trainer_tells_what_is_wrong(script: Callable[[], Script], tmp_path: Path) -> None:
    told(by_trainer, script, tmp_path, WRONG[script])

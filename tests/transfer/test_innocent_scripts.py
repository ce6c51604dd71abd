"""Unusual and right: scripts that the ledger leaves in peace. A warning is an error here."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import relume

Step = Callable[[torch.Tensor, torch.Tensor, int, int], None]
Made = tuple[dict[str, Any], Step]
BATCHES = 6


def adam(parameters: Any, lr: float = 1e-2, **more: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=lr, **more)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def update(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def plain(model: nn.Module, optimizer: torch.optim.Optimizer | None = None, **more: Any) -> Made:
    optimizer = adam(model.parameters()) if optimizer is None else optimizer

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        model.train()
        update(optimizer, functional.cross_entropy(model(x), y))

    return {"model": model, "optimizer": optimizer, **more}, step


def gan(toggled: bool = False) -> Made:
    generator, critic = nn.Linear(2, 4), nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 1))
    of_generator, of_critic = adam(generator.parameters()), adam(critic.parameters())

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        noise = torch.randn(len(x), 2)
        if toggled:  # the generator first, while the critic is frozen
            critic.requires_grad_(False)
            update(of_generator, functional.softplus(-critic(generator(noise))).mean())
            critic.requires_grad_(True)
        fake = generator(noise).detach()
        update(of_critic, (functional.softplus(critic(fake)) + functional.softplus(-critic(x))).mean())
        if not toggled:
            update(of_generator, functional.softplus(-critic(generator(noise))).mean())

    return {"model": {"generator": generator, "critic": critic}, "optimizer": [of_generator, of_critic]}, step


def toggled_gan() -> Made:
    return gan(toggled=True)


def teacher(is_frozen: bool = True) -> Made:
    model, big = mlp(), net()
    if is_frozen:
        relume.freeze(big)
    optimizer = adam(model.parameters())

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        with torch.no_grad():
            wanted = big(x)
        update(optimizer, functional.mse_loss(model(x), wanted))

    return {"model": {"student": model, "teacher": big}, "optimizer": optimizer}, step


def teacher_without_gradients() -> Made:
    return teacher(is_frozen=False)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((self.left if random.random() < 0.5 else self.right)(x))


def conditional_branches() -> Made:
    random.seed(5)
    return plain(Branches())


def alternating_epochs() -> Made:
    model = mlp()
    optimizer = adam(model.parameters(), weight_decay=0.1)

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        relume.freeze(model, trainable="0" if epoch % 2 else "2")
        update(optimizer, functional.cross_entropy(model(x), y))

    return {"model": model, "optimizer": optimizer}, step


def alternating_steps() -> Made:
    model = mlp()
    optimizer = adam(model.parameters(), weight_decay=0.1)

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        relume.freeze(model, trainable="0" if batch % 2 else "2")
        update(optimizer, functional.cross_entropy(model(x), y))

    return {"model": model, "optimizer": optimizer}, step


def averaged_copy(is_frozen: bool = False) -> Made:
    model = net()
    average = copy.deepcopy(model)
    average.requires_grad_(not is_frozen)
    optimizer = adam(model.parameters())

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        update(optimizer, functional.cross_entropy(model(x), y))
        with torch.no_grad():
            for mine, other in zip(average.parameters(), model.parameters(), strict=True):
                mine.lerp_(other, 0.1)

    return {"model": {"model": model, "average": average}, "optimizer": optimizer}, step


def frozen_averaged_copy() -> Made:
    return averaged_copy(is_frozen=True)


def averaged_part_in_the_optimizer() -> Made:
    """All parameters are given to the optimizer, those of the teacher too, which lies in the same model."""
    student = mlp()
    average = copy.deepcopy(student).requires_grad_(False)
    model = nn.ModuleDict({"student": nn.Sequential(student, nn.Linear(3, 3)), "teacher": average})
    optimizer = adam(model.parameters())

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        update(optimizer, functional.mse_loss(model["student"](x), average(x) + 1))
        with torch.no_grad():
            for mine, other in zip(average.parameters(), student.parameters(), strict=True):
                mine.lerp_(other, 0.1)

    return {"model": model, "optimizer": optimizer}, step


def wasserstein_critic() -> Made:
    """The bias of its last layer is in both terms of a difference, so that its gradient is zero."""
    critic = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
    optimizer = adam(critic.parameters())

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        update(optimizer, critic(torch.randn(8, 4)).mean() - critic(x).mean())

    return {"model": critic, "optimizer": optimizer}, step


def unfrozen_by_hand() -> Made:
    """While the checkpoint of the epoch before is still being written."""
    model = nn.Sequential(nn.Linear(4, 1500), nn.Linear(1500, 1500), nn.Linear(1500, 3))
    relume.freeze(model, trainable=["2"])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        if epoch == 1:
            relume.unfreeze(model)
        update(optimizer, functional.cross_entropy(model(x), y))

    return {"model": model, "optimizer": optimizer}, step


def stochastic_weight_averaging() -> Made:
    made, inner = plain(mlp())
    average = torch.optim.swa_utils.AveragedModel(made["model"])

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        inner(x, y, epoch, batch)
        average.update_parameters(made["model"])

    return {**made, "model": [made["model"], average]}, step


class Momentum(nn.Module):
    """As MoCo: the encoder of the keys follows that of the queries, and is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.query = net()
        self.key = copy.deepcopy(self.query).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            for mine, other in zip(self.key.parameters(), self.query.parameters(), strict=True):
                mine.lerp_(other, 0.1)
            wanted = self.key(x)
        return self.query(x) - wanted


def momentum_encoder() -> Made:
    model = Momentum()
    return plain(model, adam(model.query.parameters()))


class Words(nn.Module):
    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(50, 4, sparse=sparse), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.words((x * 2).long().clamp(0, 4)).mean(1))


def sparse_rows() -> Made:
    model = Words(sparse=True)
    return plain(model, torch.optim.SGD(model.parameters(), lr=0.1))


def dense_rows() -> Made:
    return plain(Words(sparse=False))


def only_biases() -> Made:
    model = mlp()
    relume.freeze(model, "*.weight")
    return plain(model)


class TiedWords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.mix, self.out = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9)
        self.out.weight = self.words.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.mix(self.words((x * 2).long().clamp(0, 8)).mean(1)))


def tied() -> Made:
    return plain(TiedWords())


def only_biases_of_tied() -> Made:
    model = TiedWords()
    relume.freeze(model, "*.weight")
    return plain(model)


def left_out_and_frozen() -> Made:
    model = net()
    relume.freeze(model, "0", "1")
    return plain(model, adam(p for p in model.parameters() if p.requires_grad))


def statistics_that_are_meant_to_move() -> Made:
    model = net()
    relume.freeze(model, "0", "1", batchnorm="train")
    return plain(model)


class LowRank(nn.Module):
    """As LoRA: one factor begins at zero, so that the other has no gradient at the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.base = mlp()
        self.down, self.up = nn.Linear(4, 2, bias=False), nn.Linear(2, 3, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))


def low_rank() -> Made:
    model = LowRank()
    relume.freeze(model, "base")
    return plain(model)


def warm_up_from_zero() -> Made:
    model = mlp()
    optimizer = adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step / 3, 1))
    made, inner = plain(model, optimizer)

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        inner(x, y, epoch, batch)
        scheduler.step()

    return {**made, "scheduler": scheduler}, step


def second_order() -> Made:
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        optimizer.step(closure)

    return {"model": model, "optimizer": optimizer}, step


def first_then_second_order() -> Made:
    """As physics-informed networks are trained: the same parameters in two optimizers, one after the other."""
    made, second = second_order()
    model = made["model"]
    first = adam(model.parameters())

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        if epoch:
            second(x, y, epoch, batch)
        else:
            update(first, functional.cross_entropy(model(x), y))

    return {"model": model, "optimizer": [first, made["optimizer"]]}, step


def accumulated() -> Made:
    model = mlp()
    optimizer = adam(model.parameters())

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        (functional.cross_entropy(model(x), y) / 2).backward()
        if batch % 2:
            optimizer.step()
            optimizer.zero_grad()

    return {"model": model, "optimizer": optimizer}, step


def cleared(how: Callable[[nn.Module, torch.optim.Optimizer], None]) -> Made:
    model = mlp()
    optimizer = adam(model.parameters())

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        how(model, optimizer)

    return {"model": model, "optimizer": optimizer}, step


def cleared_to_zero() -> Made:
    return cleared(lambda model, optimizer: optimizer.zero_grad(set_to_none=False))


def cleared_by_the_model() -> Made:
    return cleared(lambda model, optimizer: model.zero_grad())


def cleared_as_of_old() -> Made:
    def clear(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for parameter in model.parameters():
            parameter.grad.data.zero_()

    return cleared(clear)


def scaled() -> Made:
    """The scaler's first scale is too large, so that it skips steps."""
    model = mlp()
    optimizer = adam(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=100)

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        optimizer.zero_grad()
        scaler.scale(functional.cross_entropy(model(x), y) * 8).backward()
        scaler.step(optimizer)
        scaler.update()

    return {"model": model, "optimizer": optimizer, "scaler": scaler}, step


def a_step_to_quieten_the_scheduler() -> Made:
    made, inner = plain(mlp())
    made["optimizer"].zero_grad()

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        if not epoch and not batch:
            made["optimizer"].step()
        inner(x, y, epoch, batch)

    return made, step


def lazy_layers() -> Made:
    model = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(3))
    return plain(model)


def a_prompt_for_a_frozen_model() -> Made:
    """What is trained is no model's: a tensor of the script."""
    model = mlp()
    relume.freeze(model)
    prompt = torch.zeros(4, requires_grad=True)
    optimizer = adam([prompt])

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        update(optimizer, functional.cross_entropy(model(x + prompt), y))

    return {"model": model, "optimizer": optimizer}, step


def weights_of_losses() -> Made:
    model = mlp()
    weight = torch.zeros((), requires_grad=True)
    optimizer = adam([*model.parameters(), weight])

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        update(optimizer, functional.cross_entropy(model(x), y) * weight.exp() - weight)

    return {"model": model, "optimizer": optimizer}, step


class Cached(nn.Module):
    """Keeps its last features, and a frozen network that is nobody's part."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        self.judges = [mlp()]
        self.last: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.features = self.body(x)
        self.last = [self.features]
        with torch.no_grad():
            self.judges[0](x)
        return self.head(self.features)


def features_kept() -> Made:
    return plain(Cached())


def compiled() -> Made:
    return plain(torch.compile(net(), backend="eager"))


def in_parallel() -> Made:
    return plain(nn.DataParallel(net()))


def in_evaluation_mode_without_a_difference() -> Made:
    made, _ = plain(mlp())
    made["model"].eval()

    def step(x: torch.Tensor, y: torch.Tensor, epoch: int, batch: int) -> None:
        update(made["optimizer"], functional.cross_entropy(made["model"](x), y))

    return made, step


def an_attribute_that_agrees() -> Made:
    model = net()
    model.requires_grad = True
    model[0].trainable = True
    return plain(model)


def float64_and_complex() -> Made:
    class Waves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.phase = nn.Parameter(torch.randn(4, 3, dtype=torch.complex128))
            self.gain = nn.Parameter(torch.randn((), dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.to(torch.complex128) @ self.phase).abs() * self.gain

    return plain(Waves(), None)


RIGHT = [
    gan, toggled_gan, teacher, teacher_without_gradients, conditional_branches, alternating_epochs, alternating_steps,
    averaged_copy, frozen_averaged_copy, averaged_part_in_the_optimizer, wasserstein_critic, unfrozen_by_hand,
    stochastic_weight_averaging, momentum_encoder, sparse_rows, dense_rows, only_biases,
    tied, only_biases_of_tied, left_out_and_frozen, statistics_that_are_meant_to_move, low_rank, warm_up_from_zero,
    second_order, first_then_second_order, accumulated, cleared_to_zero, cleared_by_the_model, cleared_as_of_old, scaled,
    a_step_to_quieten_the_scheduler, lazy_layers, a_prompt_for_a_frozen_model, weights_of_losses, features_kept, compiled,
    in_parallel, in_evaluation_mode_without_a_difference, an_attribute_that_agrees, float64_and_complex,
]  # fmt: skip


@pytest.mark.parametrize("script", RIGHT, ids=lambda script: script.__name__)
def test_a_right_script_is_left_in_peace(script: Callable[[], Made], tmp_path: Path) -> None:
    objects, step = script()
    generator = torch.Generator().manual_seed(3)
    data = [(torch.rand(8, 4, generator=generator), torch.arange(8) % 3) for _ in range(BATCHES)]
    with relume.Run("a", **objects, root=tmp_path, quiet=True, seed=1) as run:
        for epoch in run.epochs(2):
            for batch, (x, y) in enumerate(run.batches(data)):
                step(x, y, epoch, batch)
    assert run.cursor.step >= BATCHES and run.ledger.report().problems == ()

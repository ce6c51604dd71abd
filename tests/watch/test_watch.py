"""Weights, gradients and activations: the numbers are right, and the training does not know that it is watched."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.watch.watched import data, logged, losses, media, network, norm, notes, train, weights
from torch import nn
from torch.nn.modules import module as module_hooks
from torch.utils.data import DataLoader, TensorDataset

import relume
from relume.checkpoint import Store
from relume.errors import ConfigurationError, NoMatchError, RelumeWarning
from relume.run.companions import Companion
from relume.watch import DeadUnits, GradientHealth, LearningRates, NonFinite, Speed, System, Watch

ALL = lambda: [  # noqa: E731
    Watch(activations=True, every="2 steps"),
    LearningRates("1 step"),
    Speed("1 step"),
    System("2 s"),
    DeadUnits(every="3 steps", over="2 steps", share=1.0),
    GradientHealth("1 step"),
    NonFinite(),
]


def test_norms_are_those_of_the_gradients_that_the_optimizer_gets_and_of_the_weights_behind_its_update(
    tmp_path: Path,
) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected: dict[str, dict[int, float]] = {}
    with relume.Run(
        "watched", model=model, optimizer=optimizer, root=tmp_path, seed=1, quiet=True, watch=Watch(every="3 steps")
    ) as run:
        for _ in run.epochs(1):
            for x, y in run.batches(data()):
                nn.functional.cross_entropy(model(x), y).backward()
                step = run.cursor.step + 1
                for name, p in model.named_parameters():
                    assert p.grad is not None
                    expected.setdefault(f"gradient_norms/{name}", {})[step] = p.grad.norm().item()
                optimizer.step()
                for name, p in model.named_parameters():
                    expected.setdefault(f"weight_norms/{name}", {})[step] = p.detach().norm().item()
                optimizer.zero_grad()
    found = logged(run.folder)
    total = found.pop("gradient_norm")
    assert set(total) == {1, 3, 6}
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert values == pytest.approx({step: expected[name][step] for step in (1, 3, 6)}, rel=1e-6), name
    assert total[3] == pytest.approx(norm(expected[n][3] for n in expected if n.startswith("gradient")), rel=1e-6)


def test_histograms_hold_every_value(tmp_path: Path) -> None:
    trainer = train(tmp_path, Watch(every="4 steps", bins=7, norms=False), epochs=2)
    found = media(tmp_path / "watched")
    assert set(found) == {
        f"{kind}/{name}" for kind in ("weights", "gradients") for name, _ in trainer.model.named_parameters()
    }
    last = found["weights/0.weight"][12]
    values = dict(trainer.model.named_parameters())["0.weight"].detach()
    assert (last["min"], last["max"]) == (values.min().item(), values.max().item())
    assert last["sum"] == pytest.approx(values.double().sum().item())
    assert last["sum_squares"] == pytest.approx(values.double().square().sum().item(), rel=1e-6)
    low, high = values.min().item(), values.max().item()
    assert last["counts"] == torch.histc(values, 7, low, high).int().tolist()


def test_activations_are_those_of_the_last_batch_before_the_update(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []
    model = network()
    model[1].register_forward_hook(lambda module, args, output: seen.append(output.detach().clone()))
    train(tmp_path, Watch(False, False, "1", every="3 steps"), model=model, epochs=1, accumulate=2)
    found = logged(tmp_path / "watched")
    assert {k: set(v) for k, v in found.items() if "norm" in k} == {"activation_norms/1": {1, 3}}
    last = seen[5]  # two batches an update
    assert found["activation_norms/1"][3] == pytest.approx(last.square().sum(1).mean().sqrt().item(), rel=1e-6)
    assert media(tmp_path / "watched")["activations/1"][3]["max"] == last.max().item()


def test_evaluation_is_not_watched(tmp_path: Path) -> None:
    class Sized(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    model = nn.Sequential(Sized(), *network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = relume.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, quiet=True, device="cpu")
    trainer.fit(
        data(), data(20, 20), epochs=2, run="watched", root=tmp_path, watch=Watch(False, False, "0", every="1 step")
    )
    assert {content["count"] for content in media(tmp_path / "watched")["activations/0"].values()} == {4 * 6}


@pytest.mark.parametrize("options", [{}, {"accumulate": 4, "clip_norm": 0.5}])
def test_a_watched_training_is_the_same_to_the_last_bit(tmp_path: Path, options: dict[str, Any]) -> None:
    results = []
    for name, watch in (("plain", False), ("watched", ALL())):
        torch.manual_seed(1)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.4), nn.Flatten(), nn.Linear(144, 3)
        )
        x = torch.randn(30, 1, 8, 8, generator=torch.Generator().manual_seed(2))
        loader = DataLoader(TensorDataset(x, x.mean((1, 2, 3)).gt(0).long()), 4, shuffle=True)
        trainer = train(tmp_path / name, watch, model=model, loader=loader, **options)
        store = Store(tmp_path / name)
        newest = store.load_newest("watched/checkpoints")
        assert newest is not None
        results.append(
            (
                losses(tmp_path / name / "watched"),
                weights(trainer.model),
                torch.get_rng_state().numpy().tobytes(),
                newest.state["random"],
                {k: v for k, v in newest.state["run"].items() if k != "seconds"},
            )
        )
    (plain_loss, *plain), (loss, *watched) = results
    assert loss == plain_loss
    assert watched[:2] == plain[:2]
    assert repr(watched[2:]) == repr(plain[2:])


def test_no_hook_is_left_behind_and_none_is_ever_on_the_model(tmp_path: Path) -> None:
    class Copies(relume.Callback):
        def on_step_end(self, trainer: relume.Trainer) -> None:
            copies.append(copy.deepcopy(trainer.model))
            copies.append(pickle.loads(pickle.dumps(trainer.model)))
            file = io.BytesIO()
            torch.save(trainer.model.state_dict(), file)

    copies: list[nn.Module] = []
    trainer = train(tmp_path, ALL(), callbacks=[Copies()], epochs=1)
    assert len(copies) == 12
    for model in (*copies, trainer.model):
        for one in model.modules():
            assert not (one._forward_hooks or one._forward_pre_hooks or one._backward_hooks or one._backward_pre_hooks)
    assert not module_hooks._global_forward_hooks
    optimizer = next(iter(trainer.optimizers.values()))
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_hooks_go_when_a_training_fails(tmp_path: Path) -> None:
    class Fails(relume.Callback):
        def on_step_end(self, trainer: relume.Trainer) -> None:
            raise OSError("the disk is gone")

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(OSError, match="gone"):
        train(tmp_path, ALL(), model=model, optimizer=optimizer, callbacks=[Fails()])
    assert not module_hooks._global_forward_hooks
    assert not optimizer._optimizer_step_pre_hooks


def test_a_resumed_run_watches_the_same_steps(tmp_path: Path) -> None:
    watch = lambda: [Watch(activations="1", every="5 steps"), LearningRates("2 steps")]  # noqa: E731
    train(tmp_path / "whole", watch(), epochs=4)

    class Stops(relume.Callback):
        def on_step_end(self, trainer: relume.Trainer) -> None:
            if trainer.run is not None and trainer.run.cursor.step == 9:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", watch(), epochs=4, callbacks=[Stops()], fit={"every": "4 steps"})
    train(tmp_path / "parts", watch(), epochs=4, fit={"every": "4 steps"})
    found = [logged(tmp_path / name / "watched") for name in ("whole", "parts")]
    assert found[0] == found[1]
    assert set(found[0]["gradient_norm"]) == {1, 5, 10, 15, 20}
    assert media(tmp_path / "whole" / "watched") == media(tmp_path / "parts" / "watched")


def test_frozen_parameters_are_watched_only_when_asked_for(tmp_path: Path) -> None:
    for frozen in (False, True):
        model = network()
        relume.freeze(model, "0")
        train(tmp_path / str(frozen), Watch(every="6 steps", frozen=frozen), model=model, cache_features=False)
        found = logged(tmp_path / str(frozen) / "watched")
        assert "gradient_norms/0.weight" not in found
        assert ("weight_norms/0.weight" in found) is frozen
        assert set(found["weight_norms/2.weight"]) == {1, 6, 12}


def test_activations_that_come_from_the_cache_are_said_to_be_missing_once(tmp_path: Path) -> None:
    model = network()
    relume.freeze(model, "0")
    train(tmp_path, Watch(activations=True, every="2 steps"), model=model, cache_features=True)
    found = logged(tmp_path / "watched")
    assert "activation_norms/0" not in found
    assert set(found["activation_norms/2"]) == {1, 2, 4, 6, 8, 10, 12}
    said = [text for text in notes(tmp_path / "watched") if text.startswith("watch:")]
    assert len(said) == 1
    assert "no activations of 0" in said[0]
    assert "cached as features" in said[0]


def test_what_is_compiled_gives_gradients_and_weights_and_no_activations(tmp_path: Path) -> None:
    torch._dynamo.reset()
    results = []
    for name, watch in (("plain", False), ("watched", [Watch(activations=True, every="2 steps"), NonFinite()])):
        model = network()
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with relume.Run(
            "watched", model=model, optimizer=optimizer, root=tmp_path / name, seed=1, quiet=True, watch=watch
        ) as run:
            for _ in run.epochs(1):
                for x, y in run.batches(data()):
                    nn.functional.cross_entropy(compiled(x), y).backward()
                    optimizer.step()
                    optimizer.zero_grad()
        results.append(weights(model))
    assert results[0] == results[1]
    found = logged(run.folder)
    assert set(found["gradient_norms/0.weight"]) == {1, 2, 4, 6}
    assert not any(name.startswith("activation") for name in found)
    assert sum("torch.compile" in text for text in notes(run.folder)) == 1


def test_a_compiled_model_is_named_as_the_plain_one(tmp_path: Path) -> None:
    model = torch.compile(network(), backend="eager")
    train(tmp_path, Watch("0", "2.bias", every="6 steps"), model=model)  # type: ignore[arg-type]
    found = logged(tmp_path / "watched")
    assert {n for n in found if "norms" in n} == {
        "weight_norms/0.weight", "weight_norms/0.bias", "gradient_norms/2.bias",
    }  # fmt: skip


def test_several_models_and_optimizers_are_told_apart(tmp_path: Path) -> None:
    models = {"one": network(), "two": nn.Linear(3, 3)}
    optimizers = {
        "fast": torch.optim.SGD(models["one"].parameters(), lr=0.1),
        "slow": torch.optim.Adam(
            [{"params": [models["two"].weight]}, {"params": [models["two"].bias], "name": "bias"}], lr=0.01
        ),
    }
    watch = [Watch(activations=("one.1", "two"), every="2 steps", histograms=False), LearningRates("2 steps")]
    with relume.Run(
        "watched", model=models, optimizer=optimizers, root=tmp_path, seed=1, quiet=True, watch=watch
    ) as run:
        for _ in run.epochs(1):
            for x, y in run.batches(data()):
                nn.functional.cross_entropy(models["two"](models["one"](x)), y).backward()
                for optimizer in optimizers.values():
                    optimizer.step()
                    optimizer.zero_grad()
    found = logged(run.folder)
    for name in (
        "gradient_norm/fast", "gradient_norm/slow", "gradient_norms/one.0.weight", "weight_norms/two.bias",
        "activation_norms/one.1", "activation_norms/two", "lr/fast", "lr/slow/0", "lr/slow/bias",
    ):  # fmt: skip
        assert set(found[name]) == {1, 2, 4, 6}, name
    assert found["lr/fast"][2] == 0.1


def test_gradients_are_unscaled_and_a_skipped_update_is_no_step(tmp_path: Path) -> None:
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    expected: dict[int, float] = {}
    watch = [Watch(every="1 step"), NonFinite()]
    with relume.Run(
        "watched", model=model, optimizer=optimizer, scaler=scaler, root=tmp_path, seed=1, quiet=True, watch=watch
    ) as run:
        for _ in run.epochs(1):
            for number, (x, y) in enumerate(run.batches(data())):
                loss = nn.functional.cross_entropy(model(x), y)
                scaler.scale(loss * (float("inf") if number == 2 else 1.0)).backward()
                assert model.weight.grad is not None
                if number != 2:
                    expected[run.cursor.step + 1] = model.weight.grad.norm().item() / scaler.get_scale()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
    assert run.cursor.step == 5
    assert logged(run.folder)["gradient_norms/weight"] == pytest.approx(expected, rel=1e-5)


def test_the_norm_before_clipping_is_there(tmp_path: Path) -> None:
    train(tmp_path, Watch(every="3 steps"), clip_norm=1e-3)
    found = logged(tmp_path / "watched")
    assert all(value <= 1.001e-3 for value in found["gradient_norm"].values())
    assert all(value > 0.05 for value in found["gradient_norm_before_clipping"].values())


def test_objects_that_are_added_to_an_open_run_are_watched(tmp_path: Path) -> None:
    model = network()
    trainer = relume.Trainer(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        quiet=True,
        device="cpu",
    )
    with relume.Run("watched", root=tmp_path, quiet=True, watch=[Watch(activations="1", every="3 steps")]) as run:
        trainer.fit(data(), epochs=1, run=run)
    assert set(logged(run.folder)["activation_norms/1"]) == {1, 3, 6}


def test_sparse_half_empty_and_frozen_gradients_are_no_trouble(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 4, sparse=True)
            self.short = nn.Parameter(torch.full((4,), 300.0, dtype=torch.float16))
            self.none = nn.Parameter(torch.empty(0))
            self.unused = nn.Parameter(torch.ones(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.table(x).sum() + (self.short.float() * 300).sum()

    model = Odd()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with relume.Run(
        "watched", model=model, optimizer=optimizer, root=tmp_path, quiet=True, watch=Watch(every="1 step")
    ) as run:
        for batch in run.batches([torch.tensor([1, 1, 5])]):
            model(batch).backward()
            optimizer.step()
    found = logged(run.folder)
    assert found["gradient_norms/table.weight"][1] == pytest.approx((4 * 4 + 4 * 1) ** 0.5)
    assert found["gradient_norms/short"][1] == pytest.approx(600.0)
    assert "gradient_norms/unused" not in found
    assert "weight_norms/none" not in found


def test_nan_and_infinity_are_counted_and_the_rest_is_shown(tmp_path: Path) -> None:
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, float("nan"), float("-inf"), 3.0]]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with relume.Run(
        "watched",
        model=model,
        optimizer=optimizer,
        root=tmp_path,
        quiet=True,
        watch=Watch(gradients=False, every="1 step", bins=2),
    ) as run:
        for _ in run.batches([torch.zeros(1, 4)]):
            optimizer.step()
    content = media(run.folder)["weights/weight"][1]
    assert (content["nan"], content["infinite"], content["count"]) == (1, 1, 4)
    assert (content["min"], content["max"], content["counts"], content["sum"]) == (1.0, 3.0, [1, 1], 4.0)


def test_a_watcher_that_fails_is_left_out_and_the_training_goes_on(tmp_path: Path) -> None:
    class Broken(Watch):
        def behind(self, name: str, optimizer: torch.optim.Optimizer, step: int) -> None:
            if step == 4:
                raise MemoryError("no room\x1b[31m")
            super().behind(name, optimizer, step)

    with pytest.warns(
        RelumeWarning, match=r"Broken failed and is left out from here on \(MemoryError: no room"
    ) as said:
        train(tmp_path, [Broken(activations=True, every="2 steps"), LearningRates("1 step")])
    assert len(said) == 1
    found = logged(tmp_path / "watched")
    assert set(found["gradient_norm"]) == {1, 2}
    assert len(found["train/loss"]) == len(found["lr"]) == 12
    assert not module_hooks._global_forward_hooks


def test_one_watcher_serves_one_run_after_another_and_not_two_at_once(tmp_path: Path) -> None:
    watch = Watch(activations=True, every="1 step")
    train(tmp_path / "first", watch)
    train(tmp_path / "second", watch)
    assert logged(tmp_path / "first" / "watched") == logged(tmp_path / "second" / "watched")
    with (
        relume.Run("one", root=tmp_path, quiet=True, watch=watch),
        pytest.raises(ConfigurationError, match="watches the run 'one' already"),
        relume.Run("two", root=tmp_path, quiet=True, watch=watch),
    ):
        pass


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Watch(every="10 min"), "a watcher counts steps"),
        (lambda: Watch(every="1 epoch"), "a watcher counts steps"),
        (lambda: Watch(every=100), "a watcher counts steps"),  # type: ignore[arg-type]
        (lambda: Watch(bins=0), "bins must be a whole number from 1 to 4096, not 0"),
        (lambda: Watch(histograms=False, norms=False), "nothing to log"),
        (lambda: Watch(False, False), "nothing to watch"),
        (lambda: Watch(activations=[nn.ReLU()]), "activations=.*names and patterns"),  # type: ignore[list-item]
        (lambda: Watch(3), "parameters=3: it is True, False, or names"),  # type: ignore[arg-type]
        (lambda: DeadUnits(False), "has no layers to watch"),
        (lambda: DeadUnits(share=0), "share must be above 0"),
        (lambda: GradientHealth(exploding=1), "exploding must be a number above 1, not 1"),
        (lambda: GradientHealth(vanishing=2), "vanishing must be a number between 0 and 1, not 2"),
        (lambda: System("often"), "every='often' is not understood"),
        (lambda: relume.Run("x", watch=[Watch]), r"the class Watch: call it"),  # type: ignore[list-item]
        (lambda: relume.Run("x", watch="all"), "watch= holds 'a'"),  # type: ignore[arg-type]
        (lambda: relume.Run("x", watch=3), "watch= holds 3"),  # type: ignore[arg-type]
    ],
)
def test_arguments_that_make_no_sense_are_told(make: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        make()


def test_the_same_watcher_twice_is_told() -> None:
    watch = Watch()
    with pytest.raises(ConfigurationError, match="holds the same Watch twice"):
        relume.Run("x", watch=[watch, watch])


def test_patterns_that_match_nothing_are_told_when_the_run_begins(tmp_path: Path) -> None:
    for watch, what in (
        (Watch(parameters="0.wieght"), "parameters='0.wieght' matches nothing: did you mean '0.weight'"),
        (Watch(activations=["1", "head*"]), r"activations='head\*' matches nothing"),
        (DeadUnits("relu"), "layers='relu' matches nothing"),
    ):
        with pytest.raises(NoMatchError, match=what):
            train(tmp_path, watch)
    assert not (tmp_path / "watched").exists()


def test_watch_belongs_to_the_run_that_is_open_already(tmp_path: Path) -> None:
    with (
        relume.Run("watched", root=tmp_path, quiet=True) as run,
        pytest.raises(ConfigurationError, match="watch belong"),
    ):
        trainer = relume.Trainer(network(), loss=nn.CrossEntropyLoss(), optimizer=None, device="cpu")
        trainer.optimizers = {"optimizer": torch.optim.SGD(trainer.model.parameters(), lr=0.1)}
        trainer.fit(data(), epochs=1, run=run, watch=[Watch()])


def test_a_companion_of_ones_own_is_a_watcher(tmp_path: Path) -> None:
    class Counts(Companion):
        epochs = 0

        def epoch_done(self, run: relume.Run) -> None:
            self.epochs += 1

    counts = Counts()
    train(tmp_path, counts, epochs=3)
    assert counts.epochs == 3


def test_gradients_of_an_optimizer_with_a_closure_are_those_of_its_last_call(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
    norms: list[float] = []
    with relume.Run(
        "r", root=tmp_path, model=model, optimizer=optimizer, watch=relume.Watch(every="1 steps"), quiet=True
    ):
        for seed in range(3):
            x = torch.randn(8, 6, generator=torch.Generator().manual_seed(seed))

            def closure(x: torch.Tensor = x) -> torch.Tensor:
                optimizer.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                return loss

            optimizer.step(closure)
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            norms.append(float(torch.nn.utils.get_total_norm(gradients)))
    found = logged(tmp_path / "r")["gradient_norm"]
    assert found == pytest.approx(dict(enumerate(norms, start=1)))

"""The Trainer does what the loop one would write does, bit for bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

import relume
from relume import Callback, RelumeWarning, Stream, Trainer
from relume.errors import (
    BatchError,
    ConfigurationError,
    EmptyLoaderError,
    LossError,
    NonFiniteLossError,
    OptimizerError,
    TargetError,
)


def sgd(model: nn.Module, lr: float = 0.1, **more: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, **more)


def make(model: nn.Module, **more: Any) -> Trainer:
    settings = {"loss": nn.CrossEntropyLoss(), "optimizer": sgd(model), "device": "cpu", "quiet": True} | more
    return Trainer(model, **settings)


def fit(model: nn.Module, loader: Any, root: Path, epochs: int = 2, val: Any = None, **more: Any) -> relume.Result:
    return make(model, **more).fit(loader, val, epochs=epochs, run="a", root=root, resume=False)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def by_hand(model: nn.Module, loader: Any, epochs: int = 2, seed: int = 0, optimizer: Any = None) -> list[float]:
    optimizer = optimizer or sgd(model)
    stream, losses = Stream(loader, seed, in_memory=False), []
    for epoch in range(epochs):
        for x, y in stream.epoch(epoch):
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", ["sgd", "adam", "dropout and batch norm"])
def test_the_loss_curve_equals_a_hand_written_loops_bit_for_bit(tmp_path: Path, model, loader, kind: str) -> None:
    if kind == "dropout and batch norm":
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
    twin = copy.deepcopy(model)
    optimizers = [
        torch.optim.Adam(m.parameters(), 1e-2) if kind == "adam" else sgd(m, momentum=0.9) for m in (model, twin)
    ]
    torch.manual_seed(0)
    result = fit(model, loader, tmp_path, val=loader, optimizer=optimizers[0])
    torch.manual_seed(0)
    losses = by_hand(twin, loader, optimizer=optimizers[1])
    assert result.history["train/loss"].tolist() == losses
    assert torch.equal(weights(model), weights(twin))


def test_epoch_losses_are_weighted_by_samples(tmp_path: Path, model, loader) -> None:
    result = fit(model, loader, tmp_path, epochs=1)
    losses, sizes = torch.tensor(result.history["train/loss"]), torch.tensor([16.0, 16, 16, 2])
    assert result.last["train/loss_epoch"] == pytest.approx(float((losses * sizes).sum() / 50), rel=1e-12)


def test_evaluation_is_over_all_samples_and_in_evaluation_mode(tmp_path: Path, loader) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    result = fit(model, loader, tmp_path, epochs=1, val=loader, metrics={"accuracy": relume.accuracy})
    x, y = loader.dataset.tensors
    model.eval()
    with torch.no_grad():
        assert result.last["val/loss"] == pytest.approx(nn.functional.cross_entropy(model(x), y).item(), rel=1e-6)
        assert result.last["val/accuracy"] == pytest.approx((model(x).argmax(1) == y).double().mean().item())


def test_evaluating_more_often_does_not_change_the_training(tmp_path: Path, loader) -> None:
    found = []
    for val in (None, loader):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        fit(model, loader, tmp_path, val=val)
        found.append(weights(model))
    assert torch.equal(*found)


def test_seed_repeats_the_whole_training(tmp_path: Path, loader) -> None:
    def train(seed: int) -> torch.Tensor:
        relume.seed_everything(seed)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        fit(model, loader, tmp_path, seed=seed)
        return weights(model)

    first = train(1)
    torch.rand(7)
    assert torch.equal(first, train(1)) and not torch.equal(first, train(2))


def test_the_result_tells_how_it_went(tmp_path: Path, model, loader) -> None:
    result = fit(model, loader, tmp_path, epochs=3, val=loader)
    assert (result.status, result.reason, result.epochs, result.steps) == ("finished", "3 epochs done", 3, 12)
    assert result.folder == tmp_path / "a" and result.seconds > 0
    assert result.best["val/loss"] == min(v for v in result.history["val/loss"].tolist() if v == v)
    assert result.best_epoch["val/loss"] in (1, 2, 3)


def test_a_run_gets_its_name_from_the_model(tmp_path: Path, loader) -> None:
    class TinyNet(nn.Linear):
        pass

    result = make(TinyNet(4, 3)).fit(loader, epochs=1, root=tmp_path)
    assert result.folder == tmp_path / "tiny-net"


def test_an_open_run_can_be_given(tmp_path: Path, model, loader) -> None:
    optimizer = sgd(model)
    with relume.Run("mine", model=model, optimizer=optimizer, root=tmp_path, quiet=True) as run:
        make(model, optimizer=optimizer).fit(loader, epochs=2, run=run)
        run.log({"extra": 1.0})
    assert run.cursor.step == 8 and "extra" in relume.history("mine", root=tmp_path)


# ----------------------------------------------------------------------------------------------------------- accumulation


@pytest.mark.parametrize("count", [48, 50, 52, 41])
def test_accumulated_gradients_equal_those_of_the_large_batch(tmp_path: Path, count: int) -> None:
    """41 to 52 samples: the last group lacks batches, or its last batch lacks samples, or both."""
    data = TensorDataset(torch.randn(count, 4, dtype=torch.float64), torch.randint(0, 3, (count,)))
    small, large = (nn.Linear(4, 3, dtype=torch.float64) for _ in range(2))
    large.load_state_dict(small.state_dict())
    first = fit(small, DataLoader(data, 4), tmp_path, accumulate=3)
    second = fit(large, DataLoader(data, 12), tmp_path)
    assert first.steps == second.steps
    torch.testing.assert_close(weights(small), weights(large), rtol=1e-12, atol=1e-14)


def test_accumulation_of_equal_batches_is_loss_by_count_bit_for_bit(tmp_path: Path, model) -> None:
    data = TensorDataset(torch.randn(48, 4), torch.randint(0, 3, (48,)))
    twin = copy.deepcopy(model)
    fit(model, DataLoader(data, 8), tmp_path, epochs=1, accumulate=3)
    optimizer = sgd(twin)
    for number, (x, y) in enumerate(DataLoader(data, 8), 1):
        (nn.functional.cross_entropy(twin(x), y) / 3).backward()
        if number % 3 == 0:
            optimizer.step()
            optimizer.zero_grad()
    assert torch.equal(weights(model), weights(twin))


def test_gradients_are_clipped_before_the_update(tmp_path: Path, model, loader) -> None:
    before = weights(model)
    fit(model, DataLoader(loader.dataset, 50), tmp_path, epochs=1, clip_norm=1e-3, optimizer=sgd(model, lr=1.0))
    assert (weights(model) - before).norm().item() == pytest.approx(1e-3, rel=1e-3)


# -------------------------------------------------------------------------------------------------------------- schedules


def rates_of(
    model: nn.Module, loader: Any, root: Path, make_scheduler: Any, epochs: int = 2, **more: Any
) -> list[float]:
    optimizer, rates = sgd(model), []

    class Watch(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            rates.append(optimizer.param_groups[0]["lr"])

    fit(
        model,
        loader,
        root,
        epochs,
        loader,
        optimizer=optimizer,
        scheduler=make_scheduler(optimizer),
        callbacks=[Watch()],
        **more,
    )
    return rates


def test_schedulers_move_by_epoch_or_by_step(tmp_path: Path, model, loader) -> None:
    def half(optimizer: Any) -> Any:
        return lr_scheduler.ExponentialLR(optimizer, 0.5)

    assert rates_of(model, loader, tmp_path, half) == pytest.approx([0.1] * 4 + [0.05] * 4)
    by_step = rates_of(model, loader, tmp_path, half, schedule_every="step")
    assert by_step == pytest.approx([0.1 * 0.5**k for k in range(1, 9)])
    one_cycle = rates_of(model, loader, tmp_path, lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=8 + 1))
    assert len(set(one_cycle)) == 8


def test_reduce_on_plateau_follows_its_metric(tmp_path: Path, model, loader) -> None:
    def plateau(optimizer: Any) -> Any:
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0, threshold=10, threshold_mode="abs")

    assert rates_of(model, loader, tmp_path, plateau, epochs=3) == pytest.approx([0.1] * 8 + [0.01] * 4)
    with pytest.raises(ConfigurationError, match=r"needs the metric 'val/los', .*did you mean 'val/loss'"):
        rates_of(model, loader, tmp_path, plateau, monitor="val/los")


# ---------------------------------------------------------------------------------------------- precision, device, compile


def test_a_format_that_the_processor_lacks_is_said(
    tmp_path: Path, model, loader, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(model, loader, tmp_path, precision="bf16", quiet=False)
    lacks = not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert ("bf16 by software" in capsys.readouterr().out) == lacks


def test_bf16_trains_under_autocast_with_float32_weights(tmp_path: Path, model, loader) -> None:
    seen = []

    class Watch(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            seen.append(trainer.output.dtype)

    result = fit(model, loader, tmp_path, val=loader, precision="bf16", callbacks=[Watch()])
    assert set(seen) == {torch.bfloat16} and weights(model).dtype == torch.float32
    assert result.last["val/loss"] < 1.5


def test_fp16_scales_the_loss_and_counts_only_real_updates(tmp_path: Path, model, loader) -> None:
    trainer = make(model, precision="fp16", clip_norm=1.0)
    result = trainer.fit(loader, epochs=3, run="a", root=tmp_path)
    assert trainer.scaler is not None
    assert 0 < result.steps <= 12


def test_unknown_precision_and_device_are_named(model) -> None:
    with pytest.raises(ConfigurationError, match="no precision 'fp8': did you mean"):
        make(model, precision="fp8")
    with pytest.raises(ConfigurationError, match="device 'cuda:99' cannot be used"):
        make(model, device="cuda:99")
    with pytest.raises(ConfigurationError, match="device 'gpu' cannot be used"):
        make(model, device="gpu")


def test_a_compiled_model_trains_like_the_plain_one(tmp_path: Path, model, loader) -> None:
    twin = copy.deepcopy(model)
    trainer = make(model, compile=True)
    result = trainer.fit(loader, loader, epochs=2, run="a", root=tmp_path)
    fit(twin, loader, tmp_path, val=loader)
    torch.testing.assert_close(weights(model), weights(twin))
    assert result.last["val/loss"] > 0 and list(model.state_dict()) == list(twin.state_dict())


# ---------------------------------------------------------------------------------------------- batches of all forms, steps


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        return self.layer(x if scale is None else x * scale[:, None])


def form(kind: str) -> list[Any]:
    x, y, scale = torch.randn(8, 4), torch.randint(0, 3, (8,)), torch.rand(8)
    forms: dict[str, Any] = {
        "tuple": (x, y),
        "three": (x, scale, y),
        "dict": {"x": x, "labels": y},
        "dict of more": {"x": x, "scale": scale, "target": y},
    }
    return [forms[kind]] * 2


@pytest.mark.parametrize("kind", ["tuple", "three", "dict", "dict of more"])
def test_batches_of_all_forms_are_understood(tmp_path: Path, kind: str) -> None:
    trainer = make(Named(), metrics={"accuracy": relume.accuracy})
    result = trainer.fit(form(kind), form(kind), epochs=1, run="a", root=tmp_path)
    assert result.steps == 2 and 0 <= result.last["val/accuracy"] <= 1
    assert trainer.predict(form(kind)).shape == (16, 3)


def test_inputs_without_targets_train_an_autoencoder_or_a_loss_of_the_output(tmp_path: Path) -> None:
    data = [torch.randn(8, 4)] * 3
    assert fit(nn.Linear(4, 4), data, tmp_path, loss=nn.MSELoss()).steps == 6
    assert fit(nn.Linear(4, 4), data, tmp_path, loss=lambda output: output.pow(2).mean()).steps == 6


def test_a_batch_that_does_not_fit_the_model_is_described(tmp_path: Path) -> None:
    with pytest.raises(
        BatchError,
        match=r"forward does not take .*The batch is a dict of pixels: \(2, 4\) float32, labels: \(2,\) int64",
    ):
        fit(Named(), [{"pixels": torch.ones(2, 4), "labels": torch.zeros(2, dtype=torch.int64)}], tmp_path)


def test_a_step_function_replaces_forward_and_loss(tmp_path: Path, model, loader) -> None:
    def step(trainer: Trainer, batch: Any) -> dict:
        x, y = batch
        output = trainer.model(x)
        return {"loss": nn.functional.cross_entropy(output, y), "spread": output.std()}

    result = make(model, loss=None, step=step).fit(loader, epochs=1, run="a", root=tmp_path)
    assert result.steps == 4 and "train/spread" in result.history


def test_a_step_function_can_do_everything_itself_with_several_optimizers(tmp_path: Path, loader) -> None:
    model = nn.ModuleDict({"maker": nn.Linear(4, 4), "judge": nn.Linear(4, 1)})
    optimizers = {name: sgd(part) for name, part in model.items()}

    def step(trainer: Trainer, batch: Any) -> dict:
        x, _ = batch
        for name, sign in (("judge", 1.0), ("maker", -1.0)):
            loss = sign * model["judge"](model["maker"](x)).mean()
            trainer.optimizers[name].zero_grad()
            loss.backward()
            trainer.optimizers[name].step()
        return {"judge": loss}

    result = make(model, loss=None, step=step, optimizer=optimizers).fit(loader, epochs=2, run="a", root=tmp_path)
    assert result.steps == 8 and "train/judge" in result.history


def test_several_optimizers_update_together(tmp_path: Path, model, loader) -> None:
    twin = copy.deepcopy(model)
    result = fit(model, loader, tmp_path, optimizer=[sgd(model[0]), sgd(model[2])])
    fit(twin, loader, tmp_path)
    assert torch.equal(weights(model), weights(twin)) and result.steps == 8


def test_predict_keeps_the_order_and_ignores_targets(model, loader) -> None:
    ordered = DataLoader(loader.dataset, 16)
    expected = model(loader.dataset.tensors[0]).detach()
    torch.testing.assert_close(make(model).predict(ordered), expected)
    torch.testing.assert_close(relume.predict(model, [x for x, _ in ordered]), expected)


# -------------------------------------------------------------------------------------------------------------- callbacks


def test_callbacks_see_each_moment_in_order(tmp_path: Path, model, loader) -> None:
    told: list[str] = []

    def record(name: str) -> Any:
        return lambda self, trainer: told.append(name.removeprefix("on_"))

    from relume.train.callbacks import MOMENTS

    everything = type("Everything", (Callback,), {name: record(name) for name in MOMENTS})
    fit(model, DataLoader(loader.dataset, 16), tmp_path, epochs=1, val=loader, accumulate=2, callbacks=[everything()])
    assert told == [
        "fit_start", "epoch_start", "step_start", "step_end", "step_start", "step_end",
        "evaluation_start", "evaluation_end", "epoch_end", "checkpoint_start", "checkpoint_end", "fit_end",
    ]  # fmt: skip


def test_a_callback_can_stop_the_training(tmp_path: Path, model, loader) -> None:
    class Enough(Callback):
        def on_evaluation_end(self, trainer: Trainer) -> None:
            trainer.stop(f"val/loss is {trainer.evaluation['val/loss'] > 0}")

    result = fit(model, loader, tmp_path, epochs=5, val=loader, callbacks=[Enough()])
    assert (result.epochs, result.reason, result.status) == (1, "val/loss is True", "finished")


def test_a_misspelt_moment_or_a_wrong_object_is_an_error(model) -> None:
    class Wrong(Callback):
        def on_epoch_finish(self, trainer: Trainer) -> None: ...

    with pytest.raises(ConfigurationError, match=r"Wrong.on_epoch_finish would never be called: did you mean"):
        make(model, callbacks=[Wrong()])
    with pytest.raises(ConfigurationError, match="must be a relume.Callback, not str"):
        make(model, callbacks=["x"])


def test_an_error_in_a_callback_comes_out_and_fit_end_is_told(tmp_path: Path, model, loader) -> None:
    ended = []

    class Breaks(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            raise ZeroDivisionError

        def on_fit_end(self, trainer: Trainer) -> None:
            ended.append(True)

    with pytest.raises(ZeroDivisionError):
        fit(model, loader, tmp_path, callbacks=[Breaks()])
    assert ended == [True]


# --------------------------------------------------------------------------------------------------------------- bad input


def test_an_empty_loader_says_how_many_samples_there_are(tmp_path: Path, model, loader) -> None:
    with pytest.raises(EmptyLoaderError, match="its dataset has 50 samples"):
        fit(model, DataLoader(loader.dataset, 64, drop_last=True), tmp_path)
    with pytest.raises(EmptyLoaderError, match="yields no batch"):
        fit(model, loader, tmp_path, val=[])


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.CrossEntropyLoss(reduction="none"), r"one number, not a tensor of shape \(16,\)"),
        (lambda output, target: 3.0, "one number, not a float"),
        (lambda output, target: output.detach().mean(), "does not depend on any trainable parameter"),
    ],
)
def test_a_loss_that_is_no_scalar_is_refused(tmp_path: Path, model, loader, loss, message) -> None:
    with pytest.raises(LossError, match=message):
        fit(model, loader, tmp_path, loss=loss)


def test_a_loss_that_is_not_finite_names_step_batch_and_the_last_finite_value(tmp_path: Path, model, loader) -> None:
    def step(trainer: Trainer, batch: Any) -> torch.Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(trainer.model(x), y)
        return loss * float("nan") if trainer.run.cursor.step == 5 else loss

    message = r"the loss is nan at step 6 \(epoch 2, batch 2 of a list of .*16, 4.* float32, .*\); the last finite loss was \d"
    with pytest.raises(NonFiniteLossError, match=message):
        make(model, loss=None, step=step).fit(loader, epochs=3, run="a", root=tmp_path)
    assert bool(torch.isfinite(weights(model)).all())
    history = relume.history("a", root=tmp_path)
    assert history["step"][-1] == 5 and len(history["train/loss"]) == 5


def test_an_infinite_first_loss_says_that_none_was_finite(tmp_path: Path, model, loader) -> None:
    with pytest.raises(NonFiniteLossError, match=r"the loss is inf at step 1 .*there was no finite loss before"):
        fit(model, loader, tmp_path, loss=lambda output, target: output.mean() / 0)


@pytest.mark.parametrize(("target", "place"), [(3, 5), (-1, 0), (7, 15)])
def test_a_target_out_of_range_names_value_place_and_remedy(tmp_path: Path, model, target: int, place: int) -> None:
    y = torch.zeros(16, dtype=torch.int64)
    y[place] = target
    message = (
        f"target {target} at place {place} of the batch is out of range: the model has 3 outputs, so targets are 0 to 2"
    )
    with pytest.raises(TargetError, match=message):
        fit(model, [(torch.ones(16, 4), y)], tmp_path)
    good = (torch.ones(16, 4), torch.zeros(16, dtype=torch.int64))
    with pytest.raises(TargetError, match=message):  # later in the epoch, and in the evaluation
        fit(model, [good, (torch.ones(16, 4), y)], tmp_path)
    with pytest.raises(TargetError, match=message):
        fit(model, [good], tmp_path, val=[(torch.ones(16, 4), y)])


def test_the_ignored_target_of_torch_is_no_error(tmp_path: Path, model) -> None:
    y = torch.tensor([0, -100, 1, 2])
    assert fit(model, [(torch.ones(4, 4), y)], tmp_path).steps == 2


def test_optimizers_that_do_not_fit_the_model(tmp_path: Path, model, loader) -> None:
    with pytest.raises(OptimizerError, match="holds none of the 4 trainable parameters of Sequential"):
        fit(model, loader, tmp_path, optimizer=sgd(nn.Linear(2, 2)))
    with pytest.warns(
        RelumeWarning, match=r"2 of 4 trainable parameters of Sequential are in no optimizer .*: 2.weight, 2.bias"
    ):
        fit(model, loader, tmp_path, optimizer=sgd(model[0]))
    with pytest.raises(OptimizerError, match="ReLU has no parameters: there is nothing to train"):
        Trainer(nn.ReLU(), loss=nn.MSELoss(), optimizer=sgd(model), quiet=True).fit(loader, epochs=1, root=tmp_path)
    with pytest.raises(OptimizerError, match="all 2 parameters of Linear are frozen"):
        frozen = nn.Linear(4, 3).requires_grad_(False)
        make(frozen, optimizer=sgd(frozen)).fit(loader, epochs=1, root=tmp_path)
    with pytest.raises(OptimizerError, match="training needs an optimizer"):
        fit(model, loader, tmp_path, optimizer=None)
    with pytest.raises(OptimizerError, match="optimizer must be a torch.optim.Optimizer, not str"):
        fit(model, loader, tmp_path, optimizer="sgd")


def test_arguments_that_make_no_sense_are_named(tmp_path: Path, model, loader) -> None:
    for wrong, message in [
        ({"accumulate": 0}, "accumulate must be a whole number of at least 1, not 0"),
        ({"clip_norm": -1.0}, "clip_norm must be above 0, not -1.0"),
        ({"schedule_every": "batch"}, 'schedule_every must be "step" or "epoch", not \'batch\''),
        ({"metrics": {"x": 3}}, "metric 'x' is a int"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            fit(model, loader, tmp_path, val=loader, **wrong)
    with pytest.raises(ConfigurationError, match="epochs must be a whole number of at least 1, not 0"):
        fit(model, loader, tmp_path, epochs=0)
    with pytest.raises(ConfigurationError, match="training needs loss="):
        fit(model, loader, tmp_path, loss=None)
    with pytest.raises(ConfigurationError, match="model must be an nn.Module, not str"):
        Trainer("mlp")  # type: ignore[arg-type]


def test_ctrl_c_marks_the_run_as_interrupted(tmp_path: Path, model, loader) -> None:
    class Interrupt(Callback):
        def on_epoch_end(self, trainer: Trainer) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, loader, tmp_path, callbacks=[Interrupt()])
    from relume.monitor import status_of

    assert status_of(tmp_path / "a")[0] == "interrupted"


# ----------------------------------------------------------------------------------- found by attacking it, and mended


def test_clipping_looks_at_what_the_optimizer_holds(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    twin = copy.deepcopy(model)
    loader = DataLoader(TensorDataset(torch.randn(40, 4), torch.randint(0, 3, (40,))), 8)
    with pytest.warns(RelumeWarning, match="are in no optimizer"):
        fit(model, loader, tmp_path, epochs=5, optimizer=sgd(model[1], 1.0), clip_norm=0.1)
    optimizer = sgd(twin[1], 1.0)
    for _ in range(5):
        for x, y in loader:
            nn.functional.cross_entropy(twin(x), y).backward()
            nn.utils.clip_grad_norm_(twin[1].parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
    assert torch.equal(weights(model), weights(twin))


def test_accumulation_corrects_parameters_of_the_loss_too(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(output, target) * self.scale

    found = []
    for accumulate in (1, 4):
        torch.manual_seed(0)
        model, loss = nn.Linear(4, 3), Scaled()
        optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1)
        data = [(torch.ones(8, 4), torch.zeros(8, dtype=torch.int64))]
        fit(model, data, tmp_path, epochs=1, loss=loss, optimizer=optimizer, accumulate=accumulate)
        found.append(loss.scale.item())
    assert found[0] == pytest.approx(found[1], rel=1e-6) != 1.0


def test_an_open_run_counts_the_trainers_steps_and_refuses_what_it_would_ignore(tmp_path: Path, model, loader) -> None:
    with relume.Run("mine", root=tmp_path, quiet=True) as run:
        trainer = make(model)
        assert trainer.fit(loader, epochs=2, run=run).steps == 8
        with pytest.raises(ConfigurationError, match="belong to the Run that is open already"):
            trainer.fit(loader, epochs=4, run=run, config={"a": 1})
        with pytest.raises(ConfigurationError, match="the Trainer's seed is 5 and the open Run's is 0"):
            make(model, seed=5).fit(loader, epochs=4, run=run)


def test_a_step_function_that_trains_nothing_is_an_error(tmp_path: Path, model, loader) -> None:
    with pytest.raises(LossError, match="gave no loss and made no update in a whole epoch"):
        make(model, loss=None, step=lambda trainer, batch: {"los": torch.ones(())}).fit(
            loader, epochs=1, run="a", root=tmp_path
        )


def test_a_config_of_any_kind_is_stored(tmp_path: Path, model, loader) -> None:
    from argparse import Namespace

    from relume.monitor import RunRecord

    result = make(model).fit(loader, epochs=1, run="a", root=tmp_path, config=Namespace(width=8))
    assert RunRecord.load(result.folder).config["width"] == 8


def test_the_ignored_target_of_the_loss_is_no_error(tmp_path: Path, model) -> None:
    y = torch.tensor([0, 255, 1, 2])
    assert fit(model, [(torch.ones(4, 4), y)], tmp_path, loss=nn.CrossEntropyLoss(ignore_index=255)).steps == 2


def test_a_type_error_inside_the_model_is_the_users_own(tmp_path: Path, loader) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Named()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x, 1, 2, 3)

    with pytest.raises(TypeError, match=r"forward\(\) takes"):
        fit(Outer(), loader, tmp_path)


def test_the_first_error_is_the_one_that_comes_out(tmp_path: Path, model, loader) -> None:
    class Breaks(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            raise ZeroDivisionError

        def on_fit_end(self, trainer: Trainer) -> None:
            raise KeyError("never seen")

    with pytest.raises(ZeroDivisionError):
        fit(model, loader, tmp_path, callbacks=[Breaks()])


def test_lbfgs_says_how_it_is_used(tmp_path: Path, model, loader) -> None:
    with pytest.raises(OptimizerError, match="LBFGS evaluates the loss several times"):
        fit(model, loader, tmp_path, optimizer=torch.optim.LBFGS(model.parameters()))

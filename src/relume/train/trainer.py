"""The Trainer: the whole loop around an ordinary model, loss and optimizer, written on the public Run."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Unpack

import torch
from torch import nn

from relume import determinism, tree
from relume.checkpoint import Checkpoint
from relume.data.calls import Loss, call_loss, call_model, describe, inputs_and_target, loss_arity
from relume.determinism import Deterministic
from relume.errors import ConfigurationError, LossError, NonFiniteLossError, OptimizerError
from relume.run import Run, as_config, as_named, check_epochs
from relume.run.options import RunOptions, check_names, given
from relume.run.schedulechecks import check_schedule
from relume.train.cached import CachedFeatures, CacheFeatures
from relume.train.cached import check as check_cache
from relume.train.callbacks import Callback, Moments
from relume.train.checks import check_kinds, check_loss, check_optimizers, not_finite, understood
from relume.train.evaluation import evaluate, predict
from relume.train.metrics import Metrics
from relume.train.precision import Precision, move_state, pick_device
from relume.train.progress import Group, Progress
from relume.train.result import Result
from relume.train.schedule import Schedules
from relume.transfer.features import Setting
from relume.transfer.schedule import FreezeSchedule

Step = Callable[["Trainer", Any], Any]


class Trainer:
    """Trains, evaluates and predicts with an ordinary ``nn.Module``.

    Args:
        model: trained in place; moved to ``device``.
        loss: ``loss(output, target)`` giving the mean over a batch, such as ``nn.CrossEntropyLoss()``.
        optimizer: one, or several as a mapping or list (they update together after each backward pass).
        scheduler: one or several; see ``schedule_every`` and ``monitor``.
        metrics: names to functions ``metric(output, target)`` or torchmetrics objects, computed at each evaluation.
        device: ``None`` takes this machine's accelerator, or the CPU.
        precision: ``"float32"``, ``"bf16"`` or ``"fp16"`` (autocast; fp16 with a GradScaler).
        accumulate: batches an update. The gradient is the mean over all their samples, also of a last incomplete group.
        clip_norm: the largest norm of all gradients together, checked before each update.
        schedule_every: ``"step"`` or ``"epoch"``; by default what fits the scheduler's class.
        monitor: the metric that ``ReduceLROnPlateau`` follows.
        compile: run the model through ``torch.compile``.
        step: replaces forward pass and loss: ``step(trainer, batch)`` gives the loss, or a dict with ``"loss"`` and further
            numbers to log, or ``None`` when it has done backward pass and update itself.
        callbacks: see :class:`relume.Callback`.
        seed: seeds torch, numpy, random and the data of each fit.
        deterministic: see :class:`relume.Run`; here it holds for :meth:`evaluate` and :meth:`predict` too.
        in_memory: see :class:`relume.Run`.
        cache_features: compute what the frozen part of the model gives for each sample once: ``"auto"`` where that is
            proven to be the same and saves time, ``True`` insists, ``False`` never. What it does and why is printed; the
            batches that callbacks see in ``trainer.batch`` hold features then.
        cache_dtype: what features are stored in, such as ``torch.float16``; by default what they are computed in.
        cache_views: with random augmentation: how many seeded views of each sample are kept; epoch ``e`` reads view
            ``e % cache_views``.
        quiet: show nothing.

    Raises:
        OptimizerError: the optimizer holds none of the model's trainable parameters.
        ConfigurationError: an argument that makes no sense; names it.

    Example:
        >>> import tempfile
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> model = nn.Linear(2, 1)
        >>> loader = DataLoader(TensorDataset(torch.randn(8, 2), torch.zeros(8, 1)), batch_size=4)
        >>> trainer = Trainer(model, loss=nn.MSELoss(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1), quiet=True)
        >>> result = trainer.fit(loader, loader, epochs=2, run="line", root=tempfile.mkdtemp())
        >>> result.steps, result.reason, sorted(result.last)
        (4, '2 epochs done', ['train/loss', 'train/loss_epoch', 'val/loss'])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: Loss | None = None,
        optimizer: Any = None,
        scheduler: Any = None,
        metrics: Metrics | None = None,
        device: str | torch.device | None = None,
        precision: str = "float32",
        accumulate: int = 1,
        clip_norm: float | None = None,
        schedule_every: str | None = None,
        monitor: str = "val/loss",
        compile: bool = False,
        step: Step | None = None,
        callbacks: Iterable[Callback] = (),
        seed: int | None = None,
        deterministic: Deterministic = False,
        in_memory: bool | None = None,
        cache_features: CacheFeatures = "auto",
        cache_dtype: torch.dtype | None = None,
        cache_views: int | None = None,
        quiet: bool = False,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ConfigurationError(f"model must be an nn.Module, not {type(model).__name__}.")
        if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
            raise ConfigurationError(f"accumulate must be a whole number of at least 1, not {accumulate!r}.")
        if clip_norm is not None and not clip_norm > 0:
            raise ConfigurationError(f"clip_norm must be above 0, not {clip_norm!r}.")
        check_cache(cache_features, cache_dtype, cache_views)
        self.model = model
        self.loss_function = loss
        self.optimizers: dict[str, torch.optim.Optimizer] = as_named(optimizer, "optimizer")
        self.schedulers = as_named(scheduler, "scheduler")
        self.metrics = dict(metrics or {})
        self.device = pick_device(device)
        self.precision_name = precision
        self.precision = Precision.named(precision)
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self.seed = seed
        self.deterministic = determinism.checked(deterministic)
        self.in_memory = in_memory
        self.quiet = quiet
        self.moments = Moments(callbacks)
        self.scaler = self.precision.scaler(self.device)
        self.run: Run | None = None
        self.batch: Any = None
        self.output: Any = None
        self.loss: torch.Tensor | None = None
        self.evaluation: dict[str, float] = {}
        self.checkpoint: Checkpoint | None = None
        self._last_finite: float | None = None
        self._schedules = Schedules(self.schedulers, schedule_every, monitor)
        self._custom_step = step
        self._compile = compile
        self._forward: nn.Module = model
        self._arity = loss_arity(loss) if loss is not None else 2
        self._features = CachedFeatures(
            cache_features,
            cache_dtype,
            cache_views,
            Setting(self.device, self.precision.dtype),
            wrap=torch.compile if compile else None,  # type: ignore[arg-type]
        )
        self._progress = Progress(accumulate, self._features)

    # ------------------------------------------------------------------------------------------------------------ fit

    def fit(
        self,
        train_loader: Any,
        val_loader: Any = None,
        *,
        epochs: int,
        run: str | Run | None = None,
        **options: Unpack[RunOptions],
    ) -> Result:
        """Train for ``epochs`` epochs, evaluate after each, and store everything as a run.

        Args:
            train_loader, val_loader: see :func:`relume.evaluate` for the batches that are understood.
            run: the run's name (the model's class by default), or a Run that is open already.
            options: ``root``, ``config``, ``track``, ``every``, ``keep``, ``stop``, ``mirror``, ``resume``,
                ``from_checkpoint``, ``override``, ``max_time``, ``freeze``, ``tags``, ``notes``, ``trackers`` and ``watch``,
                see :class:`relume.Run`.

        Called again, by the same script started once more or under the same name, it goes on where the run stands.

        Logged are ``train/loss`` for each step, ``train/loss_epoch`` (the mean over an epoch's samples) and
        ``val/loss`` and ``val/<metric>`` for each epoch.

        Raises:
            NonFiniteLossError: the loss is NaN or infinite; names the step, the batch and the last finite value.
            TargetError: a target is out of the range of the model's outputs.
            DeterminismError: with ``deterministic=True``: an operation has no deterministic form; names it.
            KeyboardInterrupt: as ever; the run is marked as interrupted.
        """
        check_names(options, "Trainer.fit")
        check_epochs(epochs)
        if isinstance(run, Run):
            self._check_training(run.freeze)
            self._join(run, options)
            return self._fit(run, train_loader, val_loader, epochs)
        with determinism.explained(self.deterministic):  # the model goes to its device with it already
            return self._fit_in_new(run, train_loader, val_loader, epochs, options)

    def _fit_in_new(
        self, run: str | None, train_loader: Any, val_loader: Any, epochs: int, options: RunOptions
    ) -> Result:
        freeze = options.get("freeze")
        self._check_training(freeze)
        self._to_device()
        options["track"] = dict(options.get("track") or {}) | self._own_state()
        options["config"] = self._config(epochs, freeze) | as_config(options.get("config"))
        opened = Run(
            run if run is not None else _name_of(self.model),
            model=self.model,
            optimizer=self.optimizers,
            scheduler=self.schedulers,
            scaler=self.scaler,
            seed=self.seed,
            deterministic=self.deterministic,
            in_memory=self.in_memory,
            quiet=self.quiet,
            **options,
        )
        with opened:
            self._fit(opened, train_loader, val_loader, epochs)
        return self._result(opened)

    def _join(self, run: Run, options: RunOptions) -> None:
        """Train in a Run that is open already, which has options of its own."""
        if names := given(options):
            raise ConfigurationError(
                f"such options as {', '.join(names)} belong to the Run that is open already: give them to it."
            )
        if self.seed is not None and self.seed != run.seed:
            raise ConfigurationError(
                f"the Trainer's seed is {self.seed} and the open Run's is {run.seed}: give it to one of them."
            )
        if self.deterministic and self.deterministic != run.deterministic:
            raise ConfigurationError(
                f"the Trainer has deterministic={self.deterministic!r} and the open Run {run.deterministic!r}: give it to the Run"
            )
        self._to_device()
        run.add(
            model=self.model,
            optimizer=self.optimizers,
            scheduler=self.schedulers,
            scaler=self.scaler,
            track=self._own_state(),
        )

    def evaluate(self, loader: Any, prefix: str = "") -> dict[str, float]:
        """Loss and metrics over ``loader``: :func:`relume.evaluate` with this trainer's settings."""
        with determinism.explained(self.deterministic):
            self.model.to(self.device)
            forward, batches = self._features.for_evaluation(loader) or (self._forward, loader)
            return evaluate(
                forward,
                batches,
                loss=self.loss_function,
                metrics=self.metrics,
                prefix=prefix,
                precision=self.precision_name,
                in_memory=self.in_memory,
            )

    def predict(self, loader: Any) -> Any:
        """The model's outputs for all samples of ``loader``, concatenated, on the CPU. Targets are ignored."""
        with determinism.explained(self.deterministic):
            self.model.to(self.device)
            return predict(self._forward, loader, precision=self.precision_name, in_memory=self.in_memory)

    def stop(self, reason: str) -> None:
        """End the training after this epoch; for callbacks."""
        if self.run is not None:
            self.run.stop(reason)

    def _check_training(self, freeze: FreezeSchedule | None) -> None:
        if self.loss_function is None and self._custom_step is None:
            raise ConfigurationError(
                "training needs loss= (such as nn.CrossEntropyLoss()), or a step= function that gives one."
            )
        if self._custom_step is None and any(isinstance(o, torch.optim.LBFGS) for o in self.optimizers.values()):
            raise OptimizerError(
                "LBFGS evaluates the loss several times an update: call optimizer.step(closure) in a step= function."
            )
        check_schedule(freeze)
        if freeze is not None and self.optimizers:
            check_kinds(self.optimizers)
            return  # what is trained is the schedule's to say, and the Run checks it
        check_optimizers(self.model, self.optimizers)

    def _config(self, epochs: int, freeze: FreezeSchedule | None) -> dict[str, Any]:
        """What the Trainer itself decides, stored with the run."""
        rates = {f"{name}/lr": o.param_groups[0]["lr"] for name, o in self.optimizers.items()}
        return {
            "model": type(self.model).__name__,
            "loss": type(self.loss_function).__name__
            if isinstance(self.loss_function, nn.Module)
            else str(self.loss_function),
            "optimizer": ", ".join(type(o).__name__ for o in self.optimizers.values()),
            **(rates if len(rates) != 1 else {"lr": next(iter(rates.values()))}),
            "epochs": epochs,
            "precision": self.precision_name,
            "accumulate": self.accumulate,
            "clip_norm": self.clip_norm,
            "device": str(self.device),
            **({} if freeze is None else {"freeze": freeze.summary()}),
        }

    # ------------------------------------------------------------------------------------------------------- the loop

    def _fit(self, run: Run, train_loader: Any, val_loader: Any, epochs: int) -> Result:
        self.run = run
        if self._compile:
            self._forward = torch.compile(self.model)  # type: ignore[assignment]
        if self._progress.group.is_empty:
            for optimizer in self.optimizers.values():
                optimizer.zero_grad()
        move_state(self.optimizers.values(), self.device)
        if self.precision.is_emulated(self.device):
            run.note(f"this processor computes {self.precision_name} by software: float32 is several times faster here")
        if self.moments["on_checkpoint_start"] or self.moments["on_checkpoint_end"]:
            run.observe_saves(self._on_save)
        held = {id(parameter) for parameter in self._held()}
        self._clears_itself = all(
            type(o).zero_grad is torch.optim.Optimizer.zero_grad for o in self.optimizers.values()
        )
        self._left_out = [p for p in self.model.parameters() if p.requires_grad and id(p) not in held]
        if self.device.type != "cpu":
            run.observe(self._look)
        try:
            self._tell("on_fit_start")
            for _ in run.epochs(epochs):
                self._tell("on_epoch_start")
                self._plan_features(run, train_loader, val_loader, epochs)
                self._train_epoch(run, train_loader)
                if val_loader is not None:
                    self._evaluate_epoch(run, val_loader)
                self._schedules.after_epoch(run.last)
                self._tell("on_epoch_end")
        except BaseException:
            with contextlib.suppress(Exception):  # what went wrong first is what matters
                self._tell("on_fit_end")
            raise
        finally:
            self._features.end(run)
        if self.moments["on_checkpoint_end"]:
            run.wait()
        self._tell("on_fit_end")
        return self._result(run)

    def _training_forward(self) -> nn.Module:
        features = self._features.forward
        return self._forward if features is None else features

    def _plan_features(self, run: Run, train_loader: Any, val_loader: Any, epochs: int) -> None:
        obstacle = "the Trainer has a step= function of its own" if self._custom_step is not None else None
        left = epochs - run.cursor.epoch
        self._features.begin_epoch(run, self.model, train_loader, val_loader, left, obstacle)

    def _train_epoch(self, run: Run, loader: Any) -> None:
        # Hot path: what it adds to the plain loop is measured in bench/loop.py.
        self.model.train()
        self._epoch_step = run.cursor.step
        mean, group = self._progress.begin_epoch()
        is_plain = self.accumulate == 1 and self.scaler is None
        starts, ends = self.moments["on_step_start"], self.moments["on_step_end"]
        on_cpu = self.device.type == "cpu"
        autocast = self.precision.autocast(self.device) if self.precision.dtype is not None else None
        is_first = True
        for batch in run.batches(loader):
            if not on_cpu:
                batch = tree.move(batch, self.device)
            self.batch = batch
            samples = tree.samples(batch)
            if starts and group.is_empty:
                self._tell("on_step_start")
            if autocast is None:
                loss, values = self._step(batch)
            else:
                with autocast:
                    loss, values = self._step(batch)
            if is_first or (loss is not None and (not isinstance(loss, torch.Tensor) or loss.dim())):
                own = self.loss_function if self._custom_step is None else None
                check_loss(loss, own, self.output, batch)
                is_first = False
            if loss is not None:
                self.loss = loss.detach()
                shown: Any = self._finite(self.loss, run) if on_cpu else self.loss
                mean.add(shown, samples)
                values["train/loss"] = shown
                if is_plain:
                    loss.backward()  # type: ignore[no-untyped-call]
                else:
                    scaled = group.weigh(loss, samples)
                    (self.scaler.scale(scaled) if self.scaler is not None else scaled).backward()  # type: ignore[no-untyped-call]
                if is_plain or group.is_full:
                    self._update(group)
                    if ends:
                        self._tell("on_step_end")
            elif ends:
                self._tell("on_step_end")
            if values:
                run.log(values)
        if not group.is_empty:
            self._update(group)
            if ends:
                self._tell("on_step_end")
        if not mean.has_values and run.cursor.step == self._epoch_step:
            raise LossError(
                "the step function gave no loss and made no update in a whole epoch: give the loss, or a dict with 'loss' in it."
            )
        if mean.has_values:
            run.log({"train/loss_epoch": mean.value()})
        self._progress.end_epoch()

    def _to_device(self) -> None:
        self.model.to(self.device)
        move_state(self.optimizers.values(), self.device)

    def _own_state(self) -> dict[str, Any]:
        """What of the Trainer itself is part of a checkpoint."""
        return {"relume/trainer": self._progress, **self.moments.stateful()}

    def _on_save(self, moment: str, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None:
            self.checkpoint = checkpoint
        self._tell(f"on_checkpoint_{moment}")

    def _step(self, batch: Any) -> tuple[torch.Tensor | None, dict[str, Any]]:
        """Forward pass and loss; ``None`` when the user's step function has done everything itself."""
        if self._custom_step is not None:
            return understood(self._custom_step(self, batch))
        assert self.loss_function is not None
        inputs, named, target = inputs_and_target(batch)
        self.output = output = call_model(self._training_forward(), inputs, named, batch)
        return call_loss(self.loss_function, self._arity, output, target, batch), {}

    def _update(self, group: Group) -> None:
        optimizers = self.optimizers.values()
        if self.scaler is not None:
            for optimizer in optimizers:
                self.scaler.unscale_(optimizer)
        if self.accumulate > 1:
            group.settle(self._held())
        if self.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self._held(), self.clip_norm)
            if self.run is not None:
                self.run.norm_before_clipping = norm
        assert self.run is not None
        before = self.run.cursor.step
        for optimizer in optimizers:
            if self.scaler is not None:
                self.scaler.step(optimizer)
            else:
                optimizer.step()
        if self.scaler is not None:
            self.scaler.update()
        if (
            self._clears_itself
        ):  # as zero_grad does, without its profiler's mark, which takes longer than the rest of it
            for parameter in self._held():
                parameter.grad = None
        else:
            for optimizer in optimizers:
                optimizer.zero_grad()
        for parameter in self._left_out:
            parameter.grad = None
        if self.run.cursor.step != before:
            self._schedules.after_step()

    def _held(self) -> list[nn.Parameter]:
        """The parameters that the optimizers hold now; callbacks may add groups."""
        return [p for o in self.optimizers.values() for group in o.param_groups for p in group["params"]]

    def _evaluate_epoch(self, run: Run, loader: Any) -> None:
        self._tell("on_evaluation_start")
        self.evaluation = self.evaluate(loader, prefix="val/")
        run.log(self.evaluation)
        self._tell("on_evaluation_end")

    # --------------------------------------------------------------------------------------------------------- checks

    def _finite(self, loss: torch.Tensor, run: Run) -> float:
        value = loss.item()
        if not math.isfinite(value):
            run.log({"train/loss": value})
            raise self._not_finite(value, run.cursor.step + 1, run.cursor.epoch + 1)
        self._last_finite = value
        return value

    def _look(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """On a device the loss is looked at when it arrives, some steps later: nothing waits for it."""
        value = values.get("train/loss")
        if value is None:
            return
        if not math.isfinite(value):
            raise self._not_finite(value, step, epoch)
        self._last_finite = value

    def _not_finite(self, value: float, step: int, epoch: int) -> NonFiniteLossError:
        batch = (step - self._epoch_step - 1) * self.accumulate + 1
        if self.run is not None and self.device.type == "cpu":
            batch = self.run.cursor.batch + 1
        place = f"step {step} (epoch {epoch}, batch {batch} of {describe(self.batch)})"
        return not_finite(value, place, self._last_finite, None if self.run is None else self.run.why_not_finite())

    def _tell(self, moment: str) -> None:
        for method in self.moments[moment]:
            method(self)

    def _result(self, run: Run) -> Result:
        result = Result(
            status=run.status,
            reason=run.reason,
            epochs=run.cursor.epoch,
            steps=run.cursor.step,
            seconds=time.perf_counter() - run.started,
            folder=run.folder,
            last=dict(run.last),
            best=dict(run.best),
            best_epoch=dict(run.best_epoch),
        )
        result.models = dict(run.models)
        return result


def _name_of(model: nn.Module) -> str:
    """A run's name from a model's class: ``NeuralNetwork`` is ``neural-network``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type(model).__name__.lstrip("_")).lower() or "run"

"""``relume train``: a known dataset or a folder of images, and a known model, from one command."""

from __future__ import annotations

import gc
import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from relume.cli.output import console


class OptimizerName(StrEnum):
    adam = "adam"
    adamw = "adamw"
    sgd = "sgd"


class PrecisionName(StrEnum):
    float32 = "float32"
    bf16 = "bf16"
    fp16 = "fp16"


class ScheduleName(StrEnum):
    none = "none"
    cosine = "cosine"
    onecycle = "onecycle"


_DATA, _MODEL, _TUNING, _TRAINING = "Data", "Model", "Fine-tuning", "Training"
_RUN, _CHECKPOINTS = "Run", "Checkpoints"
_SMALL_IMAGE = 64
_ONLY_WHEN_GIVEN = ("weights", "freeze", "unfreeze_at", "lr_backbone", "augment", "val_share", "split_seed")


def train(
    dataset: Annotated[
        str, typer.Argument(help="fashion-mnist, mnist, cifar10, or a folder of images by class.", show_default=False)
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder that holds, or gets, the dataset's files.", rich_help_panel=_DATA, show_default=False
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples a batch.", rich_help_panel=_DATA)] = 64,
    shuffle: Annotated[
        bool, typer.Option(help="Shuffle the training samples each epoch.", rich_help_panel=_DATA)
    ] = True,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load data.", rich_help_panel=_DATA)] = 0,
    in_memory: Annotated[
        bool | None,
        typer.Option(
            "--in-memory/--no-in-memory",
            help="Insist on, or forbid, keeping the data in memory; by default it is kept when that is proven to change nothing.",
            rich_help_panel=_DATA,
            show_default=False,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Side of the images in pixels; by default what the weights were made for, else the dataset's own.",
            rich_help_panel=_DATA,
            show_default=False,
        ),
    ] = None,
    augment: Annotated[
        bool, typer.Option("--augment", help="Flip and crop the training images at random.", rich_help_panel=_DATA)
    ] = False,
    val_share: Annotated[
        float | None,
        typer.Option(
            help="Share of each class of a folder held out for validation, where it has no val/; by default a tenth.",
            rich_help_panel=_DATA,
            show_default=False,
        ),
    ] = None,
    split_seed: Annotated[
        int,
        typer.Option(
            min=0, max=2**63 - 1, help="Which images are held out, whatever --seed is.", rich_help_panel=_DATA
        ),
    ] = 0,
    model: Annotated[
        str, typer.Option(help="mlp, cnn, torchvision/NAME or timm/NAME.", rich_help_panel=_MODEL)
    ] = "mlp",
    compile: Annotated[
        bool, typer.Option("--compile", help="Run the model through torch.compile.", rich_help_panel=_MODEL)
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Pretrained weights: default, a name that the library has, a file, or RUN@best. Images are normalised as "
            "they expect.",
            rich_help_panel=_TUNING,
            show_default=False,
        ),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            metavar="backbone|PATTERN",
            help="Do not train: backbone is all but the classifier; else names as 'layer[12]'. Several times for several.",
            rich_help_panel=_TUNING,
            show_default=False,
        ),
    ] = None,
    unfreeze_at: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="EPOCHS", help="Train all after so many epochs.", rich_help_panel=_TUNING, show_default=False
        ),
    ] = None,
    lr_backbone: Annotated[
        float | None,
        typer.Option(
            help="Learning rate of all but the classifier; by default --lr.",
            rich_help_panel=_TUNING,
            show_default=False,
        ),
    ] = None,
    cache_features: Annotated[
        bool | None,
        typer.Option(
            "--cache-features/--no-cache-features",
            help="Insist on, or forbid, computing the frozen part once an image; by default it is done when that pays.",
            rich_help_panel=_TUNING,
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training data.", rich_help_panel=_TRAINING)] = 5,
    lr: Annotated[float, typer.Option(min=0.0, help="Learning rate.", rich_help_panel=_TRAINING)] = 1e-3,
    optimizer: Annotated[
        OptimizerName, typer.Option(help="Optimizer.", rich_help_panel=_TRAINING)
    ] = OptimizerName.adam,
    momentum: Annotated[float, typer.Option(min=0.0, help="Momentum of sgd.", rich_help_panel=_TRAINING)] = 0.0,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="Weight decay.", rich_help_panel=_TRAINING)] = 0.0,
    schedule: Annotated[
        ScheduleName, typer.Option(help="How the learning rate moves.", rich_help_panel=_TRAINING)
    ] = ScheduleName.none,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches an update.", rich_help_panel=_TRAINING)] = 1,
    clip_norm: Annotated[
        float | None, typer.Option(help="Largest norm of the gradients.", rich_help_panel=_TRAINING, show_default=False)
    ] = None,
    precision: Annotated[
        PrecisionName, typer.Option(help="Number format of the forward and backward pass.", rich_help_panel=_TRAINING)
    ] = PrecisionName.float32,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, … or auto.", rich_help_panel=_TRAINING)] = "auto",
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**63 - 1, help="Seed of weights, order and augmentation.", rich_help_panel=_TRAINING),
    ] = 0,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="Only algorithms that give the same bits each time; an operation that has none is an error.",
            rich_help_panel=_TRAINING,
        ),
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(help="The run's name; by default the dataset's.", rich_help_panel=_RUN, show_default=False),
    ] = None,
    root: Annotated[Path, typer.Option(help="Folder that holds the runs.", rich_help_panel=_RUN)] = Path("runs"),
    tracker: Annotated[
        list[str] | None,
        typer.Option(
            metavar="tensorboard|wandb|mlflow",
            help="Show the run there too; several times for several.",
            rich_help_panel=_RUN,
            show_default=False,
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            help="A word to find the run by; several times for several.", rich_help_panel=_RUN, show_default=False
        ),
    ] = None,
    notes: Annotated[
        str | None, typer.Option(help="A text about the run.", rich_help_panel=_RUN, show_default=False)
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show nothing but errors.", rich_help_panel=_RUN)
    ] = False,
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--no-resume",
            help="Go on with the run of this name, or start a new one beside it; by default a run named with --name goes on, "
            "and so does the same training when it was stopped before its end.",
            rich_help_panel=_CHECKPOINTS,
            show_default=False,
        ),
    ] = None,
    every: Annotated[
        list[str] | None,
        typer.Option(
            help='When to save: "1 epoch", "500 steps", "10 min"; several times for several rules. [default: 1 epoch]',
            rich_help_panel=_CHECKPOINTS,
            show_default=False,
        ),
    ] = None,
    keep_last: Annotated[
        int, typer.Option(min=1, help="How many of the newest checkpoints to keep.", rich_help_panel=_CHECKPOINTS)
    ] = 2,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop early after so many epochs without a smaller val/loss.",
            rich_help_panel=_CHECKPOINTS,
            show_default=False,
        ),
    ] = None,
    from_checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Begin from a checkpoint of another run: RUN, RUN@12, RUN@best, or a file.",
            rich_help_panel=_CHECKPOINTS,
            show_default=False,
        ),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            help="On a resume, take this hyperparameter (lr, …) from the command and not from the checkpoint.",
            rich_help_panel=_CHECKPOINTS,
            show_default=False,
        ),
    ] = None,
    mirror: Annotated[
        Path | None,
        typer.Option(
            help="Copy checkpoints to this folder too, a mounted drive perhaps; a new machine goes on from it.",
            rich_help_panel=_CHECKPOINTS,
            show_default=False,
        ),
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option(
            help='Save and end with exit status 75 after so long: "11 h 30 min".',
            rich_help_panel=_CHECKPOINTS,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train a model on a dataset, evaluate it each epoch, and store the run.

    Examples:

    [bold]relume train fashion-mnist --model cnn --epochs 3[/bold]

    [bold]relume train photos/ --model torchvision/resnet18 --weights default --freeze backbone[/bold]
    """
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    import relume
    from relume.cli.startup import without_compiler
    from relume.datasets import load
    from relume.errors import ConfigurationError
    from relume.monitor.record import check_name
    from relume.page import print_page
    from relume.run import check_epochs
    from relume.run.every import Every, read_duration
    from relume.train import finetuning
    from relume.train.classes import ClassCounts, final_report

    if not compile:
        without_compiler()
    check_epochs(epochs)
    if momentum and optimizer is not OptimizerName.sgd:
        raise ConfigurationError(f"--momentum belongs to --optimizer sgd; {optimizer.value} has its own.")
    if cache_features and (augment or not freeze):
        why = "--augment makes other images each time" if augment else "nothing is frozen (--freeze backbone)"
        raise ConfigurationError(f"--cache-features: {why}, so there are no features to keep. Leave one of them out.")
    has_weights = weights is not None or from_checkpoint is not None
    finetuning.check_fine_tuning(freeze or (), unfreeze_at, lr_backbone, epochs, has_weights)
    run_name = check_name(name) if name is not None else _name_of(dataset)
    Every.read(every), read_duration(max_time, "--max-time")  # before any time is spent
    relume.seed_everything(seed, deterministic)
    split = load(
        dataset,
        root=data,
        size=image_size,
        quiet=quiet,
        expected=finetuning.expected_input(model, weights),
        augment=augment,
        val_share=val_share,
        split_seed=split_seed,
    )
    network = finetuning.starting_model(model, len(split.classes), split.channels, split.size, weights)
    example = torch.zeros(2, split.channels, split.size, split.size)
    tuning = finetuning.fine_tuning(network, freeze or (), unfreeze_at, lr, lr_backbone, example)
    if tuning.report is not None and not quiet:
        typer.echo(str(tuning.report).splitlines()[0], err=True)
    chosen = finetuning.optimizer_of(tuning.groups, optimizer.value, lr, momentum, weight_decay)
    train_loader: Any = DataLoader(
        split.train, batch_size, shuffle=shuffle, num_workers=workers, persistent_workers=workers > 0
    )
    test_batch = max(batch_size, 500) if split.size <= _SMALL_IMAGE else batch_size
    test_loader: Any = DataLoader(split.test, test_batch, num_workers=workers, persistent_workers=workers > 0)
    updates = -(-len(train_loader) // accumulate) * epochs
    counts = ClassCounts(split.classes)
    caching: dict[str, Any] = {} if cache_features is None else {"cache_features": cache_features}
    trainer = relume.Trainer(
        network,
        loss=nn.CrossEntropyLoss(),
        optimizer=chosen,
        scheduler=finetuning.scheduler_of(chosen, schedule.value, updates),
        schedule_every="step",
        metrics={"accuracy": counts},
        callbacks=[counts],
        device=device,
        precision=precision.value,
        accumulate=accumulate,
        clip_norm=clip_norm,
        compile=compile,
        seed=seed,
        deterministic=deterministic,
        in_memory=in_memory,
        quiet=quiet,
        **caching,
    )
    config = {
        "dataset": dataset,
        "source": split.source,
        "model": model,
        "batch_size": batch_size,
        "shuffle": shuffle,
        "workers": workers,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "schedule": schedule.value,
        "weights": weights,
        "freeze": freeze or None,
        "unfreeze_at": unfreeze_at,
        "lr_backbone": lr_backbone,
        "augment": augment or None,
        "val_share": val_share,
        "split_seed": split_seed or None,
        "classes": split.classes,
        "input": split.prepare.as_config(),
    }
    config = {key: value for key, value in config.items() if value is not None or key not in _ONLY_WHEN_GIVEN}
    root = Path(os.environ.get("RELUME_ROOT") or root)  # as Run has it
    goes_on = resume if resume is not None or name is not None else _is_unfinished(root / run_name, config)
    gc.freeze()  # what is imported stays: later collections need not look at it
    gc.enable()
    result = trainer.fit(
        train_loader,
        test_loader,
        epochs=epochs,
        run=run_name,
        root=root,
        config=config,
        every=every,
        keep=relume.Keep(last=keep_last, monitor="val/loss"),
        stop=relume.EarlyStopping("val/loss", patience=patience) if patience is not None else None,
        mirror=mirror,
        resume=goes_on,
        from_checkpoint=from_checkpoint,
        override=override or (),
        max_time=max_time,
        freeze=tuning.schedule,
        trackers=tracker,
        tags=tag or (),
        notes=notes,
    )
    report = final_report(trainer, counts, test_loader, result.folder, result.epochs)
    if not quiet:
        out = console()
        print_page(report.page(out.width), out)


def _is_unfinished(folder: Path, config: dict[str, Any]) -> bool:
    """Whether the run there is this very training, stopped before its end."""
    from relume.errors import RelumeError
    from relume.monitor import RunRecord, status_of

    try:
        record = RunRecord.load(folder)
        return status_of(folder)[0] != "finished" and all(
            record.config.get(key) == config.get(key) for key in {*config, *_ONLY_WHEN_GIVEN}
        )
    except RelumeError:
        return False


def _name_of(dataset: str) -> str:
    """A run's name from a dataset's name or path."""
    return re.sub(r"[^\w]+", "-", Path(dataset).absolute().name).strip("-_") or "run"

"""Many heads on one backbone: its features are computed once, and each head is trained on them as a run of its own."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from relume import tree
from relume.data import stream_of
from relume.data.calls import Loss, device_of, inputs_and_target
from relume.errors import ConfigurationError, RelumeError
from relume.generators import isolated
from relume.monitor import RunRecord
from relume.run import as_config
from relume.run.options import NAMES
from relume.seeds import derive
from relume.train.cached import CacheFeatures
from relume.train.metrics import Metrics
from relume.train.result import Result
from relume.train.trainer import Trainer
from relume.transfer import freeze, settle
from relume.transfer.classifiers import Found, checked, find
from relume.transfer.features.cache import hash_of
from relume.transfer.features.plans import plans
from relume.transfer.heads import put_classes, replace_head

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Place = Literal["auto", "classifier", "behind"]
_BACKBONE = "backbone"
_KNOWN = frozenset({"head", "optimizer", "config"})


def fit_heads(
    backbone: nn.Module,
    heads: Mapping[str, Any],
    train_loader: Any,
    val_loader: Any = None,
    *,
    loss: Loss,
    epochs: int,
    optimizer: MakeOptimizer | None = None,
    metrics: Metrics | None = None,
    root: str | Path = "runs",
    seed: int = 0,
    cache_features: CacheFeatures = "auto",
    every: str | Iterable[str] | bool = "30 s",
    place: Place = "auto",
    on: Callable[[str, nn.Module], None] | None = None,
    **settings: Any,
) -> dict[str, Result]:
    """Train several heads on one frozen backbone, each as a run of its own, on features that are computed once.

    Args:
        backbone: a model whose classifier is exchanged for each head, or one without a classifier that the head is put
            behind. It is not changed; its tensors are shared by all, so that checkpoints store them once.
        heads: names to heads: a number of classes, a module, a function that makes one; or a mapping with ``"head"``,
            ``"optimizer"`` (a function from parameters to an optimizer) and ``"config"`` (what to store with the run). The
            name is that of the run.
        loss, epochs, metrics, root: see :class:`relume.Trainer`.
        optimizer: for the heads that have none of their own; AdamW with a learning rate of 1e-3 by default.
        seed: each head begins from weights that are a function of it and of nothing else.
        cache_features: as in :class:`relume.Trainer`.
        every: when checkpoints are made, see :class:`relume.Run`; always at the end of each head. Heads on features have
            epochs of a tenth of a second, which a checkpoint of each would double; ``"1 epoch"`` keeps the best of them.
        place: ``"classifier"`` puts heads in the place of the backbone's classifier, ``"behind"`` behind the whole of it;
            by default where a head fits.
        on: called with a head's name and its whole model when its training is over.
        settings: further arguments of :class:`relume.Trainer`, and those of :class:`relume.Run` that ``Trainer.fit`` takes,
            for all heads alike; a head's own ``"config"`` is put over the common one.

    Called again, what is finished is not trained again, and what was stopped goes on.

    Raises:
        ConfigurationError: a head that is none of these, or whose run was trained on another backbone; names it.

    Example:
        >>> import tempfile
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> loader = DataLoader(TensorDataset(torch.randn(8, 4), torch.zeros(8, dtype=torch.long)), batch_size=4)
        >>> heads = {"a": nn.Linear(3, 2), "b": nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))}
        >>> backbone = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        >>> settings = {"loss": nn.CrossEntropyLoss(), "root": tempfile.mkdtemp(), "quiet": True, "place": "behind"}
        >>> results = fit_heads(backbone, heads, loader, epochs=2, **settings)
        >>> {name: result.steps for name, result in results.items()}
        {'a': 4, 'b': 4}
    """
    if not isinstance(heads, Mapping) or not heads:
        raise ConfigurationError("heads must be a mapping of names to heads, with at least one.")
    read = {name: _read(name, spec, optimizer) for name, spec in heads.items()}
    options, settings = _split(settings)
    common = as_config(options.pop("config", None))
    if place not in ("auto", "classifier", "behind"):
        raise ConfigurationError(f"place={place!r}: it is 'auto', 'classifier' or 'behind'.")
    example = next(stream_of(train_loader, seed).epoch(0)) if place == "auto" else None
    results = {}
    find_once = functools.cache(lambda: find(checked(backbone), None))  # it takes a trace of the model
    with plans.kept():
        for name, (head, make, config) in read.items():
            with isolated(derive(seed, "head")):
                model, parameters = with_head(backbone, head, place, example, find_once)
            below = _hash_below(model, backbone, parameters)
            _require_same(name, root, below)
            trainer = Trainer(
                model,
                loss=loss,
                optimizer=make(parameters),
                metrics=metrics,
                seed=seed,
                cache_features=cache_features,
                **settings,
            )
            results[name] = trainer.fit(
                train_loader,
                val_loader,
                epochs=epochs,
                run=name,
                root=root,
                config=common | as_config(config) | {_BACKBONE: below},
                every=every,
                **options,
            )
            if on is not None:
                on(name, model)
    return results


def with_head(
    backbone: nn.Module, head: int | nn.Module, place: Place, example: Any, find_classifier: Callable[[], Found]
) -> tuple[nn.Module, list[nn.Parameter]]:
    """A model like ``backbone`` with the same tensors, frozen, and a head that is trained; and the head's parameters."""
    shared = sharing(backbone)
    before = {id(parameter) for parameter in shared.parameters()}
    freeze(shared)
    if place == "auto":
        place = _place_of(shared, head, example)
    if place == "behind":
        if not isinstance(head, nn.Module):
            raise ConfigurationError(f"a head behind the backbone must be a module, not {head!r:.80}.")
        model: nn.Module = nn.Sequential(shared, head)
    elif isinstance(head, nn.Module):
        model = _replaced(shared, head)
    else:
        put_classes(shared, head, find_classifier())
        model = shared
    own = [parameter for parameter in model.parameters() if id(parameter) not in before]
    for parameter in own:
        parameter.requires_grad_(True)
    settle(model)
    return model, own


def _hash_below(model: nn.Module, backbone: nn.Module, own: list[nn.Parameter]) -> str:
    """The hash of what a model has of its backbone: all but its own head."""
    heads, buffers = {id(parameter) for parameter in own}, {id(buffer) for buffer in backbone.buffers()}
    kept = [(name, tensor) for name, tensor in model.named_parameters() if id(tensor) not in heads]
    return hash_of([*kept, *((name, tensor) for name, tensor in model.named_buffers() if id(tensor) in buffers)])


def _require_same(name: str, root: str | Path, below: str) -> None:
    """A run that goes on would load the backbone that it was trained on into the one given, which all heads share."""
    try:
        record = RunRecord.load(Path(os.environ.get("RELUME_ROOT") or root) / name)
    except RelumeError:  # there is none to go on with
        return
    if record.config.get(_BACKBONE, below) != below:
        raise ConfigurationError(
            f"the run {name!r} in {root} was trained on a backbone with other weights, so that it cannot go on with this "
            "one. Give the head another name, or give another root=."
        )


def _place_of(shared: nn.Module, head: int | nn.Module, example: Any) -> Place:
    """Where a head fits: in the classifier's place or behind the whole; a number of classes takes the classifier's."""
    if not isinstance(head, nn.Module):
        return "classifier"
    fits: list[Place] = []
    with isolated(0), torch.no_grad():
        inputs, named, _ = inputs_and_target(tree.move(example, device_of(shared)))
        with contextlib.suppress(Exception):
            copy.deepcopy(head).to(device_of(shared)).eval()(shared(*inputs, **named))
            fits.append("behind")
        with contextlib.suppress(Exception):
            _replaced(sharing(shared), copy.deepcopy(head))(*inputs, **named)
            fits.append("classifier")
    if len(fits) != 1:
        raise ConfigurationError(
            f"the head, a {type(head).__name__}, fits {'both' if fits else 'neither'} behind the backbone "
            f"{'and' if fits else 'nor'} in the place of its classifier: say place='behind' or place='classifier', or change "
            "its width."
        )
    return fits[0]


def _replaced(model: nn.Module, head: nn.Module) -> nn.Module:
    replace_head(model, head)
    return model


def sharing(model: nn.Module) -> nn.Module:
    """A copy of a model in the same memory: what is frozen in the copy is not in the model."""
    memo: dict[int, Any] = {id(buffer): buffer for buffer in model.buffers()}
    memo |= {id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, memo)


def _split(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What belongs to the runs, and what to the Trainers."""
    if settings.get("freeze") is not None:
        raise ConfigurationError(
            "fit_heads keeps the backbone frozen, which all heads share: freeze= cannot change that."
        )
    options = {name: value for name, value in settings.items() if name in NAMES}
    return options, {name: value for name, value in settings.items() if name not in NAMES}


def _read(name: str, spec: Any, optimizer: MakeOptimizer | None) -> tuple[int | nn.Module, MakeOptimizer, Any]:
    given = dict(spec) if isinstance(spec, Mapping) else {"head": spec}
    if unknown := sorted(map(str, given.keys() - _KNOWN)):
        raise ConfigurationError(f"head {name!r} has {', '.join(unknown)}: known are {', '.join(sorted(_KNOWN))}.")
    head = given.get("head")
    if callable(head) and not isinstance(head, nn.Module):
        head = head()
    if isinstance(head, bool) or not isinstance(head, (int, nn.Module)) or (isinstance(head, int) and head < 1):
        raise ConfigurationError(
            f"head {name!r} is {head!r:.80}: give a number of classes, a module, or a function that makes one."
        )
    if isinstance(head, nn.Module):
        head = copy.deepcopy(head)  # the user's own stays as it is, so that the same call begins alike
    make = given.get("optimizer") or optimizer or _adamw
    if not callable(make):
        raise ConfigurationError(
            f"head {name!r}: optimizer is a {type(make).__name__}: give a function from parameters to an optimizer."
        )
    return head, make, given.get("config")


def _adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3)

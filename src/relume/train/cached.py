"""Training on features: the frozen part of the model is computed once, and the rest is trained on what it gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from relume.checkpoint.hashing import hash_bytes
from relume.data import Stream, stream_of
from relume.data.memory import NotEligible
from relume.errors import ConfigurationError, FeatureCacheError, warn
from relume.names import unwrap
from relume.run import Run
from relume.train.evaluation import evaluation_mode
from relume.transfer.features import FeatureCache, NoCut, NothingConstant, Setting, cache_for
from relume.transfer.features.cost import NoGain
from relume.transfer.features.plans import moment
from relume.transfer.features.setting import check_storage
from relume.transfer.selection import Anatomy

CacheFeatures = Literal["auto"] | bool
Wrap = Callable[[nn.Module], nn.Module]


class CachedFeatures:
    """Decides at the start of each epoch whether training and validation read features, and of which cut.

    Args:
        asked: ``"auto"`` where it is proven and pays, ``True`` insists, ``False`` never.
        dtype: what features are stored in; ``None`` for what they are computed in.
        views: how many seeded augmentations of each sample are kept; ``None`` for deterministic samples only.
        setting: how the frozen part is run.
        wrap: put around the upper part, such as ``torch.compile``.
    """

    def __init__(
        self,
        asked: CacheFeatures,
        dtype: torch.dtype | None,
        views: int | None,
        setting: Setting,
        wrap: Wrap | None = None,
    ) -> None:
        self.asked = asked
        self.views = views
        self.setting = Setting(setting.device, setting.precision, dtype)
        self._wrap = wrap
        self._train = _Part("train")
        self._val = _Part("val")
        self._decided: dict[str, dict[str, Any]] = {}
        self._is_over = False

    @property
    def forward(self) -> nn.Module | None:
        """What takes a batch of the training in the model's place; ``None`` for the model itself."""
        return self._train.upper

    def begin_epoch(
        self, run: Run, model: nn.Module, train_loader: Any, val_loader: Any, epochs: int, obstacle: str | None
    ) -> None:
        """Plan for the epochs that are left, or check that what was planned still holds.

        ``obstacle`` says why there can be no features, whatever the model.

        Raises:
            FeatureCacheError: ``cache_features=True``, and it cannot be done.
        """
        if self.asked is False or (self.asked == "auto" and not _has_frozen_part(model)):
            return
        if self._is_over:
            self._decided, self._is_over = {}, False
        may_train = trainable_in(run, model, run.stream(train_loader).length)
        model.train()
        modes = [module.training for module in model.modules()]
        signature = (frozenset(may_train), tuple(modes), id(train_loader), id(val_loader))
        with moment.kept():
            self._settle(self._train, run, model, train_loader, epochs, may_train, signature, obstacle)
            run.read_instead(train_loader, self._train.stream)
            if val_loader is not None:
                if self._train.cache is None:
                    self._val.forget()
                else:
                    with evaluation_mode(model):
                        self._settle(self._val, run, model, val_loader, epochs, may_train, signature, obstacle)

    def for_evaluation(self, loader: Any) -> tuple[nn.Module, Stream] | None:
        """The upper part and the stream of features of the validation, if ``loader`` is that and has them."""
        part = self._val
        if part.upper is None or part.stream is None or part.loader is not loader:
            return None
        return part.upper, part.stream

    def end(self, run: Run) -> None:
        """Training is over: the loaders give samples again, and nothing is held on to."""
        if self._train.loader is not None:
            run.read_instead(self._train.loader, None)
        self._train, self._val = _Part("train"), _Part("val")
        self._is_over = True

    def state_dict(self) -> dict[str, Any]:
        """What was decided by the clock, so that a resumed training computes what the undisturbed one does."""
        return {name: dict(decision) for name, decision in self._decided.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._decided, self._is_over = {name: dict(decision) for name, decision in state.items()}, False

    def _settle(
        self,
        part: _Part,
        run: Run,
        model: nn.Module,
        loader: Any,
        epochs: int,
        may_train: set[int],
        signature: Any,
        obstacle: str | None,
    ) -> None:
        if part.signature == signature:
            if part.cache is None or (problem := part.cache.problem()) is None:
                return
            run.note(f"features: {part.name}: computed again: {problem}")
        part.forget()
        part.signature, part.loader = signature, loader
        insist = self.asked is True
        plan = {"epochs": run.cursor.epoch + epochs, "trained": _name_of(model, may_train)}
        before = self._decided.pop(part.name, {})
        is_cached = before.get("is_cached") if before.get("trained") == plan["trained"] else None
        try:
            if obstacle is not None:
                raise NotEligible(obstacle)
            if is_cached is False and not insist and before.get("epochs") == plan["epochs"]:
                raise NoGain("this training began without features, as they would save too little")
            stream = run.stream(loader) if part.name == "train" else stream_of(loader, None, run.in_memory)
            part.take(
                cache_for(
                    model,
                    loader,
                    self.setting,
                    epochs=epochs,
                    root=run.root,
                    insist=insist or is_cached is True,
                    views=self.views if part.name == "train" else None,
                    seed=run.seed,
                    trainable=may_train,
                ),
                stream,
                self._wrap,
            )
        except (NoCut, NotEligible) as reason:
            if isinstance(reason, NoGain):
                self._decided[part.name] = plan | {"is_cached": False}
            is_later = run.cursor.epoch > 0 or part.had_features or getattr(run, "freeze", None) is not None
            self._refuse(part, run, str(reason), may_end=is_later and isinstance(reason, NothingConstant))
        except ConfigurationError:
            raise
        except Exception as error:  # whatever the user's model or data raises: the training itself will say it better
            if insist and part.name == "train":
                raise
            self._refuse(part, run, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]:.200}")
        else:
            assert part.cache is not None
            self._decided[part.name] = plan | {"is_cached": True}
            for text in (part.cache.text, *part.cache.notes):
                part.say(run, text)

    def _refuse(self, part: _Part, run: Run, reason: str, *, may_end: bool = False) -> None:
        """``may_end``: a later phase may train everything, though features were asked for."""
        part.forget(keep_signature=True)
        if self.asked is True and part.name == "train" and not may_end:
            raise FeatureCacheError(
                f"cache_features=True was asked for, but {reason}. cache_features='auto' trains without features where "
                "they cannot be had."
            )
        part.say(run, f"not cached: {reason}")


class _Part:
    """What is known of one loader."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.said: set[str] = set()
        self.had_features = False
        self.forget()

    def forget(self, *, keep_signature: bool = False) -> None:
        self.cache: FeatureCache | None = None
        self.upper: nn.Module | None = None
        self.stream: Stream | None = None
        if not keep_signature:
            self.signature: Any = None
            self.loader: Any = None

    def take(self, cache: FeatureCache, stream: Stream, wrap: Wrap | None) -> None:
        table = cache.table

        def begin(epoch: int) -> None:
            table.epoch = epoch

        self.stream = stream.over(table, begin)
        self.cache, self.had_features = cache, True
        self.upper = cache.cut.upper if wrap is None else wrap(cache.cut.upper)

    def say(self, run: Run, text: str) -> None:
        if text not in self.said:
            self.said.add(text)
            run.note(f"features: {self.name}: {text}")


def trainable_in(run: Run, model: nn.Module, steps: int | None) -> set[int]:
    """The ids of the parameters that are, or may be, trained in the present epoch, and of the modules that hold them."""
    found = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    ever = getattr(getattr(run, "freeze", None), "ever_trainable", None)
    if ever is not None:
        chosen = Anatomy(unwrap(model)).select(list(ever(run.cursor.epoch, steps)))
        found |= {id(parameter) for parameter in chosen.parameters.values()}
        found |= {id(module) for module in chosen.modules.values()}
    return found


def _name_of(model: nn.Module, may_train: set[int]) -> str:
    """What may be trained, and the modes, in a word that is the same in every process."""
    inner = unwrap(model)
    names = [name for name, parameter in inner.named_parameters() if id(parameter) in may_train]
    modules = [(name, module.training, id(module) in may_train) for name, module in inner.named_modules()]
    return hash_bytes(repr((names, modules)).encode())


def check(asked: object, dtype: object, views: object) -> None:
    """
    Raises:
        ConfigurationError: an argument that makes no sense; names it.
    """
    if asked not in ("auto", True, False) or not isinstance(asked, (bool, str)):
        raise ConfigurationError(f"cache_features={asked!r}: it is 'auto', True or False.")
    check_storage(dtype, views, "cache_")
    if asked is False and (dtype is not None or views is not None):
        warn("cache_features=False: cache_dtype and cache_views have no effect.")


def _has_frozen_part(model: nn.Module) -> bool:
    return any(not parameter.requires_grad for parameter in model.parameters())

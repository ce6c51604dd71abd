"""Which part of a model is trained when: phases one after the other, or in turns, by the cursor alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import count
from typing import Any, Literal, NamedTuple

from torch import nn

from relume.errors import ConfigurationError
from relume.transfer.phases import Length, Phase, Stall
from relume.transfer.selection import Part, as_parts


class Start(NamedTuple):
    """Where a phase began.

    Attributes:
        epoch: the first whole epoch of it, counted from 0.
        step: optimizer updates done before it.
    """

    epoch: int
    step: int


class FreezeSchedule:
    """Phases of a training, one after the other: in each another part of the model is trained, the rest is frozen.

    Give it to :class:`relume.Run` or ``Trainer.fit`` as ``freeze=``. The change comes between two batches, at the exact
    epoch or optimizer step and never within an accumulation. Which phase holds is a function of (epoch, step) alone, but
    for phases that end with a :class:`Stall`; a run that goes on does so in its phase, bit for bit. The optimizer holds
    all that any phase trains, from the beginning: frozen parameters have no gradient, so nothing moves them.

    Args:
        phases: each but the last with an end.
        repeat: begin again after the last, for ever; all phases then last epochs, or all steps.

    Raises:
        ConfigurationError: no phase, a phase behind one without an end, a name used twice.

    Example:
        >>> schedule = FreezeSchedule([Phase("fc", epochs=3), Phase(["layer4", "fc"], epochs=2), Phase(lr=1e-4)])
        >>> print(schedule)
        phase  trainable   until     lr      warm-up
        1      fc          3 epochs
        2      layer4, fc  2 epochs
        3      all         the end   0.0001
        >>> schedule.at(epoch=4, step=0).parts()
        'layer4, fc'
    """

    def __init__(self, phases: Iterable[Phase], *, repeat: bool = False) -> None:
        if not isinstance(phases, (Phase, Iterable)):
            raise ConfigurationError(f"phases must be a list of relume.Phase, not {phases!r:.60}.")
        phases = [phases] if isinstance(phases, Phase) else list(phases)
        if not phases:
            raise ConfigurationError("a schedule needs at least one relume.Phase.")
        for phase in phases:
            if not isinstance(phase, Phase):
                raise ConfigurationError(
                    f"a schedule consists of relume.Phase, not {type(phase).__name__}: {phase!r:.60}."
                )
        self.all = tuple(phases)
        self.repeat = repeat
        _check_ends(self.all, repeat)
        _check_names(self.all)

    @classmethod
    def gradual(
        cls,
        groups: nn.Module | Sequence[Part | Sequence[Part]],
        *,
        every: int | str = 1,
        most: int | None = None,
        state: Literal["keep", "drop"] = "keep",
    ) -> FreezeSchedule:
        """Unfreeze from the top: first the head, then one more group in each phase, until all are trained.

        Args:
            groups: the groups from the top down; or the model, whose blocks they are (see :func:`parameter_groups`).
            every: how long each phase lasts: ``"2 epochs"``, ``"100 steps"`` or a number of epochs.
            most: how many groups are trained at last; None is all of them.

        Example:
            >>> [phase.parts() for phase in FreezeSchedule.gradual(["fc", "layer4", "layer3"], every="2 epochs").all]
            ['fc', 'fc, layer4', 'fc, layer4, layer3']
        """
        length = Length.read(every, "every", "epochs")
        if isinstance(groups, nn.Module):
            from relume.transfer.groups import blocks_of

            groups = list(reversed(list(blocks_of(groups).values())))
        parts = [as_parts(group) for group in ([groups] if isinstance(groups, str) else groups)]
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise ConfigurationError(f"most must be a whole number of at least 1, not {most!r}.")
        parts = parts[:most]
        phases = []
        for number in range(1, len(parts) + 1):
            trained = [part for group in parts[:number] for part in group]
            end = {} if number == len(parts) else {length.unit: length.count}
            phases.append(Phase(trained, state=state, **end))  # type: ignore[arg-type]
        return cls(phases)

    @classmethod
    def alternate(
        cls,
        groups: Mapping[str, Part | Iterable[Part]],
        *,
        every: int | str = "1 epoch",
        state: Literal["keep", "drop"] = "keep",
        batchnorm: Literal["train", "eval"] = "train",
    ) -> FreezeSchedule:
        """Train the groups in turns, again and again: alternating step freezing.

        Args:
            groups: what is trained in each turn, by name.
            every: how long a turn lasts: ``"100 steps"``, ``"1 epoch"`` or a number of steps.

        Example:
            >>> turns = FreezeSchedule.alternate({"body": ["features"], "head": ["classifier"]}, every="100 steps")
            >>> [turns.at(0, step).name for step in (0, 99, 100, 199, 200)]
            ['body', 'body', 'head', 'head', 'body']
        """
        if not isinstance(groups, Mapping) or len(groups) < 2:
            raise ConfigurationError("alternate needs at least two groups by name: {'body': [...], 'head': [...]}.")
        length = Length.read(every, "every")
        end: Any = {length.unit: length.count}
        phases = [Phase(parts, name=name, state=state, batchnorm=batchnorm, **end) for name, parts in groups.items()]
        return cls(phases, repeat=True)

    @classmethod
    def probe_then_finetune(
        cls,
        head: Part | Iterable[Part],
        epochs: int = 1,
        *,
        lr: float | None = None,
        warmup: int | str | None = None,
        batchnorm: Literal["train", "eval"] = "train",
    ) -> FreezeSchedule:
        """Linear probing, then fine-tuning: the head alone first, so that a random one does not spoil what is below.

        Args:
            head: the new part.
            epochs: how long it is trained alone.
            lr, warmup, batchnorm: of the fine-tuning, see :class:`Phase`.

        Source: Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.

        Example:
            >>> print(FreezeSchedule.probe_then_finetune("fc", 3, lr=1e-4, warmup="1 epoch"))
            phase  name      trainable  until     lr      warm-up
            1      probe     fc         3 epochs
            2      finetune  all        the end   0.0001  1 epoch
        """
        probe = Phase(head, epochs=epochs, name="probe")
        return cls([probe, Phase(lr=lr, warmup=warmup, name="finetune", batchnorm=batchnorm)])

    @property
    def sets_lr(self) -> bool:
        """Whether any phase has a learning rate or a warm-up of its own; then the schedule sets it in all of them."""
        return any(phase.sets_lr for phase in self.all)

    def __getitem__(self, number: int) -> Phase:
        """The phase of this number, counted from 0 over all turns."""
        return self.all[number % len(self.all) if self.repeat else number]

    def at(self, epoch: int, step: int, steps_per_epoch: int | None = None) -> Phase:
        """The phase that holds for a batch of ``epoch`` (from 0) before which ``step`` optimizer updates were done.

        Args:
            steps_per_epoch: updates in an epoch; it matters only where phases of epochs and of steps follow each other.

        A phase that ends with a :class:`Stall` is taken to last.
        """
        return self[self.starts(epoch, step, steps_per_epoch=steps_per_epoch)[0]]

    def starts(
        self,
        epoch: int,
        step: int,
        known: Sequence[Start] = (Start(0, 0),),
        *,
        inside: bool = False,
        is_live: bool = False,
        has_stalled: bool = False,
        steps_per_epoch: int | None = None,
    ) -> tuple[int, list[Start]]:
        """The number of the phase that holds, and the starts of all phases up to it (of turns: of the last alone).

        Args:
            known: starts that are known already.
            inside: whether the epoch has begun before this batch.
            is_live: whether it was looked at for the batch before: a phase that has ended ended here.
            has_stalled: whether the stall of the last phase that is known has come.
        """
        if self.repeat:
            return self._turn(epoch, step)
        starts = list(known)
        while len(starts) < len(self.all):
            length, begun = self.all[len(starts) - 1].length, starts[-1]
            here = Start(epoch + inside, step)
            if isinstance(length, Stall):
                if not has_stalled:
                    break
                has_stalled = False
                starts.append(here)
            elif isinstance(length, Length) and length.unit == "steps":
                end = begun.step + length.count
                if step < end:
                    break
                starts.append(
                    here if is_live or step == end else Start(_epoch_of(end, epoch, step, steps_per_epoch), end)
                )
            elif isinstance(length, Length):
                end = begun.epoch + length.count
                if epoch < end:
                    break
                is_here = is_live or (epoch == end and not inside and not steps_per_epoch)
                starts.append(Start(end, step if is_here else _step_of(end, epoch, step, steps_per_epoch)))
        return len(starts) - 1, starts

    def _turn(self, epoch: int, step: int) -> tuple[int, list[Start]]:
        lengths = [phase.length for phase in self.all if isinstance(phase.length, Length)]
        by_epoch = lengths[0].unit == "epochs"
        turns, rest = divmod(epoch if by_epoch else step, sum(one.count for one in lengths))
        number, begun = turns * len(lengths), (epoch if by_epoch else step) - rest
        for one in lengths:
            if rest < one.count:
                break
            number, begun, rest = number + 1, begun + one.count, rest - one.count
        return number, [Start(begun, step) if by_epoch else Start(epoch, begun)]

    def ever_trainable(self, epoch: int, steps_per_epoch: int | None = None) -> set[Part]:
        """All that may be trained at any step of ``epoch`` (from 0): patterns, modules or parameters as they were given.

        What cannot be told (when a metric stalls; where an epoch ends, without ``steps_per_epoch``) counts as possible.

        Example:
            >>> schedule = FreezeSchedule([Phase("fc", epochs=3), Phase(["layer4", "fc"])])
            >>> schedule.ever_trainable(2), sorted(schedule.ever_trainable(3))
            ({'fc'}, ['fc', 'layer4'])
        """
        return {part for phase in self._possible(epoch, steps_per_epoch) for part in phase.trainable}

    def _possible(self, epoch: int, steps_per_epoch: int | None) -> Iterator[Phase]:
        if self.repeat and (steps_per_epoch or self._counts("epochs")):
            step = epoch * (steps_per_epoch or 0)
            last = 0 if self._counts("epochs") else (steps_per_epoch or 1) - 1
            first, end = (self._turn(epoch, step + more)[0] for more in (0, last))
            yield from {self[number] for number in range(first, min(end, first + len(self.all)) + 1)}
            return
        if self.repeat:
            yield from self.all
            return
        # In epochs: where the phase can begin at the earliest, and where it can at the latest (in whole ones).
        earliest: Fraction | float = Fraction(0)
        latest: Fraction | float = Fraction(0)
        for phase in self.all:
            length = phase.length
            begins: Fraction | float = earliest
            ends: Fraction | float = math.inf
            if isinstance(length, Stall):
                earliest, latest = earliest + length.patience, math.inf
            elif isinstance(length, Length) and length.unit == "epochs":
                earliest, latest = _whole(earliest) + length.count, _whole(latest) + length.count
                ends = latest
            elif isinstance(length, Length):
                took = Fraction(length.count, steps_per_epoch or 1) if steps_per_epoch else Fraction(0)
                earliest += took
                latest = latest + took if steps_per_epoch else math.inf
                ends = latest
            if phase is self.all[-1]:
                ends = math.inf
            if begins < epoch + 1 and ends > epoch:
                yield phase

    def _counts(self, unit: str) -> bool:
        return all(isinstance(phase.length, Length) and phase.length.unit == unit for phase in self.all)

    def describe(self) -> list[dict[str, Any]]:
        """All that the schedule says, as plain values; two schedules that say the same are the same."""
        return [phase.describe() | ({"repeat": True} if self.repeat else {}) for phase in self.all]

    def summary(self) -> str:
        """The schedule on one line.

        Example:
            >>> FreezeSchedule([Phase("fc", epochs=3), Phase(lr=1e-4)]).summary()
            'fc: 3 epochs; all: lr 0.0001'
        """
        return "; ".join(map(str, self.all)) + ("; and again" if self.repeat else "")

    def __str__(self) -> str:
        has_names = any(phase.name for phase in self.all)
        rows = [["phase", "name", "trainable", "until", "lr", "warm-up", ""]]
        for number, phase in zip(count(1), self.all, strict=False):
            more = [f"statistics {phase.batchnorm}"] * (phase.batchnorm == "eval")
            more += ["drops optimizer state"] * (phase.state == "drop")
            end = "the end" if phase is self.all[-1] and not self.repeat else str(phase.length)
            lr = "" if phase.lr is None else f"{phase.lr:g}"
            rows.append(
                [str(number), phase.name or "", phase.parts(), end, lr, str(phase.warmup or ""), ", ".join(more)]
            )
        if not has_names:
            rows = [row[:1] + row[2:] for row in rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join(lines + ["… and again from phase 1"] * self.repeat)

    def __repr__(self) -> str:
        return f"FreezeSchedule({self.summary()})"


def _whole(epochs: Fraction | float) -> Fraction | float:
    return epochs if epochs == math.inf else math.ceil(epochs)


def _epoch_of(end: int, epoch: int, step: int, steps_per_epoch: int | None) -> int:
    """The first whole epoch behind step ``end``, by the steps that an epoch is known or seems to have."""
    each = steps_per_epoch or (step / epoch if epoch else None)
    return int(-(-end // each)) if each else epoch


def _step_of(end: int, epoch: int, step: int, steps_per_epoch: int | None) -> int:
    if steps_per_epoch:
        return end * steps_per_epoch
    return round(step * end / epoch) if epoch else step


def _check_ends(phases: Sequence[Phase], repeat: bool) -> None:
    for number, phase in enumerate(phases[:-1], 1):
        if phase.length is None:
            raise ConfigurationError(
                f"phase {number} ({phase}) has no end, so phase {number + 1} ({phases[number]}) never comes: give it epochs=, "
                "steps= or until=."
            )
    if repeat:
        units = {phase.length.unit if isinstance(phase.length, Length) else None for phase in phases}
        if len(units) != 1 or None in units:
            raise ConfigurationError("repeat=True: each phase needs epochs=, or each needs steps=.")


def _check_names(phases: Sequence[Phase]) -> None:
    names = [phase.name for phase in phases if phase.name is not None]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(f"two phases are called {twice!r}: give each a name of its own.")

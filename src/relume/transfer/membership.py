"""Do models and optimizers belong together? Told before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from relume.text import counted
from relume.transfer.findings import Problem, listed
from relume.transfer.inventory import Inventory
from relume.transfer.selection import Anatomy


def membership(inventory: Inventory, *, only_models: bool = False) -> Iterator[Problem]:
    """Trainable parameters that no optimizer holds, optimizers that hold nothing trainable, and what is held twice.

    Args:
        only_models: it is the models that must be trained: tensors of an optimizer's own do not do.

    A model of which no optimizer holds anything is not judged beside one that is trained: it may be a copy that is
    averaged, or a teacher.
    """
    if not inventory.anatomies:
        return
    yield from _twice(inventory)
    nothing = list(_nothing_to_train(inventory, only_models))
    yield from nothing
    if nothing:
        return
    for owner, anatomy in inventory.anatomies.items():
        yield from _left_out(inventory, owner, anatomy)


def holding_only_frozen(inventory: Inventory, owners: Iterable[str]) -> Iterator[Problem]:
    """Those of these optimizers that do nothing, among others that do something."""
    for owner in owners:
        held = list(inventory.held(owner))
        if held and not any(parameter.requires_grad for parameter in held):
            yield Problem(
                "holds only frozen",
                "warning",
                f"{owner} holds only frozen parameters, so its step does nothing: {listed(map(inventory.name_of, held))}. "
                "Unfreeze them (relume.unfreeze), or leave this optimizer out.",
                tuple(map(inventory.name_of, held)),
            )


def _nothing_to_train(inventory: Inventory, only_models: bool) -> Iterator[Problem]:
    trainable = [name for name, parameter in inventory.parameters.items() if parameter.requires_grad]
    strangers = [] if only_models else [one for some in inventory.strangers.values() for one in some]
    kind, count = inventory.kind(), len(inventory.parameters)
    if not count and not strangers:
        yield Problem("nothing to train", "error", f"{kind} has no parameters: there is nothing to train.")
    elif not trainable and not any(one.requires_grad for one in strangers):
        yield Problem(
            "nothing to train",
            "error",
            f"all {count} parameters of {kind} are frozen (requires_grad=False): there is nothing to train. "
            "relume.unfreeze(model, …) makes a part of them trainable.",
            tuple(inventory.parameters),
        )
    elif not inventory.optimizers:
        yield Problem(
            "no optimizer",
            "error",
            "training needs an optimizer, such as optimizer=torch.optim.SGD(model.parameters(), lr=1e-3).",
        )
    elif trainable and not any(inventory.is_in_optimizer(inventory.parameters[name]) for name in trainable):
        yield from _holds_none(inventory, trainable)


def _holds_none(inventory: Inventory, trainable: list[str]) -> Iterator[Problem]:
    """The optimizer is none of the model's, unless it trains tensors of its own."""
    strangers = [one for some in inventory.strangers.values() for one in some]
    shapes = {tuple(parameter.shape) for parameter in inventory.parameters.values()}
    live = [one for one in strangers if one.requires_grad and one.grad is not None and tuple(one.shape) not in shapes]
    if live:
        return
    frozen = [name for name, one in inventory.parameters.items() if inventory.is_in_optimizer(one)]
    if frozen and not strangers:
        reason = f"it holds only frozen ones: {listed(frozen)}. Was it made before others were unfrozen?"
    else:
        reason = "it was made from another model, or before the parameters of this one were replaced."
    kind = type(next(iter(inventory.optimizers.values()))).__name__
    yield Problem(
        "holds none",
        "error",
        f"the optimizer holds none of the {len(trainable)} trainable parameters of {inventory.kind()}; {reason} Make it from "
        f"this model, after any change of its layers: torch.optim.{kind}(model.parameters(), …)",
        tuple(trainable),
    )


def _left_out(inventory: Inventory, owner: str, anatomy: Anatomy) -> Iterator[Problem]:
    held = [name for name, one in anatomy.parameters.items() if inventory.is_in_optimizer(one)]
    trainable = {name: one for name, one in anatomy.parameters.items() if one.requires_grad}
    missing = [inventory.full(owner, n) for n, one in trainable.items() if not inventory.is_in_optimizer(one)]
    shapes = {tuple(one.shape) for one in trainable.values() if not inventory.is_in_optimizer(one)}
    strangers = [
        one for some in inventory.strangers.values() for one in some if tuple(one.shape) in shapes or one.grad is None
    ]
    if not missing or not (held or strangers):
        return
    remedy = "Add them with optimizer.add_param_group, or freeze them with requires_grad_(False)."
    if strangers:
        remedy = (
            f"The optimizer holds {counted(len(strangers), 'tensor')} that the model does not have (shapes "
            f"{listed(str(tuple(one.shape)) for one in strangers)}): it was made before parameters were replaced, by a new "
            "head, by load_state_dict(assign=True) or by a move to another device. Make the optimizer after that."
        )
    yield Problem(
        "left out",
        "warning",
        f"{len(missing)} of {len(trainable)} trainable parameters of {type(anatomy.model).__name__} are in no optimizer and "
        f"will not change: {listed(missing)}. {remedy}",
        tuple(missing),
    )


def _twice(inventory: Inventory) -> Iterator[Problem]:
    names: dict[tuple[str, ...], list[str]] = {}
    owners: dict[int, str] = {}
    for owner in inventory.optimizers:
        for parameter in inventory.held(owner):
            owners[id(parameter)] = inventory.name_of(parameter)
    for key, places in inventory.places.items():
        for owner in dict.fromkeys(place.optimizer for place in places):
            groups = [place.group for place in places if place.optimizer == owner]
            if len(groups) > 1:
                names.setdefault((owner, *(str(number) for number in groups)), []).append(owners[key])
    for (owner, *numbers), found in names.items():
        where = (
            f"in its groups {' and '.join(numbers)}" if len(set(numbers)) > 1 else f"twice in its group {numbers[0]}"
        )
        yield Problem(
            "two groups",
            "error",
            f"{owner} holds {listed(found)} {where}: each step would move {'it' if len(found) == 1 else 'them'} twice. "
            "Keep each parameter in one group.",
            tuple(found),
        )


def shared(inventory: Inventory) -> dict[tuple[str, ...], list[str]]:
    """The names of the parameters that several optimizers hold, by the names of these."""
    found: dict[tuple[str, ...], list[str]] = {}
    for owner in inventory.optimizers:
        for parameter in inventory.held(owner):
            owners = tuple(dict.fromkeys(place.optimizer for place in inventory.places[id(parameter)]))
            if len(owners) > 1 and owners[0] == owner:
                found.setdefault(owners, []).append(inventory.name_of(parameter))
    return found


def two_optimizers(owners: tuple[str, ...], names: list[str]) -> Problem:
    """Several optimizers that move the same parameters by turns."""
    return Problem(
        "two optimizers",
        "warning",
        f"{' and '.join(owners)} hold the same parameters, and each moves them with its own momentum and learning rate: "
        f"{listed(names)}. Give each parameter to one optimizer.",
        tuple(names),
    )

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import timm
import torch
from torch import nn

from relume.errors import MismatchError
from relume.models.load import load_weights
from relume.models.matching import find_shifts

State = dict[str, torch.Tensor]


class Counted(nn.Module):
    def __init__(self, first: int, blocks: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.blocks = nn.ModuleDict({str(first + number): nn.Linear(4, 4) for number in range(blocks)})
        self.head = nn.Linear(4, 2)


@pytest.mark.parametrize("headless", [False, True])
@pytest.mark.parametrize(
    "arguments", [{"strict": False}, {}, {"rename": "auto"}, {"rename": "auto", "strict": False}], ids=str
)
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("first", [0, 1])
def test_blocks_counted_from_another_number_are_never_loaded_into_the_ones_beside(
    arguments: dict[str, Any], headless: bool, prefix: str, first: int
) -> None:
    model, source = Counted(first), Counted(1 - first)
    state = {f"{prefix}{n}": v for n, v in source.state_dict().items() if not (headless and "head" in n)}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(MismatchError, match="each name would mean the layer beside it") as raised:
        load_weights(model, state, **arguments)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    moved = "i + 1" if first else "i - 1"
    numbers = "range(0, 4)" if first else "range(1, 5)"
    rename = f"{{f'{prefix}blocks.{{i}}': f'{prefix}blocks.{{{moved}}}' for i in {numbers}}}"
    assert f"rename={rename}" in str(raised.value)
    assert "->" not in str(raised.value)
    if headless:
        with pytest.warns(match="not everything was loaded"):
            load_weights(model, state, rename=eval(rename), strict=False)
    else:
        load_weights(model, state, rename=eval(rename))
    pairs = zip(model.blocks.parameters(), source.blocks.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_whoever_says_that_shifted_names_are_right_gets_them() -> None:
    model, source = Counted(0), Counted(1)
    with pytest.warns(match="not everything was loaded"):
        load_weights(model, source.state_dict(), rename=lambda name: name, strict=False)
    assert torch.equal(model.blocks["1"].weight, source.blocks["1"].weight)


def test_parts_of_the_model_beside_the_shifted_one_can_be_loaded() -> None:
    report = load_weights(Counted(0), Counted(1).state_dict(), strict=False, only="embed")
    assert report.matched == ("embed.weight", "embed.bias")
    assert not report.shifts


def test_blocks_of_a_vision_transformer_counted_from_1_are_refused() -> None:
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    state = {
        ".".join(
            str(int(part) + 1) if number == 1 and name.startswith("blocks.") else part for number, part in parts
        ): value
        for name, value in model.state_dict().items()
        for parts in [list(enumerate(name.split(".")))]
    }
    with pytest.raises(MismatchError, match=r"shifted     blocks.1 to blocks.12 in the source, blocks.0 to blocks.11"):
        load_weights(model, state, strict=False)


@pytest.mark.parametrize("missing", [(), ("head",), ("embed",), ("embed", "head")])
def test_renamed_blocks_counted_from_1_go_where_they_belong_or_nowhere(missing: tuple[str, ...]) -> None:
    model, source = Counted(0), Counted(1)
    state = {
        n.replace("blocks", "layer"): v for n, v in source.state_dict().items() if not n.startswith(missing or "-")
    }
    with pytest.warns(match="not everything was loaded") if missing else nullcontext():
        load_weights(model, state, rename="auto", strict=not missing)
    pairs = zip(model.blocks.parameters(), source.blocks.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_more_or_fewer_layers_are_no_shift() -> None:
    layers = {number: {"w": torch.ones(2, 2)} for number in range(6)}

    def numbered(*numbers: int) -> State:
        return {f"blocks.{number}.w": layers[number]["w"] for number in numbers}

    def shifted(file: State, own: State) -> bool:
        return bool(find_shifts({name: name for name in file}, file, own))

    assert shifted(numbered(1, 2, 3), numbered(0, 1, 2))
    assert shifted(numbered(0, 2), numbered(2, 4))
    assert not shifted(numbered(0, 1, 2), numbered(0, 1, 2, 3))
    assert not shifted(numbered(1, 2, 3), numbered(0, 1, 2, 3))
    assert not shifted(numbered(0, 1), numbered(2, 3))
    assert not shifted(numbered(1, 2, 3), {**numbered(0, 1), "blocks.2.w": torch.ones(3, 2)})


def test_names_of_files_are_not_written_into_a_remedy_as_they_are() -> None:
    odd = {f"a'\x1b{number}.w": torch.ones(2) for number in (1, 2)}
    own = {f"a'\x1b{number}.w": torch.ones(2) for number in (0, 1)}
    shift = find_shifts({name: name for name in odd}, odd, own)[0]
    assert shift.remedy == "rename= with a function that gives the names with -1 to these numbers"

from __future__ import annotations

import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from relume.errors import ConfigurationError, MismatchError, RelumeError, RelumeWarning
from relume.models.load import load_weights


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.embed.weight


class Counting(nn.Module):
    """Keeps something besides tensors."""

    def __init__(self, count: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.count = count

    def get_extra_state(self) -> dict[str, int]:
        return {"count": self.count}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.count = state["count"]


def network(classes: int = 3) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
            flatten=nn.Flatten(),
            head=nn.Linear(4, classes),
        )
    )


def bits(model: nn.Module) -> dict[str, Any]:
    return {n: v.clone() if isinstance(v, torch.Tensor) else v for n, v in model.state_dict().items()}


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def test_all_tensors_are_filled_in_place() -> None:
    source, model = network(), network()
    before = {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    report = load_weights(model, source.state_dict())
    assert same(bits(model), bits(source))
    assert {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()} == before
    assert report.is_complete
    assert report.matched == tuple(model.state_dict())
    assert report.coverage == 1
    assert report.parameters == report.parameters_total == sum(p.numel() for p in model.parameters())
    model(torch.ones(2, 1, 8, 8)).sum().backward()
    optimizer.step()
    assert not torch.equal(model.head.weight, source.head.weight)


def test_frozen_parameters_are_filled_and_stay_frozen() -> None:
    source, model = network(), network().requires_grad_(False)
    load_weights(model, source)
    assert same(bits(model), bits(source))
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", ["squeezenet1_0", "resnet18", "mobilenet_v3_small", "mnasnet0_5"])
def test_models_of_torchvision_compute_the_same_to_the_last_bit(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = torchvision.models.get_model(name, weights=None).eval()
        model = torchvision.models.get_model(name, weights=None).eval()
    report = load_weights(model, dict(source.state_dict()))
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(model(images), source(images))
    assert report.is_complete
    assert len(report.matched) == len(source.state_dict())


def test_nothing_is_changed_when_something_does_not_fit() -> None:
    model = network()
    before = bits(model)
    state = dict(network(classes=5).state_dict())
    state["extra.weight"] = torch.ones(2)
    del state["features.0.bias"]
    with pytest.raises(MismatchError) as raised:
        load_weights(model, state)
    assert same(bits(model), before)
    for part in (
        "Sequential cannot take the given tensors: nothing was loaded",
        "features.0.bias",
        "extra.weight",
        "head.weight: (5, 4) in the source, (3, 4) in the model",
        "skip_mismatched=True",
        "strict=False",
    ):
        assert part in str(raised.value)


def test_the_closest_name_is_named_for_a_missing_one() -> None:
    state = dict(nn.Linear(3, 2).state_dict())
    state["wieght"] = state.pop("weight").T
    with pytest.raises(MismatchError, match="weight: did you mean 'wieght'"):
        load_weights(nn.Linear(3, 2), state)


def test_what_does_not_fit_is_left_out_with_one_warning() -> None:
    source, model = network(classes=5), network()
    state = {**source.state_dict(), "extra": torch.ones(1)}
    before = bits(model)
    with pytest.warns(RelumeWarning, match=r"not everything was loaded.*") as caught:
        report = load_weights(model, state, strict=False)
    assert len(caught) == 1
    assert report.kept == ("head.weight", "head.bias")
    assert report.unexpected == ("extra",)
    assert torch.equal(model.features[0].weight, source.features[0].weight)
    assert torch.equal(model.head.weight, before["head.weight"])
    assert 0 < report.coverage < 1


def test_a_new_head_is_kept() -> None:
    source, model = network(classes=5), network()
    head = model.head.weight.detach().clone()
    report = load_weights(model, source, skip_mismatched=True)
    assert torch.equal(model.head.weight, head)
    assert report.kept == ("head.weight", "head.bias")
    assert report.shape_mismatches["head.weight"].source == (5, 4)
    with pytest.raises(MismatchError, match="missing"):
        load_weights(model, {"features.0.weight": source.features[0].weight}, skip_mismatched=True)


def test_a_source_of_which_nothing_fits_is_always_an_error() -> None:
    with pytest.raises(MismatchError, match="nothing was loaded"):
        load_weights(network(), {"other": torch.ones(9)}, strict=False)
    with pytest.raises(MismatchError, match="nothing was loaded"):
        load_weights(network(), {}, strict=False)
    assert load_weights(nn.ReLU(), {}).is_complete


def test_only_a_part_is_loaded() -> None:
    source, model = network(), network()
    before = bits(model)
    for only in ("features.*", "features", iter(["features.0.*", "features.1"])):
        report = load_weights(model, {n: v for n, v in source.state_dict().items() if "head" not in n}, only=only)
        assert report.left_out == ("head.weight", "head.bias")
    assert torch.equal(model.features[0].weight, source.features[0].weight)
    assert torch.equal(model.head.weight, before["head.weight"])
    load_weights(model, source, only="head.*")
    assert same(bits(model), bits(source))


def test_a_pattern_that_fits_nothing_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"only: no tensor of the model fits 'feature\.\*'.*'features'"):
        load_weights(network(), network(), only="feature.*")
    with pytest.raises(ConfigurationError, match="only=3: give a pattern"):
        load_weights(network(), network(), only=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"only=\[\]"):
        load_weights(network(), network(), only=[])


def test_dtypes_are_converted_and_said() -> None:
    source, model = network(), network().to(torch.bfloat16)
    report = load_weights(model, source)
    assert model.head.weight.dtype == torch.bfloat16
    assert torch.equal(model.head.weight, source.head.weight.bfloat16())
    assert report.dtype_mismatches["head.weight"].source == torch.float32
    assert "float32 to bfloat16: features.0.* (2 tensors)" in str(report)
    assert "num_batches_tracked" not in report.dtype_mismatches


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(2, 3, dtype=torch.complex64), "torch.complex64 does not go into torch.float32"),
        (torch.ones(2, 3, device="meta"), "meta device"),
        (torch.ones(2, 3).to_sparse(), "it is sparse_coo where the model has strided"),
    ],
)
def test_values_that_cannot_come_in_are_named(value: torch.Tensor, message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        load_weights(nn.Linear(3, 2, bias=False), {"weight": value})


@pytest.mark.parametrize("name", ["embed.weight", "out.weight"])
def test_either_name_of_a_tied_tensor_suffices(name: str) -> None:
    model, weight = Tied(), torch.randn(7, 4)
    report = load_weights(model, {name: weight})
    assert torch.equal(model.out.weight, weight)
    assert model.out.weight is model.embed.weight
    assert report.matched == (name,)
    assert list(report.tied.values()) == [name]
    assert report.coverage == 1
    assert report.missing == ()


def test_tied_tensors_with_two_values_are_refused() -> None:
    with pytest.raises(MismatchError, match=r"it is tied to out.weight in the model, and their values differ"):
        load_weights(Tied(), {"embed.weight": torch.zeros(7, 4), "out.weight": torch.ones(7, 4)})
    report = load_weights(Tied(), {"embed.weight": torch.ones(7, 4), "out.weight": torch.ones(7, 4)})
    assert report.is_complete


def test_extra_state_is_loaded_or_everything_is_as_it_was() -> None:
    model = Counting()
    source = Counting(5)
    load_weights(model, source)
    assert model.count == 5
    load_weights(nn.DataParallel(model), nn.DataParallel(Counting(6)))
    assert model.count == 6
    before = bits(model.linear)
    with pytest.raises(MismatchError, match=r"_extra_state: Counting.set_extra_state fails"):
        load_weights(model, {**Counting().state_dict(), "_extra_state": {"wrong": 1}})
    assert same(bits(model.linear), before)
    assert model.count == 6
    with pytest.raises(MismatchError, match="_extra_state"):
        load_weights(model, Counting().linear.state_dict(), rename=lambda name: f"linear.{name}")


def test_extra_state_that_is_a_tensor_is_not_said_to_be_kept() -> None:
    class Tensors(Counting):
        def get_extra_state(self) -> Any:
            return torch.tensor([self.count])

        def set_extra_state(self, state: Any) -> None:
            self.count = int(state)

    model = nn.Sequential(Tensors())
    report = load_weights(model, nn.Sequential(Tensors(5)).state_dict())
    assert model[0].count == 5
    assert report.kept == ()
    assert report.is_complete
    report = load_weights(model, nn.Sequential(Tensors(6)), only="0.linear")
    assert model[0].count == 5


def test_a_batch_norm_of_before_the_counter_is_loaded() -> None:
    source, model = network(), network()
    old = {name: value for name, value in source.state_dict().items() if "num_batches" not in name}
    report = load_weights(model, old)
    assert report.kept == ("features.1.num_batches_tracked",)
    assert report.missing == ()
    new = source.state_dict()
    del new["features.1.num_batches_tracked"]
    with pytest.raises(MismatchError, match="num_batches_tracked"):
        load_weights(model, new)


def test_old_names_are_converted_as_the_model_does_it() -> None:
    source = torchvision.models.vision_transformer.MLPBlock(4, 6, 0.0)
    model = torchvision.models.vision_transformer.MLPBlock(4, 6, 0.0)
    names = {"0": "linear_1", "3": "linear_2"}
    old = {f"{names[n.split('.')[0]]}.{n.split('.')[1]}": v for n, v in source.state_dict().items()}
    load_weights(model, old)
    assert same(bits(model), bits(source))


def test_parametrized_modules_keep_what_makes_their_weight() -> None:
    def made() -> nn.Module:
        return nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))

    source, model = made(), made()
    load_weights(model, source)
    assert torch.equal(model.weight, source.weight)
    old = {
        "bias": source.bias,
        "weight_g": source.parametrizations.weight.original0,
        "weight_v": source.parametrizations.weight.original1,
    }
    model = made()
    load_weights(model, old)
    assert torch.equal(model.weight, source.weight)


def test_lazy_modules_get_their_shapes() -> None:
    source = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3))
    model = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    load_weights(model, source)
    assert same(bits(model), bits(source))
    inputs = torch.randn(4, 5)
    assert torch.equal(model.eval()(inputs), source.eval()(inputs))
    untouched = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(MismatchError, match="0.bias"):
        load_weights(untouched, {"0.weight": torch.ones(3, 5)})
    assert isinstance(untouched[0].weight, nn.UninitializedParameter)
    with pytest.raises(MismatchError, match="weight has no shape yet"):
        load_weights(nn.Linear(5, 3), nn.LazyLinear(3))
    with pytest.raises(MismatchError, match=r"weight: it has shape \(7, 5\) for a lazy module with 3 outputs"):
        load_weights(nn.LazyLinear(3), nn.Linear(5, 7))
    convolution = nn.LazyConvTranspose2d(4, 3)
    load_weights(convolution, nn.ConvTranspose2d(2, 4, 3))
    assert convolution.weight.shape == (2, 4, 3, 3)


def test_a_model_without_values_gets_those_of_the_source() -> None:
    source = Tied()
    with torch.device("meta"):
        model, plain = Tied(), nn.Sequential(nn.Linear(4, 7, bias=False), nn.Linear(4, 7, bias=False))
    model.embed.weight.requires_grad_(False)
    load_weights(model, source)
    assert torch.equal(model.embed.weight, source.embed.weight)
    assert model.embed.weight is model.out.weight
    assert not model.embed.weight.requires_grad
    assert model.embed.weight.data_ptr() != source.embed.weight.data_ptr()
    load_weights(plain, {"0.weight": source.embed.weight, "1.weight": source.embed.weight})
    assert plain[0].weight.data_ptr() != plain[1].weight.data_ptr()


def test_what_stays_without_values_is_named() -> None:
    class Masked(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.register_buffer("mask", torch.ones(3), persistent=False)

    with torch.device("meta"):
        model = Masked()
    with pytest.raises(MismatchError, match=r"mask: it has no values .*build the model on a real device"):
        load_weights(model, nn.Linear(2, 2))
    assert model.weight.is_meta
    with pytest.warns(RelumeWarning, match="mask: it has no values"):
        load_weights(model, nn.Linear(2, 2), strict=False)
    assert not model.weight.is_meta


def test_a_model_of_inference_mode_is_filled_there_only() -> None:
    with torch.inference_mode():
        model = nn.Linear(2, 2)
    source = nn.Linear(2, 2)
    with pytest.raises(MismatchError, match="made in torch.inference_mode"):
        load_weights(model, source)
    with torch.inference_mode():
        load_weights(model, source)
    assert torch.equal(model.weight, source.weight)
    load_weights(source, model)


def test_wrappers_on_either_side_do_not_matter() -> None:
    source = network()
    compiled = torch.compile(network())
    for model in (nn.DataParallel(network()), compiled, nn.Sequential(OrderedDict(net=nn.DataParallel(network())))):
        report = load_weights(model, nn.DataParallel(source))
        assert report.missing == ()
        values = list(model.state_dict().values())
        assert all(torch.equal(a, b) for a, b in zip(values, source.state_dict().values(), strict=True))
    model = network()
    load_weights(model, torch.compile(nn.DataParallel(source)).state_dict())
    assert same(bits(model), bits(source))
    report = load_weights(nn.DataParallel(model), source)
    assert report.matched == tuple(source.state_dict())


def test_a_models_own_tensors_may_change_places() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    before = bits(model)
    load_weights(model, model, rename={"0": "1", "1": "0"})
    assert torch.equal(model[0].weight, before["1.weight"])
    assert torch.equal(model[1].weight, before["0.weight"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("file.pt", network()), "model is a str: load_weights takes the model first"),
        ((network(), 3), "the source is a int: give a path"),
        ((network(), {}, "features.*"), "strict='features.*': it is True or False"),
    ],
)
def test_wrong_arguments_are_named(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_weights(*arguments)


def test_a_classic_checkpoint_dictionary_is_no_state_dict() -> None:
    state = {"epoch": 3, "model_state_dict": network().state_dict()}
    with pytest.raises(MismatchError, match="'epoch' is a int. Give what is under 'model_state_dict'"):
        load_weights(network(), state)
    with pytest.raises(MismatchError, match="it has the key 0, which is no text"):
        load_weights(network(), {0: torch.ones(1)})  # type: ignore[dict-item]


def test_a_module_whose_own_loading_fails_is_named() -> None:
    class Odd(nn.Linear):
        def _load_from_state_dict(self, *arguments: Any) -> None:
            raise KeyError("version")

    model = Odd(2, 2)
    with pytest.raises(MismatchError, match=r"own loading code fails with KeyError: 'version'. Nothing was loaded"):
        load_weights(model, nn.Linear(2, 2))


def test_a_module_that_writes_by_itself_is_planned_all_the_same() -> None:
    class Writes(nn.Linear):
        def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
            self.weight.data.copy_(state[f"{prefix}weight"])
            super()._load_from_state_dict(state, prefix, *rest)

    model, source = Writes(2, 2), nn.Linear(2, 2)
    before = bits(model)
    with pytest.raises(MismatchError, match="unexpected"):
        load_weights(model, {**source.state_dict(), "other": torch.ones(1)})
    assert same(bits(model), before)
    load_weights(model, source)
    assert same(bits(model), bits(source))


def test_a_proposed_head_of_another_shape_is_said_to_be_one() -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = network()
            self.backbone.head = nn.Identity()
            self.classifier = nn.Linear(4, 10)

    with pytest.raises(MismatchError) as raised:
        load_weights(Wrapper(), network().state_dict())
    text = str(raised.value)
    assert "2 names of the source may be others of the model, by their place: their shapes differ" in text
    assert "head.weight -> classifier.weight: (3, 4) in the source, (10, 4) in the model" in text
    assert "same shapes" not in text
    assert "rename='auto', skip_mismatched=True" in text
    report = load_weights(Wrapper(), network().state_dict(), rename="auto", skip_mismatched=True)
    assert report.kept == ("classifier.weight", "classifier.bias")
    names = {"features.0": "conv", "features.1": "norm", "head": "top"}
    state = {f"{names[n.rpartition('.')[0]]}.{n.rpartition('.')[2]}": v for n, v in network(5).state_dict().items()}
    with pytest.raises(MismatchError) as raised:
        load_weights(network(10), state)
    text = str(raised.value)
    assert "by the same shapes in the same order, but for 2 of another shape" in text
    assert "top.weight -> head.weight: (5, 4) in the source, (10, 4) in the model" in text


def test_arrays_of_numpy_are_taken() -> None:
    source, model = nn.Linear(3, 2), nn.Linear(3, 2)
    arrays = {name: value.numpy() for name, value in source.state_dict().items()}
    assert load_weights(model, arrays).is_complete
    assert same(bits(model), bits(source))
    scale = nn.ParameterDict({"scale": torch.zeros(())})
    load_weights(scale, {"scale": np.float32(2)})
    assert scale["scale"] == 2
    with pytest.raises(MismatchError, match=r"'bias' is an array of .*for which torch has no dtype"):
        load_weights(model, {**arrays, "bias": np.array(["a", "b"])})


def test_names_cannot_write_to_the_terminal() -> None:
    with pytest.raises(MismatchError) as raised:
        load_weights(nn.Linear(2, 2), {**nn.Linear(2, 2).state_dict(), "\x1b[31mred\nline": torch.ones(1)})
    assert "\x1b" not in str(raised.value)


SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
PARTS = st.sampled_from(
    ["features", "head", "module", "0", "1", "weight", "bias", "running_mean", "_extra_state", "", "é"]
)
NAMES = st.lists(PARTS, min_size=1, max_size=4).map(".".join)
TENSORS = st.builds(lambda shape, dtype: torch.ones(shape, dtype=dtype), SHAPES, DTYPES)
OWN = network().state_dict()


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(NAMES, TENSORS, max_size=6),
    st.sets(st.sampled_from(sorted(OWN))),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, "auto", {"head": "features.0"}, [("0", "1")]]),
    st.sampled_from([None, "features", "*.weight"]),
)
def test_whatever_the_source_says_the_model_is_filled_or_as_it_was(
    state: dict[str, torch.Tensor], kept: set[str], strict: bool, skip: bool, rename: Any, only: Any
) -> None:
    model = network()
    before = bits(model)
    state = {**{name: OWN[name] for name in kept}, **state}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RelumeWarning)
            report = load_weights(model, state, strict, rename, only, skip)
    except RelumeError:
        assert same(bits(model), before)
    else:
        after = bits(model)
        assert {*report.matched, *report.kept, *report.left_out} == set(after)
        untouched = set(report.kept) | set(report.left_out)
        assert all(torch.equal(after[name], before[name]) for name in untouched)
        assert str(report)


def test_files_are_read(tmp_path: Path) -> None:
    source, model = network(), network()
    from safetensors.torch import save_file

    save_file(source.state_dict(), tmp_path / "a.safetensors")
    torch.save(source.state_dict(), tmp_path / "b.pt")
    for name in ("a.safetensors", "b.pt"):
        report = load_weights(model, tmp_path / name)
        assert same(bits(model), bits(source))
        assert report.source.endswith(name)


def test_a_prefix_to_be_added_that_is_one_of_several_is_chosen_by_rename_or_only() -> None:
    model, source = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)}), nn.Linear(3, 3)
    before = bits(model)
    with pytest.raises(MismatchError, match=r"choose the part of the model: rename=\{'': 'a\.'\}"):
        load_weights(model, source.state_dict())
    assert same(bits(model), before)
    assert load_weights(model, source.state_dict(), only="b").prefix_added == "b."
    assert torch.equal(model["b"].weight, source.weight)
    assert torch.equal(model["a"].weight, before["a.weight"])
    load_weights(model, {"weight": source.weight}, only="a.weight")
    assert torch.equal(model["a"].weight, source.weight)
    load_weights(model, source.state_dict(), rename={"": "a."}, only="a")
    assert torch.equal(model["a"].weight, source.weight)


def test_a_prefix_to_be_removed_that_is_one_of_several_is_chosen_by_rename() -> None:
    state = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)}).state_dict()
    with pytest.raises(MismatchError, match=r"choose the part of the source: rename=\{'a\.': ''\}"):
        load_weights(nn.Linear(3, 3), state)

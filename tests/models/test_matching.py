from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from relume.errors import MismatchError
from relume.models.load import load_weights
from relume.models.matching import keeps_order, propose

State = dict[str, torch.Tensor]


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.right = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.head = nn.Linear(8, 2)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Stack(nn.Module):
    def __init__(self, blocks: int = 11) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.blocks = nn.ModuleList(Block(4) for _ in range(blocks))
        self.head = nn.Linear(4, 9)


def renamed(state: State, names: Callable[[str], str]) -> State:
    return {names(name): value for name, value in state.items()}


def by_segment(table: dict[str, str]) -> Callable[[str], str]:
    return lambda name: ".".join(table.get(part, part) for part in name.split("."))


def shuffled(state: State, names: list[str]) -> State:
    return {name: state[name] for name in names}


MODELS: dict[str, Callable[[], nn.Module]] = {
    "branches": Branches,
    "stack": lambda: Stack(3),
    "transformer": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 3, enable_nested_tensor=False),
    "convolutions": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
}
STATES = {name: dict(make().state_dict()) for name, make in MODELS.items()}
WORDS = st.text("jyz", min_size=3, max_size=8)


@st.composite
def renamings(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    """Every module gets another name, and no two beside each other the same; leaves keep theirs, or get new ones too."""
    which = draw(st.sampled_from(sorted(STATES)))
    keep_leaves = draw(st.booleans())
    new: dict[str, str] = {"": ""}
    used: set[str] = set()
    for name in STATES[which]:
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            path, above = ".".join(parts[:end]), ".".join(parts[: end - 1])
            if path in new:
                continue
            is_leaf = end == len(parts)
            word = parts[-1] if is_leaf and keep_leaves else draw(WORDS)
            while f"{new[above]}{word}" in used:
                word += "z"
            used.add(f"{new[above]}{word}")
            new[path] = f"{new[above]}{word}" + ("" if is_leaf else ".")
    return which, {name: new[name] for name in STATES[which]}


@settings(max_examples=150, deadline=None)
@given(renamings())
def test_any_renaming_that_keeps_the_order_is_found_or_refused(case: tuple[str, dict[str, str]]) -> None:
    which, names = case
    own = STATES[which]
    source = renamed(own, names.__getitem__)
    found = propose(source, own)
    right = {new: old for old, new in names.items() if new != old}
    assert all(right[name] == target for name, target in found.mapping.items()) or found.ambiguous
    if keeps_order(source):
        assert found.mapping == right or "nothing but their order" in found.ambiguous[0].why


@settings(max_examples=400, deadline=None)
@given(
    renamings(),
    st.randoms(use_true_random=False),
    st.sampled_from(["nothing", "tensors", "layers", "branches", "sorted"]),
    st.sampled_from(["nothing", "a layer of the file", "a layer of the model", "one more in the file"]),
    st.sampled_from([0.0, 0.5, 0.9]),
)
def test_a_changed_file_is_never_mapped_wrongly_without_a_word(
    case: tuple[str, dict[str, str]], random: Random, order: str, change: str, share: float
) -> None:
    """Another order, layers missing or added, and some modules by their own names."""
    which, new_names = case
    own = dict(STATES[which])
    names = partly(new_names, random, share)
    right = {new: old for old, new in names.items()}
    source = renamed(own, names.__getitem__)
    source = shuffled(source, sorted(source) if order == "sorted" else in_another_order(list(source), random, order))
    if change == "one more in the file":
        extra = [*source.items()]
        extra.insert(
            random.randrange(len(extra)), ("another.weight", torch.ones(random.choice([(4, 4), (8, 8), (4,)])))
        )
        source = dict(extra)
    elif change != "nothing":
        side = source if change == "a layer of the file" else own
        layer = random.choice(list(side)).rpartition(".")[0]
        for name in [name for name in side if name.rpartition(".")[0] == layer]:
            del side[name]
    found = propose(source, own)
    wrong = {name for name, target in found.mapping.items() if right.get(name) != target}
    assert not wrong or found.ambiguous or looks_like_its_own_order(source, own)


def partly(names: dict[str, str], random: Random, share: float) -> dict[str, str]:
    """Some names are kept: the first parts that are renamed decide for all that is in them."""
    kept = {name.rpartition(".")[0]: random.random() < share for name in names}
    return {name: name if kept[name.rpartition(".")[0]] else new for name, new in names.items()}


def looks_like_its_own_order(source: State, own: State) -> bool:
    """Layers that took the places of others of the same shapes: nothing in the file shows that."""
    forms = [layers(source), layers(own)]
    common = [[form for form in side if form in forms[1 - number]] for number, side in enumerate(forms)]
    return keeps_order(source) and common[0] == common[1]


def layers(state: State) -> list[list[tuple[int, ...]]]:
    groups: dict[str, list[tuple[int, ...]]] = {}
    for name, value in state.items():
        groups.setdefault(name.rpartition(".")[0], []).append(tuple(value.shape))
    return [sorted(group) for group in groups.values()]


def in_another_order(names: list[str], random: Random, what: str) -> list[str]:
    if what == "nothing":
        return names
    depth = {"tensors": 9, "layers": -1, "branches": 1}[what]
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(".".join(name.split(".")[:depth]), []).append(name)
    order = list(groups.values())
    random.shuffle(order)
    return [name for group in order for name in group]


@pytest.mark.parametrize("which", sorted(MODELS))
def test_a_renamed_copy_computes_the_same(which: str) -> None:
    torch.manual_seed(1)
    source, model = MODELS[which](), MODELS[which]()
    state = renamed(dict(source.state_dict()), lambda n: n.replace("0", "x.n0").replace("1", "x.n1").replace("l", "y"))
    with pytest.raises(MismatchError, match="rename='auto'"):
        load_weights(model, state)
    report = load_weights(model, state, rename="auto")
    assert report.is_complete
    assert report.renamed
    assert "renamed" in str(report)
    pairs = zip(model.state_dict().values(), source.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_branches_whose_names_say_that_they_are_swapped_are_not_mapped_by_order() -> None:
    own = Branches().state_dict()
    state = renamed(
        dict(Branches().state_dict()), lambda name: f"net.{name}" if "head" not in name else f"net.fc.{name}"
    )
    order = sorted(state, key=lambda name: ("head" in name, "left" in name))
    found = propose(shuffled(state, order), own)
    assert all(
        name.split(".")[1] == target.split(".")[0] for name, target in found.mapping.items() if "head" not in name
    )
    words = renamed(state, by_segment({"left": "left_arm", "right": "right_arm"}))
    found = propose(
        shuffled(words, [name.replace("left", "left_arm").replace("right", "right_arm") for name in order]), own
    )
    assert found.mapping["net.left_arm.0.weight"] == "left.0.weight"
    assert found.mapping["net.right_arm.2.bias"] == "right.2.bias"


def test_branches_whose_names_speak_against_their_order_are_ambiguous() -> None:
    """Flat, so that there is no tree whose branches could be told apart by a word."""
    own = {"left.w": torch.ones(3, 3), "left.b": torch.ones(3), "right.w": torch.ones(3, 3), "right.b": torch.ones(3)}
    file = {"to_right_a": torch.ones(3, 3), "to_right_b": torch.ones(3)}
    file |= {"to_left_a": torch.ones(3, 3), "to_left_b": torch.ones(3)}
    found = propose(file, own)
    assert found.ambiguous
    assert "the words in their names speak for exchanging them" in found.ambiguous[0].why


def rows(names: str) -> State:
    return {
        f"{name}.{leaf}": torch.ones(4, 4)[: 4 if leaf == "weight" else 1] for name in names.split() for leaf in LEAVES
    }


LEAVES = ("weight", "bias")


@pytest.mark.parametrize(
    ("file", "model", "right"),
    [
        ("W_K W_Q W_V W_O", "wq wk wv wo", "wk wq wv wo"),
        ("wk wq wv", "q_proj k_proj v_proj", "k_proj q_proj v_proj"),
        ("backward_net forward_net", "fwd bwd", "bwd fwd"),
        ("B2A A2B", "G_AB G_BA", "G_BA G_AB"),
        ("K Q V", "query key value", "key query value"),
        ("query key value", "wq wk wv", "wq wk wv"),
        ("text_proj vision_proj", "txt img", "txt img"),
        ("l0 l1 l2", "a1 a2 a3", "a1 a2 a3"),
    ],
)
def test_siblings_of_one_shape_are_mapped_by_the_letters_of_their_names(file: str, model: str, right: str) -> None:
    found = propose(rows(file), rows(model))
    assert not found.ambiguous
    expected = zip(file.split(), right.split(), strict=True)
    assert found.mapping == {f"{old}.{leaf}": f"{new}.{leaf}" for old, new in expected for leaf in LEAVES}


@pytest.mark.parametrize(
    ("file", "model", "why"),
    [
        ("text_proj vision_proj", "img txt", "letters in their names speak for exchanging"),
        ("trg_emb src_emb", "encoder decoder", "nothing but their order speaks for it"),
        ("critic actor", "pi vf", "nothing but their order speaks for it"),
        ("value policy", "actor critic", "nothing but their order speaks for it"),
        ("up_proj gate_proj", "w1 w3", "nothing but their order speaks for it"),
        ("i ii", "one two", "nothing but their order speaks for it"),
    ],
)
def test_siblings_of_one_shape_that_only_their_order_tells_apart_are_ambiguous(file: str, model: str, why: str) -> None:
    with pytest.raises(MismatchError, match=why):
        load_weights(linear_layers(model), linear_layers(file).state_dict(), rename="auto")


def linear_layers(names: str) -> nn.Module:
    return nn.ModuleDict({name: nn.Linear(4, 4) for name in names.split()})


def test_siblings_are_told_apart_by_a_layer_of_another_form_between_them() -> None:
    own = {f"norm1.{leaf}": torch.ones(4) for leaf in LEAVES} | {"attn.weight": torch.ones(4, 4)}
    own |= {f"norm2.{leaf}": torch.ones(4) for leaf in LEAVES} | {"mlp.weight": torch.ones(8, 4)}
    file = renamed(own, by_segment({"norm1": "before", "norm2": "after", "attn": "mix", "mlp": "feed"}))
    found = propose(file, own)
    assert found.mapping["after.bias"] == "norm2.bias"
    assert not found.ambiguous


def test_branches_with_numbers_in_another_order_are_ambiguous() -> None:
    own = renamed(dict(Branches().state_dict()), by_segment({"left": "x1", "right": "x2"}))
    file = renamed(dict(Branches().state_dict()), by_segment({"left": "b2", "right": "b1", "head": "fc"}))
    found = propose(file, own)
    assert found.ambiguous
    assert "the numbers in their names are in another order" in found.ambiguous[0].why


def test_a_name_that_its_place_contradicts_is_ambiguous() -> None:
    file = renamed(dict(Branches().state_dict()), by_segment({"left": "right", "right": "arm", "head": "fc"}))
    with pytest.raises(MismatchError, match="names say one thing, their order another"):
        load_weights(Branches(), file, rename="auto")


def test_what_nothing_tells_apart_is_not_guessed() -> None:
    own = Branches()
    names = {"left": "p", "right": "m", "head": "fc", "0": "u", "2": "t"}
    state = renamed(dict(Branches().state_dict()), by_segment(names))
    state = shuffled(state, sorted(state))
    before = {name: value.clone() for name, value in own.state_dict().items()}
    with pytest.raises(MismatchError) as raised:
        load_weights(own, state, rename="auto")
    for part in ("nothing tells them apart: the file has not the order of the model", "m.t.bias", "say which is which"):
        assert part in str(raised.value)
    assert all(torch.equal(before[name], value) for name, value in own.state_dict().items())


def test_a_sorted_file_is_mapped_by_what_its_names_say() -> None:
    own = Stack().state_dict()
    names = {"blocks": "layer", "query": "q_proj", "key": "k_proj", "value": "v_proj", "embed": "wte", "head": "lm"}
    state = renamed(dict(own), by_segment(names))
    found = propose(shuffled(state, sorted(state)), own)
    assert not found.ambiguous
    assert found.mapping == {by_segment(names)(name): name for name in own}
    assert not found.is_ordered


def test_numbers_that_are_shifted_are_not_filled_up_by_what_is_left() -> None:
    """All of one shape: names say that 2 is 2, order says that it is 0."""
    own = nn.Sequential(*[layer for _ in range(3) for layer in (nn.Linear(4, 4), nn.ReLU())]).state_dict()
    file = {f"{int(name[0]) + 2}{name[1:]}": value for name, value in own.items()}
    assert propose(file, own).ambiguous
    assert propose(shuffled(file, sorted(file)), own).ambiguous


def test_words_that_are_shifted_are_not_filled_up_by_what_is_left() -> None:
    own = {name: torch.ones(4, 4) for name in ("a.weight", "b.weight", "c.weight")}
    file = {name: torch.ones(4, 4) for name in ("b.weight", "c.weight", "d.weight")}
    found = propose(file, own)
    assert found.ambiguous
    assert "only what is left over speaks for it" in found.ambiguous[0].why


def test_files_that_are_sorted_are_known() -> None:
    for state in STATES.values():
        assert keeps_order(state)
        assert not keeps_order(shuffled(state, sorted(state)))
    resnet = torchvision.models.resnet18().state_dict()
    assert keeps_order(resnet)
    assert not keeps_order({name: resnet[name] for name in sorted(resnet, key=lambda name: name[::-1])})
    by_dtype = sorted(resnet, key=lambda name: (str(resnet[name].dtype), name))
    assert not keeps_order(shuffled(resnet, by_dtype))


def test_a_head_of_another_size_is_told_from_a_moved_layer() -> None:
    source = renamed(
        dict(torchvision.models.resnet18(num_classes=7).state_dict()), lambda name: f"r_{name}".replace("fc", "top")
    )
    model = torchvision.models.resnet18(num_classes=5)
    report = load_weights(model, source, rename="auto", skip_mismatched=True)
    assert report.kept == ("fc.weight", "fc.bias")
    assert report.shape_mismatches["fc.weight"].source == (7, 512)
    assert torch.equal(model.layer4[1].conv2.weight, source["r_layer4.1.conv2.weight"])
    shifted = {f"m.{number}.w": torch.ones(4, 4) for number in range(3)} | {"m.3.w": torch.ones(9, 4)}
    own = {"n.first.w": torch.ones(4, 9)} | {f"n.{word}.w": torch.ones(4, 4) for word in ("u", "t", "s")}
    assert not any(source == "m.1.w" for source in propose(shifted, own).mapping)


TIMM = ["vit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_050", "regnetx_002", "efficientnet_b0"]


@pytest.mark.parametrize("name", TIMM)
def test_renamed_models_of_timm_compute_the_same_to_the_last_bit(name: str) -> None:
    source, model = (timm.create_model(name, pretrained=False).eval() for _ in range(2))
    words = {
        "blocks": "layer",
        "stages": "phase",
        "conv": "c",
        "norm": "ln",
        "bn": "batchnorm",
        "head": "top",
        "stem": "s",
    }

    def other(text: str) -> str:
        for old, new in words.items():
            text = text.replace(old, new)
        return f"x.{text}"

    state = renamed(dict(source.state_dict()), other)
    report = load_weights(model, state, rename="auto")
    assert report.is_complete
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(model(images), source(images))


@pytest.mark.parametrize("direction", ["to timm", "to torchvision"])
def test_resnet_of_torchvision_and_of_timm(direction: str) -> None:
    torch.manual_seed(2)
    models = [torchvision.models.resnet18().eval(), timm.create_model("resnet18", pretrained=False).eval()]
    source, model = models if direction == "to timm" else models[::-1]
    load_weights(model, source, rename="auto")
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images), source(images))


def test_linear_layers_are_not_forced_into_the_convolutions_of_timm() -> None:
    """timm's VGG has convolutions where torchvision's has linear layers: other shapes, so that they are missing."""
    with torch.device("meta"):
        source, own = torchvision.models.vgg11().state_dict(), timm.create_model("vgg11").state_dict()
    found = propose(source, own)
    assert found.mapping == {"classifier.6.weight": "head.fc.weight", "classifier.6.bias": "head.fc.bias"}
    assert not found.ambiguous


def test_half_of_a_model_in_the_same_order_is_found_beside_what_only_one_side_has() -> None:
    own = Stack(2).state_dict()
    file = renamed(
        dict(own), by_segment({"blocks": "hh", "query": "wq", "key": "wk", "value": "wv", "norm": "ln", "mlp": "ff"})
    )
    del file["head.weight"], file["head.bias"]
    file["optimizer.step"] = torch.ones(())
    found = propose(file, own)
    assert found.mapping["hh.1.wk.weight"] == "blocks.1.key.weight"
    assert len(found.mapping) == sum("blocks" in name for name in own)
    assert not found.ambiguous


def test_names_nested_without_end_are_left_alone() -> None:
    deep = ".".join("a" for _ in range(5000))
    assert propose({deep: torch.ones(1)}, {"b": torch.ones(1)}).mapping == {}
    assert propose({}, {"b": torch.ones(1)}).mapping == {}


def test_a_file_of_before_batch_norms_counted_is_mapped() -> None:
    own = MODELS["convolutions"]().state_dict()
    old = {f"m.layer{name}": value for name, value in own.items() if "num_batches" not in name}
    model = MODELS["convolutions"]()
    load_weights(model, old, rename="auto")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in own.items() if "num_batches" not in name)


def test_half_a_layer_is_no_match() -> None:
    own = {"a.weight": torch.ones(4, 4), "a.bias": torch.ones(4)}
    assert propose({"x.weight": torch.ones(4, 4), "y.bias": torch.ones(5)}, own).mapping == {}
    assert propose({"x.weight": torch.ones(4, 4), "x.bias": torch.ones(4)}, own).mapping.keys() == {
        "x.weight",
        "x.bias",
    }


def test_a_layer_does_not_change_over_to_another_block() -> None:
    """One block lost its query, another has its key renamed: the same shapes, and nothing else speaks for it."""
    own = dict(Stack(3).state_dict())
    file = renamed(own, lambda name: name.replace("blocks.2.key", "blocks.2.k"))
    own = {name: value for name, value in own.items() if "blocks.1.query" not in name and "blocks.2.value" not in name}
    file = {name: value for name, value in file.items() if "blocks.2.k." not in name}
    found = propose(file, own)
    assert {name.rpartition(".")[0] for name in found.mapping} <= {"blocks.2.value", "blocks.1.query"}
    assert not found.mapping or found.ambiguous
    swapped = {name: value for name, value in own.items() if "blocks.0.key" not in name}
    swapped["blocks.2.other.weight"], swapped["blocks.2.other.bias"] = torch.ones(4, 4), torch.ones(4)
    found = propose(shuffled(swapped, sorted(swapped)), own)
    assert "a module that both sides have by the same name would lose one" in found.ambiguous[0].why

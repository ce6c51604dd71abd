"""Graphs: what comes back, and what files are refused. That an attack is one is proved with plain torch, which runs it."""

from __future__ import annotations

import io
import json
import pickle
import random
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from relume.errors import ConfigurationError, ModelFileError, RelumeError, UnsafeFileError
from relume.models.exported import load_exported, read_pt2_state
from relume.models.whole import load_model, save_model

pytestmark = pytest.mark.pt2

MODEL, WEIGHTS, CONSTANTS = (
    "models/model.json",
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
)
SAMPLES = "data/sample_inputs/model.pt"
Entries = dict[str, bytes]


class Small(nn.Module):
    """Has a parameter, a buffer, a constant out of the state_dict, dropout, and arithmetic with the batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("scale", torch.rand(3))
        self.register_buffer("shift", torch.rand(3), persistent=False)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.drop(self.layer(x)) * self.scale + self.shift
        return out.reshape(out.shape[0] * 3).cumsum(0)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    return save_model(Small(), tmp_path_factory.mktemp("honest") / "small.pt2", example_inputs=torch.rand(1, 4))


@pytest.fixture(scope="module")
def entries(honest: Path) -> Entries:
    with zipfile.ZipFile(honest) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def written(path: Path, entries: Entries) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)
    return path


def changed(entries: Entries, name: str, change: Callable[[Any], Any]) -> Entries:
    document = json.loads(entries[name])
    change(document)
    return {**entries, name: json.dumps(document).encode()}


def torch_saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


class Touch:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_graph_gives_what_the_model_gives_for_any_batch(honest: Path) -> None:
    torch.manual_seed(1)
    model = Small().eval()
    loaded = load_model(honest)
    for batch in (1, 2, 7):
        inputs = torch.rand(batch, 4)
        assert torch.equal(loaded(inputs), model(inputs))
    assert {name: value.tolist() for name, value in loaded.state_dict().items()} == {
        name: value.tolist() for name, value in model.state_dict().items()
    }
    assert not any(part.training for part in loaded.modules())


def test_the_weights_of_a_graph_are_read_without_it(honest: Path) -> None:
    torch.manual_seed(1)
    file = read_pt2_state(honest)
    assert file.format == "pt2"
    assert file.size_bytes == honest.stat().st_size
    assert {name: value.tolist() for name, value in file.state.items()} == {
        name: value.tolist() for name, value in Small().state_dict().items()
    }


def test_training_mode_is_put_back_and_not_what_is_saved(tmp_path: Path) -> None:
    model = Small().train()
    model.layer.eval()
    loaded = load_model(save_model(model, tmp_path / "a.pt2", example_inputs=torch.rand(2, 4)))
    assert (model.training, model.layer.training, model.drop.training) == (True, False, True)
    assert torch.equal(loaded(torch.ones(3, 4)), model.eval()(torch.ones(3, 4)))


def test_a_graph_tells_nobody_where_it_was_made(honest: Path) -> None:
    data = honest.read_bytes()
    for secret in (
        str(Path.home()),
        str(Path.cwd()),
        str(Path(torch.__file__).parents[1]),
        __file__,
        "test_exported",
        "Traceback",
    ):
        assert secret.encode() not in data
    plain = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(Small().eval(), (torch.rand(2, 4),)), plain)
    assert b"test_exported" in plain.getvalue()  # torch's own does


def test_what_torch_exports_by_itself_is_loaded(tmp_path: Path) -> None:
    """With its sample inputs, stack traces and guards, none of which is used."""
    model = Small().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (torch.rand(2, 4),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, tmp_path / "a.pt2")
    assert torch.equal(load_exported(tmp_path / "a.pt2")(torch.ones(5, 4)), model(torch.ones(5, 4)))


def test_plain_torch_loads_what_is_saved(honest: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(honest).module()
    assert torch.equal(module(torch.ones(5, 4)), load_exported(honest)(torch.ones(5, 4)))


@pytest.mark.parametrize("inputs", [(torch.rand(2, 4),), {"x": torch.rand(2, 4)}], ids=["tuple", "dict"])
def test_inputs_by_position_and_by_keyword(tmp_path: Path, inputs: Any) -> None:
    model = Small().eval()
    loaded = load_model(save_model(model, tmp_path / "a.pt2", example_inputs=inputs))
    more = torch.rand(5, 4)
    assert torch.equal(loaded(x=more) if isinstance(inputs, dict) else loaded(more), model(more))


def test_a_file_that_is_there_is_replaced_or_stays(tmp_path: Path, honest: Path) -> None:
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    path = tmp_path / "a.pt2"
    path.write_bytes(honest.read_bytes())
    with pytest.raises(ModelFileError, match=r"torch.export cannot make a graph of Branches for any batch size"):
        save_model(Branches(), path, example_inputs=torch.rand(2, 4))
    assert path.read_bytes() == honest.read_bytes()
    assert [one.name for one in tmp_path.iterdir()] == ["a.pt2"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such folder"):
        save_model(Small(), tmp_path / "no" / "a.pt2", example_inputs=torch.rand(2, 4))


def test_assertions_of_a_graph_are_kept(tmp_path: Path) -> None:
    """Their messages have quotes in them, and become Python source."""

    class Counted(nn.Module):
        def forward(self, x: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
            number = count.item()
            torch._check(number > 1)
            torch._check(number < 9)
            return x.sum() + torch.zeros(number).sum()  # type: ignore[call-overload]

    path = save_model(Counted(), tmp_path / "a.pt2", example_inputs=(torch.rand(2, 4), torch.tensor(3)))
    loaded = load_model(path)
    assert loaded(torch.ones(3, 4), torch.tensor(5)) == 12
    with pytest.raises(RuntimeError, match="assertion"):
        loaded(torch.ones(3, 4), torch.tensor(20))


@pytest.mark.parametrize("inputs", [[torch.rand(2, 4)], (), {}, 3, {3: torch.rand(1)}, torch.tensor(1.0), (1, 2)])
def test_inputs_that_are_none(tmp_path: Path, inputs: Any) -> None:
    with pytest.raises(ConfigurationError, match="example_inputs"):
        save_model(Small(), tmp_path / "a.pt2", example_inputs=inputs)


# ---------------------------------------------------------------------------------------------------------------- attacks


def expression(entries: Entries, canary: Path) -> Entries:
    def plant(document: Any) -> None:
        values = document["graph_module"]["graph"]["tensor_values"]
        sizes = next(value["sizes"] for name, value in values.items() if name == "x")
        sizes[0]["as_expr"]["expr_str"] = f"__import__('pathlib').Path({str(canary)!r}).touch() or 2"

    return changed(entries, MODEL, plant)


def sample_inputs(entries: Entries, canary: Path) -> Entries:
    return {**entries, SAMPLES: torch_saved(((Touch(canary),), {}))}


def pickled_payload(kind: str, config: str) -> Callable[[Entries, Path], Entries]:
    def plant(entries: Entries, canary: Path) -> Entries:
        name = "weight_9" if kind == "weights" else "tensor_9"

        def mark(document: Any) -> None:
            meta = json.loads(entries[WEIGHTS])["config"]["scale"]["tensor_meta"]
            document["config"]["evil"] = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": meta}

        return changed({**entries, f"data/{kind}/{name}": torch_saved(Touch(canary))}, config, mark)

    return plant


def opaque_object(entries: Entries, canary: Path) -> Entries:
    def mark(document: Any) -> None:
        document["config"]["evil"] = {
            "path_name": "opaque_obj_0",
            "is_param": False,
            "use_pickle": True,
            "tensor_meta": None,
        }

    return changed({**entries, "data/constants/opaque_obj_0": pickle.dumps(Touch(canary))}, CONSTANTS, mark)


def legacy_weights(entries: Entries, canary: Path) -> Entries:
    return {**entries, "data/weights/model.pt": torch_saved({"layer.weight": Touch(canary)})}


def structure(entries: Entries, canary: Path) -> Entries:
    (canary.parent / "evil_factory.py").write_text(f"open({str(canary)!r}, 'w').close()\nmake = list\n")
    context = {"default_factory_module": "evil_factory", "default_factory_name": "make", "dict_context": []}
    tree = {"type": "collections.defaultdict", "context": context, "children_spec": []}

    def plant(document: Any) -> None:
        document["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps([1, tree])

    return changed(entries, MODEL, plant)


def argument_name(entries: Entries, canary: Path) -> Entries:
    def plant(document: Any) -> None:
        signature = document["graph_module"]["module_call_graph"][0]["signature"]
        signature["forward_arg_names"] = ["x", f"y=__import__('pathlib').Path({str(canary)!r}).touch()"]

    return changed(entries, MODEL, plant)


def guard(entries: Entries, canary: Path) -> Entries:
    code = f"__import__('pathlib').Path({str(canary)!r}).touch() is None"
    planted = changed(entries, MODEL, lambda document: document.update(guards_code=[code]))
    return {**planted, SAMPLES: torch_saved(((torch.rand(2, 4),), {}))}


RUNNING: dict[str, tuple[Callable[[Entries, Path], Entries], str]] = {
    "expression": (expression, r"SymExpr.expr_str is .* it would be evaluated as Python"),
    "sample inputs": (sample_inputs, r"sample inputs are a pickle that names .*[Pp]ath"),
    "pickled weights": (pickled_payload("weights", WEIGHTS), r"'evil' is a pickle \('weight_9'\)"),
    "pickled constants": (pickled_payload("constants", CONSTANTS), r"'evil' is a pickle \('tensor_9'\)"),
    "opaque object": (opaque_object, r"has a pickle, 'data/constants/opaque_obj_0'"),
    "legacy weights": (legacy_weights, r"has a pickle, 'data/weights/model.pt'"),
    "structure": (structure, r"containers of type 'collections.defaultdict' are not among the known"),
    "argument name": (argument_name, r"forward_arg_names is .* it would become Python source"),
}


@pytest.mark.parametrize("name", RUNNING)
def test_what_plain_torch_runs_is_refused(
    name: str, entries: Entries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    plant, message = RUNNING[name]
    canary = tmp_path / "canary"
    path = written(tmp_path / "evil.pt2", plant(entries, canary))
    for read in (load_exported, load_model):
        with pytest.raises(UnsafeFileError, match=message):
            read(path)
    assert not canary.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.export.load(path).module()(torch.rand(2, 4))
        except Exception as error:  # what happens after its code has run does not matter
            print(error)
    sys.modules.pop("evil_factory", None)
    assert canary.exists(), "this is no attack: the test shows nothing"


def test_guards_as_python_are_never_run(entries: Entries, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = written(tmp_path / "evil.pt2", guard(entries, canary))
    assert load_exported(path)(torch.rand(3, 4)).shape == (9,)
    assert not canary.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.load(path).module()(torch.rand(2, 4))
    assert canary.exists()


def _graph(document: Any) -> Any:
    return document["graph_module"]["graph"]


def _operator(target: str) -> Callable[[Any], None]:
    return lambda document: _graph(document)["nodes"][0].update(target=target)


def _expression(text: str) -> Callable[[Any], None]:
    def plant(document: Any) -> None:
        _graph(document)["tensor_values"]["x"]["sizes"][0]["as_expr"]["expr_str"] = text

    return plant


def _parameter(name: str) -> Callable[[Any], None]:
    def plant(document: Any) -> None:
        specs = document["graph_module"]["signature"]["input_specs"]
        next(spec for spec in specs if "parameter" in spec)["parameter"]["parameter_name"] = name

    return plant


REFUSED_GRAPHS: dict[str, tuple[Callable[[Any], None], str]] = {
    "hub": (_operator("torch.hub.load"), "is no operator that computes"),
    "system": (_operator("torch.os.system"), "Node.target is 'torch.os.system': it is no operator"),
    "load": (_operator("torch.load"), "is no operator that computes"),
    "operator module": (_operator("_operator.methodcaller"), "is no operator that computes"),
    "attribute chain": (_operator("torch.ops.aten.relu.default.__class__"), "is no operator that computes"),
    "private": (_operator("torch.ops.aten.__class__.default"), "does more than to compute"),
    "file": (_operator("torch.ops.aten.from_file.default"), "does more than to compute"),
    "script": (_operator("torch.ops.aten.save.default"), "does more than to compute"),
    "namespace": (_operator("torch.ops.inductor.accumulate_grad_.default"), "'inductor' are not among those"),
    "custom": (_operator("torch.ops.mylib.mine.default"), "'mylib' are not among those"),
    "higher order": (_operator("torch.ops.higher_order.triton_kernel_wrapper_mutation"), "only runs a part of the graph"),
    "torchbind": (_operator("torch.ops.higher_order.call_torchbind"), "only runs a part of the graph"),
    "extension": (_operator("#executorch:os.system"), "is no operator that computes"),
    "attribute": (_expression("s0.__class__"), "Attribute"),
    "text": (_expression("'a' * 9"), "the value 'a'"),
    "lambda": (_expression("(lambda: 1)()"), "the call of"),
    "power tower": (_expression("((9**64)**64)**64"), "a power of a power"),
    "power": (_expression("2**99999999"), "the exponent 99999999"),
    "symbol": (_expression("Symbol('s0', positive=__import__)"), "the call of Symbol|__import__"),
    "symbol name": (_expression("Symbol('os')"), "the call of Symbol|'os'"),
    "parameter": (_parameter("a'), print('b"), "it would become Python source"),
    "dialect": (lambda document: document.update(verifiers=["EDGE"]), "known are ATEN, TRAINING"),
    "range": (lambda document: document["range_constraints"].update(u99999999999={"min_val": 0, "max_val": 1}), "no name of a size"),
    "custom object": (
        lambda document: _graph(document)["custom_obj_values"].update(a={"name": "a", "class_fqn": "b"}),
        "it is not understood",
    ),
    "node name": (lambda document: _graph(document)["nodes"][0].update(name="a\n  import os"), "it would become Python source"),
    "input": (lambda document: _graph(document)["inputs"][0].update(as_tensor={"name": "class"}), "it would become Python source"),
    "string": (
        lambda document: _graph(document)["nodes"][0]["inputs"].append({"name": "", "arg": {"as_string": "'\n"}, "kind": 1}),
        "it would become Python source",
    ),
    "number": (lambda document: _graph(document)["tensor_values"]["x"].update(dtype=10**6), "which it cannot be"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_GRAPHS)
def test_a_graph_with_what_no_graph_needs_is_refused(name: str, entries: Entries, tmp_path: Path) -> None:
    change, message = REFUSED_GRAPHS[name]
    path = written(tmp_path / "evil.pt2", changed(entries, MODEL, change))
    with pytest.raises(UnsafeFileError, match=message):
        load_exported(path)


def _meta(**values: Any) -> Callable[[Any], None]:
    return lambda document: document["config"]["layer.weight"]["tensor_meta"].update(values)


SIZES: dict[str, tuple[Callable[[Any], None], str]] = {
    "large": (_meta(sizes=[{"as_int": 1 << 40}, {"as_int": 4}]), "claims 4398046511104 elements"),
    "expanded": (_meta(sizes=[{"as_int": 1 << 20}, {"as_int": 4}], strides=[{"as_int": 0}, {"as_int": 1}]), "claims 4194304 elements"),
    "offset": (_meta(storage_offset={"as_int": 5}), "up to place 16"),
    "stride": (_meta(strides=[{"as_int": 1 << 62}, {"as_int": 1}]), "claims 12 elements"),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_lie_are_refused(name: str, entries: Entries, tmp_path: Path) -> None:
    change, message = SIZES[name]
    path = written(tmp_path / "evil.pt2", changed(entries, WEIGHTS, change))
    for read in (load_exported, read_pt2_state):
        with pytest.raises(UnsafeFileError, match=message):
            read(path)


DAMAGED: dict[str, tuple[Callable[[Entries], Entries], type[RelumeError], str]] = {
    "negative": (lambda e: changed(e, WEIGHTS, _meta(sizes=[{"as_int": -1}])), ModelFileError, "is damaged"),
    "symbolic": (lambda e: changed(e, WEIGHTS, _meta(sizes=[{"as_expr": {"expr_str": "1"}}])), ModelFileError, "is damaged"),
    "dtype": (lambda e: changed(e, WEIGHTS, _meta(dtype=99)), ModelFileError, "dtype number 99"),
    "layout": (lambda e: changed(e, WEIGHTS, _meta(layout=1)), ModelFileError, "layout 1"),
    "schema": (
        lambda e: changed(e, MODEL, lambda d: d.update(schema_version={"major": 99, "minor": 0})), ModelFileError, "schema version",
    ),
    "overload": (
        lambda e: changed(e, MODEL, _operator("torch.ops.aten.relu.none")), ModelFileError, "no such operator .* needs: aten.relu.none",
    ),
    "no graph": (lambda e: changed(e, MODEL, lambda d: d.pop("graph_module")), ModelFileError, "graph is damaged"),
    "no json": (lambda e: {**e, MODEL: b"{" * 100_000}, ModelFileError, "is no JSON"),
    "deep": (lambda e: {**e, MODEL: b"[" * 200_000}, ModelFileError, "is no JSON|recursion"),
    "list": (lambda e: {**e, MODEL: b"[]"}, ModelFileError, "not a table"),
    "archive version": (lambda e: {**e, "archive_version": b"7"}, ModelFileError, "archive_version is '7'"),
    "format": (lambda e: {**e, "archive_format": b"pt3"}, ModelFileError, "archive_format is 'pt3'"),
    "native": (lambda e: {**e, "data/aotinductor/model/a.so": b"\x7fELF"}, UnsafeFileError, "native code of AOTInductor"),
    "executorch": (lambda e: {**e, "data/executorch/a.pte": b""}, UnsafeFileError, "a program of ExecuTorch"),
    "script": (lambda e: {**e, "run.py": b"print()"}, UnsafeFileError, "no part of a graph"),
    "two models": (lambda e: {**e, "models/other.json": e[MODEL]}, ModelFileError, "no .pt2 file with one graph"),
    "no model": (lambda e: {n: d for n, d in e.items() if n != MODEL}, ModelFileError, "no .pt2 file with one graph"),
    "no weights": (lambda e: {n: d for n, d in e.items() if n != "data/weights/weight_0"}, ModelFileError, "damaged"),
    "before 2.9": (lambda e: {"serialized_exported_program.json": b"{}", "version": b"8.2"}, ModelFileError, "torch 2.8 or older"),
    "odd samples": (lambda e: {**e, SAMPLES: pickle.dumps([1])}, UnsafeFileError, "not what torch.save writes"),
    "traversal": (lambda e: {**e, "../../evil.py": b""}, UnsafeFileError, "leads out of the archive"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_archives_that_are_no_graph(name: str, entries: Entries, tmp_path: Path) -> None:
    change, error, message = DAMAGED[name]
    path = written(tmp_path / "evil.pt2", change(entries))
    with pytest.raises(error, match=message):
        load_exported(path)


def test_two_entries_of_one_name(entries: Entries, tmp_path: Path) -> None:
    path = written(tmp_path / "evil.pt2", entries)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(f"archive/{MODEL}", entries[MODEL])
    with pytest.raises(UnsafeFileError, match="twice"):
        load_exported(path)


def test_a_compressed_bomb(entries: Entries, tmp_path: Path) -> None:
    path = tmp_path / "evil.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**entries, MODEL: b" " * (100 << 20)}.items():
            archive.writestr(f"archive/{name}", data)
    with pytest.raises(UnsafeFileError, match="bomb"):
        load_exported(path)


@pytest.mark.parametrize("what", ["missing", "folder", "empty", "text"])
def test_files_that_are_none(what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    if what == "folder":
        path.mkdir()
    elif what != "missing":
        path.write_bytes(b"" if what == "empty" else b"hello")
    with pytest.raises(ModelFileError, match="a.pt2"):
        load_model(path)


def _mutated(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed))
        match rng.randrange(3):
            case 0:
                changed[place] = rng.randrange(256)
            case 1:
                del changed[place : place + rng.randint(1, 60)]
            case 2:
                changed[place:place] = rng.choice(
                    [b"0", b"-1", b"null", b'"', b"99999999999999999999", b"[", b"{}", b"s0", b"true"]
                )
    return bytes(changed)


def _survives(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            load_exported(path)
            read_pt2_state(path)
        except RelumeError:
            pass


@pytest.mark.parametrize("seed", range(60))
def test_mutated_files_make_only_errors_of_relume(seed: int, entries: Entries, honest: Path, tmp_path: Path) -> None:
    rng = random.Random(seed)
    path = tmp_path / "mutated.pt2"
    if seed % 3:
        name = rng.choice([MODEL, MODEL, WEIGHTS, CONSTANTS])
        written(path, {**entries, name: _mutated(entries[name], rng)})
    else:
        path.write_bytes(_mutated(honest.read_bytes(), rng))
    _survives(path)


def _leaves(document: Any, rng: random.Random) -> None:
    """Put another value in the place of one that is in the document."""
    while True:
        keys = list(document) if isinstance(document, dict) else list(range(len(document)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(document[key], (dict, list)) and document[key] and rng.random() < 0.9:
            document = document[key]
            continue
        odd = [None, -1, 1 << 70, 1.5, "", "x", "s0", [], {}, [[]], {"as_int": 3}, True, "torch.ops.aten.add.Tensor"]
        document[key] = rng.choice(odd)
        return


@pytest.mark.parametrize("seed", range(60))
def test_other_values_make_only_errors_of_relume(seed: int, entries: Entries, tmp_path: Path) -> None:
    rng = random.Random(seed)
    name = rng.choice([MODEL, MODEL, MODEL, WEIGHTS])
    _survives(written(tmp_path / "mutated.pt2", changed(entries, name, lambda document: _leaves(document, rng))))


@pytest.mark.long
def test_many_mutated_files_make_only_errors_of_relume(entries: Entries, tmp_path: Path) -> None:
    for seed in range(1000, 2500):
        rng = random.Random(seed)
        name = rng.choice([MODEL, MODEL, WEIGHTS])
        both = changed(entries, name, lambda document, rng=rng: _leaves(document, rng))
        _survives(
            written(tmp_path / "mutated.pt2", both if seed % 2 else {**entries, name: _mutated(entries[name], rng)})
        )

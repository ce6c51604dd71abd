"""Weights in files of any kind: told by their content, written for others to read."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from same_weights import assert_same, filled
from torch import nn

from relume.checkpoint import Store
from relume.errors import (
    CheckpointError,
    ClassicFileError,
    ConfigurationError,
    ModelFileError,
    RecipeError,
    StoreWriteError,
    UnknownNameError,
    UnstorableError,
)
from relume.models.files import open_model_file, read_state, save_weights
from relume.models.load import load_weights
from relume.models.look import convert, diff, inspect_file
from relume.models.whole import load_model
from saved_runs import describe, flip, make_run, packs, save_run, state_of


class OddExtra:
    """What a state should not hold."""


class WithExtra(nn.Module):
    def __init__(self, extra: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.extra = extra

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


# ------------------------------------------------------------------------------------------------------------- real models


def _torchvision(name: str) -> nn.Module:
    from torchvision import models

    return models.get_model(name, weights=None)


def _timm(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: _torchvision("resnet18"),
    "transformer": lambda: nn.Transformer(32, 4, 2, 2, 64, batch_first=True),
    "lstm": lambda: nn.LSTM(5, 6, 2, bidirectional=True),
    **{
        name: lambda name=name: _timm(name)  # type: ignore[misc]
        for name in (
            "resnet10t", "mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224", "tf_efficientnet_lite0"
        )
    },
}  # fmt: skip
BIG = {"vgg16": lambda: _torchvision("vgg16"), "vgg19": lambda: _torchvision("vgg19")}


@pytest.mark.parametrize(
    "name", [*MODELS, pytest.param("vgg16", marks=pytest.mark.long), pytest.param("vgg19", marks=pytest.mark.long)]
)
def test_a_model_goes_through_every_format_to_the_bit(name: str, tmp_path: Path) -> None:
    from relume.checkpoint import without_values

    make = {**MODELS, **BIG}[name]
    with without_values():
        model = make()
    model.to_empty(device="cpu")
    model.load_state_dict({name: filled(v.dtype, tuple(v.shape), 1) for name, v in model.state_dict().items()})
    expected = model.state_dict()
    _through_files(model, expected, tmp_path)
    save_one = Store(tmp_path / "runs")
    make_run(tmp_path / "runs", "one")
    save_one.save(state_of({"model": model}, {}), describe(1, 5, {"val/loss": 0.5}), folder="one/checkpoints")
    assert_same(read_state(tmp_path / "runs" / "one", verify=True), expected)


def _through_files(model: nn.Module, expected: dict[str, Any], folder: Path) -> None:
    written = save_weights(model, folder / "model.safetensors")
    assert_same(read_state(written), expected)
    assert_same(safetensors.torch.load_file(written), expected, ordered=False)
    for ending in ("pt", "pth"):
        written = save_weights(model, folder / f"model.{ending}")
        found = torch.load(written, weights_only=True, mmap=True)
        assert_same(found, expected)
        assert found._metadata == expected._metadata  # type: ignore[attr-defined]
        written.unlink()
    largest = max(value.nbytes for value in expected.values())
    written = save_weights(model, folder / "model.safetensors", max_shard_bytes=largest)
    assert_same(read_state(written, verify=True), expected)


# ------------------------------------------------------------------------------------------------------------------ writing


def test_wrappers_are_taken_off_the_names(tmp_path: Path) -> None:
    inner = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    wrapped = nn.DataParallel(torch.compile(inner))
    for name in ("w.safetensors", "w.pt"):
        path = save_weights(wrapped, tmp_path / name)
        found = torch.load(path, weights_only=True) if name.endswith(".pt") else read_state(path)
        assert list(found) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_without_an_ending_it_is_safetensors(tmp_path: Path) -> None:
    assert save_weights(nn.Linear(2, 1), tmp_path / "line") == tmp_path / "line.safetensors"
    assert save_weights(nn.Linear(2, 1), str(tmp_path / "line.PT")).name == "line.PT"
    assert list(torch.load(tmp_path / "line.PT", weights_only=True)) == ["weight", "bias"]


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("w.onnx", {}, r"'w\.onnx' ends in '\.onnx'\. The ending says what is written"),
        ("v1.2", {}, r"'v1\.2' ends in '\.2'"),
        ("nowhere/w.pt", {}, r"there is no folder .*nowhere to write w\.pt to"),
        ("folder", {}, r"folder is a folder\. Give the name of a file: .*folder/model\.safetensors"),
        ("new/", {}, r"new is a folder"),
        ("file/w.pt", {}, r"there is no folder .*file to write w\.pt to"),
        ("folder.pt", {}, r"folder\.pt is a folder\. Give the name of a file"),
        ("w.pt", {"metadata": {"a": "b"}}, r"metadata=.* is for \.safetensors; w\.pt has no place for it"),
        ("w.pth", {"max_shard_bytes": 5}, r"max_shard_bytes=5 is for \.safetensors"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(
    path: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    for name in ("folder.pt", "folder"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=message):
        save_weights(nn.Linear(2, 1), f"{tmp_path}/{path}", **options)


@pytest.mark.parametrize("path", ["", "  ", None, 3, b"w.pt", "a\0b"])
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(ConfigurationError, match="is no path of a file"):
        save_weights(nn.Linear(2, 1), path)
    with pytest.raises(ConfigurationError, match="is no path of a file"):
        open_model_file(path)


@pytest.mark.parametrize("source", [[1, 2], "w.pt", torch.ones(2), None, 3])
def test_what_has_no_weights_is_refused(source: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="weights are those of a model or of a state_dict, not of a"):
        save_weights(source, tmp_path / "w.pt")


def test_names_are_text(tmp_path: Path) -> None:
    for state, message in (
        ({3: torch.ones(2)}, "the key 3 is a int"),
        ({"\ud800": torch.ones(2)}, "is not text that a file"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            save_weights(state, tmp_path / "w.safetensors")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_arrays_and_parameters_become_tensors(name: str, tmp_path: Path) -> None:
    arrays = {
        "plain": np.arange(6.0).reshape(2, 3), "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big endian": np.arange(4, dtype=">f4"), "backwards": np.arange(4)[::-1], "scalar": np.float32(2.5),
        "parameter": nn.Parameter(torch.ones(2)), "empty": np.zeros((0, 3)),
    }  # fmt: skip
    arrays["plain"].flags.writeable = False  # type: ignore[union-attr]
    path = save_weights(arrays, tmp_path / name)
    found = torch.load(path, weights_only=True) if name.endswith(".pt") else read_state(path)
    for key, value in arrays.items():
        assert np.array_equal(
            found[key].numpy(), np.asarray(value.detach() if isinstance(value, torch.Tensor) else value)
        )
        assert type(found[key]) is torch.Tensor and not found[key].requires_grad
    with pytest.raises(UnstorableError, match="'text' is an array of <U1, for which torch has no dtype"):
        save_weights({"text": np.array(["a"])}, tmp_path / name)


def test_an_empty_model(tmp_path: Path) -> None:
    for name in ("w.safetensors", "w.pt"):
        path = save_weights(nn.ReLU(), tmp_path / name)
        assert not (torch.load(path, weights_only=True) if name.endswith(".pt") else read_state(path))


def test_a_lazy_module_without_shapes_is_refused(tmp_path: Path) -> None:
    model = nn.LazyLinear(3)
    with pytest.raises(ConfigurationError, match=r"weight, bias are of a lazy module.*Call the model once"):
        save_weights(model, tmp_path / "w.pt")
    model(torch.ones(1, 2))
    assert list(read_state(save_weights(model, tmp_path / "w.safetensors"))) == ["weight", "bias"]


def test_models_without_values_are_refused(tmp_path: Path) -> None:
    for name in ("w.safetensors", "w.pt"):
        with pytest.raises(UnstorableError, match=r"0\.weight, 0\.bias are on the meta device and have no values"):
            save_weights(nn.Sequential(nn.Linear(2, 1, device="meta")), tmp_path / name)


def test_extra_state_is_kept_in_pt_and_named_for_safetensors(tmp_path: Path) -> None:
    extra = {"scale": 2.0, "history": [torch.ones(2), (1, "a", None)], "dtype": torch.float16}
    path = save_weights(WithExtra(extra), tmp_path / "w.pt")
    fresh = WithExtra(None)
    fresh.load_state_dict(torch.load(path, weights_only=True))
    assert fresh.extra["scale"] == 2.0 and torch.equal(fresh.extra["history"][0], torch.ones(2))
    with pytest.raises(
        UnstorableError, match=r"'_extra_state' is a dict, and a safetensors file holds nothing but tensors"
    ):
        save_weights(WithExtra(extra), tmp_path / "w.safetensors")
    assert "_extra_state" in read_state(save_weights(WithExtra(torch.ones(3)), tmp_path / "w.safetensors"))
    with pytest.raises(UnstorableError, match=r"_extra_state\.hook is a \w+, which plain torch\.load does not read"):
        save_weights(WithExtra({"hook": print}), tmp_path / "w.pt")


@pytest.mark.parametrize("by_torch", [True, False])
def test_extra_state_is_loaded_from_pt(by_torch: bool, tmp_path: Path) -> None:
    extra = {"scale": 2.0, "history": [1, (torch.ones(2), None)]}
    model, path = nn.Sequential(nn.Linear(2, 2), WithExtra(extra)), tmp_path / "w.pt"
    for content in (model.state_dict(), {"epoch": 3, "model_state_dict": model.state_dict()})[: 2 if by_torch else 1]:
        torch.save(content, path) if by_torch else save_weights(model, path)
        fresh = nn.Sequential(nn.Linear(2, 2), WithExtra(None))
        load_weights(fresh, path)
        assert fresh[1].extra["scale"] == 2.0 and torch.equal(fresh[1].extra["history"][1][0], torch.ones(2))
        fresh.load_state_dict(read_state(path))
    done = convert(path, tmp_path / "w.safetensors")
    assert done.tensors == 3 and "1._extra_state" in done.left_out
    assert not diff(path, tmp_path / "w.safetensors").tensors[0].change


def test_extra_state_that_is_an_object_is_not_read(tmp_path: Path) -> None:
    torch.save(WithExtra(OddExtra()).state_dict(), tmp_path / "w.pt")
    assert list(read_state(tmp_path / "w.pt")) == ["weight"]


def test_extra_state_is_loaded_from_a_checkpoint(tmp_path: Path) -> None:
    make_run(tmp_path, "one")
    Store(tmp_path).save(state_of({"model": WithExtra({"scale": 2.0})}, {}), folder="one/checkpoints")
    fresh = WithExtra(None)
    load_weights(fresh, tmp_path / "one")
    assert fresh.extra == {"scale": 2.0}


@pytest.mark.filterwarnings("ignore:Validating sparse:UserWarning")
def test_sparse_weights_are_kept_in_pt(tmp_path: Path) -> None:
    found = torch.load(save_weights({"s": torch.eye(3).to_sparse()}, tmp_path / "s.pt"), weights_only=True)
    assert torch.equal(found["s"].to_dense(), torch.eye(3))


def test_a_slice_does_not_bring_the_memory_it_is_of(tmp_path: Path) -> None:
    large = torch.arange(1_000_000.0)
    path = save_weights({"few": large[10:20], "other": large[5:15]}, tmp_path / "few.pt")
    assert path.stat().st_size < 10_000
    assert_same(torch.load(path, weights_only=True), {"few": large[10:20], "other": large[5:15]})


def test_tied_weights_stay_tied_in_pt(tmp_path: Path) -> None:
    tied = nn.Parameter(torch.ones(1000))
    path = save_weights(OrderedDict(a=tied, b=tied, c=tied.view(10, 100)), tmp_path / "tied.pt")
    found = torch.load(path, weights_only=True)
    assert path.stat().st_size < 8000 and found["a"].data_ptr() == found["b"].data_ptr() == found["c"].data_ptr()


def test_strides_are_kept_in_pt(tmp_path: Path) -> None:
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert torch.load(save_weights({"i": image}, tmp_path / "i.pt"), weights_only=True)["i"].stride() == image.stride()


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_weights_on_a_gpu_are_saved_for_the_cpu(name: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 30)).cuda()
    model[1].weight = model[0].weight
    path = save_weights(model, tmp_path / name)
    found = torch.load(path, weights_only=True) if name.endswith(".pt") else read_state(path, verify=True)
    assert_same(found, model.state_dict())
    assert {value.device.type for value in found.values()} == {"cpu"}
    assert found["0.weight"].data_ptr() == found["1.weight"].data_ptr()


@pytest.mark.skipif(os.name == "nt" or not Path("/dev/full").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_folder_that_cannot_be_written_to(name: str) -> None:
    with pytest.raises(StoreWriteError, match=f"writing {name} failed in /proc"):
        save_weights(nn.Linear(2, 1), Path("/proc") / name)


# ------------------------------------------------------------------------------------------------------------------ opening


def _zip(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, w=np.ones(3))
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("weights.bin")
        info.size = 10
        archive.addfile(info, io.BytesIO(bytes(10)))
    return buffer.getvalue()


STRANGE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty: a download or a save that was broken off"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", r"a pointer of git-lfs.*git lfs pull"),
    "html": (b"\n<!DOCTYPE html><html><body>404 Not Found</body></html>", "is a web page.*A download got it instead"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(500), "an HDF5 file, such as Keras writes"),
    "gguf": (b"GGUF\x03\0\0\0" + bytes(100), "a GGUF file"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0" + bytes(90), "an ONNX model"),
    "npy": (b"\x93NUMPY\x01\0v\0{'descr'", "an array of numpy.*numpy.load"),
    "npz": (_npz(), r"holds arrays of numpy\. Save them by name"),
    "gzip": (gzip.compress(b"weights"), "compressed by gzip. and no|compressed by gzip, and no file.*Unpack"),
    "tar": (_tar(), "a tar archive.*Unpack it first"),
    "zip with weights": (_zip({"a/model.safetensors": b"x"}), "an archive with a file of weights in it"),
    "zip of something": (_zip({"word/document.xml": b"<x/>"}), r"a zip archive without weights.*'word/document\.xml'"),
    "empty zip": (_zip({}), "without weights of torch in it: it holds nothing"),
    "cut zip": (_zip({"archive/data.pkl": b"x" * 1000})[:600], "a damaged zip archive"),
    "zeros": (bytes(5000), "nothing but zeros"),
    "text": (b"epoch,loss\n1,0.5\n", r"is text \('epoch,loss"),
    "program": (b"\x7fELF\x02\x01" + bytes(80), "a program or a shared library"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(80), "an image"),
    "noise": (bytes(range(130, 250)) + b"\x01\x02", r"\(122 bytes, beginning with 82 83 84.*is no file of weights that relume knows"),
    "short": (b"\x01", r"\(1 bytes, beginning with 01\)"),
    "json": (b'{"a": 1}', "no index of weights"),
}  # fmt: skip


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize("name", STRANGE)
def test_a_file_of_another_kind_is_named(name: str, ending: str, tmp_path: Path) -> None:
    content, message = STRANGE[name]
    path = tmp_path / f"model.{ending}"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message) as caught:
        open_model_file(path)
    assert str(path) in str(caught.value)


def test_a_pickle_of_another_library_is_named(tmp_path: Path) -> None:
    import pickle

    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"coef": np.ones(3)}))
    with pytest.raises(ModelFileError, match="a pickle that torch.save did not write"):
        open_model_file(path)


def test_the_content_tells_the_format_and_not_the_ending(tmp_path: Path) -> None:
    state = {"w": torch.ones(3)}
    path = save_weights(state, tmp_path / "w.safetensors").rename(tmp_path / "w.pt")
    assert open_model_file(path).format == "safetensors"


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_files_of_torch_are_read_by_any_name(options: dict[str, Any], tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    torch.save(model.state_dict(), tmp_path / "w.safetensors", **options)
    found = open_model_file(tmp_path / "w.safetensors")
    assert found.format == ("torch legacy" if options else "torch")
    assert_same(found.state, model.state_dict())


def test_one_of_the_models_of_a_classic_file(tmp_path: Path) -> None:
    models = {"generator": nn.Linear(2, 3), "critic": nn.Linear(3, 1)}
    states = {name: model.state_dict() for name, model in models.items()}
    torch.save({"epoch": 3, "model_state_dicts": states}, tmp_path / "gan.pt")
    assert_same(read_state(tmp_path / "gan.pt", model="critic"), models["critic"].state_dict())
    with pytest.raises(UnknownNameError, match=r"no model 'critc' in .*did you mean 'critic'"):
        read_state(tmp_path / "gan.pt", model="critc")


def test_an_opened_file_prints_in_one_line(tmp_path: Path) -> None:
    file = open_model_file(save_weights({f"w{number}": torch.ones(50) for number in range(50)}, tmp_path / "w.pt"))
    assert len(repr(file)) < 300 and "torch, 50 in its state" in repr(file)


def test_several_models_are_never_read_as_none(tmp_path: Path) -> None:
    models = {"G": nn.Linear(2, 3), "D": nn.Linear(3, 1)}
    states = {name: model.state_dict() for name, model in models.items()}
    path, plain = tmp_path / "gan.pt", tmp_path / "plain.safetensors"
    torch.save({**states, "optG": torch.optim.SGD(models["G"].parameters()).state_dict()}, path)
    save_weights(models["G"], plain)
    attempts: list[Callable[[], Any]] = [
        lambda: read_state(path),
        lambda: load_weights(nn.Linear(2, 3), path),
        lambda: load_weights(nn.Linear(2, 3), open_model_file(path)),
        lambda: convert(path, tmp_path / "new.safetensors"),
        lambda: convert(path, tmp_path / "new.pt"),
        lambda: diff(path, path),
        lambda: diff(plain, path),
    ]
    for attempt in attempts:
        with pytest.raises(ClassicFileError, match=r"several models: G, D; choose with model= \(--model\)"):
            attempt()
    assert diff(path, plain, model="G").is_same and diff(plain, path, model="G").is_same
    assert not diff(path, plain, model="D").is_same
    with pytest.raises(UnknownNameError, match="no model 'X'"):
        diff(path, plain, model="X")
    with pytest.raises(UnknownNameError, match=r"model='G': neither .* has several models"):
        diff(plain, plain, model="G")
    done = convert(path, tmp_path / "new.safetensors", model="G")
    assert done.left_out == ("optG", "model 'D'")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("is_classic", [False, True])
def test_a_tensor_that_is_not_read_is_named(is_classic: bool, tmp_path: Path) -> None:
    state = {"a": torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8), "b": torch.ones(2)}
    path = save_weights(state, tmp_path / "q.pt")
    if is_classic:
        torch.save({"epoch": 1, "model_state_dict": state}, path)
    attempts: list[Callable[[], Any]] = [
        lambda: read_state(path),
        lambda: load_weights(nn.Linear(2, 3), path),
        lambda: convert(path, tmp_path / "q.safetensors"),
        lambda: diff(path, path),
    ]
    for attempt in attempts:
        with pytest.raises(ClassicFileError, match=r"a kind that is not read .*\ba\."):
            attempt()
    assert is_classic or [entry.name for entry in inspect_file(path).tensors] == ["b"]


def test_a_file_without_weights_is_not_read_as_empty(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "no.pt")
    with pytest.raises(ClassicFileError, match="no state_dict of a model in it: it holds a dictionary with 'epoch'"):
        read_state(tmp_path / "no.pt")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    save_weights({"w": torch.ones(3)}, tmp_path / "resnet.safetensors")
    with pytest.raises(
        ModelFileError,
        match=r"resnet\.safetensor is not there as a file; and there is no run .*Beside it is 'resnet\.safetensors'",
    ):
        read_state(tmp_path / "resnet.safetensor")
    with pytest.raises(ModelFileError, match="x cannot be read: File name too long"):
        read_state(tmp_path / ("x" * 300))
    with pytest.raises(ModelFileError, match="has no file of weights in it, and is no run"):
        (tmp_path / "empty").mkdir()
        read_state(tmp_path / "empty")
    with pytest.raises(ModelFileError, match="is not a file: it is a folder, a device or a pipe"):
        read_state("/dev/null")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(ModelFileError, match="is not a file"):
        read_state(tmp_path / "pipe.safetensors")


def test_the_only_file_of_a_folder_is_meant(tmp_path: Path) -> None:
    save_weights({"w": torch.ones(3)}, tmp_path / "resnet.safetensors")
    assert list(read_state(tmp_path)) == ["w"]
    save_weights({"v": torch.ones(3)}, tmp_path / "vgg.safetensors")
    with pytest.raises(
        ModelFileError, match=r"has 2 files of weights: resnet\.safetensors, vgg\.safetensors\. Give the path of one"
    ):
        read_state(tmp_path)
    save_weights({"u": torch.ones(3)}, tmp_path / "model.safetensors")
    assert list(read_state(tmp_path)) == ["u"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = save_weights({"w": torch.ones(3)}, tmp_path / "w.safetensors")
    path.chmod(0)
    with pytest.raises(ModelFileError, match="cannot be read: Permission denied"):
        read_state(path)


# -------------------------------------------------------------------------------------------------------------- checkpoints


def test_checkpoints_are_read_by_all_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = save_run(tmp_path / "runs", "fashion")
    monkeypatch.chdir(tmp_path)
    best = Store("runs").load(saved[1])["models"]["model"]
    newest = Store("runs").load(saved[2])["models"]["model"]
    for name in ("fashion@best", "runs/fashion@best", "fashion@2", "fashion:2", str(saved[1].path), "fashion@000002"):
        found = open_model_file(name)
        assert found.format == "checkpoint" and found.path.name == saved[1].path.name
        assert_same(found.state, best)
    assert (
        found.metadata["run"] == "fashion"
        and found.metadata["epoch"] == "2"
        and '"val/loss": 0.2' in found.metadata["metrics"]
    )
    for name in ("fashion", "runs/fashion", str(tmp_path / "runs" / "fashion")):
        assert_same(read_state(name, verify=True), newest)
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    monkeypatch.setenv("RELUME_ROOT", "elsewhere")
    assert_same(read_state("fashion@best"), best)
    with pytest.raises(
        ModelFileError,
        match=r"fashio@best is not there as a file; and there is no run 'fashio'.*did you mean 'fashion'",
    ):
        read_state("fashio@best")


def test_one_of_several_models_is_chosen(tmp_path: Path) -> None:
    make_run(tmp_path, "gan")
    models = {"generator": nn.Linear(3, 4), "critic": nn.Linear(4, 1)}
    store = Store(tmp_path)
    store.save(state_of(models, {}), describe(1, 5, {}), folder="gan/checkpoints")
    assert_same(read_state(tmp_path / "gan", model="critic"), models["critic"].state_dict())
    with pytest.raises(ConfigurationError, match=r"several models: generator, critic; choose with model= \(--model"):
        read_state(tmp_path / "gan")
    with pytest.raises(UnknownNameError, match=r"did you mean 'critic'"):
        read_state(tmp_path / "gan", model="critc")
    fresh = nn.Linear(4, 1)
    load_weights(fresh, tmp_path / "gan", source_model="critic")
    assert torch.equal(fresh.weight, models["critic"].weight)
    with pytest.raises(ConfigurationError, match="in load_weights with source_model="):
        load_weights(fresh, tmp_path / "gan")
    with pytest.raises(ConfigurationError, match="source_model='critic' is for a file"):
        load_weights(fresh, models["critic"], source_model="critic")
    assert inspect_file(tmp_path / "gan", model="critic").tensors[0].shape == (1, 4)
    with pytest.raises(RecipeError, match="holds weights and no recipe"):
        load_model(tmp_path / "gan", model="critic")
    path = save_weights(models["critic"], tmp_path / "w.safetensors")
    with pytest.raises(ConfigurationError, match=r"model='critic': .*holds the weights of one model"):
        read_state(path, model="critic")


def test_checkpoints_without_models_and_damaged_ones(tmp_path: Path) -> None:
    make_run(tmp_path, "odd")
    store = Store(tmp_path)
    store.save({"weight": torch.ones(2)}, folder="odd/checkpoints")
    with pytest.raises(ClassicFileError, match="has no models in it, only: weight"):
        read_state(tmp_path / "odd")
    make_run(tmp_path / "other", "one")
    Store(tmp_path / "other").save(state_of({"model": nn.Linear(3, 3)}, {}), folder="one/checkpoints")
    flip(packs(tmp_path / "other")[0])
    with pytest.raises(CheckpointError, match=r"is damaged|can be used"):
        read_state(tmp_path / "other" / "one", verify=True)


def test_a_link_stays_and_the_file_behind_it_is_replaced(tmp_path: Path) -> None:
    save_weights({"a": torch.zeros(2)}, tmp_path / "real.safetensors")
    (tmp_path / "link.safetensors").symlink_to("real.safetensors")
    save_weights({"a": torch.ones(2)}, tmp_path / "link.safetensors")
    assert (tmp_path / "link.safetensors").is_symlink()
    assert read_state(tmp_path / "real.safetensors")["a"].tolist() == [1, 1]


def test_a_pipe_and_a_name_without_end_are_no_targets(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(ConfigurationError, match="no file that could be replaced"):
        save_weights({"a": torch.ones(2)}, tmp_path / "pipe.pt")
    with pytest.raises(ConfigurationError, match="longer than 200 bytes"):
        save_weights({"a": torch.ones(2)}, tmp_path / ("x" * 300 + ".pt"))

"""Deterministic algorithms: on while a run is open, put back behind it, recorded, and their errors in words."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import relume
from relume import determinism
from relume.checkpoint import Store
from relume.errors import ConfigurationError, DeterminismError
from relume.run.resuming import machine_differences


def settings() -> tuple[Any, ...]:
    cudnn = torch.backends.cudnn
    return (
        torch.get_deterministic_debug_mode(),
        cudnn.deterministic,
        cudnn.benchmark,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        os.environ.get("TORCHINDUCTOR_DETERMINISTIC"),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


ON = (2, True, False, ":4096:8", "1", True)


def lacking(output: torch.Tensor) -> torch.Tensor:
    """Goes through an operation that has no deterministic form on any device."""
    torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2))
    return output


class Lacking(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return lacking(super().forward(input))


def trainer_of(model: nn.Module, **options: Any) -> relume.Trainer:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = nn.CrossEntropyLoss()
    return relume.Trainer(model, loss=loss, optimizer=optimizer, device="cpu", quiet=True, **options)


def test_a_run_turns_them_on_and_puts_back_what_the_user_had(tmp_path: Path) -> None:
    torch.backends.cudnn.benchmark = True
    try:
        before = settings()
        assert before != ON
        with relume.Run("a", root=tmp_path, quiet=True, deterministic=True):
            assert settings() == ON
        assert settings() == before
        with pytest.raises(ZeroDivisionError), relume.Run("b", root=tmp_path, quiet=True, deterministic=True):
            1 / 0  # noqa: B018
        assert settings() == before
    finally:
        torch.backends.cudnn.benchmark = False


def test_a_run_that_cannot_begin_puts_them_back(tmp_path: Path) -> None:
    before = settings()
    (tmp_path / "file").write_text("")
    with pytest.raises(relume.errors.StorageError), relume.Run("a", root=tmp_path / "file", deterministic=True):
        pass
    assert settings() == before


def test_a_run_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with relume.Run("a", root=tmp_path, deterministic=True):
        pass
    with relume.Run("b", root=tmp_path):
        pass
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("deterministic") == 1


def test_without_them_a_run_leaves_all_as_it_is(tmp_path: Path) -> None:
    before = settings()
    with relume.Run("a", root=tmp_path, quiet=True):
        assert settings() == before


def test_overlapping_runs_keep_them_until_the_last_one_ends(tmp_path: Path) -> None:
    before = settings()
    first = relume.Run("a", root=tmp_path, quiet=True, deterministic=True)
    second = relume.Run("b", root=tmp_path, quiet=True, deterministic=True)
    with first:
        second.__enter__()
    assert settings() == ON
    second.__exit__(None, None, None)
    assert settings() == before


def test_an_operation_without_a_deterministic_form_is_named_with_the_remedy(tmp_path: Path, loader: DataLoader) -> None:
    before = settings()
    with pytest.raises(DeterminismError, match=r"put_ has no deterministic form .* Instead: assign by index") as caught:
        trainer_of(Lacking(4, 3), deterministic=True).fit(loader, epochs=1, run="a", root=tmp_path)
    assert "put_ does not have" in str(caught.value.__cause__)
    assert settings() == before
    ended = (tmp_path / "a" / "journal" / "0001.jsonl").read_text().splitlines()[-1]
    assert json.loads(ended)["reason"].startswith("DeterminismError: put_ has no deterministic form")
    with (
        pytest.raises(DeterminismError, match='With deterministic="warn" it runs'),
        relume.Run("b", root=tmp_path, quiet=True, deterministic=True),
    ):
        lacking(torch.ones(1))


def test_evaluating_and_predicting_with_a_trainer_has_the_same_error(loader: DataLoader) -> None:
    trainer = trainer_of(Lacking(4, 3), deterministic=True)
    for call in (trainer.evaluate, trainer.predict):
        with pytest.raises(DeterminismError, match="put_ has no deterministic form"):
            call(loader)
    assert len(trainer_of(Lacking(4, 3)).predict(loader)) == 50


def test_with_warn_torch_warns_and_goes_on(tmp_path: Path) -> None:
    with (
        relume.Run("a", root=tmp_path, quiet=True, deterministic="warn"),
        pytest.warns(UserWarning, match="put_ does not have a deterministic implementation"),
    ):
        lacking(torch.ones(1))


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="^the user's own$"),
        relume.Run("a", root=tmp_path, quiet=True, deterministic=True),
    ):
        raise RuntimeError("the user's own")


def test_torchs_error_for_cublas_names_the_variable() -> None:
    text = "Deterministic behavior was enabled with ..., because it uses CuBLAS and you have CUDA >= 10.2."
    assert "Start the process with CUBLAS_WORKSPACE_CONFIG=:4096:8" in str(determinism.understood(RuntimeError(text)))


@pytest.mark.parametrize("wrong", [1, "yes", None, 0])
def test_another_value_is_refused(wrong: Any, tmp_path: Path) -> None:
    for make in (
        lambda: relume.Run("a", root=tmp_path, deterministic=wrong),
        lambda: trainer_of(nn.Linear(1, 1), deterministic=wrong),
        lambda: relume.seed_everything(0, wrong),
    ):
        with pytest.raises(ConfigurationError, match='deterministic must be True, False or "warn", not'):
            make()


def test_a_trainer_does_not_join_a_run_without_them(tmp_path: Path, loader: DataLoader) -> None:
    with (
        relume.Run("a", root=tmp_path, quiet=True) as run,
        pytest.raises(ConfigurationError, match="deterministic=True and the open Run False: give it to the Run"),
    ):
        trainer_of(nn.Linear(4, 3), deterministic=True).fit(loader, epochs=1, run=run)


def test_a_cublas_setting_that_contradicts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.version.cuda is None:
        pytest.skip("this build of torch has no CUDA")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    before = settings()
    with pytest.raises(ConfigurationError, match="CUBLAS_WORKSPACE_CONFIG=:0:0, with which"), determinism.held(True):
        pass
    assert settings() == before
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with determinism.held(True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_checkpoints_and_provenance_hold_them_and_a_resume_without_says_so(tmp_path: Path, loader: DataLoader) -> None:
    trainer_of(nn.Linear(4, 3), deterministic=True).fit(loader, epochs=1, run="a", root=tmp_path)
    store = Store(tmp_path)
    meta = store.meta(store.list("a/checkpoints")[-1])
    assert meta["numerics"]["deterministic"] is True
    assert relume.Provenance.load(tmp_path / "a").find().numerics["deterministic"] is True
    trainer_of(nn.Linear(4, 3)).fit(loader, epochs=2, run="a", root=tmp_path)
    said = (tmp_path / "a" / "journal" / "0002.jsonl").read_text()
    assert "deterministic: on before, off now: the last bits may differ" in said
    with determinism.held(True):
        assert machine_differences(meta, "cpu") == []
    assert machine_differences({"device": "cpu", "threads": torch.get_num_threads()}, "cpu") == []  # of an older relume


def test_settings_of_cuda_count_on_cuda_only() -> None:
    before = determinism.numerics() | {"cudnn_benchmark": True}
    assert determinism.differences(before, "cpu") == []
    assert determinism.differences(before, "cuda:0") == [
        "cudnn_benchmark: on before, off now: the last bits may differ"
    ]


_SEEDS = """
import os, sys, relume, torch
assert relume.seed_everything(3, deterministic=True) == 3
assert torch.are_deterministic_algorithms_enabled() and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
assert "torch._inductor" not in sys.modules, "the compiler takes a second"
try:
    torch.backends.cuda.matmul.fp32_precision = "tf32"
except AttributeError:
    pass
print(relume.determinism.numerics()["matmul_precision"], torch.rand(1).item())
"""


def test_seeding_turns_them_on_for_the_process_without_importing_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", _SEEDS], capture_output=True, text=True, check=True)
    precision, drawn = done.stdout.split()
    assert precision in ("tf32", "high", "highest", "none")
    torch.manual_seed(3)
    assert float(drawn) == torch.rand(1).item()


def test_seeding_as_ever_leaves_them_alone() -> None:
    before, drawn = settings(), random.getstate()
    try:
        assert relume.seed_everything(3) == 3
    finally:
        random.setstate(drawn)
    assert settings() == before


def test_with_them_threads_that_add_into_one_place_give_the_same_sums() -> None:
    torch.set_num_threads(4)
    values, places = torch.randn(400_000), torch.zeros(400_000, dtype=torch.long)
    with determinism.held(True):
        sums = {torch.zeros(1).index_put_((places,), values, accumulate=True).item() for _ in range(5)}
    assert len(sums) == 1


@pytest.mark.cuda
def test_a_run_on_cuda_repeats_itself(tmp_path: Path) -> None:
    """Embeddings and indexing add with atomics there."""
    found = []
    for name in ("a", "b"):
        torch.manual_seed(0)
        table = nn.Embedding(50, 64, device="cuda")
        optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
        with relume.Run(name, model=table, optimizer=optimizer, root=tmp_path, quiet=True, deterministic=True):
            for _ in range(20):
                table(torch.randint(50, (20_000,)).cuda()).pow(2).mean().backward()
                optimizer.step()
                optimizer.zero_grad()
        found.append(table.weight.detach().cpu())
    assert torch.equal(*found)

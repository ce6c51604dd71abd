"""A training without the compiler's import is the same training, and the compiler is there when it is needed."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

TRAIN = """
    import sys, torch
    from torch import nn
    def train(model, kind):
        torch.manual_seed(0)
        optimizer = getattr(torch.optim, kind)(model.parameters(), 1e-2)
        x, y = torch.randn(32, 4), torch.randint(0, 3, (32,))
        for _ in range(5):
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward(); optimizer.step(); optimizer.zero_grad()
        return loss.item().hex()
    def make():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
"""


def run(code: str) -> str:
    program = textwrap.dedent(TRAIN) + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_the_training_is_the_same_and_the_compiler_is_not_imported(kind: str) -> None:
    plain = run(f"print(train(make(), {kind!r}))")
    quick = run(f"""
        from relume.cli.startup import without_compiler
        without_compiler()
        print(train(make(), {kind!r}))
        assert "torch._dynamo.symbolic_convert" not in sys.modules
    """)
    assert quick == plain


def test_torch_compile_brings_the_real_compiler() -> None:
    out = run("""
        from relume.cli.startup import without_compiler
        without_compiler()
        train(make(), "SGD")
        compiled = torch.compile(make(), backend="eager")
        first = train(compiled, "SGD")
        assert "torch._dynamo.symbolic_convert" in sys.modules
        assert type(sys.modules["torch._dynamo"]).__name__ == "module" and torch._dynamo is sys.modules["torch._dynamo"]
        import torch._dynamo.config, torch._dynamo.utils
        print(first == train(make(), "SGD"), torch._dynamo.utils.counters["frames"]["ok"] > 0)
    """)
    assert out == "True True\n"


def test_nothing_happens_when_the_compiler_is_there_already() -> None:
    out = run("""
        import torch._dynamo
        from relume.cli.startup import without_compiler
        without_compiler()
        print(type(torch._dynamo).__name__)
    """)
    assert out == "module\n"

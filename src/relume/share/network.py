"""The model that is packed, built where that is possible, to compute what a bundle says of it."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from relume.errors import ConfigurationError, RelumeError
from relume.share import documents as named
from relume.share.archive import Parts, write_archive
from relume.share.bundle import Bundle
from relume.share.gather import Source, model_facts
from relume.share.sources import Sources
from relume.share.trust import Code, trusted_code


class Network:
    """Builds the model when it is first asked for.

    Args:
        source: the checkpoint.
        instance: a module of the right class, where the recipe is not known.
        code: the run's own code, where the class may be taken from it.
        trust: run the definition of the class out of that code where it is not imported.

    Attributes:
        problem: why there is none.
    """

    def __init__(self, source: Source, instance: nn.Module | None, code: Sources, *, trust: bool) -> None:
        self._source, self._instance, self._code, self._trust = source, instance, code, trust
        self.problem = ""

    @cached_property
    def model(self) -> nn.Module | None:
        """In evaluation mode, on the CPU, its tensors in memory of their own; None where it cannot be built here."""
        try:
            found = self._with_weights()
        except RelumeError as error:
            if self._instance is not None:
                raise
            self.problem = self._source.portable.text(str(error))
            return None
        return None if found is None else found.eval()

    def _with_weights(self) -> nn.Module | None:
        from relume.models.whole import rebuilt, take_into_memory

        document = self._source.document
        if self._instance is not None:
            return _filled(self._instance, self._source.state)
        if document is None:
            self.problem = model_facts_problem(self._source)
            return None
        where = f"{self._source.checkpoint.folder}/{self._source.checkpoint.name}"
        if self._trust and model_facts(self._source).needs_code and self._code.files:
            document = {**document, "recipe": own_code(self._code).with_own_names(document["recipe"])}
        built = rebuilt(document, self._source.state, where)
        take_into_memory(built)
        return built


def own_code(code: Sources) -> Code:
    """The run's own code, of which definitions are run: the caller has the user's word for it."""
    from relume.share.contents import held, text
    from relume.version import __version__

    assert code.facts is not None
    files: dict[str, Parts] = {path: held(content) for path, content in code.files.items()}
    files[named.CODE] = held(text(code.facts))
    with tempfile.TemporaryDirectory(prefix="relume-code-") as scratch:
        path = Path(scratch) / "code.relume"
        write_archive(path, "code", files, __version__)
        return trusted_code(Bundle.open(path))


def model_facts_problem(source: Source) -> str:
    """Why there is no recipe."""
    return model_facts(source).why_no_document


def _filled(instance: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """A copy of the author's module with the weights of the checkpoint."""
    from relume.names import unwrap

    made = copy.deepcopy(unwrap(instance)).cpu()
    try:
        made.load_state_dict({name: value.clone() for name, value in state.items()}, strict=True)
    except RuntimeError as error:
        lines = " ".join(line.strip() for line in str(error).splitlines())
        raise ConfigurationError(
            f"model= is a {type(instance).__name__} that the weights do not fit: {lines:.300}"
        ) from None
    return made

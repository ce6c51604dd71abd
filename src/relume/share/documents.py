"""The JSON files of a bundle, as what they hold. Newer fields are kept and never an error."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

WEIGHTS = "model.safetensors"
MODEL = "config.json"
INPUT = "preprocessor_config.json"
RUN = "run.json"
CLAIMS = "metrics.json"
DATA = "data.json"
EXAMPLES = "examples/examples.json"
EXAMPLE_TENSORS = "examples/examples.safetensors"
ENVIRONMENT = "environment.json"
LINEAGE = "lineage.json"
CODE = "code.json"
PROVENANCE = "provenance.json"
CARD = "README.md"
REPORT = "report.html"
"""The run as a page that any browser opens, see `relume.ui.report`."""
CITATION = "CITATION.cff"
CRATE = "ro-crate-metadata.json"
CODE_FOLDER = "code/"
"""The source tree, as it was."""
GRAPH_FOLDER = "graph/"
"""The model's graph without its weights, which are those of WEIGHTS."""
PICTURES_FOLDER = "pictures/"
SAMPLE_FOLDER = "sample/"
CHECKPOINT_FOLDER = "checkpoint/"
"""A root of runs with the one checkpoint, to train on."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class Model(_Part):
    """config.json: how the model is built. Readable by what reads Hugging Face's files."""

    format: Literal[1] = 1
    model_type: str = "relume"
    architectures: list[str] = Field(default_factory=list)
    """The name of the class."""
    document: dict[str, Any] | None = None
    """As `relume.models.whole.model_document` makes it; None where how it was built is not known."""
    why_no_document: str = ""
    has_graph: bool = False
    why_no_graph: str = ""
    needs_code: str = ""
    """``module.Class`` of the bundled code that the document names; empty where relume, torchvision or timm builds it."""
    parameters: int = 0
    weights_digest: str = ""
    """blake3 over names, dtypes, shapes and bytes, see `relume.share.weights.weights_digest`."""
    id2label: dict[str, str] | None = None
    label2id: dict[str, int] | None = None


class Preprocessing(_Part):
    """preprocessor_config.json: how a raw example becomes an input."""

    format: Literal[1] = 1
    kind: Literal["image", "tensors", "unknown"] = "unknown"
    """``image``: `relume.datasets.ToTensor` with ``settings``. ``tensors``: examples are inputs already."""
    settings: dict[str, Any] = Field(default_factory=dict)
    classes: list[str] = Field(default_factory=list)
    image_mean: list[float] | None = None
    image_std: list[float] | None = None
    size: dict[str, int] | None = None


class Example(_Part):
    """One example, among those of `Examples`."""

    raw: str = ""
    """The picture in the bundle (``examples/000.png``, lossless); empty where inputs are all there is."""
    label: int | str | None = None
    index: int | None = None
    """Its number in the data set."""


class Examples(_Part):
    """examples/examples.json: what the author got, with the tensors beside it.

    Tensors of EXAMPLE_TENSORS are named by their place: ``input``, ``input.mask``, ``output``, ``output.0``. ``call`` and
    ``output`` are nested lists and dicts with ``{"tensor": name}`` or ``{"value": …}`` for leaves; ``call`` has ``args``
    and ``kwargs``.
    """

    format: Literal[1] = 1
    call: dict[str, Any]
    output: Any
    examples: list[Example] = Field(default_factory=list)
    batch_size: int
    environment: dict[str, Any] = Field(default_factory=dict)
    """torch, device, threads, cpu: where the outputs were computed."""


class DataSet(_Part):
    """Data by its content, not by where it lies."""

    role: str
    """``train``, ``val``, ``test``."""
    kind: Literal["named", "folder", "tensors", "other"] = "other"
    """``named``: one of `relume.datasets`. ``folder``: a folder of images. ``tensors``: inputs and targets in a file."""
    name: str = ""
    split: str = ""
    """``train`` or ``test`` part of a named set or a folder; for a folder also how it was divided."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of `relume.datasets.load`: val_share, split_seed."""
    samples: int | None = None
    fingerprint: str = ""
    """blake3 over all raw samples and labels, in order, see `relume.share.data.fingerprint`."""
    covers: str = ""
    """What the fingerprint stands for, in words."""
    labels_fingerprint: str = ""
    """blake3 over the labels alone, where they are whole numbers, see `relume.share.rows.labels_fingerprint`."""
    classes: list[str] = Field(default_factory=list)
    source: str = ""
    licence: str = ""
    how_to_get: str = ""


class Evaluation(_Part):
    """How numbers were measured."""

    data: int | None = None
    """Which of `Data.sets`."""
    where: Literal["training", "packing"] = "training"
    metrics: dict[str, str] = Field(default_factory=dict)
    """Name of a claim to what computes it: ``accuracy``, ``cross entropy``, or ``module.function`` of bundled code."""
    batch_size: int = 1
    precision: str = "float32"
    device: str = "cpu"
    command: list[str] = Field(default_factory=list)
    seed: int | None = None
    environment: dict[str, Any] = Field(default_factory=dict)


class Claim(_Part):
    """One number that the author stands for."""

    name: str
    value: float
    evaluation: int
    """Which of `Claims.evaluations`."""
    tolerance: float = 0.0
    """A difference that counts as none; 0 for exact."""


class Claims(_Part):
    """metrics.json."""

    format: Literal[1] = 1
    claims: list[Claim] = Field(default_factory=list)
    evaluations: list[Evaluation] = Field(default_factory=list)
    curves: dict[str, list[tuple[int, int, float]]] = Field(default_factory=dict)
    """Name to (step, epoch, value), at most a thousand each."""
    confusion: list[list[int]] | None = None
    """Rows: what it is; columns: what it was taken for."""


class Data(_Part):
    """data.json."""

    format: Literal[1] = 1
    sets: list[DataSet] = Field(default_factory=list)


class Environment(_Part):
    """environment.json: where the training ran."""

    format: Literal[1] = 1
    python: str = ""
    system: str = ""
    packages: dict[str, str] = Field(default_factory=dict)
    """Name to exact version."""
    device: str = ""
    cpu: str = ""
    threads: int | None = None
    gpus: list[str] = Field(default_factory=list)
    cuda: str = ""
    cudnn: str = ""
    deterministic: bool | None = None


class Ancestor(_Part):
    """What the weights come from."""

    kind: Literal["weights", "run"] = "weights"
    name: str
    digest: str = ""
    licence: str = ""
    url: str = ""
    detail: str = ""


class Lineage(_Part):
    """lineage.json."""

    format: Literal[1] = 1
    ancestors: list[Ancestor] = Field(default_factory=list)


class RunFacts(_Part):
    """run.json: the run that made it."""

    format: Literal[1] = 1
    name: str = ""
    id: str = ""
    checkpoint: str = ""
    epoch: int | None = None
    step: int | None = None
    created: float | None = None
    seconds: float | None = None
    status: str = ""
    seed: int | None = None
    command: list[str] = Field(default_factory=list)
    config: dict[str, Any] = Field(default_factory=dict)
    tags: list[str] = Field(default_factory=list)
    notes: str = ""
    title: str = ""
    authors: list[str] = Field(default_factory=list)
    licence: str = ""
    """SPDX identifier."""
    citation: str = ""
    intended_use: str = ""
    """What the author made it for, and for whom."""
    limitations: str = ""
    """Where the author knows it to fail."""
    ethics: str = ""
    """Whom it may harm, what is in the data, what was done about it."""


class SourceEntry(_Part):
    path: str
    size_bytes: int
    is_executable: bool = False
    redacted: int = 0


class CodeFacts(_Part):
    """code.json: the source tree below CODE_FOLDER."""

    format: Literal[1] = 1
    script: str = ""
    """Below CODE_FOLDER; empty for ``relume train``."""
    arguments: list[str] = Field(default_factory=list)
    """What the script, or ``relume``, was called with."""
    is_relume_command: bool = False
    directory: str = ""
    """Below CODE_FOLDER, where it was called."""
    commit: str = ""
    branch: str = ""
    remote: str = ""
    is_dirty: bool = False
    files: list[SourceEntry] = Field(default_factory=list)
    left_out: list[str] = Field(default_factory=list)
    """Files that are not in the bundle, and why, in words."""
    notebook: str = ""

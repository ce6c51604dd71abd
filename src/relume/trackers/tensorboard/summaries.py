"""What a journal holds, as TensorBoard's own protocol buffers: one function for each kind. No TensorFlow is needed."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto import (
    attr_value_pb2,
    graph_pb2,
    node_def_pb2,
    summary_pb2,
    tensor_shape_pb2,
    versions_pb2,
)
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.mesh import metadata as mesh_metadata
from tensorboard.plugins.mesh.plugin_data_pb2 import MeshPluginData
from tensorboard.plugins.pr_curve import metadata as pr_curve_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.util import tensor_util

from relume.monitor.journal import number

Value = Any  # summary_pb2.Summary.Value
_MOST_ROWS = 200
_LARGEST_MATRIX = 30
_LARGEST_TEXT = 200_000
SESSION_TAGS = (hparams_metadata.SESSION_START_INFO_TAG, hparams_metadata.SESSION_END_INFO_TAG)
_STATUS = {"finished": "STATUS_SUCCESS", "interrupted": "STATUS_UNKNOWN"}


def scalar(tag: str, value: float, description: str = "") -> Value:
    if not description:
        return summary_pb2.Summary.Value(tag=tag, simple_value=value)
    metadata = summary_pb2.SummaryMetadata(
        summary_description=description, plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name="scalars")
    )
    return summary_pb2.Summary.Value(tag=tag, simple_value=value, metadata=metadata)


def histogram(tag: str, content: Mapping[str, Any], folder: Path) -> Iterator[Value]:
    edges = [_number(edge) for edge in content["edges"]]
    counts = [_number(count) for count in content["counts"]]
    if len(edges) != len(counts) + 1:
        raise ValueError(f"{len(edges)} edges and {len(counts)} counts are no histogram")
    low, high = _number(content.get("min", edges[0])), _number(content.get("max", edges[-1]))
    yield summary_pb2.Summary.Value(
        tag=tag,
        histo=summary_pb2.HistogramProto(
            min=low if math.isfinite(low) else edges[0],
            max=high if math.isfinite(high) else edges[-1],
            num=_number(content.get("count", sum(counts))),
            sum=_number(content.get("sum", 0.0)),
            sum_squares=_number(content.get("sum_squares", 0.0)),
            bucket_limit=edges[1:],
            bucket=counts,
        ),
    )


def image(tag: str, content: Mapping[str, Any], folder: Path) -> Iterator[Value]:
    data = (folder / content["file"]).read_bytes()
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError(f"{content['file']} is no PNG")
    width, height = struct.unpack(">II", data[16:24])
    metadata = summary_pb2.SummaryMetadata(
        display_name=str(content.get("title") or ""), summary_description=str(content.get("caption") or "")
    )
    picture = summary_pb2.Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
    yield summary_pb2.Summary.Value(tag=tag, metadata=metadata, image=picture)


def text(tag: str, content: Mapping[str, Any], folder: Path) -> Iterator[Value]:
    written = content["text"] if "text" in content else (folder / content["file"]).read_text("utf-8", "replace")
    yield markdown(tag, str(written))


def markdown(tag: str, written: str) -> Value:
    """Text, which TensorBoard reads as Markdown."""
    tensor = tensor_util.make_tensor_proto([_utf8(written[:_LARGEST_TEXT])])
    return summary_pb2.Summary.Value(
        tag=tag, metadata=text_metadata.create_summary_metadata(display_name=tag, description=""), tensor=tensor
    )


def mesh(tag: str, content: Mapping[str, Any], folder: Path) -> Iterator[Value]:
    from safetensors.numpy import load_file

    held = load_file(folder / content["file"])
    parts = [
        (held.get("vertices"), MeshPluginData.VERTEX, np.float32),
        (held.get("faces"), MeshPluginData.FACE, np.int32),
        (held.get("colors"), MeshPluginData.COLOR, np.uint8),
    ]
    there = [(array.astype(dtype)[None], kind) for array, kind, dtype in parts if array is not None]
    components = mesh_metadata.get_components_bitmask([kind for _, kind in there])
    for array, kind in there:
        metadata = mesh_metadata.create_summary_metadata(tag, tag, kind, components, list(array.shape), None, "{}")
        instance = mesh_metadata.get_instance_name(tag, kind)
        yield summary_pb2.Summary.Value(tag=instance, metadata=metadata, tensor=tensor_util.make_tensor_proto(array))


def graph(content: Mapping[str, Any], folder: Path) -> bytes:
    """A GraphDef, as it stands in an event of its own."""
    described = json.loads((folder / content["file"]).read_text("utf-8"))
    nodes = []
    for node in described["nodes"]:
        attributes = {}
        shape = node.get("shape")
        if isinstance(shape, list) and all(isinstance(size, int) for size in shape):
            dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in shape]
            listed = attr_value_pb2.AttrValue.ListValue(shape=[tensor_shape_pb2.TensorShapeProto(dim=dims)])
            attributes["_output_shapes"] = attr_value_pb2.AttrValue(list=listed)
        inputs = [str(name) for name in node.get("inputs", ())]
        nodes.append(
            node_def_pb2.NodeDef(name=str(node["name"]), op=str(node.get("op", "")), input=inputs, attr=attributes)
        )
    made: bytes = graph_pb2.GraphDef(node=nodes, versions=versions_pb2.VersionDef(producer=22)).SerializeToString()
    return made


def table(tag: str, content: Mapping[str, Any], folder: Path) -> Iterator[Value]:
    held = content if "rows" in content else json.loads((folder / content["file"]).read_text("utf-8"))
    yield markdown(tag, _markdown_table(held["columns"], held["rows"]))


def confusion_matrix(tag: str, content: Mapping[str, Any], folder: Path) -> Iterator[Value]:
    classes, counts = [str(name) for name in content["classes"]], content["counts"]
    if len(classes) > _LARGEST_MATRIX:
        data, size = _heat_map(counts), len(classes)
        picture = summary_pb2.Summary.Image(height=size, width=size, colorspace=1, encoded_image_string=data)
        yield summary_pb2.Summary.Value(tag=tag, image=picture)
        return
    rows = [[name, *row] for name, row in zip(classes, counts, strict=True)]
    yield markdown(tag, _markdown_table(["true \\ predicted", *classes], rows))


def pr_curve(tag: str, content: Mapping[str, Any], folder: Path) -> Iterator[Value]:
    fields = [content[name] for name in ("tp", "fp", "tn", "fn", "precision", "recall")]
    classes = content.get("classes")
    if not classes:
        yield _pr_curve(tag, fields)
        return
    for place, name in enumerate(classes):
        yield _pr_curve(f"{tag}/{name}", [rows[place] for rows in fields])


def _pr_curve(tag: str, fields: Sequence[Sequence[Any]]) -> Value:
    data = np.array([[_number(value) for value in row] for row in fields], np.float32)
    metadata = pr_curve_metadata.create_summary_metadata(display_name=tag, description="", num_thresholds=data.shape[1])
    return summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor_util.make_tensor_proto(data))


def session_start(config: Mapping[str, Any], name: str, began: float) -> Value:
    """The hyperparameters of a run, for the HParams tab."""
    info = plugin_data_pb2.SessionStartInfo(group_name=name, start_time_secs=began)
    for key, value in _flat(config):
        if isinstance(value, bool):
            info.hparams[key].bool_value = value
        elif isinstance(value, (int, float)):
            info.hparams[key].number_value = value
        else:
            info.hparams[key].string_value = _utf8(value if isinstance(value, str) else json.dumps(value))[:500]
    return _session(SESSION_TAGS[0], plugin_data_pb2.HParamsPluginData(session_start_info=info))


def session_end(status: str, ended: float) -> Value:
    """How a run ended, for the HParams tab."""
    value = api_pb2.Status.Value(_STATUS.get(status, "STATUS_FAILURE"))
    info = plugin_data_pb2.SessionEndInfo(status=value, end_time_secs=ended)
    return _session(SESSION_TAGS[1], plugin_data_pb2.HParamsPluginData(session_end_info=info))


def _session(tag: str, data: Any) -> Value:
    metadata = hparams_metadata.create_summary_metadata(data)
    return summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=hparams_metadata.NULL_TENSOR)


def _flat(config: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}/")
        elif value is not None:
            yield _utf8(f"{before}{key}"), value


def _markdown_table(columns: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    head = [_cell(column) for column in columns]
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows[:_MOST_ROWS])]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return text + (f"\n\n{len(rows) - _MOST_ROWS:,} more rows" if len(rows) > _MOST_ROWS else "")


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split()) or " "


def _heat_map(counts: Sequence[Sequence[int]]) -> bytes:
    """A grey PNG of a matrix, each row relative to its sum; dark is much."""
    matrix = np.array(counts, np.float64)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    pixels = (255 * (1 - share)).round().astype(np.uint8)
    rows = b"".join(b"\x00" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _number(value: Any) -> float:
    read = number(value)
    return math.nan if read is None else read


def _utf8(written: str) -> str:
    return written.encode("utf-8", "replace").decode()


MAKE = {
    "histogram": histogram,
    "image": image,
    "figure": image,
    "text": text,
    "mesh": mesh,
    "table": table,
    "confusion_matrix": confusion_matrix,
    "pr_curve": pr_curve,
}
"""How each kind is made; graphs and hyperparameters have events of their own."""

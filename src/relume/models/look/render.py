"""How the findings of this folder are shown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from relume.models.look.convert import Conversion
from relume.models.look.diff import Diff, TensorDiff
from relume.models.look.entries import Entry, cells_of, shape_text
from relume.models.look.inspect import Inspection
from relume.models.look.numbers import Stats
from relume.models.look.summary import Layer, ModelSummary
from relume.page import Cell, Grid, Page, Styled, line
from relume.text import counted, printable, size

_SHOWN_TENSORS = 40
_SHOWN_NAMES = 8


# ---------------------------------------------------------------------------------------------------------- inspection


def inspection_page(found: Inspection, *, all_tensors: bool = False) -> Page:
    """A file: its headline, its tensors or groups of them, and what else is in it."""
    page: Page = [line(f"{found.path}  {found.format}, {size(found.size_bytes)}", "bold")]
    page += [line(f"suspicious: {text}", "bold red") for text in found.suspicious]
    if found.suspicious:
        page.append(line("Nothing of it was run. Do not open this file with torch.load(weights_only=False).", "red"))
    if found.tensors:
        page.append(_tensor_grid(found, all_tensors))
    page.append(line(_totals(found)))
    page += _findings(found)
    page += _facts(found, all_tensors)
    return page


def _tensor_grid(found: Inspection, all_tensors: bool) -> Grid:
    if found.stats is not None:
        return _stats_grid(found, found.stats, all_tensors)
    if not all_tensors and len(found.tensors) > _SHOWN_TENSORS:
        return _groups_grid(found.tensors)
    grid = Grid(["tensor", "shape", "dtype", "elements", "size"])
    grid.rows = [cells_of(entry) for entry in found.tensors]
    grid.note = "*: shares its memory with an earlier one" if found.tied else ""
    return grid


def _stats_grid(found: Inspection, known: Mapping[str, Stats], all_tensors: bool) -> Grid:
    grid = Grid(["tensor", "shape", "min", "max", "mean", "std", "zeros", "bad"])
    shown = found.tensors if all_tensors else found.tensors[:_SHOWN_TENSORS]
    for entry in shown:
        one = known.get(entry.name)
        head = (entry.name, shape_text(entry.shape))
        if one is None:
            grid.rows.append((*head, "", "", "", "", "", ""))
            continue
        bad = one.nan + one.infinite
        values = [_short(value) for value in (one.minimum, one.maximum, one.mean, one.std)]
        zeros = f"{one.zeros / entry.elements:.0%}" if entry.elements and one.zeros else ""
        grid.rows.append((*head, *values, zeros, Styled(f"{bad:,}", "bold red") if bad else ""))
    grid.note = "bad: NaN or infinite"
    if len(shown) < len(found.tensors):
        grid.note += f"; and {len(found.tensors) - len(shown):,} more tensors (--all lists them)"
    return grid


def _groups_grid(entries: Sequence[Entry]) -> Grid:
    """Tensors summed up by the beginning of their names, the longest that gives few enough groups."""
    deepest = max(entry.name.count(".") for entry in entries)
    groups: dict[str, list[Entry]] = {}
    for depth in range(min(deepest, 8), 0, -1):
        groups = {}
        for entry in entries:
            groups.setdefault(_beginning(entry.name, depth), []).append(entry)
        if len(groups) <= _SHOWN_TENSORS:
            break
    if not groups:
        groups = {entry.name: [entry] for entry in entries}
    grid = Grid(["tensor", "shape", "dtype", "elements", "size"])
    for name, members in list(groups.items())[:_SHOWN_TENSORS]:
        if len(members) == 1:
            grid.rows.append(cells_of(members[0]))
            continue
        own = [entry for entry in members if entry.tied_to is None]
        dtypes = ", ".join(dict.fromkeys(entry.dtype for entry in members))
        elements, total = sum(entry.elements for entry in own), sum(entry.size_bytes for entry in own)
        grid.rows.append((f"{name}.*", counted(len(members), "tensor"), dtypes, f"{elements:,}", size(total)))
    hidden = len(groups) - _SHOWN_TENSORS
    grid.note = f"and {hidden:,} more (--all lists them)" if hidden > 0 else "--all lists each tensor"
    return grid


def _beginning(name: str, depth: int) -> str:
    parts = name.split(".")
    return ".".join(parts[:depth]) if len(parts) > depth else ".".join(parts[:-1]) or name


def _totals(found: Inspection) -> str:
    if not found.tensors:
        return "no tensors"
    by_dtype = ", ".join(f"{elements:,} {dtype} ({size(total)})" for dtype, (elements, total) in found.dtypes.items())
    return f"{counted(len(found.tensors), 'tensor')}: {by_dtype}"


def _findings(found: Inspection) -> Page:
    """What is wrong or doubled in the values."""
    page: Page = []
    for name, count in list((found.not_finite or {}).items())[:_SHOWN_NAMES]:
        page.append(
            line(f"not finite: {printable(name)} has {counted(count, 'value')} that are NaN or infinite", "red")
        )
    if (rest := len(found.not_finite or {}) - _SHOWN_NAMES) > 0:
        page.append(line(f"            and {counted(rest, 'more tensor')}", "red"))
    if found.not_finite is None and found.tensors:
        page.append(line("not looked for: NaN and infinite values (--stats reads all bytes)", "dim"))
    page += [line(f"tied: {printable(name)} is {printable(other)}") for name, other in _some(found.tied)]
    for names in found.duplicates[:_SHOWN_NAMES]:
        page.append(line(f"equal values, stored {len(names)} times: {', '.join(map(printable, names[:4]))}"))
    return page


def _some(names: dict[str, str]) -> list[tuple[str, str]]:
    return list(names.items())[:_SHOWN_NAMES]


def _facts(found: Inspection, everything: bool) -> Page:
    page: Page = []
    if found.numbers:
        page.append(line("numbers: " + ", ".join(f"{printable(k)} {v:.6g}" for k, v in found.numbers.items())))
    page += [line(f"{printable(name)}: {text}") for name, text in found.states.items()]
    page += [line(f"{printable(key, 40)}: {printable(value, 160)}") for key, value in found.metadata.items()]
    if found.unused:
        page.append(line(f"not understood: {', '.join(printable(name, 40) for name in found.unused[:20])}", "yellow"))
    kinds = {module.kind for module in found.modules}  # those are in the tree below
    calls: list[Sequence[Cell]] = [(name, f"{count:,}") for name, count in found.callables.items() if name not in kinds]
    if calls:
        page.append(Grid(["callable", "times"], calls if everything else calls[:_SHOWN_TENSORS]))
    if found.modules:
        page.append(_modules_grid(found, everything))
    return page


def _modules_grid(found: Inspection, everything: bool) -> Grid:
    shown = found.modules if everything else found.modules[:_SHOWN_TENSORS]
    grid = Grid(["layer", "kind", "own tensors"])
    for module in shown:
        depth = module.path.count(".") + 1 if module.path else 0
        shapes = ", ".join(f"{printable(name, 24)} {shape_text(shape)}" for name, shape in module.tensors.items())
        grid.rows.append(("  " * depth + module.path.rpartition(".")[2], module.kind, shapes))
    if len(shown) < len(found.modules):
        grid.note = f"and {len(found.modules) - len(shown):,} more modules (--all lists them)"
    return grid


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


# ---------------------------------------------------------------------------------------------------------- conversion


def conversion_page(done: Conversion) -> Page:
    """What was found, what was written, and what was left out."""
    page: Page = [line(f"{done.source}  {done.source_format}", "bold")]
    page.append(line(f"  weights: {counted(done.tensors, 'tensor')}, {counted(done.elements, 'number')}"))
    if done.kind:
        page.append(line(f"  model: {printable(done.kind)}"))
    if done.numbers:
        page.append(line("  numbers: " + ", ".join(f"{printable(k)} {v:.6g}" for k, v in done.numbers.items())))
    page += [line(f"  {printable(name)}: {text}") for name, text in done.states.items()]
    page += [line(f"  suspicious: {text}", "bold red") for text in done.suspicious]
    page.append(line(f"{done.target}  {size(done.size_bytes)}", "bold"))
    if done.left_out:
        page.append(line(f"  left out: {', '.join(printable(name, 60) for name in done.left_out)}", "yellow"))
    return page


# ---------------------------------------------------------------------------------------------------------------- diff


def diff_page(found: Diff, *, all_tensors: bool = False) -> Page:
    """What differs, in the order of the first; then the counts."""
    page: Page = []
    for prefix, title in zip(found.prefixes, (found.first, found.second), strict=True):
        if prefix:
            page.append(line(f"paired without {prefix!r} before the names of {title}", "yellow"))
    shown = [one for one in found.tensors if all_tensors or one.status != "same"]
    cut = shown if all_tensors else shown[:_SHOWN_TENSORS]
    if shown:
        grid = Grid(["tensor", "what", "norm", "relative", "largest", "largest at"], [_diff_cells(one) for one in cut])
        if len(cut) < len(shown):
            grid.note = f"and {len(shown) - len(cut):,} more (--all lists them)"
        page.append(grid)
    counts = Counter(str(one.status) for one in found.tensors)
    words = {"dtype": "of another dtype", "shape": "of another shape"}
    text = ", ".join(
        f"{counts[s]:,} {words.get(s, s)}" for s in ("same", "changed", *words, "added", "removed") if counts[s]
    )
    page.append(line(text or "no tensors on either side", "green" if found.is_same else ""))
    other_bits = [one for one in found.having("same") if not one.same_bits]
    if other_bits:
        within = f"within the tolerance of {found.tolerance:g}, " if found.tolerance else ""
        page.append(line(f"of the same, {len(other_bits):,} are {within}equal in value and not in bits", "dim"))
    return page


def _diff_cells(one: TensorDiff) -> tuple[Cell, ...]:
    name = one.name if one.name is not None else one.other_name or ""
    if one.status in ("added", "removed"):
        side = 1 if one.status == "added" else 0
        style = "green" if one.status == "added" else "red"
        return (name, Styled(f"{one.status} {shape_text(one.shapes[side])} {one.dtypes[side]}", style), "", "", "", "")
    if one.status == "shape":
        text = f"{shape_text(one.shapes[0])} became {shape_text(one.shapes[1])}"
        return (name, Styled(text, "yellow"), "", "", "", "")
    what = {"same": "same", "changed": ""}.get(one.status, f"{one.dtypes[0]} became {one.dtypes[1]}")
    if one.change is None:
        return (name, what if one.status == "same" else f"{what}, same values", "", "", "", "")
    change = one.change
    elements = math.prod(one.shapes[0] or ())
    what = what or f"{change.different:,} of {elements:,}"
    at = ", ".join(map(str, change.at))
    return (name, what, *(f"{value:.3g}" for value in (change.norm, change.relative, change.largest)), f"[{at}]")


# ------------------------------------------------------------------------------------------------------------- summary


def summary_page(found: ModelSummary, depth: int) -> Page:
    """The layers down to a depth, then the totals."""
    page: Page = [line(f"{found.name}{f'  called with {found.inputs}' if found.inputs else ''}", "bold")]
    columns = ["layer", "kind", "output", "trainable", "frozen", "mult-adds"]
    if not found.inputs:
        columns = ["layer", "kind", "trainable", "frozen"]
    grid = Grid(columns)
    shown = [layer for layer in found.layers if layer.depth <= depth]
    for number, layer in enumerate(shown):
        inside = _children(shown, number)
        cells = _layer_cells(layer, inside)
        grid.rows.append(cells if found.inputs else (*cells[:2], *cells[3:5]))
    if any(map(_is_shown_again, shown)):
        grid.note = "(again): the same module as above, its parameters counted there"
    page.append(grid)
    page.append(_totals_grid(found))
    return page


def _children(layers: Sequence[Layer], number: int) -> list[Layer]:
    """The rows directly inside of one."""
    found: list[Layer] = []
    for layer in layers[number + 1 :]:
        if layer.depth <= layers[number].depth:
            break
        if not found or layer.depth <= found[-1].depth:
            found.append(layer)
    return found


def _is_shown_again(layer: Layer) -> bool:
    """Only where it matters: an activation function that is called twice has nothing to count."""
    return layer.is_repeated and bool(layer.mult_adds)


def _layer_cells(layer: Layer, inside: Sequence[Layer]) -> tuple[Cell, ...]:
    """What the layer has beside those that have rows of their own, so that each column adds up."""
    trainable = layer.trainable - sum(one.trainable for one in inside)
    frozen = layer.parameters - layer.trainable - sum(one.parameters - one.trainable for one in inside)
    mult_adds = None if layer.mult_adds is None else layer.mult_adds - sum(one.mult_adds or 0 for one in inside)
    name = "  " * layer.depth + (layer.name.rpartition(".")[2] if layer.depth else "")
    kind = f"{layer.kind} (again)" if _is_shown_again(layer) else layer.kind
    output = "" if layer.output_shape is None or inside else shape_text(layer.output_shape)
    return (name, kind, output, _count(trainable), _count(frozen), _large(mult_adds) if mult_adds else "")


def _totals_grid(found: ModelSummary) -> Grid:
    memory = found.memory
    batch = f"batch of {found.batch_size}"
    rows: list[Sequence[Cell]] = [("parameters", f"{found.parameters:,}", size(memory.parameters))]
    rows.append(("  trainable", f"{found.trainable:,}", ""))
    rows.append(("  frozen", f"{found.frozen:,}", ""))
    if found.lazy:
        rows.append(("  without a shape yet", f"{counted(found.lazy, 'tensor')}", ""))
    if found.buffers:
        rows.append(("buffers", f"{found.buffers:,}", size(memory.buffers)))
    rows.append(("gradients", f"{found.trainable:,}", size(memory.gradients)))
    if found.optimizer:
        known = "not known before its first step" if memory.optimizer is None else size(memory.optimizer)
        rows.append((f"state of {found.optimizer}", "", known))
    if memory.activations is not None and memory.inputs is not None:
        rows.append((f"activations kept for the backward pass, {batch}", "", size(memory.activations)))
        rows.append((f"inputs, {batch}", "", size(memory.inputs)))
    without = "" if found.optimizer else ", without an optimizer"
    rows.append((Styled(f"training in all{without}", "bold"), "", Styled(size(memory.total), "bold")))
    if found.mult_adds is not None and found.flops is not None:
        rows.append((f"mult-adds, forward, {batch}", _large(found.mult_adds), ""))
        rows.append((f"FLOPs, forward, {batch}", _large(found.flops), ""))
    return Grid(["what", "count", "memory"], rows)


def _count(number: int) -> str:
    return f"{number:,}" if number > 0 else ""


def _large(number: float) -> str:
    """A count in thousands, millions and so on.

    Example:
        >>> _large(999), _large(1_814_073_344)
        ('999', '1.81 G')
    """
    for unit in ("", "k", "M", "G", "T", "P"):
        if number < 999.5 or unit == "P":
            return f"{number:.0f}" if not unit else f"{number:.3g} {unit}"
        number /= 1000
    raise AssertionError

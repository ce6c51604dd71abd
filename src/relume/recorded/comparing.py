"""Runs side by side: what differs in their settings, code, environment and metrics, and their curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from relume.direction import mode_of
from relume.errors import ConfigurationError, RelumeError
from relume.monitor import RunRecord, find_run, metric_summary
from relume.monitor.buckets import buckets_of
from relume.monitor.pace import number
from relume.page import WIDTH, Cell, Grid, Page, Styled, html_of, line, text_of
from relume.provenance.record import Code, Provenance, Segment
from relume.recorded.facts import Facts, facts_of, flat
from relume.recorded.reading import Series, matching, series_of

_CURVES = 4
_MISSING = "—"


@dataclass(frozen=True)
class Difference:
    """One thing that runs may have in common.

    Attributes:
        name: a setting, a package, a metric, …
        values: of each run, in their order; None where a run has none.
        differs: whether they are not all the same.
    """

    name: str
    values: tuple[Any, ...]
    differs: bool


@dataclass(frozen=True)
class MetricComparison:
    """One metric of all runs.

    Attributes:
        last, best: the newest and the best value of each run, None where it was not logged.
        winner: the position of the run with the best value; None where the name does not tell what is better, or none won.
    """

    name: str
    last: tuple[float | None, ...]
    best: tuple[float | None, ...]
    best_step: tuple[int | None, ...]
    winner: int | None


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side; printing it, or showing it in a notebook, gives tables.

    Attributes:
        names, folders, status: of the runs, in the order asked for.
        config, code, environment: everything, equal or not.
        metrics: those that any of the runs has.
    """

    names: tuple[str, ...]
    folders: tuple[str, ...]
    status: tuple[str, ...]
    config: tuple[Difference, ...]
    code: tuple[Difference, ...]
    environment: tuple[Difference, ...]
    metrics: tuple[MetricComparison, ...]

    def as_json(self, *, everything: bool = True) -> dict[str, Any]:
        """All of it as JSON can hold it; NaN is left to the writer."""
        found = asdict(self)
        for section in ("config", "code", "environment"):
            found[section] = [entry for entry in found[section] if everything or entry["differs"]]
        return found

    def page(self, *, everything: bool = False) -> Page:
        """Tables of what differs, or of all."""
        page: Page = []
        for title, section in (("config", self.config), ("code", self.code), ("environment", self.environment)):
            page += self._section(title, section, everything)
        if self.metrics:
            page += [line("metrics", "bold"), self._metrics()]
        return page

    def _section(self, title: str, entries: Sequence[Difference], everything: bool) -> Page:
        shown = [entry for entry in entries if everything or entry.differs]
        if not shown:
            what = "nothing is known" if not entries else f"no difference ({len(entries)} the same)"
            return [Styled(f"{title}: {what}", "dim")]
        grid = Grid(["setting", *self.names])
        for entry in shown:
            style = "yellow" if entry.differs else "dim"
            grid.rows.append([entry.name, *(Styled(_shown(value), style) for value in entry.values)])
        same = len(entries) - len(shown)
        grid.note = f"{same} more are the same" if same else ""
        return [line(title, "bold"), grid]

    def _metrics(self) -> Grid:
        grid = Grid(["metric", "value", *self.names])
        for metric in self.metrics:
            bests: list[Cell] = []
            for i, value in enumerate(metric.best):
                text = _MISSING if value is None else number(value)
                bests.append(Styled(f"{text} *", "green") if i == metric.winner else text)
            grid.rows.append([metric.name, "best" if mode_of(metric.name) else "min", *bests])
            lasts: list[Cell] = [_MISSING if value is None else number(value) for value in metric.last]
            grid.rows.append(["", "last", *lasts])
        grid.note = "* the best of these runs" if any(m.winner is not None for m in self.metrics) else ""
        return grid

    def __str__(self) -> str:
        return text_of(self.page(), WIDTH)

    def _repr_html_(self) -> str:
        return html_of(self.page())


def compare(*runs: str | Path, root: str | Path = "runs") -> Comparison:
    """Put runs side by side.

    Args:
        runs: names below ``root``, or paths; two at least.

    Raises:
        ConfigurationError: fewer than two runs, or one of them twice.
        UnknownNameError: there is no such run; lists the closest names.
    """
    folders = find_runs(runs, root)
    if len(folders) < 2:
        raise ConfigurationError(
            f"a comparison needs two runs at least, not {len(folders)}: compare('first', 'second')."
        )
    return comparison_of(folders)


def comparison_of(folders: Sequence[Path]) -> Comparison:
    """Put the runs in these folders side by side; of a damaged one little is known."""
    facts = [facts_of(folder) for folder in folders]
    provenance = [_provenance(folder) for folder in folders]
    return Comparison(
        names=tuple(run["name"] for run in facts),
        folders=tuple(str(folder) for folder in folders),
        status=tuple(run["status"] for run in facts),
        config=_differences([{"seed": run.get("seed"), **flat(run.get("config", {}))} for run in facts]),
        code=_differences([found[0] for found in provenance]),
        environment=_differences([found[1] for found in provenance]),
        metrics=_metrics_of(facts),
    )


def find_runs(runs: Sequence[str | Path], root: str | Path) -> list[Path]:
    """The folders of runs by name or path.

    Raises:
        ConfigurationError: one of them is named twice.
        UnknownNameError: there is no such run.
    """
    folders = [find_run(run, root) for run in runs]
    seen: set[Path] = set()
    for run, folder in zip(runs, folders, strict=True):
        if folder.resolve() in seen:
            raise ConfigurationError(f"the run {str(run)!r} is named twice.")
        seen.add(folder.resolve())
    return folders


def curves_of(folders: Sequence[Path], metrics: Sequence[str] | None = None) -> dict[str, list[Series]]:
    """For each metric to be drawn the runs' series; without ``metrics`` a few that most of the runs have.

    Raises:
        UnknownNameError: a name or pattern finds nothing in any of the runs.
    """
    counts = [{name: int(entry["count"]) for name, entry in metric_summary(folder).items()} for folder in folders]
    names = list(dict.fromkeys(name for count in counts for name in count))
    if metrics is not None:
        chosen = matching(metrics, names, " or ".join(folder.name for folder in folders))
        wanted = [name for name in names if name in chosen]
    else:
        wanted = sorted(names, key=lambda name: _interest(name, counts))[:_CURVES]
    found = [
        series_of(folder, [name for name in wanted if name in count])
        for folder, count in zip(folders, counts, strict=True)
    ]
    return {name: [{name: series[name]} if name in series else {} for series in found] for name in wanted}


def charts(folders: Sequence[Path], metrics: Sequence[str] | None = None, width: int = WIDTH) -> list[Any]:
    """The curves of runs as lines of text for rich."""
    from rich.text import Text

    from relume.recorded.chart import Curve, draw, legend

    lines: list[Any] = []
    for name, runs in curves_of(folders, metrics).items():
        curves = []
        for series in runs:
            found = buckets_of(series[name], width * 2) if name in series else None
            is_empty = found is None or not len(found) or bool(np.all(np.isnan(found.min)))
            curves.append(None if found is None or is_empty else Curve(found.x, found.min, found.max, found.mean))
        lines += [*draw(name, curves, width), Text()]
    return [*lines, legend([folder.name for folder in folders], width)] if lines else []


def _interest(name: str, found: Sequence[Mapping[str, int]]) -> tuple[int, int, int]:
    """Validation first, then what more of the runs have, then what is known to get better."""
    runs = sum(counts.get(name, 0) > 1 for counts in found)
    group = 0 if name.startswith(("val/", "test/", "eval/")) else 1 if name.startswith("train/") else 2
    return (-runs, group, mode_of(name) is None)


def _differences(columns: Sequence[Mapping[str, Any]]) -> tuple[Difference, ...]:
    names = dict.fromkeys(name for column in columns for name in column)
    found = []
    for name in names:
        values = tuple(column.get(name) for column in columns)
        kept = {json.dumps(value, sort_keys=True, default=str) for value in values}
        is_alike = len(kept) == 1 and len({name in column for column in columns}) == 1
        found.append(Difference(name, values, not is_alike))
    return tuple(found)


def _metrics_of(facts: Sequence[Facts]) -> tuple[MetricComparison, ...]:
    names = dict.fromkeys(name for run in facts for name in run["metrics"])
    found = []
    for name in names:
        entries = [run["metrics"].get(name) for run in facts]
        last, best, steps = (
            tuple(None if entry is None else entry[key] for entry in entries) for key in ("last", "best", "best_step")
        )
        found.append(MetricComparison(name, last, best, steps, _winner(name, best)))
    return tuple(found)


def _winner(name: str, values: Sequence[float | None]) -> int | None:
    known = [(value, i) for i, value in enumerate(values) if value is not None and value == value]
    mode = mode_of(name)
    if mode is None or len(known) < 2:
        return None
    best = (max if mode == "max" else min)(value for value, _ in known)
    winners = [i for value, i in known if value == best]
    return winners[0] if len(winners) == 1 else None


def _provenance(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is known of a run's code and of its environment, as of its last start."""
    try:
        record = RunRecord.load(folder)
    except (RelumeError, OSError):
        return {}, {}
    code: dict[str, Any] = {"argv": " ".join(record.argv)}
    environment: dict[str, Any] = {f"versions.{name}": version for name, version in record.versions.items()}
    environment["machine.host"] = record.process.host
    with suppress(RelumeError, OSError, RecursionError):  # it is damaged, or of an older relume: the rest is shown
        start = Provenance.load(folder).find()
        code |= _code(start.code)
        environment |= _environment(start)
    return code, environment


def _code(code: Code | None) -> dict[str, Any]:
    """Each source tree's commit, and the files of which git has no such content, with the beginnings of their digests."""
    found: dict[str, Any] = {}
    for place, tree in enumerate(code.trees if code is not None else ()):
        name = "code" if place == 0 else PurePath(tree.path).name
        found |= {f"{name}.commit": tree.commit[:12], f"{name}.branch": tree.branch} if tree.is_git else {}
        found |= {f"{name}.{file.path}": f"{file.kind} {file.hash[:8]}" for file in tree.files}
        found |= {f"{name}.{path}": "deleted" for path in tree.deleted}
    if code is not None and code.notebook is not None:
        found["notebook"] = f"{code.notebook.cells} cells {code.notebook.hash[:8]}"
    return found


def _environment(start: Segment) -> dict[str, Any]:
    found = flat(start.machine.model_dump(), "machine.") if start.machine is not None else {}
    found |= {f"packages.{name}": version for name, version in start.packages.items()}
    found |= flat(start.numerics, "numerics.")
    found |= {f"variables.{name}": value for name, value in start.environment.items()}
    for place, data in enumerate(start.datasets):
        found[f"data.{place}"] = f"{data.type}, {data.length} samples, {data.fingerprint[:12]}"
    return found


def _shown(value: Any) -> str:
    if value is None:
        return _MISSING
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value if isinstance(value, str) else json.dumps(value, default=str)
    return repr(value)

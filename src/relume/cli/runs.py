"""``relume runs`` and ``relume show``: what is stored."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from relume.cli.output import Json, Root, console, print_json, say, table_of

_SETTING = 300
_COLOURS = {"running": "cyan", "finished": "green", "interrupted": "yellow", "failed": "red", "killed": "red"}


def runs(root: Root = Path("runs"), as_json: Json = False) -> None:
    """List the runs below a folder, newest last."""
    from relume.errors import RootError
    from relume.monitor import runs_in

    if root.exists() and not root.is_dir():
        raise RootError(f"{root} is a file: --root is the folder that holds the runs.")
    found = [_facts(folder) for folder in runs_in(root)]
    if as_json:
        print_json(found)
    elif not found:
        console().print(f"There are no runs in {root}. Try: relume train fashion-mnist")
    else:
        console().print(_runs_table(found))


def show(
    run: Annotated[str, typer.Argument(help="The run's name below the root, or its path.", show_default=False)],
    root: Root = Path("runs"),
    as_json: Json = False,
) -> None:
    """Show one run: how it went, its metrics by epoch, its configuration."""
    from relume.monitor import RunRecord, find_run

    folder = find_run(run, root)
    record = RunRecord.load(folder)
    facts = _facts(folder)
    report = _class_report(folder)
    if as_json:
        print_json(
            facts
            | {"seed": record.seed, "config": record.config, "argv": record.argv, "versions": record.versions}
            | {"classes": None if report is None else report.as_json()}
        )
        return
    out = console()
    out.print(_headline(facts))
    for table in (_epochs_table(folder), _metrics_table(facts), _settings_table(record)):
        if table is not None:
            out.print()
            out.print(table)
    if report is not None:
        from relume.page import print_page

        out.print()
        print_page(report.page(out.width), out)


def _class_report(folder: Path) -> Any:
    """What the run stored of its classes; a damaged file is said, and the rest is shown."""
    from relume.errors import RunError
    from relume.monitor.classes import ClassReport

    try:
        return ClassReport.load(folder)
    except RunError as error:
        say("Warning", "bold yellow", str(error))
        return None


def _facts(folder: Path) -> dict[str, Any]:
    """What both commands tell of a run."""
    from relume.direction import mode_of
    from relume.errors import RelumeError
    from relume.monitor import RunRecord, metric_summary, status_of

    try:
        record = RunRecord.load(folder)
        status, line = status_of(folder)
        summary = metric_summary(folder)
    except (RelumeError, OSError, ValueError, ArithmeticError) as error:  # one run must not hide the others
        return {"name": folder.name, "status": "damaged", "reason": str(error), "folder": str(folder), "metrics": {}}
    metrics = {
        name: {
            "last": entry["last"],
            "best": entry[mode_of(name) or "min"],
            "best_epoch": entry[f"{mode_of(name) or 'min'}_epoch"],
            "best_step": entry[f"{mode_of(name) or 'min'}_step"],
            "count": entry["count"],
        }
        for name, entry in summary.items()
    }
    now = time.time() if status == "running" else float(line.get("time", record.created))
    return {
        "name": folder.name,
        "id": record.id,
        "status": status,
        "reason": line.get("reason", ""),
        "created": record.created,
        "seconds": round(line.get("seconds", now - record.created), 3),
        "epoch": line.get("epoch", 0),
        "step": line.get("step", 0),
        "folder": str(folder),
        "metrics": metrics,
    }


def _styled(status: str) -> Any:
    from rich.text import Text

    return Text(status, style=_COLOURS.get(status, "red"))


def _runs_table(found: list[dict[str, Any]]) -> Any:
    from rich.text import Text

    from relume.monitor.pace import duration, number

    names = [n for n in dict.fromkeys(n for facts in found for n in facts["metrics"]) if n.startswith("val/")][:3]
    table = table_of("run", "status", "epoch", "step", "time", *names, "started")
    for facts in found:
        bests = [number(facts["metrics"][n]["best"]) if n in facts["metrics"] else "" for n in names]
        started = time.strftime("%b %d %H:%M", time.localtime(facts["created"])) if "created" in facts else ""
        seconds = duration(facts["seconds"]) if "seconds" in facts else ""
        place = (str(facts.get("epoch", "")), str(facts.get("step", "")))
        table.add_row(Text(facts["name"]), _styled(facts["status"]), *place, seconds, *bests, started)
    table.caption = Text("metrics: the best value of each run", style="dim") if names else None
    table.caption_justify = "left"
    return table


def _headline(facts: dict[str, Any]) -> Any:
    from rich.text import Text

    from relume.monitor.pace import duration

    text = Text.assemble((facts["name"], "bold"), "  ", _styled(facts["status"]))
    if facts["reason"]:
        text.append(f" ({facts['reason']})", style="dim")
    if "seconds" in facts:
        text.append(f"  epoch {facts['epoch']}, step {facts['step']}, {duration(facts['seconds'])}")
    return text.append(f"\n{facts['folder']}", style="dim")


def _epochs_table(folder: Path) -> Any:
    """Metrics that were logged about once an epoch, a row for each of the last 20 epochs."""
    import numpy as np

    from relume.monitor import columns
    from relume.monitor.index import is_detail
    from relume.monitor.pace import number

    table = {name: column for name, column in columns(folder).items() if not is_detail(name)}
    epochs = [int(e) for e in dict.fromkeys(table["epoch"].tolist())]
    names = [
        n for n in table if n not in ("step", "epoch", "time") and 0 < (~np.isnan(table[n])).sum() <= 2 * len(epochs)
    ]
    if not names:
        return None
    shown = table_of("epoch", "step", *names)
    for epoch in epochs[-20:]:
        rows = table["epoch"] == epoch
        last = [table[n][rows][~np.isnan(table[n][rows])][-1:] for n in names]
        shown.add_row(str(epoch), str(table["step"][rows][-1]), *[number(float(v[0])) if len(v) else "" for v in last])
    return shown


def _metrics_table(facts: dict[str, Any]) -> Any:
    from rich.text import Text

    from relume.monitor.index import is_detail
    from relume.monitor.pace import number

    table = table_of("", "last", "best", "at epoch", "at step", "values")
    for name, entry in facts["metrics"].items():
        if is_detail(name):
            continue
        places = (str(entry["best_epoch"]), str(entry["best_step"]), f"{entry['count']:,}")
        table.add_row(Text(name), number(entry["last"]), number(entry["best"]), *places)
    return table if facts["metrics"] else None


def _settings_table(record: Any) -> Any:
    from rich.text import Text

    from relume.text import printable

    table = table_of("setting", "value")
    for key, value in {**record.config, "seed": record.seed}.items():
        table.add_row(Text(key), Text(printable(value if isinstance(value, str) else json.dumps(value), _SETTING)))
    table.add_row("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items()))
    table.add_row("command", Text(" ".join(record.argv)))
    return table

"""``relume runs`` and ``relume show``: what is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from relume.cli.output import Json, Root, console, counted, print_json, say, table_of

_SETTING = 300
_COLOURS = {"running": "cyan", "finished": "green", "interrupted": "yellow", "failed": "red", "killed": "red"}


def runs(
    root: Root = Path("runs"),
    where: Annotated[
        str | None,
        typer.Option(help="Only runs for which this holds, e.g. 'lr<1e-2 and val/accuracy>0.9'.", show_default=False),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(help="Order by a setting, a metric (its best; last:NAME) or a fact.", show_default=False),
    ] = None,
    descending: Annotated[bool, typer.Option("--desc", "--reverse", help="The largest first.")] = False,
    columns: Annotated[
        str | None,
        typer.Option(help="Columns to show, with commas between them, e.g. lr,val/loss.", show_default=False),
    ] = None,
    with_archived: Annotated[bool, typer.Option("--all", help="Also the runs that were archived.")] = False,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """List the runs below a folder, newest last."""
    from relume.errors import RootError
    from relume.recorded import choose, facts_below
    from relume.recorded.listing import as_rows, csv_of, shown_columns

    if root.exists() and not root.is_dir():
        raise RootError(f"{root} is a file: --root is the folder that holds the runs.")
    there = facts_below(root)
    is_whole = with_archived or where is not None  # a condition can speak of archived runs itself
    shown = there if is_whole else [facts for facts in there if not facts.get("archived")]
    found = choose(shown, where, sort, descending=descending)
    names = shown_columns(there, columns, where, sort)
    if as_json:
        print_json(found if columns is None else as_rows(found, names))
    elif as_csv:
        typer.echo(csv_of(found, names), nl=False)
    elif not there:
        console().print(f"There are no runs in {root}. Try: relume train fashion-mnist")
    elif not found and shown:
        console().print(f"None of the {len(there)} runs in {root} is such a run.")
    else:
        if shown:
            console().print(_runs_table(found, names if columns or where or sort else None, is_whole=columns is None))
        if len(shown) < len(there):
            hidden = len(there) - len(shown)
            console().print(
                f"{counted(hidden, 'archived run')} {'is' if hidden == 1 else 'are'} hidden: --all shows all."
            )


def show(
    run: Annotated[str, typer.Argument(help="The run's name below the root, or its path.", show_default=False)],
    root: Root = Path("runs"),
    code: Annotated[bool, typer.Option("--code", help="Show the code that the run used.")] = False,
    segment: Annotated[int | None, typer.Option(help="With --code: of which start.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Show one run: how it went, its metrics by epoch, its configuration; or the code that it used."""
    from relume.cli.code import code_of, print_code
    from relume.monitor import RunRecord, find_run

    folder = find_run(run, root)
    if code:
        if as_json:
            print_json(code_of(folder, segment))
        else:
            print_code(folder, segment)
        return
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
    for table in (_epochs_table(folder), _metrics_table(facts), _settings_table(record, folder)):
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
    from relume.recorded import facts_of

    return facts_of(folder)


def _styled(status: str) -> Any:
    from rich.text import Text

    return Text(status, style=_COLOURS.get(status, "red"))


def _runs_table(found: list[dict[str, Any]], asked: list[str] | None, *, is_whole: bool) -> Any:
    """The runs with some metrics, or with the names that were asked for."""
    from rich.markup import escape
    from rich.text import Text

    from relume.monitor.pace import duration, number
    from relume.monitor.stored import moment
    from relume.recorded.listing import cell
    from relume.text import printable

    names = [n for n in dict.fromkeys(n for facts in found for n in facts["metrics"]) if n.startswith("val/")][:3]
    names = names if asked is None else asked
    places = ("status", "epoch", "step", "time") if is_whole else ()
    table = table_of("run", *places, *(escape(printable(n, 40)) for n in names), *(("started",) if is_whole else ()))
    for facts in found:
        values = [cell(facts, name, number) for name in names]
        if not is_whole:
            table.add_row(Text(facts["name"]), *map(Text, values))
            continue
        started = moment(facts["created"]) if "created" in facts else ""
        seconds = duration(facts["seconds"]) if "seconds" in facts else ""
        place = (str(facts.get("epoch", "")), str(facts.get("step", "")))
        table.add_row(Text(facts["name"]), _styled(facts["status"]), *place, seconds, *map(Text, values), started)
    table.caption = Text("metrics: the best value of each run", style="dim") if names else None
    table.caption_justify = "left"
    return table


def _headline(facts: dict[str, Any]) -> Any:
    from rich.text import Text

    from relume.monitor.pace import duration

    text = Text.assemble((facts["name"], "bold"), "  ", _styled(facts["status"]))
    if facts["reason"]:
        text.append(f" ({facts['reason']})", style="dim")
    if facts.get("archived"):
        text.append(" archived", style="dim")
    if "seconds" in facts:
        text.append(f"  epoch {facts['epoch']}, step {facts['step']}, {duration(facts['seconds'])}")
    return text.append(f"\n{facts['folder']}", style="dim")


def _epochs_table(folder: Path) -> Any:
    """Metrics that were logged about once an epoch, a row for each of the last 20 epochs."""
    import numpy as np

    from relume.monitor.index import is_detail
    from relume.monitor.pace import number
    from relume.recorded.reading import series_of

    series = {name: found for name, found in series_of(folder).items() if not is_detail(name)}
    epochs = np.unique(np.concatenate([np.zeros(0, np.int64), *(found["epoch"] for found in series.values())]))
    by_epoch = {name: found for name, found in series.items() if len(found) <= 2 * len(epochs)}
    if not by_epoch:
        return None
    shown = table_of("epoch", "step", *by_epoch)
    for epoch in epochs[-20:]:
        step = max(int(found["step"][found["epoch"] == epoch].max(initial=-1)) for found in series.values())
        values = [found["value"][found["epoch"] == epoch][-1:] for found in by_epoch.values()]
        shown.add_row(str(epoch), str(step), *[number(float(v[0])) if len(v) else "" for v in values])
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


def _settings_table(record: Any, folder: Path) -> Any:
    from rich.text import Text

    from relume.cli.code import main_facts
    from relume.text import printable

    table = table_of("setting", "value")
    for key, value in {**record.config, "seed": record.seed}.items():
        table.add_row(Text(key), Text(printable(value if isinstance(value, str) else json.dumps(value), _SETTING)))
    table.add_row("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items()))
    table.add_row("command", Text(" ".join(record.argv)))
    for name, text in (("tags", ", ".join(record.tags)), ("notes", record.notes), *main_facts(folder)):
        if text:
            table.add_row(name, Text(printable(text, _SETTING)))
    return table

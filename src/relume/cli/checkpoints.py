"""``relume checkpoints``, ``verify`` and ``gc``: what is saved, whether it is whole, and what nobody needs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relume.cli.output import Json, Root, console, counted, print_json, size, table_of

if TYPE_CHECKING:
    from relume.checkpoint import Problem, Store, VerifyReport
    from relume.saved import Saved, Saves

_SHOWN_METRICS = 4
_SHOWN_HITS = 10


def checkpoints(
    run: Annotated[str, typer.Argument(help="The run's name below the root, or its path.", show_default=False)],
    root: Root = Path("runs"),
    as_json: Json = False,
) -> None:
    """List the checkpoints of a run, newest last."""
    from relume.monitor import find_run
    from relume.saved import saves_of, store_of

    folder = find_run(run, root)
    store, manifests = store_of(folder)
    saves = saves_of(store, manifests)
    out = console()
    if as_json:
        print_json([_facts(saved) for saved in saves.saved])
    elif not saves.saved:
        out.print(f"The run {folder.name} has no checkpoints.", markup=False)
    else:
        out.print(_checkpoints_table(saves, out))
        for saved in saves.saved:
            if saved.problem is not None:
                out.print(f"damaged: {saved.problem}", style="red", markup=False, highlight=False, soft_wrap=True)
        count, total, apart = counted(len(saves.saved), "checkpoint"), size(saves.disk_bytes), size(saves.apart_bytes)
        out.print(f"{count}: {total} on disk ({apart} if each had its own tensors)", highlight=False)


def verify(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Only these runs; all by default.", show_default=False),
    ] = None,
    root: Root = Path("runs"),
    as_json: Json = False,
) -> None:
    """Read every byte of the checkpoints and compare it with what was saved.

    The exit status is 0 when all is well, 1 when something is damaged, and 2 when the command makes no sense.
    """
    from relume.checkpoint import CHECKPOINTS

    store = _store(root)
    folders = [f"{_run_below(run, root)}/{CHECKPOINTS}" for run in runs] if runs else None
    with _progress(shown=not as_json) as progress:
        report = store.verify(folders, progress=progress)
    if as_json:
        print_json(_report_facts(report))
    elif report.ok and not report.checkpoints and not report.packs:
        console().print(
            f"There are no checkpoints {'of ' + ', '.join(runs) + ' ' if runs else ''}in {root}.", markup=False
        )
    else:
        _print_report(report, root)
    if not report.ok:
        raise typer.Exit(1)


def gc(
    root: Root = Path("runs"),
    delete: Annotated[
        bool, typer.Option("--delete", "--yes", "-y", help="Free it; without this, only say what would go.")
    ] = False,
    wait: Annotated[float, typer.Option(min=0.0, help="Seconds to wait for others that save or load.")] = 10.0,
    days: Annotated[float, typer.Option(min=0.0, help="Features that were not used for so many days go.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Free what no checkpoint needs: tensors of deleted checkpoints, old features, and what killed trainings left."""
    from relume.transfer.features import collect_features

    report = _store(root).gc(dry_run=not delete, timeout_seconds=wait)
    features = collect_features(root, dry_run=not delete, days=days)
    packs, leftovers = len(report.deleted) + len(report.compacted), len(report.leftovers) + len(features.leftovers)
    left_bytes = report.leftover_bytes + features.leftover_bytes
    freed = report.freed_bytes + left_bytes + features.freed_bytes
    if as_json:
        print_json({
            "deleted": delete,
            "freed_bytes": freed,
            "packs": [str(path) for path in report.deleted],
            "compacted": [str(path) for path in report.compacted],
            "leftovers": [str(path) for path in (*report.leftovers, *features.leftovers)],
            "features": [str(path) for path in features.folders],
            "features_in_use": [str(path) for path in features.in_use],
            "unreadable": [{"path": str(path), "error": str(error)} for path, error in report.unreadable],
        })  # fmt: skip
    elif packs or leftovers or features.folders:
        out = console()
        out.print(f"{'Freed' if delete else 'Would free'} {size(freed)}:", highlight=False)
        for count, text in (
            (len(report.deleted), "that no checkpoint needs"),
            (len(report.compacted), "of which little is needed, written anew without the rest"),
        ):
            if count:
                out.print(f"  {counted(count, 'pack')} {text}", highlight=False)
        if leftovers:
            text = f"  {counted(leftovers, 'file')} that killed writers left ({size(left_bytes)})"
            out.print(text, highlight=False)
        if features.folders:
            text = (
                f"  {counted(len(features.folders), 'table')} of old or damaged features ({size(features.freed_bytes)})"
            )
            out.print(text, highlight=False)
        if not delete:
            out.print("Nothing was deleted: --delete does it.", highlight=False)
    elif not report.unreadable:
        console().print(f"There is nothing to free in {root}.", markup=False, highlight=False)
    if report.unreadable:
        _explain_unreadable(report.unreadable)
        raise typer.Exit(1)


# --------------------------------------------------------------------------------------------------------- checkpoints


def _facts(saved: Saved) -> dict[str, Any]:
    return {
        "number": saved.checkpoint.sequence,
        "name": saved.checkpoint.name,
        "path": str(saved.checkpoint.path),
        "epoch": saved.epoch,
        "batch": saved.batch,
        "step": saved.step,
        "metrics": dict(saved.metrics),
        "reason": saved.reason,
        "time": saved.time,
        "stored_bytes": saved.stored_bytes,
        "total_bytes": saved.total_bytes,
        "problem": None if saved.problem is None else str(saved.problem),
    }


def _checkpoints_table(saves: Saves, out: Any) -> Any:
    """The table with as many metrics as the terminal has room for."""
    for count in range(min(_SHOWN_METRICS, len(saves.metrics)), -1, -1):
        table = _table_with(saves, saves.metrics[:count])
        if out.measure(table, options=out.options.update(max_width=10_000)).maximum <= out.width:
            break
    return table


def _table_with(saves: Saves, metrics: list[str]) -> Any:
    from rich.text import Text

    from relume.monitor.pace import number

    heads = [metric.replace("/", "/\n", 1) for metric in metrics]
    table = table_of("#", "epoch", "step", *heads, "reason", "saved", "adds", "holds")
    best = {metric: saves.best(metric) for metric in metrics}
    for saved in saves.saved:
        cells = []
        for metric in metrics:
            value = number(saved.metrics[metric]) if metric in saved.metrics else ""
            cells.append(Text(f"{value}*", style="bold green") if saved is best[metric] else Text(f"{value} "))
        ended = (
            [Text("damaged", style="red"), "", "", ""]
            if saved.problem
            else [Text(saved.reason), _when(saved.time), size(saved.stored_bytes), size(saved.total_bytes)]
        )
        step = "" if saved.step is None else str(saved.step)
        table.add_row(str(saved.checkpoint.sequence), _epoch(saved), step, *cells, *ended)
    notes = ["*: best"] if any(best.values()) else []
    if within := next((saved for saved in saves.saved if saved.batch), None):
        notes.append(f"{_epoch(within)}: {within.epoch} epochs and {within.batch} batches")
    notes += ["adds: bytes new to the store", "holds: bytes in all"]
    table.caption = Text("; ".join(notes), style="dim")
    table.caption_justify = "left"
    return table


def _epoch(saved: Saved) -> str:
    if saved.epoch is None:
        return ""
    return f"{saved.epoch}+{saved.batch}" if saved.batch else str(saved.epoch)


def _when(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%b %d %H:%M", time.localtime(seconds))


# -------------------------------------------------------------------------------------------------------------- verify


def _store(root: Path) -> Store:
    """The store below a root that exists; a wrong one is wrong usage."""
    from relume.checkpoint import Store

    if not root.is_dir():
        raise typer.BadParameter(f"there is no folder {root}.", param_hint="--root")
    return Store(root)


def _run_below(run: str, root: Path) -> str:
    from relume.errors import UnknownNameError
    from relume.monitor import find_run

    try:
        folder = find_run(run, root).absolute()
    except UnknownNameError as error:
        raise typer.BadParameter(str(error), param_hint="RUN") from None
    if folder.parent.resolve() != root.resolve():
        raise typer.BadParameter(f"{run} is not in {root}: give its folder with --root.", param_hint="RUN")
    return folder.name


@contextlib.contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on the terminal, on stderr, which goes when it is done; nothing in a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    terminal = Console(stderr=True)
    if not shown or not terminal.is_terminal:
        yield None
        return
    columns = ("reading", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal, transient=True) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _report_facts(report: VerifyReport) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "checkpoints": report.checkpoints,
        "packs": report.packs,
        "tensors": report.tensors,
        "read_bytes": report.read_bytes,
        "seconds": round(report.seconds, 3),
        "problems": [
            {
                "path": str(problem.path),
                "error": str(problem.error),
                "checkpoints": [str(checkpoint.path) for checkpoint in problem.checkpoints],
            }
            for problem in report.problems
        ],
    }


def _print_report(report: VerifyReport, root: Path) -> None:
    from rich.text import Text

    out = console()
    speed = f", {size(report.read_bytes / report.seconds)}/s" if report.seconds and report.read_bytes > 1e6 else ""
    out.print(
        f"{counted(report.checkpoints, 'checkpoint')}, {counted(report.tensors, 'tensor')} in "
        f"{counted(report.packs, 'pack')}: {size(report.read_bytes)} in {report.seconds:.1f} s{speed}",
        highlight=False,
    )
    if report.ok:
        out.print(Text("All of it is what was saved.", style="green"))
    for problem in report.problems:
        out.print()
        for line in _problem_lines(problem, report, root):
            out.print(line, soft_wrap=True)


def _problem_lines(problem: Problem, report: VerifyReport, root: Path) -> list[Any]:
    from rich.text import Text

    lines = [Text.assemble(("damaged: ", "bold red"), str(problem.error))]
    names = [f"{checkpoint.folder}/{checkpoint}" for checkpoint in problem.checkpoints]
    lines += [Text(f"  needed by {name}") for name in names[:_SHOWN_HITS]]
    if len(names) > _SHOWN_HITS:
        lines.append(Text(f"  and {len(names) - _SHOWN_HITS} more (--json lists them)"))
    lines.append(Text(f"  {_advice(problem, root)}"))
    for folder in dict.fromkeys(checkpoint.folder for checkpoint in problem.checkpoints):
        good = report.good[folder]
        lines.append(Text(f"  In {folder} {f'the newest good one is {good}' if good else 'no checkpoint is good'}."))
    return lines


def _advice(problem: Problem, root: Path) -> str:
    collect = "relume gc --delete" + ("" if root == Path("runs") else f" --root {root}")
    if not problem.checkpoints:
        return f"No checkpoint is lost by it. It goes when nothing needs it: {collect}"
    if problem.path.suffix == ".json":
        return "Put a good copy of the file there, if you have one; or delete it: while it is there, gc frees nothing."
    return (
        "Put a good copy of the file there, if you have one; or delete the manifests of these checkpoints, and free what "
        f"is left of them: {collect}"
    )


def _explain_unreadable(unreadable: list[tuple[Path, Any]]) -> None:
    from rich.text import Text

    out = console()
    for _, error in unreadable:
        out.print(Text.assemble(("damaged: ", "bold red"), str(error)), soft_wrap=True)
    out.print(
        f"No pack is deleted while {counted(len(unreadable), 'manifest')} cannot be read: it might be needed. Put a good "
        "copy of each there, or delete it.",
        highlight=False,
    )

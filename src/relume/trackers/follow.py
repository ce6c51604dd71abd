"""Follow a run's journal and tell a tracker of each line that counts: once, in order, whatever happens to either."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from relume.direction import mode_of
from relume.errors import RelumeError, RunError
from relume.monitor.index import metric_summary
from relume.monitor.journal import header_of, live_ranges, number, read_lines, segments
from relume.monitor.record import Process, RunRecord, status_of
from relume.provenance.secrets import process_redactor
from relume.text import printable
from relume.trackers import branches
from relume.trackers.branches import Fork
from relume.trackers.rebuilding import without_secrets
from relume.trackers.state import Stage, State, state_path
from relume.trackers.tracker import End, Resumed, RunFacts, Tracker

_Found = TypeVar("_Found")
_BATCH_LINES, _BATCH_BYTES = 2_000, 4_000_000
_SHORTEST_WAIT, _LONGEST_WAIT = 0.2, 0.5
_STATUS_SECONDS = 1.0
_LONGEST_BACKOFF = 30.0
_TRIES = 3  # of a line that an error other than an OSError hit, and of anything when the run has ended
_MOST_IN_SUCCESSION = 10  # lines left out, and the tracker is given up


class _Leave(Exception):  # noqa: N818 - not an error
    """The follower is to end, with the tracker open as it is."""


class _GivenUpError(Exception):
    """The tracker does not work."""


class Follower:
    """Gives one tracker what one run's journal holds.

    Args:
        spec: how the tracker is rebuilt elsewhere, to be kept for ``relume sync`` (without its secrets).
        pause: waits that many seconds, and says whether to leave.
    """

    def __init__(
        self, folder: Path, tracker: Tracker, spec: dict[str, Any] | None, pause: Callable[[float], bool]
    ) -> None:
        self.folder = folder
        self.tracker = tracker
        self._path = state_path(folder, tracker.name)
        self.state = State.load(self._path)
        self.state.spec = spec and without_secrets(spec)
        self._pause = pause
        self._newest = 0
        self._dead: set[int] = set()
        self._done: set[str] = set()  # names of the present line that were given
        self._in_succession = 0
        self._status_at = 0.0
        self._is_over = False
        self._end_line: dict[str, Any] | None = None

    def run(self) -> State:
        """Deliver until the run has ended, or there is a newer execution of it, or ``pause`` says to leave."""
        try:
            self._deliver()
        except (_Leave, _GivenUpError, FileNotFoundError, RunError) as stopped:
            if isinstance(stopped, RunError):
                self.state.error = process_redactor().text(str(stopped))
            if self.folder.is_dir():
                self._stage("failed" if isinstance(stopped, (_GivenUpError, RunError)) else "left")
        return self.state

    # ---------------------------------------------------------------------------------------------------------- opening

    def _deliver(self) -> None:
        state = self.state
        self._newest = self._newest_segment()
        place = branches.fork(self.folder, state)
        self._look_at_status()
        if state.ended is not None and place.first is None and not place.is_dead and not self._has_more(place):
            return
        state.process = Process.current().model_dump()
        state.ended = state.error = None
        resumed = self._resumed(place)
        facts = self._facts()
        if self.tracker.forgets:
            state.first = place.first
        self._stage("opening")
        remembered = self._try(lambda: self.tracker.open(facts, resumed))
        state.remembered = dict(remembered or state.remembered)
        state.segment, state.offset, state.until = place.segment, place.offset, None
        self._stage("waiting")
        self._catch_up()
        self._follow()

    def _has_more(self, place: Fork) -> bool:
        path = self.folder / "journal" / f"{place.segment:04d}.jsonl"
        return place.segment != self._newest or path.stat().st_size > place.offset

    def _resumed(self, place: Fork) -> Resumed | None:
        if self.state.segment == 0:
            return None
        newest = self._newest
        is_new = newest != self.state.segment
        header = header_of(self.folder / "journal" / f"{newest:04d}.jsonl") or {}
        origin = header.get("resumed") if is_new and isinstance(header.get("resumed"), dict) else None
        step, epoch = (origin or {}).get("step"), (origin or {}).get("epoch")
        if type(step) is not int or type(epoch) is not int:
            step = epoch = 0
            for line in branches.lines_before(self.folder, place.segment, place.offset):
                step, epoch = line.get("step", step), line.get("epoch", epoch)
        return Resumed(step, epoch, place.first, is_new)

    def _facts(self) -> RunFacts:
        record = RunRecord.load(self.folder)
        provenance = self.folder / "provenance.json"
        return RunFacts(
            folder=self.folder,
            name=record.name,
            id=record.id,
            root=self.folder.parent,
            segment=self._newest,
            config=record.config,
            seed=record.seed,
            tags=tuple(getattr(record, "tags", None) or ()),
            notes=getattr(record, "notes", None) or "",
            versions=record.versions,
            lineage=record.lineage,
            provenance=provenance if provenance.exists() else None,
            created=record.created,
            is_ended=self._is_over,
            remembered=self.state.remembered,
        )

    def _catch_up(self) -> None:
        """What was taken away with a dead branch, and counts still, is given again; or what need not be given is found."""
        state, first = self.state, self.state.first
        if not self.tracker.forgets:
            self._dead = branches.dead_values(self.folder, state.given)
        elif first is not None:
            lines = branches.lines_before(self.folder, state.segment, state.offset)
            for line in lines:
                if type(line.get("step")) is int and line["step"] >= first:
                    self._give_or_leave_out(line)
            self._try(self.tracker.flush)
            state.first = None
            self._save()

    # -------------------------------------------------------------------------------------------------------- following

    def _follow(self) -> None:
        wait_seconds = _SHORTEST_WAIT
        while True:
            was_over = self._is_over
            if self._next_batch():
                wait_seconds = _SHORTEST_WAIT
                continue
            if self._newest_segment() != self._newest:  # started again: a delivery of its own goes with that
                self._close(None)
                return
            if self._step_on():
                continue
            if was_over or self._end_line is not None:
                self._close(self._end())
                return
            if self._pause(wait_seconds):
                self._close(None)
                return
            wait_seconds = min(1.25 * wait_seconds, _LONGEST_WAIT)
            if time.monotonic() - self._status_at >= _STATUS_SECONDS:
                self._look_at_status()

    def _look_at_status(self) -> None:
        self._is_over = status_of(self.folder)[0] != "running"
        self._status_at = time.monotonic()

    def _newest_segment(self) -> int:
        for path in reversed(segments(self.folder)):
            if header_of(path) is not None:
                return int(path.stem)
        raise FileNotFoundError(self.folder / "journal")

    def _step_on(self) -> bool:
        """Go over to the next segment, where this one has been given up to where it leads there."""
        if self.state.segment == self._newest:
            return False
        place = branches.fork(self.folder, self.state)
        if place.segment == self.state.segment:
            return False
        self.state.segment, self.state.offset = place.segment, place.offset
        return True

    def _next_batch(self) -> bool:
        """Give the next lines; False where there are none."""
        state = self.state
        path = self.folder / "journal" / f"{state.segment:04d}.jsonl"
        if path.stat().st_size <= state.offset:
            return False
        lines = self._read(path)
        if not lines:
            return False
        state.until = lines[-1][0]
        self._stage("delivering")
        for behind, line in lines:
            if line is not None:
                self._give_or_leave_out(line)
            state.offset = behind
        self._try(self.tracker.flush)
        state.until = None
        state.given[str(state.segment)] = max(state.offset, state.given.get(str(state.segment), 0))
        self._stage("waiting")
        return True

    def _read(self, path: Path) -> list[tuple[int, dict[str, Any] | None]]:
        """A bounded number of lines, up to where the live branch leaves this segment."""
        end = dict(live_ranges(self.folder)).get(path, 0)
        found: list[tuple[int, dict[str, Any] | None]] = []
        for behind, line in itertools.islice(read_lines(path, self.state.offset), _BATCH_LINES):
            if end is not None and behind > end:
                break
            found.append((behind, line))
            if behind - self.state.offset > _BATCH_BYTES:
                break
        return found

    # ----------------------------------------------------------------------------------------------------- one line

    def _give_or_leave_out(self, line: Mapping[str, Any]) -> None:
        """Give a line; one that the tracker cannot take is left out, and counted."""
        self._done.clear()
        try:
            self._try(lambda: self._give(line))
            self._in_succession = 0
            self.state.delivered += int("journal" not in line)
        except _GivenUpError:
            self.state.left_out += 1
            self._in_succession += 1
            if self._in_succession >= _MOST_IN_SUCCESSION:
                raise

    def _give(self, line: Mapping[str, Any]) -> None:
        step, epoch, seconds = line.get("step"), line.get("epoch"), number(line.get("time")) or 0.0
        held = branches.contents(line)
        if held and type(step) is int:
            place = step, epoch if type(epoch) is int else 0, seconds
            new = {n: c for n, c in held.items() if not self._dead or branches.mark(step, n, c) not in self._dead}
            if "values" in line:
                read = {name: value for name, text in new.items() if (value := number(text)) is not None}
                if read:
                    self.tracker.values(*place, read)
            else:
                self._give_media(place, new)
        elif line.get("event") == "end":
            if self.state.segment == self._newest:
                self._end_line = dict(line)
        elif isinstance(line.get("event"), str):
            self.tracker.event(line)

    def _give_media(self, place: tuple[int, int, float], media: Mapping[str, Any]) -> None:
        for name, content in media.items():
            kind = content.get("kind") if isinstance(content, dict) else None
            if name in self._done or not isinstance(kind, str):
                continue
            if kind in self.tracker.kinds:
                self.tracker.media(*place, name, content)
            elif kind not in self.state.skipped_kinds and len(self.state.skipped_kinds) < 50:
                self.state.skipped_kinds.append(kind)
            self._done.add(name)

    def _try(self, action: Callable[[], _Found]) -> _Found:
        """Do it; once more where that may help.

        A full disk or a missing network is waited for as long as the run goes on.
        """
        for attempt in itertools.count(1):
            try:
                found = action()
                if attempt > 1:
                    self.state.error = None
                return found
            except Exception as error:
                self.state.error = _said(error)
                may_come_back = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
                is_last = attempt >= _TRIES and (not may_come_back or self._is_over)
                if not may_come_back and (is_last or isinstance(error, RelumeError)):
                    raise _GivenUpError from error
                if is_last:
                    raise _Leave from error
            self.state.stage = "failed"
            self._save()
            if may_come_back:
                self._look_at_status()
                if self._pause(min(2.0 ** (attempt - 1) / 2, _LONGEST_BACKOFF)):
                    raise _Leave
        raise AssertionError("unreachable")

    # -------------------------------------------------------------------------------------------------------------- end

    def _end(self) -> End:
        status, line = status_of(self.folder)
        line = self._end_line or line
        last, best = {}, {}
        try:
            for name, entry in metric_summary(self.folder).items():
                last[name], best[name] = entry["last"], entry[mode_of(name) or "min"]
        except Exception:  # an index that cannot be made costs the summary only
            pass
        return End(
            status="killed" if status == "running" else status,
            reason=str(line.get("reason", "")),
            step=line.get("step", 0),
            epoch=line.get("epoch", 0),
            seconds=number(line.get("seconds")) or 0.0,
            last=last,
            best=best,
        )

    def _close(self, end: End | None) -> None:
        self._stage("delivering")
        self._try(lambda: self.tracker.close(end))
        self.state.ended = end.status if end else None
        self._stage("done" if end else "left")

    def _stage(self, stage: Stage) -> None:
        self.state.stage = stage
        self.state.busy_since = time.time() if stage in ("opening", "delivering") else None
        self._save()

    def _save(self) -> None:
        """A state that cannot be written (a full disk) is written with the next batch; until then more may be in doubt."""
        try:
            self.state.save(self._path)
        except OSError:
            if not self.folder.is_dir():
                raise FileNotFoundError(self.folder) from None


def _said(error: Exception) -> str:
    lines: Iterable[str] = str(error).splitlines() or [""]
    return printable(process_redactor().text(f"{type(error).__name__}: {next(iter(lines))}"), 300)

"""How a W&B run is begun from the facts of a run, and where W&B's mode comes from."""

from __future__ import annotations

import json
import netrc
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from relume.monitor.record import RunRecord
from relume.trackers.contents import plain, plain_value
from relume.trackers.tracker import RunFacts

if TYPE_CHECKING:
    from relume.trackers.wandb import WandB

_FLUSH_SECONDS = 1.0


def mode_of_environment() -> str:
    """``WANDB_MODE``, or ``"disabled"`` by ``WANDB_DISABLED``, else online where W&B would find a login, else offline."""
    asked = os.environ.get("WANDB_MODE", "").lower()
    if asked in ("online", "offline", "disabled", "dryrun", "run"):
        return {"dryrun": "offline", "run": "online"}.get(asked, asked)
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes"):
        return "disabled"
    return "online" if _has_login() else "offline"


def _has_login() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or _stored_url()).hostname or ""
    given = os.environ.get("NETRC")
    for path in [Path(given)] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            if netrc.netrc(path).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _stored_url() -> str:
    """The address that ``wandb login --host`` has stored, or that of W&B's own cloud."""
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb")
    try:
        lines = (folder / "settings").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    for line in lines:
        name, _, value = line.partition("=")
        if name.strip() == "base_url":
            return value.strip()
    return "https://api.wandb.ai"


def begin(tracker: WandB, run: RunFacts, mode: str) -> Any:
    """``wandb.init``: a new run of W&B, or the one that was begun before, by its id.

    Raises:
        OSError: W&B cannot be reached, or its own process does not start; it can be tried again.
    """
    import wandb

    is_sweep = bool(os.environ.get("WANDB_SWEEP_ID"))
    asked_id = os.environ.get("WANDB_RUN_ID") if is_sweep else None
    tags = [plain(tag)[:64] for tag in dict.fromkeys([*run.tags, *tracker.tags]) if tag]
    try:
        started = wandb.init(
            project=None if is_sweep else tracker.project or os.environ.get("WANDB_PROJECT") or "relume",
            entity=None if is_sweep else tracker.entity,
            group=tracker.group,
            job_type=tracker.job_type,
            tags=tags or None,
            notes=plain(tracker.notes or run.notes) or None,
            name=plain(tracker.run_name or run.name),
            id=asked_id or run.remembered.get("id") or run.id,
            resume="allow" if run.remembered and mode == "online" else None,
            mode=mode,  # type: ignore[arg-type]
            dir=str(run.folder),
            settings=_settings(run),
        )
    except (wandb.errors.CommError, TimeoutError, ConnectionError) as error:
        raise ConnectionError(f"W&B cannot be reached: {error}") from error
    config: Any = started.config
    config.update(plain_value(run.config), allow_val_change=True)
    started.define_metric("step", hidden=True)
    started.define_metric("*", step_metric="step", step_sync=False)
    return started


def _settings(run: RunFacts) -> Any:
    """What W&B would find out of its own process is that of the training: script, git, process. It shows nothing."""
    import wandb

    from relume.trackers.wandb import stop_training

    record = RunRecord.load(run.folder)
    script = record.argv[0] if record.argv else run.name
    wanted: dict[str, Any] = {
        "silent": True,
        "console": "off",
        "symlink": False,
        "disable_git": True,
        "save_code": False,
        "disable_job_creation": True,
        "program": script,
        "program_relpath": Path(script).name,
        "program_abspath": str(Path(record.directory, script)),
        "stop_fn": lambda: stop_training(run.folder),
        "x_executable": record.executable or None,
        "x_start_time": run.created or None,
        "x_disable_stats": run.is_ended,
        "x_stats_pid": record.process.pid,
        "x_transaction_log_flush_interval": _FLUSH_SECONDS,
    }
    wanted |= _git_of(run)
    known = wandb.Settings.model_fields
    return wandb.Settings(**{name: value for name, value in wanted.items() if name in known})


def _git_of(run: RunFacts) -> dict[str, str]:
    """Commit and remote that provenance has found, without credentials; W&B's own look at git would find those too."""
    try:
        held = json.loads((run.folder / "provenance.json").read_text("utf-8"))
        trees = held["segments"][-1]["code"]["trees"]
        tree = next(tree for tree in trees if tree.get("is_git") and tree.get("commit"))
        return {"git_commit": str(tree["commit"]), "git_remote_url": str(tree.get("remote") or "")}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration):
        return {}  # no provenance yet, or no git


def given_lines(folder: Path, tracker: str) -> Iterator[dict[str, Any]]:
    """The lines of the journal that were given to a tracker and that count."""
    from relume.trackers.branches import fork, lines_before
    from relume.trackers.state import State, state_path

    place = fork(folder, State.load(state_path(folder, tracker)))
    return lines_before(folder, place.segment, place.offset)


def summary_of(above: str, values: Mapping[str, float]) -> dict[str, Any]:
    """Values as entries of W&B's summary, below ``above``."""
    return {f"{above}{plain(name)}": value for name, value in values.items()}

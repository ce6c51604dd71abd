"""TensorBoard's own server on the folders of runs, and its page in the cell of a notebook.

What is possible where: Jupyter and VS Code show it in the cell; Colab through its proxy, unless the browser blocks it; a
JupyterHub needs the package jupyter-server-proxy; Kaggle lets no browser reach a server, so the curves are drawn instead.
"""

from __future__ import annotations

import contextlib
import html
import importlib
import io
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from relume.errors import ConfigurationError, MissingPackageError
from relume.monitor.stored import StoredRun
from relume.text import printable
from relume.trackers.sync import sync

Place = Literal["terminal", "jupyter", "jupyterhub", "vscode", "colab", "kaggle"]
_FOLDER = "tensorboard"
_PROGRAM = "TENSORBOARD_BINARY"
_COLAB = (
    "Is the frame empty, or does it say 403? The browser blocks it: allow third-party cookies for colab.research.google.com, "
    "leave the private window, or open it in a tab of its own:\n"
    "    from google.colab import output; output.serve_kernel_port_as_window({port})\n"
    "The curves are also there without a server: display the run itself, or use relume.runs()."
)
_KAGGLE = (
    "On Kaggle no browser can reach a server, so TensorBoard cannot be shown there. Here are the curves; the event files are "
    "in {folders}: download them and run `tensorboard --logdir` at home."
)
_HUB = "The frame needs jupyter-server-proxy on the hub: pip install jupyter-server-proxy. TENSORBOARD_PROXY_URL names another."


def open_tensorboard(
    folders: Sequence[Path], *, root: Path | None = None, height: int = 800, port: int | None = None
) -> None:
    """Start TensorBoard on these runs, or on all below ``root`` where none is given, and show it where we are.

    Raises:
        MissingPackageError: TensorBoard is not installed.
        ConfigurationError: its server did not start, or ``height`` or ``port`` make no sense.
    """
    _check(height, port)
    place = where()
    if place == "kaggle":
        _say(_KAGGLE.format(folders=", ".join(str(folder / _FOLDER) for folder in folders) or str(root)))
        for folder in folders:
            _display(StoredRun(folder))
        return
    for folder in folders:
        _fill(folder)
    _show(place, start_server(arguments(folders, root, port)), height)


def arguments(folders: Sequence[Path], root: Path | None, port: int | None = None) -> list[str]:
    """What TensorBoard's program is given. Paths are absolute, so that the same runs find the same server again.

    Its fast reader drops numbers where steps go backwards, and does not forget what a run went back behind: the other one
    is taken.

    Example:
        >>> arguments([Path("/runs/a")], None)
        ['--logdir', '/runs/a/tensorboard', '--load_fast', 'false']
        >>> arguments([Path("/runs/a"), Path("/runs/b")], None)[:2]
        ['--logdir_spec', 'a:/runs/a/tensorboard,b:/runs/b/tensorboard']
    """
    paths = {folder.name: folder.absolute() / _FOLDER for folder in folders}
    ports = ["--load_fast", "false", *([] if port is None else ["--port", str(port)])]
    if len(paths) < len(folders):
        raise ConfigurationError(
            "two of these runs have the same name: TensorBoard shows them together only below one root."
        )
    if len(paths) > 1 and any("," in str(path) for path in paths.values()):
        raise ConfigurationError(
            "TensorBoard cannot take several folders when there is a comma in a path: show all runs of the root instead."
        )
    if len(paths) > 1:
        return ["--logdir_spec", ",".join(f"{name}:{path}" for name, path in paths.items()), *ports]
    return ["--logdir", str(next(iter(paths.values()), (root or Path("runs")).absolute())), *ports]


def where() -> Place:
    """What shows the output of this process."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None:
        return "terminal"
    if "google.colab" in sys.modules:
        return "colab"
    if not hasattr(shell, "kernel"):
        return "terminal"
    if os.environ.get("KAGGLE_KERNEL_RUN_TYPE"):
        return "kaggle"
    if "__vsc_ipynb_file__" in shell.user_ns:
        return "vscode"
    return "jupyterhub" if os.environ.get("JUPYTERHUB_SERVICE_PREFIX") else "jupyter"


def start_server(arguments: list[str]) -> int:
    """The port of a server with these arguments: of one that runs already, or of a new one.

    Raises:
        MissingPackageError, ConfigurationError: see :func:`open_tensorboard`.
    """
    try:
        from tensorboard import manager
    except ImportError as error:
        raise MissingPackageError(
            f'TensorBoard is not installed or does not load ({error}): pip install "relume[tensorboard]".'
        ) from None
    with _own_program():
        started = manager.start(arguments)
    if isinstance(started, (manager.StartLaunched, manager.StartReused)):
        return int(started.info.port)
    if isinstance(started, manager.StartFailed):
        said = (started.stderr or started.stdout or "nothing").strip().splitlines()[-1]
        raise ConfigurationError(
            f"TensorBoard did not start (exit status {started.exit_code}); it said: {printable(said, 300)} "
            "Is the port taken? port=0 takes a free one."
        )
    if isinstance(started, manager.StartTimedOut):
        raise ConfigurationError(
            f"TensorBoard has not answered for a minute; it is process {started.pid}. Try again, or kill it."
        )
    raise ConfigurationError(
        f"TensorBoard's program cannot be run ({started.os_error}): is it on the PATH? TENSORBOARD_BINARY can name it."
    )


@contextlib.contextmanager
def _own_program() -> Iterator[None]:
    """Let the server be that of this Python, also where its environment was not activated."""
    program = own_program()
    if _PROGRAM in os.environ or program is None:
        yield
        return
    os.environ[_PROGRAM] = program
    try:
        yield
    finally:
        del os.environ[_PROGRAM]


def own_program() -> str | None:
    """The path of ``tensorboard`` in the environment of this Python."""
    folders = [str(Path(sys.executable).parent), sysconfig.get_path("scripts")]
    return shutil.which("tensorboard", path=os.pathsep.join(folders))


def help_the_magic() -> None:
    """Let ``%tensorboard`` find its program where the environment of the kernel was not activated."""
    program = own_program()
    if program is not None and shutil.which("tensorboard") is None:
        os.environ.setdefault(_PROGRAM, program)


def _check(height: int, port: int | None) -> None:
    if isinstance(height, bool) or not isinstance(height, int) or height < 1:
        raise ConfigurationError(f"height must be a number of pixels, not {height!r}.")
    if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 <= port < 65536):
        raise ConfigurationError(f"port must be a number from 0 (any free one) to 65535, not {port!r}.")


def _fill(folder: Path) -> None:
    """Give TensorBoard what a run has logged without it: from the journal, as far as the run is now."""
    if any((folder / _FOLDER).glob("**/*tfevents*")):
        return
    _say(f'{folder.name} was not made with trackers=["tensorboard"]: what it has logged until now is written for it')
    for done in sync(folder, ["tensorboard"]):
        if done.tracker == "tensorboard" and not done.is_complete:
            _say(f"TensorBoard {done.text}")


def _show(place: Place, port: int, height: int) -> None:
    address = f"http://localhost:{port}/"
    text = f"TensorBoard is at {address}"
    link = f'<a href="{address}" target="_blank" rel="noopener">TensorBoard</a> on port {port} of the kernel\'s machine'
    if place == "terminal":
        _say(text)
    elif place == "vscode":  # in its frames a relative address leads nowhere
        frame = f'<iframe src="{address}" width="100%" height="{height}" frameborder="0"></iframe>'
        _display_html(f"{frame}<div>{link}</div>", text)
    else:
        if place == "jupyterhub":
            prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX", "").rstrip("/")
            os.environ.setdefault("TENSORBOARD_PROXY_URL", f"{prefix}/proxy/%PORT%/")
        from tensorboard import notebook

        with contextlib.redirect_stdout(io.StringIO()):  # it says which server it takes
            notebook.display(port=port, height=height)
        if place == "jupyter":
            _display_html(f'<div style="opacity: .65">{link}</div>', text)
        else:
            _say(_COLAB.format(port=port) if place == "colab" else _HUB)


def _say(text: str) -> None:
    if where() == "terminal":
        print(text)  # noqa: T201
    else:
        _display_html(f'<div style="opacity: .65; white-space: pre-wrap">{html.escape(text)}</div>', text)


def _display_html(page: str, text: str) -> None:
    _display({"text/html": page, "text/plain": text}, raw=True)


def _display(shown: Any, raw: bool = False) -> None:
    importlib.import_module("IPython.display").display(shown, raw=raw)

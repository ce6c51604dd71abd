"""Where things lie below the root of a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from relume.checkpoint import files
from relume.checkpoint.manifest import file_name, parse_file_name
from relume.errors import StorageError

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, order=True)
class Checkpoint:
    """One committed checkpoint: the name of its manifest, not its content.

    Attributes:
        folder: of its manifest, below the root: ``"fashion/checkpoints"``.
        sequence: its number; later ones are larger.
        label: what it was called when it was saved.
        path: its manifest.
    """

    folder: str
    sequence: int
    label: str
    path: Path

    @property
    def name(self) -> str:
        """``000012-epoch=3``: what the manifest is called, without its ending."""
        return file_name(self.sequence, self.label).removesuffix(".json")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Layout:
    """The folders of one store."""

    root: Path

    @property
    def store(self) -> Path:
        """What all runs share."""
        return self.root / "store"

    @property
    def packs(self) -> Path:
        """The packs, in 256 folders by the beginning of their ids."""
        return self.store / "packs"

    @property
    def staging(self) -> Path:
        """What is being written."""
        return self.store / "staging"

    @property
    def lock(self) -> Path:
        """Held shared by savers and readers, alone by gc."""
        return self.store / "lock"

    @property
    def commit_lock(self) -> Path:
        """Held alone while a manifest gets its number."""
        return self.store / "commit.lock"

    def make(self) -> None:
        """Make what is missing."""
        for folder in (self.packs, self.staging):
            files.make_folder(folder)

    def manifests(self, folder: str) -> Path:
        """The folder of manifests that users call ``folder``.

        Raises:
            StorageError: gc would not find manifests there, and would take their tensors for garbage.
        """
        parts = PurePosixPath(folder).parts
        if parts[-1:] != (CHECKPOINTS,) or len(parts) > 2 or parts[0] in ("..", "/", "store"):
            raise StorageError(
                f"the folder of checkpoints {folder!r} is neither {CHECKPOINTS!r} nor '<run>/{CHECKPOINTS}', below "
                f"{self.root}. Only there does gc find what must be kept."
            )
        return self.root.joinpath(*parts)

    def folders(self) -> list[str]:
        """All folders of manifests there are, as users call them."""
        try:
            names = sorted(entry.name for entry in self.root.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _unreadable(error) from error
        candidates = [CHECKPOINTS, *(f"{name}/{CHECKPOINTS}" for name in names if name != "store")]
        return [folder for folder in candidates if (self.root / folder).is_dir()]

    def checkpoints(self, folder: str) -> list[Checkpoint]:
        """The committed checkpoints of one folder, oldest first."""
        path = self.manifests(folder)
        try:
            names = [(parse_file_name(entry.name), entry) for entry in path.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _unreadable(error) from error
        return sorted(Checkpoint(folder, name.sequence, name.label, entry) for name, entry in names if name)

    def leftovers(self) -> list[Path]:
        """Files that a writer which no longer lives has left behind, if nobody holds the lock."""
        found = list(self.staging.iterdir()) if self.staging.is_dir() else []
        for folder in self.folders():
            found += [path for path in (self.root / folder).iterdir() if is_temporary(path)]
        return found


def _unreadable(error: OSError) -> StorageError:
    return StorageError(f"{error.filename} cannot be read: {error.strerror}. Check its owner and its rights.")


def temporary(path: Path) -> Path:
    """The name under which a manifest is written."""
    return path.with_name(f".{path.name}.tmp")


def is_temporary(path: Path) -> bool:
    """Whether a file is a manifest that was never committed."""
    return path.name.startswith(".") and path.name.endswith(".json.tmp")

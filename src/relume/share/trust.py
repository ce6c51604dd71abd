"""The code in a bundle, run because the user said so: as modules of this process under names that nobody else has.

A user's own ``model`` or ``train`` stays what it is: modules of a bundle are found by modules of that bundle alone, through
the ``__import__`` that they are given, and ``sys.path`` is not touched. Copies and pickles of a model find its class again
in this process.
"""

from __future__ import annotations

import atexit
import builtins
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import torch

from relume.checkpoint.hashing import hash_bytes
from relume.errors import BundleError, RelumeError
from relume.share.bundle import Bundle
from relume.share.documents import CODE, CODE_FOLDER, CodeFacts
from relume.share.scripts import Script

PREFIX = "relume_bundled_"
_MAIN = "__main__"
_SCRIPT = "script__main__"
_LIBRARIES = ("torch", "torchvision", "timm", "relume")
"""Never taken from a bundle: its classes would be none of ours."""

_loaded: dict[str, Code] = {}


def trusted_code(bundle: Bundle) -> Code:
    """The code of a bundle, ready to be run. The caller has the user's word for it, and has verified the bundle.

    Raises:
        BundleError: the bundle holds no code.
    """
    name = PREFIX + bundle.manifest.digest[:16]
    if name not in _loaded:
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        _loaded[name] = Code(bundle, name)
    return _loaded[name]


class Tree:
    """Which file of the code a module is, by its name. Nothing is run.

    Args:
        bundle: where the code is.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.facts = bundle.document(CODE, CodeFacts) if CODE in bundle else CodeFacts()
        self.files = frozenset(path.removeprefix(CODE_FOLDER) for path in bundle.members(CODE_FOLDER))
        script = PurePosixPath(self.facts.script).parent if self.facts.script else PurePosixPath()
        places = [script, PurePosixPath(self.facts.directory), PurePosixPath(), PurePosixPath("src")]
        self._known: dict[str, str] = {}
        self._roots = list(dict.fromkeys("" if str(place) == "." else f"{place}/" for place in places))

    @property
    def script(self) -> str:
        """The file that ``__main__`` was; empty where there is none."""
        is_python = self.facts.script in self.files and self.facts.script.endswith(".py")
        return self.facts.script if is_python else ""

    def file_of(self, module: str) -> str:
        """The file of a module; that of a package is its ``__init__.py``, a folder without one ends in a slash."""
        if module == _MAIN:
            return self.script
        top, inner = module.partition(".")[0], module.replace(".", "/")
        for root in self._roots:
            if self._at(root + top):
                return self._at(root + inner)
        return ""

    def located(self, module: str) -> str:
        """`file_of`, for a module that the bundle itself names: it is looked for in all folders, and so are others then."""
        if (
            module == _MAIN
            or self.file_of(module)
            or module.partition(".")[0] in (*_LIBRARIES, *sys.stdlib_module_names)
        ):
            return self.file_of(module)
        inner = module.replace(".", "/")
        endings = (f"/{inner}.py", f"/{inner}/__init__.py")
        found = sorted((path for path in self.files if path.endswith(endings)), key=lambda path: (len(path), path))
        if found:
            end = next(end for end in endings if found[0].endswith(end))
            self._roots.append(found[0].removesuffix(end[1:]))
        return self.file_of(module)

    def package_of(self, file: str) -> str:
        """The package that a file lies in, as a name with a dot behind it; empty for those in none."""
        names: list[str] = []
        folder = PurePosixPath(file).parent
        while str(folder) != "." and f"{folder}/__init__.py" in self.files:
            names.insert(0, folder.name)
            folder = folder.parent
        return "".join(f"{name}." for name in names)

    def owns(self, top: str) -> bool:
        """Whether ``import top`` in this code means a file of it."""
        if top in _LIBRARIES or (top in sys.stdlib_module_names and top in sys.modules):
            return False
        file = self.file_of(top)
        return bool(file) and (not file.endswith("/") or not _is_installed(top))

    def source(self, file: str) -> bytes:
        """A file of the code, compared with its digest again: what runs is what was packed, whatever happened since."""
        path = CODE_FOLDER + file
        content = self.bundle.read(path)
        [member] = [one for one in self.bundle.manifest.members if one.path == path]
        if hash_bytes(content) != member.blake3:
            raise BundleError(
                f"{self.bundle.path}: {path} was changed while the bundle was open. Nothing of it was run."
            )
        return content

    def _at(self, place: str) -> str:
        if place not in self._known:
            self._known[place] = self._looked_up(place)
        return self._known[place]

    def _looked_up(self, place: str) -> str:
        for file in (f"{place}/__init__.py", f"{place}.py"):
            if file in self.files:
                return file
        is_folder = any(path.startswith(f"{place}/") and path.endswith(".py") for path in self.files)
        return f"{place}/" if is_folder else ""


class Code:
    """The modules of a bundle's code, imported when they are asked for.

    Attributes:
        name: of the package that they are in, the same for the same bundle in any process.
        folder: where the files are while this process runs: private, and removed at its end.
        sources: the text of the modules, as it was verified.
    """

    def __init__(self, bundle: Bundle, name: str) -> None:
        self.name, self.tree = name, Tree(bundle)
        self._where = str(bundle.path)
        if not self.tree.files:
            raise BundleError(f"{bundle.path} holds no code that could be trusted.")
        self.folder = Path(tempfile.mkdtemp(prefix="relume-bundle-")).resolve()
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.sources: dict[str, bytes] = {}
        for file in self.tree.files:
            content = self.tree.source(file)
            place = self.folder / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            if file.endswith(".py"):
                self.sources[file] = content
        self.builtins = {**vars(builtins), "__import__": self._import}
        self._script: Script | None = None
        package = ModuleType(name, f"The code of {bundle.name}.")
        package.__path__ = [str(self.folder)]
        sys.modules[name] = package

    def find(self, module: str, names: Iterable[str]) -> ModuleType:
        """The module as the bundle's code calls it (``__main__`` is its script), with these names in it.

        A script is not run: of it only that is which the names need, see `relume.share.scripts`.

        Raises:
            BundleError: there is no such module, no such name in it, or its code fails; says where.
        """
        names = list(names)
        self.tree.located(module)
        with torch.random.fork_rng(devices=[]):
            found = self._scripted(names) if module == _MAIN else self._imported(module)
        for name in names:
            if not hasattr(found, name):
                raise BundleError(f"{self._where}: its code has no {name} in {module} ({self.tree.file_of(module)}).")
        return found

    def with_own_names(self, recipe: Any) -> Any:
        """A recipe whose builders are those of this code, where it names any; they are imported."""
        wanted: dict[str, list[str]] = {}
        for module, name in builders_in(recipe):
            wanted.setdefault(module, []).append(name)
        found = {module: self.find(module, names).__name__ for module, names in wanted.items()}
        return renamed(recipe, found)

    def spec(self, inner: str, fullname: str) -> importlib.machinery.ModuleSpec | None:
        """For the import system."""
        file = self.tree.file_of(inner)
        if not file:
            return None
        is_folder = file.endswith("/")
        folder = (self.folder / file if is_folder else (self.folder / file).parent).as_posix()
        is_package = is_folder or file.endswith("/__init__.py")
        return importlib.util.spec_from_file_location(
            fullname,
            None if is_folder else self.folder / file,
            loader=_Loader(self, "" if is_folder else file),
            submodule_search_locations=[folder] if is_package else None,
        )

    def _imported(self, module: str) -> ModuleType:
        try:
            inner = f"{self.name}.{module}" if self.tree.owns(module.partition(".")[0]) else module
            return importlib.import_module(inner)
        except RelumeError:
            raise
        except (Exception, SystemExit) as error:  # its code may raise anything
            raise self._failed(error, self.tree.file_of(module) or module) from error

    def _scripted(self, names: list[str]) -> ModuleType:
        file = self.tree.script
        if not file:
            raise BundleError(f"{self._where}: its code has no script, which {', '.join(names)} would be in.")
        try:
            package = self.tree.package_of(file)
            if package:
                importlib.import_module(f"{self.name}.{package[:-1]}")
            full = f"{self.name}.{package}{_SCRIPT}"
            path = self.folder / file
            if self._script is None:
                self._script = Script(importlib.util.decode_source(self.sources[file]), str(path))
                spec = importlib.machinery.ModuleSpec(full, None, origin=str(path))
                made = importlib.util.module_from_spec(spec)
                vars(made).update(__builtins__=self.builtins, __file__=str(path))
                sys.modules[full] = made
            module = sys.modules[full]
            for code in self._script.needed(names):
                exec(code, vars(module))  # the user's word for it was asked for
        except RelumeError:
            raise
        except (Exception, SystemExit) as error:
            self._script = None
            raise self._failed(error, file) from error
        return module

    def _failed(self, error: BaseException, file: str) -> BundleError:
        line, trace = "", error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename.startswith(str(self.folder)):
                inner = Path(trace.tb_frame.f_code.co_filename).relative_to(self.folder).as_posix()
                line = f" (code/{inner}, line {trace.tb_lineno})"
            trace = trace.tb_next
        advice = "environment.json says which packages it was made with."
        if isinstance(error, ModuleNotFoundError) and error.name:
            advice = f"It needs the package {error.name.partition('.')[0]}, and {advice}"
        what = f"{type(error).__name__} {error!s:.300}".rstrip()
        return BundleError(f"{self._where}: its code in code/{file} fails here{line}: {what}. {advice}")

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Any = (),
        level: int = 0,
    ) -> ModuleType:
        """``__import__`` as the bundle's modules have it: what is theirs is found first."""
        top = name.partition(".")[0]
        if level or not self.tree.owns(top):
            return builtins.__import__(name, globals, locals, fromlist, level)
        own = f"{self.name}.{name}"
        importlib.import_module(own)
        if fromlist:
            return builtins.__import__(own, globals, locals, fromlist, 0)
        return sys.modules[f"{self.name}.{top}"]


class _Loader(importlib.abc.InspectLoader):
    """Compiles a file of the code, and looks at nothing that was compiled before: a ``.pyc`` need not be its source."""

    def __init__(self, code: Code, file: str) -> None:
        self._code, self._file = code, file

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self._code.sources[self._file]) if self._file else ""

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = self._code.builtins
        place = str(self._code.folder / self._file)
        exec(compile(self.get_source(""), place, "exec", dont_inherit=True), vars(module))


class _Finder(importlib.abc.MetaPathFinder):
    """The only one that finds modules of bundles: others would take a ``.pyc`` or a library of the system beside them."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        name, _, inner = fullname.partition(".")
        code = _loaded.get(name) if inner else None
        if code is None:
            return None
        if found := code.spec(inner, fullname):
            return found
        raise ModuleNotFoundError(f"No module named {inner!r} in the code of the bundle", name=fullname)


_finder = _Finder()


def builders_in(recipe: Any) -> Iterator[tuple[str, str]]:
    """Module and name of the builders in a recipe that are not those of a library that relume knows."""
    if isinstance(recipe, list):
        for one in recipe:
            yield from builders_in(one)
    elif isinstance(recipe, dict):
        for key, one in recipe.items():
            if key in ("builder", "class") and isinstance(one, str):
                module, _, name = one.partition(":")
                if module.partition(".")[0] not in _LIBRARIES:
                    yield module, name
            else:
                yield from builders_in(one)


def renamed(recipe: Any, modules: Mapping[str, str]) -> Any:
    """A recipe whose builders are in other modules: ``modules`` says in which, by where they were."""
    if isinstance(recipe, list):
        return [renamed(one, modules) for one in recipe]
    if not isinstance(recipe, dict):
        return recipe
    made = {}
    for key, one in recipe.items():
        if key in ("builder", "class") and isinstance(one, str):
            module, colon, name = one.partition(":")
            made[key] = modules.get(module, module) + colon + name
        else:
            made[key] = renamed(one, modules)
    return made


def _is_installed(top: str) -> bool:
    places = [place for place in sys.path if "site-packages" in place or "dist-packages" in place]
    return importlib.machinery.PathFinder.find_spec(top, places) is not None

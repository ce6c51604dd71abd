"""A machine for the instructions of a pickle, protocols 0 to 5, that makes data and calls nothing.

What each instruction does is told by Python's own ``pickletools`` (https://docs.python.org/3/library/pickletools.html).
Only one of them can call functions in Python: here it calls the forms in `relume.models.pickles.known`, which are all
relume's own, and makes an `Inert` of everything else.
"""

from __future__ import annotations

import codecs
import mmap
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch

from relume.models.pickles.arrays import PendingArray
from relume.models.pickles.context import Context
from relume.models.pickles.danger import is_dangerous, is_library_call
from relume.models.pickles.inert import Inert, describe
from relume.models.pickles.keys import Keys
from relume.models.pickles.known import Known, Namespace, known, modern
from relume.models.pickles.storages import StorageType, storage_type, view_of

_MAX_INTEGER_BYTES = 256
_MAX_LINE_BYTES = 1024
_REFERENCE_BYTES = 8
_PAIR_BYTES = 100
_PLAIN = frozenset(
    {"builtins.type", "builtins.object", "builtins.int", "builtins.float", "builtins.str", "builtins.bool"}
)
"""Not worth a mention among what a file names."""

# What an instruction's result takes in memory, in bytes, where that is not in proportion to the pickle anyway.
_COST = [32] * 256
for _codes, _bytes in (
    (b"NTF\x88\x89hj2)", 8), (b"]l", 72), (b"}d", 80), (b"\x8f", 232), (b"(", 72), (b"t\x85\x86\x87", 72),
    (b"pqr\x94", 104), (b"Roi\x81\x92", 250), (b"c\x93", 300), (b"b", 64), (b"\x91", 232),
):  # fmt: skip
    for _code in _codes:
        _COST[_code] = _bytes


class Machine:
    """Runs one pickle.

    Args:
        memory: holds the pickle, from ``start`` on.
        context: of the file it is in.
        persistent: what a persistent id stands for; None where there may be none.

    Attributes:
        position: where the next instruction is; after `load`, where the pickle has ended.
    """

    def __init__(
        self,
        memory: bytes | mmap.mmap,
        context: Context,
        persistent: Callable[[Any], Any] | None = None,
        start: int = 0,
    ) -> None:
        self.context = context
        self.keys = Keys(context)
        self.position = start
        self._memory = memory
        self._end = len(memory)
        self._persistent = persistent
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._pending: dict[int, list[int]] = {}
        self._globals: dict[tuple[str, str], Any] = {}
        self._at = start
        self._version = 0

    def load(self) -> Any:
        """What the pickle makes.

        Raises:
            ModelFileError: it is damaged.
            UnsafeFileError: it claims what cannot be, or would take far more memory than it has bytes.
        """
        memory, end, spend, cost, steps = self._memory, self._end, self.context.spend, _COST, _STEPS
        try:
            while True:
                at = self._at = self.position
                if at >= end:
                    raise self.context.damaged("it ends in the middle of a pickle")
                code = memory[at]
                if code == _STOP:
                    break
                self.position = at + 1
                spend(cost[code])
                step = steps[code]
                if step is None:
                    raise self.context.damaged(f"byte {at:,} is no instruction of a pickle ({code:#04x})")
                step(self)
            self.position = at + 1
            return self._stack.pop()
        except _MISUSE as error:
            reason = f"{type(error).__name__}: {error}".replace("\n", " ")
            raise self.context.damaged(
                f"the instruction at byte {self._at:,} makes no sense ({reason:.200})"
            ) from error

    def call(self, callee: Any, arguments: Any, keywords: Any = None, *, is_new: bool = False) -> Any:
        """What a call makes: a tensor or plain Python by a form of relume's own, or else a stand-in.

        Args:
            is_new: only a new object would be made, as by ``__new__``.
        """
        if not isinstance(arguments, tuple):
            raise TypeError(f"a call with {describe(arguments)}")
        if keywords is not None and not isinstance(keywords, dict):
            raise TypeError(f"a call with {describe(keywords)}")
        if isinstance(callee, Known):
            self.context.spend(_REFERENCE_BYTES * len(arguments))
            return callee.call(self, *arguments)
        if not isinstance(callee, Inert):
            raise TypeError(f"a call of {describe(callee)}")
        self._look_at(callee, arguments, is_new)
        return Inert(callee.class_name, arguments, keywords)

    def note(self, problem: str, callee: Inert | None = None) -> None:
        """Record something suspicious at the present instruction."""
        self.context.note(problem, self._at, callee)

    # ------------------------------------------------------------------------------------------------ names and calls

    def _look_at(self, callee: Inert, arguments: tuple[Any, ...], is_new: bool) -> None:
        if isinstance(callee, StorageType):
            raise TypeError("a storage without its data")
        if not callee.is_reference:
            self.context.note_call(callee, arguments, self._at)
            return
        module, _, name = callee.class_name.partition(".")
        odd_type = callee.class_name == "builtins.type" and len(arguments) != 1
        if is_dangerous(module, name) or odd_type or (not is_new and is_library_call(module)):
            self.context.note_call(callee, arguments, self._at)
        if callee.class_name not in _PLAIN:
            self.context.callables[callee.class_name] += 1

    def _named(self, module: Any, name: Any) -> Any:
        """What stands for a class or function of that name; nothing is looked up."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError(f"a class called {describe((module, name))}")
        key = (module, name)
        if key not in self._globals:
            self._globals[key] = self._first_named(module, name)
        return self._globals[key]

    def _first_named(self, module: str, name: str) -> Any:
        module, name = modern(module, name, self._version)
        found = storage_type(module, name)
        if found is None:
            found = known(module, name)
        path = f"{module}.{name}"
        if found is not None or path == "builtins.None":
            return found
        if len(path) > _MAX_LINE_BYTES or not path.isprintable():
            raise self.context.damaged(f"it names a class {path!r:.80}")
        reference = Inert(path, is_reference=True)
        if path not in _PLAIN:
            self.context.callables.setdefault(path, 0)
        if is_dangerous(module, name):
            self.context.note(path, self._at, reference)
        return reference

    # ---------------------------------------------------------------------------------------------------- bytes of it

    def _take(self, count: int) -> bytes:
        start = self.position
        if count > self._end - start:
            raise self.context.damaged(
                f"byte {self._at:,} claims {count:,} bytes, where {self._end - start:,} are left"
            )
        self.position = start + count
        return self._memory[start : start + count]

    def _number(self, form: struct.Struct) -> Any:
        start = self.position
        if start + form.size > self._end:
            raise self.context.damaged("it ends in the middle of an instruction")
        self.position = start + form.size
        return form.unpack_from(self._memory, start)[0]

    def _line(self, limit: int = _MAX_LINE_BYTES) -> bytes:
        start = self.position
        end = self._memory.find(b"\n", start, min(start + limit + 1, self._end))
        if end < 0:
            raise self.context.damaged(f"the line at byte {start:,} has no end")
        self.position = end + 1
        return self._memory[start:end]

    def _integer(self, raw: bytes) -> int:
        if len(raw) > _MAX_INTEGER_BYTES:
            raise self.context.unsafe(f"an integer of {len(raw):,} bytes")
        return int.from_bytes(raw, "little", signed=True)

    # ------------------------------------------------------------------------------------------------------- the stack

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._outer.pop()
        return items

    def _mark(self) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._to_mark()

    def _pop_mark(self) -> None:
        self._to_mark()

    def _duplicate(self) -> None:
        self._push(self._stack[-1])

    def _remember(self, index: int) -> None:
        value = self._stack[-1]
        self._memo[index] = value
        if type(value) is PendingArray:
            self._pending.setdefault(id(value), []).append(index)

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise self.context.damaged(f"byte {self._at:,} asks for the object {index}, which there is not")
        self._stack.append(self._memo[index])

    # ------------------------------------------------------------------------------------------------------ containers

    def _tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError("the stack is empty")
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._push(items)

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        else:
            self._fillable(target).items.extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            self.keys.update(target, items)
        else:
            pairs = list(zip(items[::2], items[1::2], strict=True))
            self._fillable(target).pairs.extend(pairs)

    def _add(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, set):
            self.keys.add(target, items)
        else:
            self._fillable(target).items.extend(items)

    def _fillable(self, target: Any) -> Inert:
        if not isinstance(target, Inert):
            raise TypeError(f"items for {describe(target)}")
        if target.is_reference:
            self.note(f"items are put into {target.class_name[:200]} itself", target)
        return target

    def _make_dict(self) -> None:
        items = self._to_mark()
        made: dict[Any, Any] = {}
        self.keys.update(made, items)
        self._push(made)

    def _make_frozenset(self) -> None:
        made: set[Any] = set()
        self.keys.add(made, self._to_mark())
        self._push(frozenset(made))

    def _pop_pair(self) -> list[Any]:
        value, key = self._stack.pop(), self._stack.pop()
        return [key, value]

    # --------------------------------------------------------------------------------------------------------- objects

    def _global(self) -> None:
        module = self._line().decode()
        self._push(self._named(module, self._line().decode()))

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._push(self._named(module, name))

    def _reduce(self) -> None:
        arguments = self._stack.pop()
        self._stack[-1] = self.call(self._stack[-1], arguments)

    def _new(self) -> None:
        arguments = self._stack.pop()
        self._stack[-1] = self.call(self._stack[-1], arguments, is_new=True)

    def _new_with_keywords(self) -> None:
        keywords, arguments = self._stack.pop(), self._stack.pop()
        self._stack[-1] = self.call(self._stack[-1], arguments, keywords, is_new=True)

    def _object(self) -> None:
        callee, *arguments = self._to_mark()
        self._push(self.call(callee, tuple(arguments)))

    def _instance(self) -> None:
        module = self._line().decode()
        callee = self._named(module, self._line().decode())
        self._push(self.call(callee, tuple(self._to_mark())))

    def _extension(self, size: int) -> None:
        code = int.from_bytes(self._take(size), "little")
        self.note(f"the class or function number {code} of a registry of the program that reads it")
        self._push(Inert(f"copyreg.extension.{code}", is_reference=True))

    def _persistent_text(self) -> None:
        self._push(self._meant(self._line().decode()))

    def _persistent_id(self) -> None:
        self._push(self._meant(self._stack.pop()))

    def _meant(self, saved_id: Any) -> Any:
        if self._persistent is None:
            raise self.context.unsafe(f"it refers to {describe(saved_id)}, where nothing can be referred to")
        return self._persistent(saved_id)

    def _build(self) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if type(target) is PendingArray:
            target.state = state
            self._finish(target)
        elif isinstance(target, Inert):
            self._give_state(target, state)
        elif type(target) is OrderedDict:
            if isinstance(state, dict) and "_metadata" in state:
                self.context.spend(_PAIR_BYTES * _count(state["_metadata"]))
                target._metadata = _versions(state["_metadata"])  # type: ignore[attr-defined]
        elif type(target) is Namespace:
            if not isinstance(state, dict):
                raise TypeError(f"a state that is {describe(state)}")
            self.keys.update(target, [part for item in state.items() if isinstance(item[0], str) for part in item])
        elif isinstance(target, torch.Tensor):
            self._build_tensor(target, state)
        elif not isinstance(target, (dict, list, set)):
            raise TypeError(f"a state for {describe(target)}")

    def _give_state(self, target: Inert, state: Any) -> None:
        if target.is_reference:
            self.note(f"the attributes of {target.class_name[:200]} itself are set", target)
        target.state = state

    def _build_tensor(self, target: torch.Tensor, state: Any) -> None:
        """Torch before 0.4 made a tensor first and gave it its memory after."""
        if isinstance(state, tuple) and len(state) == 4:
            view = view_of(self.context, *state)
            if not target.numel() and view.dtype == target.dtype and not self.context.is_dry:
                target.set_(view.untyped_storage(), view.storage_offset(), view.shape, view.stride())

    def _finish(self, pending: PendingArray) -> None:
        """Put a finished array where its beginning was."""
        array = pending.made()
        if array is not None:
            self.context.spend(array.nbytes)
            self._stack[-1] = array
            for index in self._pending.pop(id(pending), ()):
                if self._memo.get(index) is pending:
                    self._memo[index] = array

    # ------------------------------------------------------------------------------------------------- text of protocol 0

    def _text_integer(self) -> None:
        line = self._line()
        self._push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line))

    def _text_long(self) -> None:
        self._push(int(self._line().removesuffix(b"L")))

    def _text_string(self) -> None:
        line = self._line(self._end).strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"\"'":
            raise ValueError("a text without quotes")
        self._push(_python2_text(codecs.escape_decode(line[1:-1])[0]))

    def _python2_string(self, form: struct.Struct) -> None:
        self._push(_python2_text(self._take(_length(self._number(form)))))

    def _unicode(self, form: struct.Struct) -> None:
        self._push(str(self._take(self._number(form)), "utf-8", "surrogatepass"))

    def _bytes(self, form: struct.Struct) -> None:
        self._push(self._take(self._number(form)))

    def _bytearray(self) -> None:
        self._push(bytearray(self._take(self._number(_U64))))

    def _frame(self) -> None:
        size = self._number(_U64)
        if size > self._end - self.position:
            raise self.context.damaged(
                f"byte {self._at:,} claims {size:,} bytes, where {self._end - self.position:,} are left"
            )

    def _no_buffer(self) -> None:
        raise self.context.damaged("its data lie outside of the pickle, and did not come with it")

    def _protocol(self) -> None:
        self._version = self._take(1)[0]
        if self._version > 5:
            raise self.context.damaged(f"it has the protocol {self._version} of pickle, and there are 0 to 5")


def _length(count: int) -> int:
    if count < 0:
        raise ValueError("a negative length")
    return count


def _python2_text(raw: bytes) -> str | bytes:
    """Python 2 had one kind for text and bytes."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _count(metadata: Any) -> int:
    if not isinstance(metadata, Mapping):
        return 0
    return len(metadata) + sum(len(values) for values in metadata.values() if isinstance(values, dict))


def _versions(metadata: Any) -> OrderedDict[str, dict[str, Any]]:
    """The versions of modules that come with a state_dict; the rest of what could be there is left out."""
    kept: OrderedDict[str, dict[str, Any]] = OrderedDict()
    for name, values in metadata.items() if isinstance(metadata, Mapping) else ():
        if isinstance(name, str) and isinstance(values, dict):
            kept[name] = {
                key: value
                for key, value in values.items()
                if isinstance(key, str) and type(value) in (int, bool, str) and (key != "version" or type(value) is int)
            }
    return kept


_MISUSE = (
    IndexError, KeyError, ValueError, TypeError, OverflowError, AttributeError, RuntimeError, struct.error,
    NotImplementedError, AssertionError, MemoryError,
)  # fmt: skip
"""What Python and torch raise where an instruction meets what it cannot work on."""

_STOP = ord(".")
_U8, _U16, _U32, _U64 = (struct.Struct(form) for form in ("<B", "<H", "<I", "<Q"))
_I32, _F64 = struct.Struct("<i"), struct.Struct(">d")

Step = Callable[[Machine], None]


def _steps() -> list[Step | None]:
    table: dict[bytes, Step] = {
        b"\x80": Machine._protocol,
        b"\x95": Machine._frame,
        b"N": lambda m: m._push(None),
        b"\x88": lambda m: m._push(True),
        b"\x89": lambda m: m._push(False),
        b"J": lambda m: m._push(m._number(_I32)),
        b"K": lambda m: m._push(m._number(_U8)),
        b"M": lambda m: m._push(m._number(_U16)),
        b"\x8a": lambda m: m._push(m._integer(m._take(m._number(_U8)))),
        b"\x8b": lambda m: m._push(m._integer(m._take(_length(m._number(_I32))))),
        b"I": Machine._text_integer,
        b"L": Machine._text_long,
        b"F": lambda m: m._push(float(m._line())),
        b"G": lambda m: m._push(m._number(_F64)),
        b"S": Machine._text_string,
        b"T": lambda m: m._python2_string(_I32),
        b"U": lambda m: m._python2_string(_U8),
        b"V": lambda m: m._push(str(m._line(m._end), "raw-unicode-escape")),
        b"X": lambda m: m._unicode(_U32),
        b"\x8c": lambda m: m._unicode(_U8),
        b"\x8d": lambda m: m._unicode(_U64),
        b"B": lambda m: m._bytes(_U32),
        b"C": lambda m: m._bytes(_U8),
        b"\x8e": lambda m: m._bytes(_U64),
        b"\x96": Machine._bytearray,
        b"\x97": Machine._no_buffer,
        b"\x98": lambda m: None,
        b"(": Machine._mark,
        b"0": Machine._pop,
        b"1": Machine._pop_mark,
        b"2": Machine._duplicate,
        b"p": lambda m: m._remember(int(m._line(20))),
        b"q": lambda m: m._remember(m._number(_U8)),
        b"r": lambda m: m._remember(m._number(_U32)),
        b"\x94": lambda m: m._remember(len(m._memo)),
        b"g": lambda m: m._recall(int(m._line(20))),
        b"h": lambda m: m._recall(m._number(_U8)),
        b"j": lambda m: m._recall(m._number(_U32)),
        b")": lambda m: m._push(()),
        b"t": lambda m: m._push(tuple(m._to_mark())),
        b"\x85": lambda m: m._tuple(1),
        b"\x86": lambda m: m._tuple(2),
        b"\x87": lambda m: m._tuple(3),
        b"]": lambda m: m._push([]),
        b"l": lambda m: m._push(m._to_mark()),
        b"a": lambda m: m._append([m._stack.pop()]),
        b"e": lambda m: m._append(m._to_mark()),
        b"}": lambda m: m._push({}),
        b"d": Machine._make_dict,
        b"s": lambda m: m._set(m._pop_pair()),
        b"u": lambda m: m._set(m._to_mark()),
        b"\x8f": lambda m: m._push(set()),
        b"\x90": lambda m: m._add(m._to_mark()),
        b"\x91": Machine._make_frozenset,
        b"c": Machine._global,
        b"\x93": Machine._stack_global,
        b"R": Machine._reduce,
        b"\x81": Machine._new,
        b"\x92": Machine._new_with_keywords,
        b"o": Machine._object,
        b"i": Machine._instance,
        b"b": Machine._build,
        b"P": Machine._persistent_text,
        b"Q": Machine._persistent_id,
        b"\x82": lambda m: m._extension(1),
        b"\x83": lambda m: m._extension(2),
        b"\x84": lambda m: m._extension(4),
    }
    steps: list[Step | None] = [None] * 256
    for code, step in table.items():
        steps[code[0]] = step
    return steps


_STEPS = _steps()

"""What an exception object is made of, without asking its class.

Owns how an exception is taken apart and put together again: its class, the
fields that its C base keeps, ``args``, slots and attributes. Knows nothing of
pickling.

Everything is read and written through the descriptors of the C types, so that
no ``__init__``, ``__new__``, ``__reduce__``, ``__setattr__``,
``__getattribute__`` or property of a user's class runs: they fail, lie, have
side effects, or expect arguments that nobody has any more.
"""

from __future__ import annotations

from types import GetSetDescriptorType, MemberDescriptorType, TracebackType
from typing import TYPE_CHECKING, Any, Final, cast

from allraise.chains import (
    attributes_of,
    is_context_hidden,
    traceback_of,
    type_name_of,
)
from allraise.frames import frames_from_traceback, traceback_from_frames
from allraise.record import Frame

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement

# AttributeError.obj is the object that lacked the attribute: the user's model
# as like as not. Python's own pickling leaves it out, too.
_NOT_CARRIED: Final = frozenset({"args", "obj", "with_traceback", "add_note"})

# These make a group when it is created, and cannot be set.
_GROUP_FIELDS: Final = frozenset({"message", "exceptions"})


def plain_frames(traceback: TracebackType | None) -> tuple[tuple[Any, ...], ...]:
    """Copy a traceback as builtins only."""
    return tuple(tuple(frame) for frame in frames_from_traceback(traceback))


def make_traceback(frames: tuple[tuple[Any, ...], ...]) -> TracebackType | None:
    """Rebuild a traceback from plain frames."""
    return traceback_from_frames(tuple(Frame(*frame) for frame in frames))


def _mro(cls: type) -> tuple[type, ...]:
    # A metaclass is user code as well.
    return cast("tuple[type, ...]", type.__dict__["__mro__"].__get__(cls))


def _class_dict(cls: type) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", type.__dict__["__dict__"].__get__(cls))


def _is_native(cls: type) -> bool:
    """Tell whether a class is written in C."""
    return not type.__dict__["__flags__"].__get__(cls) & _HEAP_TYPE


def _native_base(cls: type) -> type:
    """Return the nearest class in the MRO that is written in C."""
    return next(base for base in _mro(cls) if _is_native(base))


def _native_fields(cls: type) -> dict[str, Any]:
    """Return the fields that the class's C bases keep outside its __dict__."""
    fields: dict[str, Any] = {}
    for base in _native_base(cls).__mro__:
        if base in (BaseException, object):
            continue
        for name, field in base.__dict__.items():
            known = isinstance(field, (MemberDescriptorType, GetSetDescriptorType))
            if known and name not in _NOT_CARRIED and not name.startswith("__"):
                fields.setdefault(name, field)
    return fields


def _slots(cls: type) -> dict[str, Any]:
    """Return the descriptors of the ``__slots__`` of the class."""
    found: dict[str, Any] = {}
    for base in _mro(cls):
        if not _is_native(base):
            for name, slot in _class_dict(base).items():
                if type(slot) is MemberDescriptorType:
                    found.setdefault(f"{type_name_of(base)}.{name}", slot)
    return found


def _read(descriptors: dict[str, Any], exc: BaseException) -> dict[str, Any]:
    values = {}
    for name, descriptor in descriptors.items():
        try:
            values[name] = descriptor.__get__(exc)
        except AttributeError:  # a slot or field that is not set
            continue
    return values


def _read_fields(exc: BaseException) -> dict[str, Any]:
    # A field that is None is one that was never set, and says so only as long
    # as nobody sets it: OSError prints "None" for a filename set to None.
    values = _read(_native_fields(type(exc)), exc)
    return {name: value for name, value in values.items() if value is not None}


def take_apart(
    exc: BaseException, *, with_traceback: bool
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what makes the object again: for `create`, and for `fill`.

    Args:
        exc: The exception; it is not changed.
        with_traceback: Whether the stack, as frames, and the chain are parts.
    """
    cls = type(exc)
    made_of: tuple[Any, ...] = (cls,)
    fields = _read_fields(exc)
    if issubclass(cls, BaseExceptionGroup):  # isinstance asks exc.__class__, too
        message = BaseExceptionGroup.__dict__["message"].__get__(exc)
        members = BaseExceptionGroup.__dict__["exceptions"].__get__(exc)
        made_of = (cls, message, list(members))
        fields = {k: v for k, v in fields.items() if k not in _GROUP_FIELDS}
    state = {
        "args": BaseException.__dict__["args"].__get__(exc),
        "fields": fields,
        "slots": _read(_slots(cls), exc),
        "dict": dict(attributes_of(exc)),
        "suppress": is_context_hidden(exc),
    }
    if with_traceback:
        traceback = traceback_of(exc)
        state["frames"] = plain_frames(traceback)
        for link in ("__cause__", "__context__"):
            state[link] = BaseException.__dict__[link].__get__(exc)
    return made_of, state


def set_traceback(exc: BaseException, traceback: TracebackType | None) -> None:
    """Give an exception a traceback, also one whose class forbids setting."""
    BaseException.__dict__["__traceback__"].__set__(exc, traceback)


def add_note(exc: BaseException, note: str) -> None:
    """Add a note, also to an exception whose class forbids setting."""
    attributes = attributes_of(exc)
    notes = attributes.get("__notes__")
    attributes["__notes__"] = [*notes, note] if type(notes) is list else [note]


def create(cls: type, *group: Any) -> BaseException:
    """Make an empty exception of the class, by its C base alone."""
    return cast("BaseException", _native_base(cls).__new__(cls, *group))


def fill(exc: BaseException, state: dict[str, Any]) -> None:
    """Give an empty exception the state that `take_apart` found."""
    cls = type(exc)
    fields, slots = _native_fields(cls), _slots(cls)
    for name, value in state["fields"].items():
        try:
            fields[name].__set__(exc, value)
        except (AttributeError, TypeError):  # read-only: computed from another
            continue
    for name, value in state["slots"].items():
        slots[name].__set__(exc, value)
    attributes_of(exc).update(state["dict"])
    BaseException.__dict__["args"].__set__(exc, state["args"])
    # Only an exception held by another one brings these along; see `rebuild`
    # for the failure itself, whose stack and chain travel as text.
    set_traceback(exc, make_traceback(state.get("frames", ())))
    for link in ("__cause__", "__context__"):
        if state.get(link) is not None:
            BaseException.__dict__[link].__set__(exc, state[link])
    BaseException.__dict__["__suppress_context__"].__set__(exc, state["suppress"])

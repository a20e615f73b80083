"""Another object like an exception that is here: a copy, or what is pickled.

Owns which parts of an exception a copy shares, and which travel. Knows nothing of
ranks. Not collective.
"""

from __future__ import annotations

import io
import pickle
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from allraise.bodies import (
    bounded_repr,
    dump_exception,
    has_native_reducer,
    load_exception,
)
from allraise.parts import create, fill, take_apart

if TYPE_CHECKING:
    from collections.abc import Container

_E = TypeVar("_E", bound=BaseException)


def likeness(exc: BaseException) -> BaseException:
    """Make another exception of the very same parts.

    Not collective. Never raises.

    Returns:
        An object with the same cause and context and without a traceback. Where none
        can be made, the exception itself.
    """
    try:
        if has_native_reducer(exc):  # its parts do not show
            return load_exception(dump_exception(exc)[0])
        return shallow_copy(exc)
    except BaseException:  # the class is a user's
        return exc


def shallow_copy(exc: _E) -> _E:
    """Make another exception of the very same parts, by its C base alone."""
    made_of, state = take_apart(exc, with_traceback=False)
    for link in ("__cause__", "__context__"):
        state[link] = BaseException.__dict__[link].__get__(exc)
    made: Any = create(*made_of)
    fill(made, state)
    return made  # type: ignore[no-any-return]


def deep_copy(exc: _E, memo: dict[int, Any], shared: Container[str]) -> _E:
    """Make another exception with attributes of its own, as far as they can be copied.

    Args:
        exc: The exception.
        memo: As `copy.deepcopy` has it.
        shared: The attributes that both have.
    """
    from copy import deepcopy

    made = memo[id(exc)] = shallow_copy(exc)
    for name, value in vars(exc).items():
        if name not in shared:
            with suppress(Exception):
                vars(made)[name] = deepcopy(value, memo)
    return made


class _Pickler(pickle.Pickler):
    """Takes for granted that an exception itself can be pickled."""

    def __init__(self, buffer: io.BytesIO, top: BaseException) -> None:
        super().__init__(buffer)
        self._top = top

    def persistent_id(self, obj: Any, /) -> Any:
        return "top" if obj is self._top else None


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, _pid: Any, /) -> Any:
        return None


def state_to_pickle(exc: BaseException, left_out: Container[str]) -> dict[str, Any]:
    """Return what `fill` takes, with reprs of what cannot be pickled.

    Args:
        exc: The exception.
        left_out: Attributes that are none of a user's.
    """

    def portable(value: Any) -> Any:
        buffer = io.BytesIO()
        try:
            _Pickler(buffer, exc).dump(value)
            _Unpickler(io.BytesIO(buffer.getvalue())).load()
        except BaseException:  # pickling hooks are user code
            return bounded_repr(value)
        return value

    _, state = take_apart(exc, with_traceback=False)
    state["args"] = ()
    for part in ("fields", "slots", "dict"):
        kept = {k: v for k, v in state[part].items() if k not in left_out}
        state[part] = {name: portable(value) for name, value in kept.items()}
    return state

"""An exception's type and what it comes from, without asking its class.

Owns what is read of any exception, through the descriptors of `BaseException`, so that
nothing of a user's class runs. Knows nothing else, and loads nothing: `import allraise`
needs no more of exceptions than this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeGuard, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

# Of what is told of an error in passing.
_MAX_WORDS: Final = 400

# Of a chain of causes: longer ones are loops that retried.
_MAX_LINKS: Final = 200

_E = TypeVar("_E", bound=BaseException)

# What `BaseException` has, whatever a class says. Functions in C: a rank that fails
# calls many of them, and one in Python takes ten times as long.
_OWN: Final[Any] = BaseException.__dict__
cause_of: Final[Callable[[BaseException], BaseException | None]] = _OWN[
    "__cause__"
].__get__
context_of: Final[Callable[[BaseException], BaseException | None]] = _OWN[
    "__context__"
].__get__
is_context_hidden: Final[Callable[[BaseException], bool]] = _OWN[
    "__suppress_context__"
].__get__
traceback_of: Final[Callable[[BaseException], TracebackType | None]] = _OWN[
    "__traceback__"
].__get__
attributes_of: Final[Callable[[BaseException], dict[str, Any]]] = _OWN[
    "__dict__"
].__get__
_set_context: Final = _OWN["__context__"].__set__


def is_a(exc: object, cls: type[_E]) -> TypeGuard[_E]:
    """Tell whether an exception is of a class; ``isinstance`` asks it and may raise."""
    return issubclass(type(exc), cls)


def is_of_mpi(error: BaseException | None) -> bool:
    """Tell an error of MPI's, which mpi4py raises, from all others."""
    try:  # past the metaclass, which is a user's, too
        module = type.__dict__["__module__"].__get__(type(error))
    except AttributeError:
        return False
    return str.__eq__("mpi4py.MPI", module) is True


def put_on_top(error: BaseException, exc: BaseException | None) -> BaseException:
    """Let what was raised meanwhile come from what a rank had failed with.

    At the end of what it comes from already, and not where that makes a circle.
    """
    if exc is None:
        return error
    below: set[int] = set()
    left = [exc]
    while left and len(below) < _MAX_LINKS:
        link = left.pop()
        if id(link) not in below:
            below.add(id(link))
            links = (cause_of(link), context_of(link))
            left += [other for other in links if other is not None]
    last = error
    for _ in range(_MAX_LINKS):
        if id(last) in below:
            break
        inner = context_of(last)
        if inner is None or id(inner) in below:  # what it replaces comes again in it
            _set_context(last, exc)
            break
        last = inner
    return error


def link_of(exc: BaseException) -> BaseException | None:
    """Return the cause of an exception, or else its context."""
    cause = cause_of(exc)
    return context_of(exc) if cause is None else cause


def type_name_of(cls: type) -> str:
    """Return the name of a type as Python prints it in a traceback."""
    try:
        name = type.__dict__["__qualname__"].__get__(cls)
        module = type.__dict__["__module__"].__get__(cls)
        if module in {"__main__", "builtins"}:
            return str(name)
        return f"{module}.{name}" if isinstance(module, str) else f"<unknown>.{name}"
    except BaseException:
        return "<type whose name cannot be read>"


def describe(error: BaseException) -> str:
    """Return an exception's type and words, as far as they can be had."""
    try:
        return f"{type_name_of(type(error))}: {error}"[:_MAX_WORDS]
    except BaseException:
        return type_name_of(type(error))

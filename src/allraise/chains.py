"""An exception's type and what it comes from, without asking its class.

Owns what is read of any exception, through the descriptors of `BaseException`, so that
nothing of a user's class runs. Knows nothing else, and loads nothing: `import allraise`
needs no more of exceptions than this.
"""

from __future__ import annotations

from typing import Any, Final, TypeGuard, TypeVar

# Of what is told of an error in passing.
_MAX_WORDS: Final = 400

# Of a chain of causes: longer ones are loops that retried.
_MAX_LINKS: Final = 200

# As `BaseException` has them, whatever a class says.
_CAUSE: Final[Any] = BaseException.__dict__["__cause__"]
_CONTEXT: Final[Any] = BaseException.__dict__["__context__"]

_E = TypeVar("_E", bound=BaseException)


def attribute_of(exc: BaseException, name: str) -> Any:
    """Read an attribute as `BaseException` has it, whatever the class says."""
    return BaseException.__dict__[name].__get__(exc)


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
            links = (_CAUSE.__get__(link), _CONTEXT.__get__(link))
            left += [other for other in links if other is not None]
    last = error
    for _ in range(_MAX_LINKS):
        if id(last) in below:
            break
        inner = _CONTEXT.__get__(last)
        if inner is None or id(inner) in below:  # what it replaces comes again in it
            _CONTEXT.__set__(last, exc)
            break
        last = inner
    return error


def cause_of(exc: BaseException) -> BaseException | None:
    """Return the cause of an exception."""
    found: BaseException | None = _CAUSE.__get__(exc)
    return found


def link_of(exc: BaseException) -> BaseException | None:
    """Return the cause of an exception, or else its context."""
    cause = cause_of(exc)
    found: BaseException | None = _CONTEXT.__get__(exc) if cause is None else cause
    return found


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

"""The arguments that every entry point takes, checked in one way.

Owns what is refused and how it is said. A wrong argument on one rank must not
leave the others waiting: the rank that is refused takes part in the agreement
as failed, and where every rank is refused, each raises its own plain error.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Final, NamedTuple

from allraise.agreement import enter, leave, prepare_nested
from allraise.chains import is_a, is_of_mpi, put_on_top
from allraise.plain import DEFAULT
from allraise.registry import is_not_started, known_private, resolve_comm
from allraise.settings import read_settings
from allraise.verdict import EVERYWHERE

if TYPE_CHECKING:
    from mpi4py import MPI

    from allraise.private import Private


_INFINITE: Final = float("inf")

# MPICH says which limit was met, not what has used them up. Two lines: it is read in a
# traceback.
_NONE_LEFT: Final = (
    "allraise: the first guard on a communicator takes two duplicates of it. Regions that\n"
    "fail use communicators up: see 'Thousands of failed regions' in docs/sharp-bits.md"
)

# CPython has one 0, and False is another object.
_ROOT: Final = 0
_NO_DEADLINE: Final = [None]


class Arguments(NamedTuple):
    """What an entry point was given, as far as it can be known at once.

    ``timeout`` is that of the environment where none was given.
    """

    root: int
    timeout: float | None


def _timeout_or_default(timeout: object) -> float | None:
    # ALLRAISE_TIMEOUT, read once: at the first guard, which no communicator is known
    # before, so that no guard comes past `check_arguments` until it is read.
    if not DEFAULT:
        DEFAULT.append(read_settings().timeout)
    return DEFAULT[0] if timeout is None else _checked_timeout(timeout)


def _checked_root(root: object, size: int | None, name: str) -> int:
    try:
        number = operator.index(root)  # type: ignore[arg-type]
    except TypeError:
        msg = f"{name} must be a rank, a whole number, got {type(root).__name__}"
        raise TypeError(msg) from None
    # Without a size, what fits the place; `locate` looks again.
    if not 0 <= number < (EVERYWHERE if size is None else size):
        last = "the last rank" if size is None else str(size - 1)
        msg = f"{name}={number} is out of range: pass a rank from 0 to {last}"
        raise ValueError(msg)
    return number


def _checked_timeout(timeout: object) -> float:
    is_number = hasattr(type(timeout), "__float__")  # NumPy's, too
    if isinstance(timeout, bool) or not is_number:
        kind = type(timeout).__name__
        msg = f"timeout must be a number of seconds or None, got {kind}"
        raise TypeError(msg)
    seconds = float(timeout)  # type: ignore[arg-type]
    if not 0 < seconds < _INFINITE:
        msg = f"timeout must be a positive, finite number of seconds, got {timeout}"
        raise ValueError(msg)
    return seconds


def check_step(step: object) -> None:
    """Refuse a step that is no text. Not collective."""
    if isinstance(step, str):
        return
    hint = "; as a decorator it is written @guard()" if callable(step) else ""
    msg = f"step must be a str, got {type(step).__name__}{hint}"
    raise TypeError(msg)


def checked_before(
    comm: object, step: object, root: object, everywhere: object, timeout: object
) -> Private | None:
    """Return this rank's side if the arguments are plain and known to be right.

    Not collective. This is the way of a guard in a loop, and saves two
    microseconds: a communicator that is known was checked when it was first
    seen, and what else can be wrong is left to `check_arguments`.
    """
    if (
        root is _ROOT
        and everywhere is False
        and type(step) is str
        and (
            DEFAULT == _NO_DEADLINE
            if timeout is None
            else (type(timeout) is float or type(timeout) is int)
            and 0 < timeout < _INFINITE
        )
    ):
        return known_private(comm)
    return None


def check_arguments(
    comm: object,
    step: object,
    *,
    root: object = 0,
    everywhere: object = False,
    timeout: object = None,
    exc: object = None,
    root_name: str = "root",
    is_decoration: bool = False,
) -> Arguments:
    """Check the arguments of an entry point.

    Not collective where they are right.

    Args:
        comm: A communicator, or None for ``COMM_WORLD``.
        step: The name of the step.
        root: The rank that gets the whole report.
        everywhere: Whether every rank gets it.
        timeout: In seconds, or None.
        exc: The exception that the caller has caught, or None.
        root_name: What the entry point calls its root.
        is_decoration: Whether this may be a decoration, which starts no MPI.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument has a value that cannot be.
        CheckpointException: On every rank, where some ranks were refused.
    """
    resolved = None
    try:
        if comm is not None or not (is_decoration and is_not_started()):
            resolved = resolve_comm(comm)
        size = None if resolved is None else resolved.Get_size()
        if exc is not None and not is_a(exc, BaseException):
            msg = f"exc must be an exception or None, got {type(exc).__name__}"
            raise TypeError(msg)
        check_step(step)
        if not isinstance(everywhere, bool):
            kind = type(everywhere).__name__
            msg = f"everywhere must be True or False, got {kind}"
            raise TypeError(msg)
        return Arguments(
            _checked_root(root, size, root_name), _timeout_or_default(timeout)
        )
    except (TypeError, ValueError) as error:
        # The caller's own exception is not lost to a wrong argument.
        if is_a(exc, BaseException):
            error.__cause__ = exc
        if resolved is None:
            raise
        raise refuse(_private_of(resolved), error, step)  # noqa: B904 the cause is set


def private_of(comm: MPI.Intracomm) -> Private:
    """Make this rank's side, see `creation`. Collective over comm."""
    # Late, for most of what allraise is made of comes with it: `import allraise`
    # is also for those who only read reports. And all that a failure needs: then
    # may be too late to load anything.
    from allraise import closing, copies, creation, leaves, rebuild, telling  # noqa: F401

    try:
        return creation.private_of(comm)
    except Exception as error:
        if is_of_mpi(error) and "too many communicators" in str(error).lower():
            error.add_note(_NONE_LEFT)
        raise


def _private_of(comm: MPI.Intracomm) -> Private:
    """Return this rank's side, wherever in the program it is made.

    Collective over comm at the first use on this communicator.
    """
    known = known_private(comm)
    if known is not None:
        return known
    from mpi4py import MPI

    if comm.handle != MPI.COMM_SELF.handle:
        group = comm.Get_group()
        prepare_nested(comm.Get_size(), group)
        group.Free()
    return private_of(comm)


def refuse(private: Private, error: Exception, step: object = "") -> BaseException:
    """Take part in the agreement as a rank whose arguments were refused.

    Collective over comm.

    Args:
        private: This rank's side.
        error: What was wrong.
        step: The argument, which may be what was wrong.

    Returns:
        What this rank must raise.
    """
    try:
        opened = enter(private, step if isinstance(step, str) else "")
    except BaseException as due:
        return due
    outcome = leave(opened, error, 0, refused=True)
    return error if outcome is None else outcome


def locate(
    comm: MPI.Intracomm | None,
    place: int,
    exc: BaseException | None = None,
    *,
    root_name: str = "root",
) -> Private:
    """Return this rank's side of the protocol.

    Collective over comm at the first use on this communicator.

    Args:
        comm: As it was checked before.
        place: From `place_of`.
        exc: The exception that the caller has caught, or None.
        root_name: What the entry point calls its root.

    Raises:
        TypeError: The communicator, checked before, is none any more.
        ValueError: MPI is not running, the communicator was freed, or the root
            is not a rank of ``COMM_WORLD``.
        CheckpointException: On every rank, where some ranks were refused.
    """
    try:
        private = _private_of(resolve_comm(comm))
    except (TypeError, ValueError) as error:
        error.__cause__ = exc
        raise
    except BaseException as error:  # of MPI, say: what was caught is not lost to that
        put_on_top(error, exc)
        raise
    root = place & (EVERYWHERE - 1)
    if root >= private.size:
        try:
            _checked_root(root, private.size, root_name)
        except ValueError as error:
            error.__cause__ = exc
            raise refuse(private, error)  # noqa: B904 the cause is set
    return private

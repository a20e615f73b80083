"""Exceptions of Python's own, pickled by C code alone.

Owns when that can be done. Most exceptions are an `OSError` or a `ValueError` that
hold a few texts and numbers: nothing of them is user code, and all of them is in what
``__reduce__`` returns. So the ladder of `bodies`, which trusts nothing, is not needed;
where many ranks that share a core fail at once, it would be half of what that costs.
"""

from __future__ import annotations

import pickle
from operator import is_
from typing import Any, Final

_VALUES: Final = frozenset({type(None), bool, float})

# Of all texts in it together.
MAX_CHARS: Final = 16 * 1024

MAX_VALUES: Final = 16

# Of a whole number.
MAX_BITS: Final = 64

# Those that keep nothing beside ``args``. Not those of which an attribute tells more
# than the arguments do: `StopIteration`, `SystemExit`, `ImportError` and so on.
_BY_ARGS: Final = frozenset(
    {
        ArithmeticError,
        AssertionError,
        BufferError,
        EOFError,
        Exception,
        FloatingPointError,
        IndexError,
        KeyError,
        KeyboardInterrupt,
        LookupError,
        MemoryError,
        NotImplementedError,
        OverflowError,
        RecursionError,
        ReferenceError,
        RuntimeError,
        TypeError,
        ValueError,
        ZeroDivisionError,
    }
)

_OS_ERRORS: Final = frozenset(
    {
        BrokenPipeError,
        ChildProcessError,
        ConnectionAbortedError,
        ConnectionError,
        ConnectionRefusedError,
        ConnectionResetError,
        FileExistsError,
        FileNotFoundError,
        InterruptedError,
        IsADirectoryError,
        NotADirectoryError,
        OSError,
        PermissionError,
        ProcessLookupError,
        TimeoutError,
    }
)

# Each with whether it is an `OSError`.
NATIVE: Final = {cls: cls in _OS_ERRORS for cls in _BY_ARGS | _OS_ERRORS}


def dump_native(exc: BaseException) -> bytes:  # noqa: PLR0911 one piece, see above
    """Pickle an exception if C code alone can, and nothing of it is lost.

    Not collective.

    Args:
        exc: The exception; it is not changed.

    Returns:
        No bytes where it must go another way.
    """
    cls = type(exc)
    is_os_error = NATIVE.get(cls)
    if is_os_error is None:
        return b""
    if exc.__dict__ or exc.__suppress_context__:
        return b""
    arguments: tuple[object, ...] = exc.__reduce__()[1]  # type: ignore[assignment]
    if len(arguments) > MAX_VALUES:
        return b""
    n_chars = 0
    for value in arguments:
        if type(value) is str:
            n_chars += len(value)
        elif type(value) is int:
            if value.bit_length() > MAX_BITS:
                return b""
        elif type(value) not in _VALUES:
            return b""
    if n_chars > MAX_CHARS or (is_os_error and not _is_as_made(exc, arguments)):
        return b""
    # What pickle itself would write, but that it would ask ``copyreg`` about the class:
    # tblib, say, may have put exceptions there, with their tracebacks. Of the last
    # protocol that tells no length before the content.
    told = pickle.dumps(arguments, protocol=3)
    return b"\x80\x03cbuiltins\n%b\n%bR." % (cls.__name__.encode(), told[2:-1])


def _is_as_made(exc: Any, arguments: tuple[object, ...]) -> bool:
    """Tell whether the receiver gets this `OSError` from these arguments.

    It may have been changed since it was made. As the receiver will do, see what
    becomes of them: the same objects, for 2.0 equals 2.
    """
    made: Any = type(exc)(*arguments)
    return (
        type(made) is type(exc)
        and made.errno is exc.errno
        and made.strerror is exc.strerror
        and made.filename is exc.filename
        and made.filename2 is exc.filename2
        and len(made.args) == len(exc.args)
        and all(map(is_, made.args, exc.args))
        and getattr(exc, "characters_written", None) is None
    )

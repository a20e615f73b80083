"""A user's values as bytes, and the errors of that told where they belong.

Owns the pickling of what the collective steps carry. Knows nothing of MPI: the
bytes are made before and read after it, so that a value that cannot be pickled
is its rank's failure and leaves nobody waiting.
"""

from __future__ import annotations

import contextlib
import pickle
from typing import Any


def _add_note(error: Exception, note: str) -> None:
    # A user's class that broke its own __notes__ does not lose its error to it.
    with contextlib.suppress(TypeError):
        BaseException.add_note(error, note)


def dump_value(value: object, giver: str) -> bytes:
    """Pickle a value.

    Not collective.

    Args:
        value: Anything.
        giver: Who gave it, for the note on the error.

    Raises:
        Exception: Whatever pickling it raises, with a note.
    """
    try:
        return pickle.dumps(value, protocol=5)
    except Exception as error:
        _add_note(error, f"raised by pickling what {giver} gave")
        raise


def load_value(data: bytes, rank: int) -> Any:
    """Unpickle a value.

    Not collective.

    Args:
        data: From `dump_value`.
        rank: Where it comes from, for the note on the error.

    Raises:
        Exception: Whatever unpickling it raises, with a note.
    """
    try:
        return pickle.loads(data)
    except Exception as error:
        _add_note(error, f"raised by unpickling the value of rank {rank}")
        raise


def checked_list(values: object, size: int, giver: str) -> list[Any]:
    """Return the values as a list, one a rank.

    Not collective.

    Raises:
        ValueError: They are no list or tuple, or not so many.
    """
    if isinstance(values, (list, tuple)) and len(values) == size:
        return list(values)
    got = type(values).__name__
    if isinstance(values, (list, tuple)):
        got = f"{len(values)} of them"
    msg = f"{giver} must give a list of {size} values, one a rank, got {got}"
    raise ValueError(msg)

"""The pair that stands for one failure: an exception and its stack summary.

Owns how a pair is made, recognised and checked, as
``torch.distributed.checkpoint`` does it. Knows nothing of ranks beyond their
being numbers.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from traceback import StackSummary, extract_tb
from typing import Any, cast

from allraise.chains import traceback_of

WrappedException = tuple[BaseException, StackSummary]


def wrap_exception(exc: BaseException) -> WrappedException:
    """Pair an exception with the summary of its stack.

    Not collective.

    Args:
        exc: The exception; one that was never raised has an empty summary.

    Returns:
        The exception itself and the summary of its stack, with source text, in a
        form that pickles on every Python.

    Raises:
        TypeError: ``exc`` is not an exception.
    """
    given: object = exc
    if not isinstance(given, BaseException):
        msg = f"wrap_exception() takes an exception, got {type(given).__name__}"
        raise TypeError(msg)
    # As `BaseException` has it: a class may have a property of that name.
    summary = extract_tb(traceback_of(exc))
    for frame in summary:
        # Python 3.13.3 and later keep the code object, which does not pickle.
        if getattr(frame, "_code", None) is not None:
            cast("Any", frame)._code = None  # noqa: SLF001 no public way
    return exc, summary


def is_wrapped_exception(obj: object) -> bool:
    """Tell whether this is a pair that `wrap_exception` made.

    Not collective.
    """
    return (
        isinstance(obj, tuple)
        and len(obj) == 2  # noqa: PLR2004 a pair
        and isinstance(obj[0], BaseException)
        and isinstance(obj[1], StackSummary)
    )


def checked_failures(failures: object) -> dict[int, WrappedException]:
    """Return the failures, ascending, or say what is wrong with them."""
    if not isinstance(failures, Mapping):
        msg = (
            "failures must map ranks to (exception, StackSummary) pairs, "
            f"got {type(failures).__name__}"
        )
        raise TypeError(msg)
    checked = {}
    for key, pair in failures.items():
        try:
            rank = int(operator.index(key))  # True is 1
        except TypeError:
            msg = f"a key of failures must be a rank, got {key!r}"
            raise TypeError(msg) from None
        if not (
            isinstance(pair, tuple)
            and len(pair) == 2  # noqa: PLR2004 a pair
            and isinstance(pair[0], BaseException)
            and (pair[1] is None or isinstance(pair[1], list))
        ):
            msg = (
                f"the failure of rank {rank} must be an (exception, StackSummary) "
                f"pair, as wrap_exception() makes it, got {type(pair).__name__}"
            )
            raise TypeError(msg)
        checked[rank] = pair
    return dict(sorted(checked.items()))

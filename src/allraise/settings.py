"""The environment variables that allraise reads, all of them, here.

Not collective. A value that is not understood is refused with the accepted
ones named: a time limit that is silently ignored is worse than none.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

STYLES: Final = ("ranks", "groups", "tree")


class Settings(NamedTuple):
    """What the environment asks for.

    Attributes:
        timeout: ``ALLRAISE_TIMEOUT``, seconds that a guard may take, or None.
        report: ``ALLRAISE_REPORT``, the path of the report file, or None.
        style: ``ALLRAISE_STYLE``, how a report is shown, or None.
    """

    timeout: float | None = None
    report: str | None = None
    style: str | None = None


def parse_timeout(text: str, name: str) -> float:
    """Read a number of seconds.

    Args:
        text: What was given.
        name: What to call it in the error.

    Raises:
        ValueError: It is not a positive, finite number.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        msg = f"{name} must be a positive number of seconds, got {text!r}"
        raise ValueError(msg)
    return seconds


def read_settings() -> Settings:
    """Read the environment.

    Not collective.

    Returns:
        What is set; an empty variable counts as not set.

    Raises:
        ValueError: A variable has a value that is not understood.
    """
    timeout = os.environ.get("ALLRAISE_TIMEOUT") or None
    style = os.environ.get("ALLRAISE_STYLE") or None
    if style is not None and style not in STYLES:
        msg = f"ALLRAISE_STYLE must be one of {', '.join(STYLES)}, got {style!r}"
        raise ValueError(msg)
    report = os.environ.get("ALLRAISE_REPORT") or None
    if report is not None:
        from allraise.paths import check_path  # here: few jobs set it

        try:
            check_path(report)
        except ValueError as error:
            msg = f"ALLRAISE_REPORT: {error}"
            raise ValueError(msg) from None
    return Settings(
        timeout=timeout and parse_timeout(timeout, "ALLRAISE_TIMEOUT"),
        report=report,
        style=style,
    )


def is_pure() -> bool:
    """Tell whether ``ALLRAISE_PURE`` asks for Python alone. Not collective.

    For tests, and to find out whether the compiled part is to blame.

    Raises:
        ValueError: It is neither 0 nor 1.
    """
    pure = os.environ.get("ALLRAISE_PURE") or "0"
    if pure not in ("0", "1"):
        msg = f"ALLRAISE_PURE must be 0 or 1, got {pure!r}"
        raise ValueError(msg)
    return pure == "1"

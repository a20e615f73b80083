"""Whether a failure is written down before the peers are told.

Owns the one question that every failure asks of the spool (see `spool`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from allraise.bundle import Bundle
from allraise.capture import capture
from allraise.chains import is_a
from allraise.errors import PeerFailure
from allraise.exceptions import agreed_of
from allraise.private import step_of
from allraise.spool import current, discard_current

if TYPE_CHECKING:
    from allraise.private import Region


def keep_failure(region: Region, exc: BaseException) -> bool:
    """Write down a failure before the peers are woken.

    Not collective. Never raises.

    Returns:
        Whether there is something to `discard_failure` after the agreement.
    """
    try:
        spool = current()
    except Exception:  # what the environment asks for cannot be: it was told before
        return False
    if spool is None:  # as most often
        return False
    if agreed_of(exc) is not None or is_a(exc, PeerFailure):
        return False
    with suppress(Exception):
        spool.keep(step_of(region), Bundle.of(spool.rank, capture(exc)))
        return True
    return False


def discard_failure() -> None:
    """Remove what `keep_failure` wrote. Not collective."""
    discard_current()

"""Whether a failure is written down before the peers are told.

Owns the one question that every failure asks of the spool (see `spool`).
"""

from __future__ import annotations

from contextlib import suppress

from allraise.bundle import Bundle
from allraise.capture import capture
from allraise.chains import is_a
from allraise.errors import PeerFailure
from allraise.exceptions import CheckpointException
from allraise.spool import current, discard_current


def keep_failure(step: str, exc: BaseException) -> bool:
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
    known = is_a(exc, CheckpointException) and exc.agreed is not None
    if known or is_a(exc, PeerFailure):
        return False
    with suppress(Exception):
        spool.keep(step, Bundle.of(spool.rank, capture(exc)))
        return True
    return False


def discard_failure() -> None:
    """Remove what `keep_failure` wrote. Not collective."""
    discard_current()

"""Whether a failure is written down before the peers are told.

Owns the one question that every failure asks of the spool, so that a job that
wants no report loads none of it (see `spool`).
"""

from __future__ import annotations

import sys
from contextlib import suppress

from allraise.bundle import Bundle
from allraise.capture import capture
from allraise.errors import PeerFailure
from allraise.exceptions import CheckpointException
from allraise.parts import is_a
from allraise.settings import read_settings


def keep_failure(step: str, exc: BaseException) -> bool:
    """Write down a failure before the peers are woken.

    Not collective. Never raises.

    Returns:
        Whether there is something to `discard_failure` after the agreement.
    """
    known = is_a(exc, CheckpointException) and exc.agreed is not None
    if known or is_a(exc, PeerFailure):
        return False
    with suppress(Exception):
        if "allraise.spool" not in sys.modules and not read_settings().report:
            return False
        from allraise.spool import current

        spool = current()
        if spool is not None:
            spool.keep(step, Bundle.of(spool.rank, capture(exc)))
            return True
    return False


def discard_failure() -> None:
    """Remove what `keep_failure` wrote. Not collective."""
    from allraise.spool import discard_current

    discard_current()

"""What a rank fails with where allraise itself finds the failure.

Owns three plain exceptions, beside those of the user's program. Knows nothing.
"""

from __future__ import annotations


class StepMismatchError(Exception):
    """Ranks met at different steps: they do not run the same guards.

    Raised on every rank, as that rank's failure in a `CheckpointException`. The
    message tells for each set of ranks where it stands.
    """


class HangError(Exception):
    """A rank did not arrive in time."""


class PeerFailure(Exception):  # noqa: N818 its name is the contract
    """Raised inside a guarded region: a peer has failed, so waiting is vain.

    Attributes:
        rank: The peer's rank in the guard's communicator; None where the MPI
            does not tell.
        operation: What was given up.
    """

    rank: int | None = None
    operation: str = ""


for _public in (StepMismatchError, HangError, PeerFailure):
    _public.__module__ = "allraise"  # where they are public, and what is printed

"""What a rank fails with where allraise itself finds the failure, or cannot show it.

Owns three plain exceptions, beside those of the user's program, and the one that stands
in for a user's. Knows nothing.
"""

from __future__ import annotations


class StepMismatchError(Exception):
    """The ranks met at different steps: they do not run the same guards.

    A failure inside a `CheckpointException`, which every rank raises; not raised by
    itself. The message says, for each set of ranks, the step, its count, and the file
    and line.
    """


class HangError(Exception):
    """A rank did not reach the end of a step before its deadline.

    A failure inside a `CheckpointException` or a report, one for each missing rank;
    not raised by itself. Its stack is where that rank was. Where the job is ended at
    the deadline, it is in the report only: see ``timeout`` of `guard`.
    """


class PeerFailure(Exception):  # noqa: N818 its name is the contract
    """Another rank has failed, so an operation on ``g.comm`` was given up.

    Raised inside the block of a `guard`, by a rank that waits on ``g.comm`` for a
    failed rank. Do not catch it: it must reach the end of the block, where every rank
    raises `CheckpointException`. The report lists this rank as interrupted, not as
    failed.

    Attributes:
        rank: The failed rank, in the guard's communicator; None if MPI does not tell.
        operation: What was given up, such as ``allreduce``.
    """

    rank: int | None = None
    operation: str = ""


class RemoteError(Exception):
    """Stands in for another rank's exception, where the object itself is not here.

    Not collective. Found in ``failures`` of a `CheckpointException`: where the object
    could not be pickled or unpickled, and on ranks that have no whole report. The
    report shows the original's traceback, type and message in any case.

    Attributes:
        type_name: The original's type, as a traceback names it.
        message: The original's message.
        reason: Why the object itself is not here.
    """

    def __init__(self, type_name: str, message: str = "", reason: str = "") -> None:
        super().__init__(type_name, message, reason)
        self.type_name = type_name
        self.message = message
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


for _public in (StepMismatchError, HangError, PeerFailure, RemoteError):
    _public.__module__ = "allraise"  # where they are public, and what is printed

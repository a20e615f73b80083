"""What is raised: one exception for the failures of many ranks.

Owns `CheckpointException` and what else a user can catch. Knows nothing of how
failures were gathered.

The class follows `torch.distributed.checkpoint.CheckpointException` (PyTorch
2.13, ``torch/distributed/checkpoint/api.py``): constructor, ``failures``,
wrapped pairs, and the text of ``str()``. It differs where torch loses
something: causes and groups are printed, it pickles whatever is inside, and it
is an `Exception` where all that failed were.

An instance holds its failures in one of two forms and makes the other when
asked: the pairs it was constructed with, or the `Bundle` that was gathered.
So ``str()`` unpickles nothing, and a failure that nobody looks at costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, cast

from allraise.bundle import Bundle
from allraise.capture import capture_pair
from allraise.parts import add_note, is_a
from allraise.ranks import RankSet
from allraise.rebuild import rebuild
from allraise.record import NOWHERE, Origin
from allraise.render import format_block
from allraise.wrapped import WrappedException, checked_failures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allraise.record import Record
    from allraise.report import Report

# `str()` prints a block a rank, as torch does. Past this many it is no longer
# read but only costs: 100,000 blocks are 190 MB. `.report` has all, in groups.
MAX_BLOCKS: Final = 1024


class Agreed(NamedTuple):
    """Which agreement an exception is the outcome of.

    ``owner`` is this rank's side of the protocol (see `private`), so that an
    exception of another communicator is told apart; ``rank`` is this rank in it.
    """

    token: int
    owner: object
    rank: int


class CheckpointException(BaseException):
    """At least one rank failed; raised on every rank of the communicator.

    On the root it holds every rank's exception and stack. On another rank it
    holds that rank's own, and of the others the type and the first line of the
    message, unless all asked for ``everywhere=True``. ``__cause__`` is this
    rank's own exception, if it had one.

    Constructed where every failure is an `Exception`, the object is a
    `CheckpointError`, which ``except Exception`` catches.

    Args:
        msg: The step that failed.
        failures: For each failed rank the exception and its stack summary (or
            None), as `wrap_exception` makes them.
    """

    def __new__(cls, msg: str, failures: Mapping[int, WrappedException]) -> Self:
        """Make a `CheckpointError` where every failure is an `Exception`."""
        pairs = checked_failures(failures)
        ordinary = all(is_a(exc, Exception) for exc, _ in pairs.values())
        if not ordinary and cls.__mro__.count(Exception):
            text = (
                f"{cls.__name__} takes failures that are Exceptions; construct "
                "CheckpointException to hold a KeyboardInterrupt or a SystemExit"
            )
            raise TypeError(text)
        made: type[BaseException] = cls
        if cls is CheckpointException and ordinary:
            made = CheckpointError
        return cast("Self", BaseException.__new__(made, msg, failures))

    def __init__(self, msg: str, failures: Mapping[int, WrappedException]) -> None:
        given: object = msg
        if not isinstance(given, str):
            kind = type(given).__name__
            text = f"msg must be a str, the step that failed, got {kind}"
            raise TypeError(text)
        pairs = checked_failures(failures)
        super().__init__(msg, pairs)
        self._fill(msg, None, failures=pairs)

    def _fill(
        self,
        step: str,
        bundle: Bundle | None,
        *,
        failures: dict[int, WrappedException] | None = None,
        live: BaseException | None = None,
        agreed: Agreed | None = None,
    ) -> None:
        self._step = step
        self._bundle = bundle
        self._failures = failures
        self._live = live
        self._agreed = agreed
        self._size: int | None = None
        self._where = ""
        self._without_summary: frozenset[int] = frozenset()
        self._report: Report | None = None

    @classmethod
    def from_bundle(
        cls,
        step: str,
        bundle: Bundle,
        *,
        ordinary: bool,
        live: BaseException | None = None,
        agreed: Agreed | None = None,
    ) -> CheckpointException:
        """Make the exception for what was gathered.

        Not collective.

        Args:
            step: The step that failed.
            bundle: The failures.
            ordinary: Whether all of them are `Exception`.
            live: This rank's own exception, which stays what it is.
            agreed: The agreement that this is the outcome of.
        """
        made_cls = CheckpointError if ordinary else CheckpointException
        # Not through the constructor: it wants pairs, and pairs are unpickled.
        made = BaseException.__new__(made_cls, step)
        made._fill(step, bundle, live=live, agreed=agreed)  # noqa: SLF001 itself
        return made

    def locate(self, size: int | None, where: str) -> None:
        """Say how many ranks there were and, if not here, where the report is."""
        self._size = size
        self._where = where

    @property
    def agreed(self) -> Agreed | None:
        """The agreement that this is the outcome of; None if there was none."""
        return self._agreed

    @property
    def is_partial(self) -> bool:
        """Whether another rank has the whole report."""
        return bool(self._where)

    def own_exception(self) -> BaseException | None:
        """Return this rank's own exception, live, if it had one."""
        return self._live

    @property
    def args(self) -> Any:  # type: ignore[override]
        """The message and the failures, as torch has them."""
        return (self._step, self.failures)

    @property
    def step(self) -> str:
        """The step that failed."""
        return self._step

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that failed, ascending; the same on every rank."""
        if self._failures is not None:
            return tuple(self._failures)
        return tuple(self.bundle.failures().ranks)

    @property
    def failures(self) -> dict[int, WrappedException]:
        """For each failed rank, ascending, its exception and its stack.

        An exception that could not travel is a `RemoteError` with its type and
        message.
        """
        if self._failures is None:
            own = -1
            if self._agreed is not None and self._live is not None:
                own = self._agreed.rank
            found: dict[int, Any] = {}
            for ranks, record in self.bundle.failures().records():
                for rank in ranks:
                    exc, summary = rebuild(record)
                    found[rank] = (
                        self._live if rank == own else exc,
                        None if rank in self._without_summary else summary,
                    )
            self._failures = dict(sorted(found.items()))
        return self._failures

    @property
    def bundle(self) -> Bundle:
        """The failures as they travel and as reports read them."""
        if self._bundle is None:
            self._bundle = self._bundle_of_pairs(objects=False)
        return self._bundle

    def _bundle_of_pairs(self, *, objects: bool) -> Bundle:
        return Bundle.merge(
            Bundle.of(rank, capture_pair(exc, summary, objects=objects))
            for rank, (exc, summary) in (self._failures or {}).items()
        )

    @property
    def report(self) -> Report:
        """All that is known, to be shown in groups or saved."""
        if self._report is None:
            from allraise.report import Report

            self._report = Report.here(self._step, self.bundle, self._size)
        return self._report

    def exception_group(self) -> BaseExceptionGroup[Any]:
        """Return the failures as a group, for ``except*`` and group-aware tools.

        Not collective. Each call makes new objects: the exceptions in
        ``failures`` are left as they are.

        Returns:
            One leaf a rank, with a rebuilt ``__traceback__`` (file, line and
            function; no locals) and a note that tells rank, host and process.

        Raises:
            ValueError: There is no failure: a group cannot be empty.
        """
        bundle = self._portable_bundle()
        leaves = {}
        for ranks, record in bundle.failures().records():
            for rank in ranks:
                exc, _ = rebuild(record)
                origin = Origin(*bundle.origins.get(rank, NOWHERE))
                place = f" on {origin.host}, pid {origin.pid}" if origin.pid else ""
                add_note(exc, f"rank {rank}{place}")
                leaves[rank] = exc
        if not leaves:
            msg = "no rank failed: an exception group cannot be empty"
            raise ValueError(msg)
        title = f"step {self._step!r}" if self._step else "failures"
        ordered = [leaves[rank] for rank in sorted(leaves)]
        return BaseExceptionGroup(f"{title} on ranks {RankSet(leaves)}", ordered)

    def _portable_bundle(self) -> Bundle:
        """Return a bundle with objects; the one for printing may have none."""
        gathered = self._bundle is not None and self._bundle.origins
        if gathered or self._failures is None:
            return self.bundle
        return self._bundle_of_pairs(objects=True)

    def _records(self) -> dict[int, Record]:
        failed = self.bundle.failures()
        return {r: record for ranks, record in failed.records() for r in ranks}

    def __str__(self) -> str:
        records = sorted(self._records().items())
        ranks = [rank for rank, _ in records[:MAX_BLOCKS]]
        parts = [f"CheckpointException ranks:dict_keys({ranks})\n"]
        parts += [format_block(record, rank) for rank, record in records[:MAX_BLOCKS]]
        if len(records) > MAX_BLOCKS:
            left = len(records) - MAX_BLOCKS
            parts.append(f"[{left} more ranks failed; .report shows all in groups]\n")
        if self._where:
            parts.append(f"[{self._where}]\n")
        return "".join(parts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._step!r}, {self.failures!r})"

    def _allraise_brief(self) -> str:
        """Return the line that stands for this exception in another's chain.

        Only for one that was agreed: it has been reported.
        """
        if self._agreed is None:
            raise NotImplementedError
        ranks = RankSet(self.ranks)
        step = f"step {self._step!r}" if self._step else "a step"
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return f"{name}: {step} failed on ranks {ranks}, reported where it was raised\n"

    def __reduce__(self) -> tuple[Any, ...]:
        pairs: Mapping[int, tuple[object, object]] = self._failures or {}
        without = frozenset(rank for rank, pair in pairs.items() if pair[1] is None)
        notes = list(getattr(self, "__notes__", ()))
        state = (self._size, self._where, without, notes)
        wire = self._portable_bundle().encode()
        return _unpickle, (type(self), self._step, wire, state)


class CheckpointError(CheckpointException, Exception):
    """A `CheckpointException` of nothing but `Exception`: the ordinary case."""


_public: type[BaseException]
for _public in (CheckpointException, CheckpointError):
    _public.__module__ = "allraise"  # where they are public, and what is printed


def _unpickle(
    cls: type[CheckpointException], step: str, wire: bytes, state: tuple[Any, ...]
) -> CheckpointException:
    ordinary = issubclass(cls, Exception)
    size, where, without, notes = state
    bundle = Bundle.decode(wire)
    made = CheckpointException.from_bundle(step, bundle, ordinary=ordinary)
    made.locate(size, where)
    made._without_summary = without  # noqa: SLF001 its own other half
    for note in notes:
        add_note(made, note)
    return made

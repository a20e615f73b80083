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

What all that takes is imported where it is used: half of what `import allraise` would
take. A rank that may fail has it from its first guard on, see `arguments.private_of`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, cast

from allraise.chains import attributes_of, is_a
from allraise.wrapped import WrappedException, checked_failures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allraise.bundle import Bundle
    from allraise.report import Report


class Agreed(NamedTuple):
    """Which agreement an exception is the outcome of.

    ``owner`` is this rank's side of the protocol (see `private`), so that an
    exception of another communicator is told apart; ``rank`` is this rank in it.
    """

    token: int
    owner: object
    rank: int


class CheckpointException(BaseException):
    """At least one rank failed; every rank of the communicator raises it.

    Raised by `guard`, `agree` and `CollectiveSteps`::

        except allraise.CheckpointException as failure:  # on every rank
            if comm.rank == 0:
                print(failure.report)

    The root's holds every rank's exception and stack. That of another rank holds its
    own exception, and the type and first line of the message of the others; with
    ``everywhere=True``, and from `CollectiveSteps`, every rank's holds everything.
    ``ranks`` and ``step`` are the same on every rank: decide by these what to do
    next. ``__cause__`` is this rank's own exception, live, if it had one.

    It is a `BaseException`, as in PyTorch. Where every failure is an `Exception`, the
    object is a `CheckpointError`, which ``except Exception`` catches too. ``str()`` is
    PyTorch's text: ``CheckpointException ranks:dict_keys([2])``, then a traceback for
    each failed rank. There is a block for 1024 ranks at most, or, where another rank has
    the whole report, for this rank and eight others; then how many more there are.

    Args:
        msg: The step that failed.
        failures: For each failed rank its exception and stack summary (or None), as
            `wrap_exception` makes them.

    Raises:
        TypeError: An argument is of the wrong kind.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make a `CheckpointError` where every failure is an `Exception`.

        Takes anything: a subclass may have a constructor of its own.
        """
        made: type[BaseException] = cls
        if cls is CheckpointException:
            failures = args[1] if len(args) > 1 else kwargs.get("failures", {})
            if _are_ordinary(checked_failures(failures)):
                made = CheckpointError
        exc = cast("Self", BaseException.__new__(made, *args))
        # A subclass's constructor may not call this one's.
        exc._fill("", None)  # noqa: SLF001 itself
        return exc

    def __init__(self, msg: str, failures: Mapping[int, WrappedException]) -> None:
        given: object = msg
        if not isinstance(given, str):
            kind = type(given).__name__
            text = f"msg must be a str, the step that failed, got {kind}"
            raise TypeError(text)
        pairs = checked_failures(failures)
        if issubclass(type(self), Exception) and not _are_ordinary(pairs):
            text = (
                f"{type(self).__name__} takes failures that are Exceptions; construct "
                "CheckpointException to hold a KeyboardInterrupt or a SystemExit"
            )
            raise TypeError(text)
        super().__init__(msg, pairs)
        self._fill(msg, None, failures=pairs)

    __new__.__wrapped__ = __init__  # type: ignore[attr-defined]  # for `help`

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
        # The bundle of pairs that were given is for printing: without objects.
        self._is_by_hand = failures is not None
        self._live = live
        self._agreed = agreed
        self._own = -1 if agreed is None else agreed.rank
        self._size: int | None = None
        self._where = ""
        self._is_whole = True
        pairs: Mapping[int, tuple[object, object]] = failures or {}
        self._without_summary = frozenset(r for r in pairs if pairs[r][1] is None)
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

    def locate(
        self, size: int | None, where: str, *, is_whole: bool | None = None
    ) -> None:
        """Say how many ranks there were and, if not here, where the report is.

        Args:
            size: Of the communicator.
            where: Who prints the whole report, in words; empty on that rank.
            is_whole: Whether it is here as well; if not told, on that rank only.
        """
        self._size = size
        self._where = where
        self._is_whole = not where if is_whole is None else is_whole

    @property
    def agreed(self) -> Agreed | None:
        """The agreement that this is the outcome of; None if there was none."""
        return self._agreed

    @property
    def is_partial(self) -> bool:
        """Whether another rank has the whole report."""
        return not self._is_whole

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
        """For each failed rank, ascending, its exception and its stack summary.

        An exception that could not travel is a `RemoteError` with its type and
        message. So is that of another rank where this rank knows no more. Another dict
        each time, of the same exceptions.
        """
        if self._failures is None:
            from allraise.rebuild import rebuild

            found: dict[int, Any] = {}
            for ranks, record in self.bundle.failures().records():
                for rank in ranks:
                    exc, summary = rebuild(record)
                    live = self._live_of(rank)
                    found[rank] = (
                        exc if live is None else live,
                        None if rank in self._without_summary else summary,
                    )
            self._failures = dict(sorted(found.items()))
        return dict(self._failures)

    def _live_of(self, rank: int) -> BaseException | None:
        """Return the exception of a rank as it was raised, if it is here."""
        if self._is_by_hand and self._failures is not None:
            return self._failures[rank][0]
        return self._live if rank == self._own else None

    @property
    def bundle(self) -> Bundle:
        """The failures in the form that travels; for reports, not for users."""
        if self._bundle is None:
            self._bundle = self._bundle_of_pairs(objects=False)
        return self._bundle

    def _bundle_of_pairs(self, *, objects: bool) -> Bundle:
        from allraise.bundle import Bundle
        from allraise.capture import capture_pair

        return Bundle.merge(
            Bundle.of(rank, capture_pair(exc, summary, objects=objects))
            for rank, (exc, summary) in (self._failures or {}).items()
        )

    @property
    def report(self) -> Report:
        """All that this rank knows of the failure: print it, or ``save(path)`` it."""
        if self._report is None:
            from allraise.record import ALL_KNOWN
            from allraise.report import Report

            self._report = Report.here(self._step, self.bundle, self._size)
            if self._size is not None:  # all have agreed
                self._report.environment[ALL_KNOWN] = True
        return self._report

    def exception_group(self) -> BaseExceptionGroup[Any]:
        """Return the failures as a group, for ``except*`` and tools that know groups.

        Not collective. Each call makes new objects and leaves the exceptions in
        ``failures`` as they are. One raised on this rank has its type here, even if it
        cannot travel.

        Returns:
            One leaf for each failed rank, with a rebuilt ``__traceback__`` (file, line
            and function; no local variables) and a note of rank, host and process.

        Raises:
            ValueError: There is no failure: a group cannot be empty.
        """
        from allraise.leaves import make_group

        return make_group(self._step, self.bundle, self._live_of)

    def __str__(self) -> str:
        from allraise.telling import tell

        failures = self.bundle.failures()
        return tell(failures, self._own, self._where, is_whole=self._is_whole)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._step!r}, {self.failures!r})"

    def _allraise_brief(self, room: int) -> str:
        """Return what stands for this exception in another's chain.

        Only for one that was agreed: it has been reported.
        """
        if self._agreed is None:
            raise NotImplementedError
        from allraise.telling import in_chain, retell

        failures = self.bundle.failures()
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        line = in_chain(name, self._step, failures.ranks)
        if not room:
            return line
        is_told = self._live is not None and self.__cause__ is self._live
        where = "" if self._is_whole else self._where
        return line + retell(failures, self._own if is_told else -1, where, room)

    def __copy__(self) -> Self:
        from allraise.copies import shallow_copy

        return shallow_copy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        from allraise.copies import deep_copy

        return deep_copy(self, memo, _HELD)  # the exceptions are live

    def __reduce__(self) -> tuple[Any, ...]:
        from allraise.copies import state_to_pickle
        from allraise.parts import fill

        bundle = self.bundle
        if self._is_by_hand:
            bundle = self._bundle_of_pairs(objects=True)
        state = state_to_pickle(self, _HELD)
        state["dict"] |= {name: getattr(self, name) for name in _CARRIED}
        return _begin, (type(self), bundle.encode()), state, None, None, fill


def agreed_of(exc: BaseException) -> Agreed | None:
    """Return the agreement that an exception is the outcome of; None if there was none.

    Not collective. Never raises: a subclass that makes something else of ``agreed`` is
    not asked, for the others may be waiting.
    """
    if not issubclass(type(exc), CheckpointException):  # as most often
        return None
    return attributes_of(exc).get("_agreed")


# What is no attribute of a user's: what is carried as it is, and what is made anew.
_CARRIED: Final = frozenset(
    {"_step", "_own", "_size", "_where", "_is_whole", "_without_summary"}
)
_HELD: Final = _CARRIED | {
    "_bundle",
    "_failures",
    "_is_by_hand",
    "_live",
    "_agreed",
    "_report",
}


class CheckpointError(CheckpointException, Exception):
    """A `CheckpointException` in which every failure is an `Exception`.

    The ordinary case: made by itself where no rank raised a ``KeyboardInterrupt``,
    ``SystemExit`` or other `BaseException`. ``except Exception`` catches it.
    """


_public: type[BaseException]
for _public in (CheckpointException, CheckpointError):
    _public.__module__ = "allraise"  # where they are public, and what is printed


def _are_ordinary(pairs: dict[int, WrappedException]) -> bool:
    return all(is_a(exc, Exception) for exc, _ in pairs.values())


def _begin(cls: type[CheckpointException], wire: bytes) -> BaseException:
    """Make what a pickle is read into; `parts.fill` does the rest."""
    from allraise.bundle import Bundle
    from allraise.parts import create

    made = cast("CheckpointException", create(cls))
    made._fill("", Bundle.decode(wire))  # noqa: SLF001 its own other half
    return made

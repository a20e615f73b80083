"""The guarded block.

Owns `guard`. Knows nothing of how ranks agree.

A class and not ``contextlib.contextmanager``, so that no frame of `contextlib`
stands in a user's traceback, and one guard can be entered again and again.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast

from allraise.agreement import enter, leave, wake_from_now_on
from allraise.arguments import check_arguments, checked_before, locate
from allraise.chains import put_on_top
from allraise.nesting import is_open
from allraise.plain import IS_COMPILED, Block, Signature, call_directly
from allraise.registry import resolve_comm
from allraise.verdict import EVERYWHERE, place_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from mpi4py import MPI


# What an entered guard holds, and what it was made of: no state of a user's.
_OF_THE_BLOCK: Final = frozenset(
    {"_comm", "_deadline", "_entered", "_place", "_private", "_step", "_timeout"}
)

F = TypeVar("F", bound="Callable[..., Any]")


class guard(Block):  # noqa: N801 reads as the block it is
    """A block that ends the same way on every rank: all go on, or all raise.

    Collective over comm: every rank enters and leaves it.

    If no rank raises inside the block, it ends like any other. If any rank raises
    (any `BaseException`), every rank raises `CheckpointException` at the end of the
    block: on the root with every rank's exception and stack; on a failing rank
    with its own exception as ``__cause__``; on the others with one line for each
    failure.

    Inside the block, communicate on ``g.comm`` or not at all. A rank waiting on
    plain ``comm`` for a failed rank never reaches the end of the block::

        with allraise.guard(comm, "solve") as g:
            inside = g.comm  # on every rank, first of all
            part = compute()
            total = inside.allreduce(part)

    Guards nest. A failure in an outer block ends the inner guards of all ranks, and
    a failure that passes through an outer guard is not wrapped again. A guard can be
    used again, and as a decorator: ``@guard(comm, "write")``.

    Args:
        comm: The ranks that agree; None for ``COMM_WORLD``.
        step: The name of the block in reports; the same on every rank.
        root: The rank that gets the whole report.
        everywhere: Whether every rank gets the whole report.
        timeout: Seconds from entering the block until all ranks have agreed; None
            for ``ALLRAISE_TIMEOUT``, or no deadline if that is not set. Past the
            deadline the job is ended, with a report of which ranks are missing and
            where each is. It raises instead, on every rank and with a `HangError`
            for each missing rank, only if all missing ranks wait on ``g.comm``.

    Raises:
        CheckpointException: At the end, on every rank, if any rank failed, or if
            the ranks met at different steps. At the start, on a rank that has
            swallowed an agreed failure of an outer block.
        TypeError: On every rank that passes the wrong kind of argument.
        ValueError: On every rank whose argument is impossible: ``COMM_NULL``, a
            root that is no rank, MPI not running.

    Success costs one ``Allreduce`` of 8 int64 (64 bytes) at the end. The first
    guard on a communicator also duplicates it, once.
    """

    def __init__(
        self,
        comm: MPI.Intracomm | None = None,
        step: str = "",
        *,
        root: int = 0,
        everywhere: bool = False,
        timeout: float | None = None,
    ) -> None:
        # The region of the entry that has not ended, with a time limit a
        # `TimedRegion`, and this of the entry before: a decorated function recurses.
        self._entered = None
        self._timeout = timeout
        self._step = step
        self._comm = comm
        self._place = 0
        self._private = checked_before(comm, step, root, everywhere, timeout)
        if self._private is None:
            arguments = check_arguments(
                comm,
                step,
                root=root,
                everywhere=everywhere,
                timeout=timeout,
                is_decoration=True,
            )
            self._place = place_of(arguments.root, everywhere=everywhere)
            self._timeout = arguments.timeout
        if self._timeout is not None:
            # Here, because few programs need it, and an import takes its time.
            from allraise import deadline

            self._deadline = deadline

    def __enter__(self) -> Self:
        private = self._private
        if private is None or private.closed:
            private = self._private = locate(self._comm, self._place)
        if self._timeout is None:
            # No call from here on, so no signal's handler in between.
            opened = enter(private, self._step)
            self._entered = (opened, self._entered)
        else:
            region = self._deadline.open_timed(
                private, self._step, self._timeout, self._place
            )
            self._entered = (region, self._entered)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        exc: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._entered is None:
            msg = "this guard was not entered, so it cannot be left"
            raise RuntimeError(msg)
        entered, self._entered = self._entered
        close = leave if self._timeout is None else self._deadline.close_timed
        try:
            outcome = close(entered, exc, self._place)
        except BaseException as error:
            if not is_open(entered if self._timeout is None else entered.opened):
                raise
            # A signal's handler has raised as the call began.
            outcome = close(entered, put_on_top(error, exc), self._place)
        # Where the outcome is what was raised, that goes on as it is.
        if outcome is not None and outcome is not exc:
            raise outcome

    if not TYPE_CHECKING and IS_COMPILED:
        # The block's own come first then, and these where more is to be done.
        _init, _enter, _exit = __init__, __enter__, __exit__
        del __init__, __enter__, __exit__
        __signature__ = Signature(_init)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle it as a guard of the same arguments that is not entered.

        Also a deep copy is one of the same communicator: MPI knows no other.
        """
        make = functools.partial(
            _make,
            type(self),
            self._comm,
            self._step,
            root=self._place & (EVERYWHERE - 1),
            everywhere=bool(self._place & EVERYWHERE),
            timeout=self._timeout,
        )
        found = object.__getstate__(self)
        parts = found if isinstance(found, tuple) else (found, None)
        state = tuple(
            {name: part[name] for name in part if name not in _OF_THE_BLOCK}
            for part in (part or {} for part in parts)
        )
        return make, (), state

    @property
    def comm(self) -> MPI.Intracomm:
        """The communicator to use inside the block: a peer's failure interrupts it.

        Collective over comm at the first use on a communicator, where a rank may
        also come to the end of the block instead; not collective afterwards. So
        take it on every rank, first of all. It has the ranks of the guard's
        communicator; messages on the two do not mix. A rank blocked in an
        operation on it raises `PeerFailure` when a peer fails, and so comes to
        the end of the block.

        Raises:
            PeerFailure: A rank had failed before the first use.
            RuntimeError: Outside of the block, or MPI has no communicator left.
        """
        if self._entered is None:
            msg = "g.comm is there only inside the block of the guard"
            raise RuntimeError(msg)
        entered = self._entered[0]
        private = entered[0] if self._timeout is None else entered.private
        if private.channel is None:  # one rank: nobody to wait for
            from allraise.alone import communicator_of_one

            return communicator_of_one(resolve_comm(self._comm))
        from allraise.interruptible import communicator

        wake_from_now_on(private, "g.comm")
        return communicator(private.channel)

    def __call__(self, function: F) -> F:
        """Decorate a function: each call of it runs in this guard.

        Collective over comm at each call.

        Raises:
            TypeError: It is not a function, or it is a generator, whose body runs
                after the call has returned.
        """
        import inspect  # here: it takes a tenth of the import of allraise

        given: object = function
        if not callable(given):
            msg = f"guard decorates functions, got {type(given).__name__}"
            raise TypeError(msg)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(
            function
        ):
            msg = (
                f"{function.__qualname__} is a generator: its body runs while it is "
                "iterated, outside the guard; put `with guard(...):` in the body"
            )
            raise TypeError(msg)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def guarded_coroutine(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return cast("F", guarded_coroutine)

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            before = self._entered
            try:
                with self:
                    return function(*args, **kwargs)
            except BaseException as error:
                if self._entered is before:
                    raise
                # A signal's handler has raised where `__exit__` began.
                self.__exit__(type(error), error, error.__traceback__)
                raise

        return cast("F", guarded)


call_directly(guard)


def _make(cls: type[guard], *given: Any, **options: Any) -> guard:
    made = cls.__new__(cls)
    guard.__init__(made, *given, **options)
    return made

"""What is said of ranks that did not arrive in time.

Owns the answer of each rank to where it stands, and the report that these make.
Knows nothing of how ranks are asked, nor when.
"""

from __future__ import annotations

import json
import sys
import threading
from traceback import extract_stack
from typing import TYPE_CHECKING, Final, NamedTuple

from allraise.bodies import dump_exception
from allraise.bundle import Bundle
from allraise.capture import capture, origin_here
from allraise.ending import publish_last
from allraise.errors import HangError
from allraise.frames import frames_from_summary
from allraise.own import is_own_file
from allraise.ranks import RankSet
from allraise.record import (
    BLOCKED,
    HANG,
    INTERRUPTED,
    Frame,
    Link,
    Origin,
    Record,
    clip,
)
from allraise.wire import Packed, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from allraise.census import Message
    from allraise.report import Report

MAX_THREADS: Final = 8

# Of the call that a rank waits in.
MAX_CALL_CHARS: Final = 100

ARRIVED: Final = ("arrived", "failed")


class Case(NamedTuple):
    """The region whose deadline passed, and how many ranks it is about."""

    step: str
    timeout: float
    size: int

    @property
    def name(self) -> str:
        """The step, for a sentence."""
        return f"step {self.step!r}" if self.step else "a step without a name"


def user_frames(frame: FrameType) -> tuple[Frame, ...]:
    """Take down a live stack, without what is allraise's own at its inner end."""
    from allraise.stacks import program_frames

    whole = frames_from_summary(extract_stack(frame))
    found = program_frames(whole)
    n_frames = len(found)
    while n_frames and is_own_file(found[n_frames - 1].filename):
        n_frames -= 1
    return found[:n_frames] or whole


def where_it_stands(thread: int) -> Message:
    """Take down the stacks of this process.

    Not collective. Runs in a helper thread while the others are blocked.

    Args:
        thread: The identifier of the one that matters most.
    """
    names = {t.ident: t.name for t in threading.enumerate()}
    stacks = sys._current_frames()  # noqa: SLF001 the documented way
    others = [
        (names[ident], [list(f) for f in user_frames(frame)])
        for ident, frame in stacks.items()
        if ident != thread and not names.get(ident, "allraise").startswith("allraise")
    ]
    main = stacks.get(thread)
    frames = user_frames(main) if main is not None else ()
    return {
        "frames": [list(frame) for frame in frames],
        "threads": others[:MAX_THREADS],
        "waits": _waits(thread, main),
        "origin": list(origin_here()),
    }


def _waits(thread: int, frame: FrameType | None) -> str | None:
    """Return the call that a thread waits for other ranks in; None if in none."""
    from allraise.standstill import waiting_call

    if thread == threading.get_ident():  # it is here, and tells of itself
        return None
    found = waiting_call(thread, frame) if frame is not None else None
    return clip(found, MAX_CALL_CHARS) if found else found


def failure_answer(exc: BaseException, kind: str) -> Message:
    """Take down what has ended the block of a rank that waits for the agreement.

    Not collective.

    Args:
        exc: What it was.
        kind: Whether a failure, or what one of a peer's has led to, see `record`.
    """
    packed = pack(capture(exc, kind=kind))
    return {
        "kind": kind,
        "shape": packed.shape.decode(),
        "variant": packed.variant.decode(),
        "origin": list(packed.origin),
    }


def _failure_record(answer: Message) -> Record:
    packed = Packed(answer["shape"].encode(), answer["variant"].encode())
    record = unpack(packed)
    return record._replace(origin=Origin(*answer["origin"]))


def _hang_record(message: str, answer: Message) -> Record:
    frames = tuple(Frame(*frame) for frame in answer.get("frames", ()))
    notes = []
    for name, inner in answer.get("threads", ()):
        lines = [f"thread {name!r}:"]
        for item in inner:
            frame = Frame(*item)
            lines.append(
                f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}'
            )
            if frame.source:
                lines.append(f"    {frame.source.strip()}")
        notes.append("\n".join(lines))
    error = HangError(message)
    body, reason = dump_exception(error)
    lines = [f"allraise.HangError: {message}\n", *(f"{note}\n" for note in notes)]
    link = Link("allraise.HangError", message, tuple(lines), tuple(notes), frames)
    origin = Origin(*answer["origin"]) if "origin" in answer else Origin()
    kind = BLOCKED if _is_waiting(answer) else HANG
    if answer.get("state") == "finished":
        kind = "finished"
    return Record((link,), (body,), (reason,), origin, kind)


def _is_waiting(answer: Message) -> bool:
    """Tell whether a missing rank waits for others: hardly what they wait for."""
    return answer.get("waits") is not None and answer["state"] in (
        "inside",
        "elsewhere",
    )


def _message_of(case: Case, answer: Message) -> str:
    """Say what is known of a rank that is missing."""
    limit = f"within {case.timeout:g} s"
    state, inner = answer["state"], answer.get("inner", "")
    call = answer.get("waits")
    waits = f"waits in {call} for other ranks" if call else "waits for other ranks"
    if state == "inside":
        known = [f"is in step {inner!r} within it"] if inner else []
        known += [waits] if _is_waiting(answer) else []
        within = f": it {' and '.join(known)}" if known else ""
        return f"{case.name} was not at its end {limit}{within}"
    if state == "elsewhere":
        within = f"it is in step {inner!r}" if inner else "it is in no guarded region"
        within += f" and {waits}" if _is_waiting(answer) else ""
        return f"{case.name} was not even entered {limit}: {within}"
    if state == "stalled":
        return (
            f"{case.name} was not at its end {limit}: C code holds the interpreter "
            "(the GIL), from the call in the last line"
        )
    if state == "finished":
        how = f" by {answer['how']}" if answer["how"] else ""
        left = f"step {inner!r} still open" if inner else "no guard open"
        return (
            f"{case.name} was not at its end {limit}: the rank has finished its "
            f"program{how}, with {left}"
        )
    if state == "silent":
        return (
            f"{case.name} was not at its end {limit}, and the process does not "
            "answer: it is gone, or C code holds the interpreter"
        )
    return f"{case.name} was at its end, but the ranks did not agree {limit}"


def missing_ranks(answers: Mapping[int, Message]) -> RankSet:
    """Return the ranks that have not arrived."""
    return RankSet(r for r, found in answers.items() if found["state"] not in ARRIVED)


def make_bundle(case: Case, answers: Mapping[int, Message]) -> Bundle:
    """Make the failures of a region whose deadline has passed.

    Not collective.

    Args:
        case: The region.
        answers: Of every rank.

    Returns:
        A failure for each rank that has failed, and a hang for each that is
        missing; if none is, for each that waits.
    """
    nobody = not missing_ranks(answers)
    bundle = Bundle()
    for rank, answer in answers.items():
        if answer["state"] == "failed":
            bundle.add(RankSet((rank,)), _failure_record(answer))
        elif answer["state"] != "arrived" or nobody:
            record = _hang_record(_message_of(case, answer), answer)
            bundle.add(RankSet((rank,)), record)
    return bundle


def _finished(answers: Mapping[int, Message]) -> RankSet:
    return RankSet(r for r, found in answers.items() if found["state"] == "finished")


def _ranks(ranks: RankSet) -> str:
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {ranks}"


def _ended(answer: Message) -> str:
    """Return the state of a rank, told from one whose block has failed by itself."""
    state = answer["state"]
    is_woken = state == "failed" and answer.get("kind") == INTERRUPTED
    return INTERRUPTED if is_woken else state


def headline(case: Case, answers: Mapping[int, Message]) -> str:
    """Say in a line who has arrived and who has not."""
    groups = {
        text: RankSet(r for r, a in answers.items() if _ended(a) in states)
        for text, states in (
            ("arrived", ("arrived",)),
            ("failed", ("failed",)),
            ("interrupted", (INTERRUPTED,)),
            ("missing", ("inside", "elsewhere", "stalled", "silent", "finished")),
        )
    }
    told = ", ".join(f"{_ranks(r)} {text}" for text, r in groups.items() if r)
    waiting = RankSet(r for r, found in answers.items() if _is_waiting(found))
    parts = []
    if waiting and waiting != groups["missing"]:
        verb = "waits" if len(waiting) == 1 else "wait"
        parts.append(f"{_ranks(waiting)} {verb} for others")
    finished = _finished(answers)
    if finished:
        verb = "has" if len(finished) == 1 else "have"
        parts.append(f"{_ranks(finished)} {verb} finished the program")
    told += f" ({'; '.join(parts)})" if parts else ""
    return f"{case.name} passed its deadline of {case.timeout:g} s: {told}"


def notice(case: Case, passed_s: float, answers: Mapping[int, Message]) -> str:
    """Say in a line which ranks are waited for; empty if none is."""
    missing = missing_ranks(answers)
    if not missing or any(a["state"] == "done" for a in answers.values()):
        return ""
    silent = RankSet(r for r in missing if answers[r]["state"] in ("silent", "stalled"))
    waiting = f"waiting for {_ranks(missing)} of {case.size}"
    if len(missing) == case.size:
        waiting = "no rank has reached its end"
    if silent:
        waiting += f" ({_ranks(silent)}: no answer)"
    if finished := _finished(answers):
        waiting += f" ({_ranks(finished)}: finished the program)"
    limit = f"{passed_s:.3g} s of {case.timeout:g} s have passed"
    return f"allraise: {case.name}: {limit}, {waiting}\n"


def publish(case: Case, answers: Mapping[int, Message], title: str) -> None:
    """Show and store the report.

    Not collective. Never raises.
    """

    def make() -> Report:
        from allraise.report import Report

        return Report.here(case.step, make_bundle(case, answers), case.size)

    publish_last(title, make, lambda: json.dumps(answers))

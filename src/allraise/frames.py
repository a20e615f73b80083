"""Stacks as plain frames, and back; the only user of tblib.

Owns the way from a live traceback, or a summary of one, to a flat tuple of
`Frame` and back. Knows nothing of exceptions.

Flat, because tblib's own form nests one frame in the other and dies on the
1000 frames of a `RecursionError` ("RecursionError: ... while pickling"); tblib
rebuilds the live traceback from the flat form, iteratively.
"""

from __future__ import annotations

import linecache
import os
import sys
from contextlib import suppress
from itertools import islice
from traceback import FrameSummary, StackSummary, extract_tb
from types import CodeType, SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Final

from tblib import Traceback

from allraise.record import Frame

if TYPE_CHECKING:
    from collections.abc import Container

# A stack at Python's own recursion limit (1000) is kept whole; of a deeper one
# the two ends tell where it came from and where it ended.
MAX_FRAMES_EACH_END: Final = 1000

# Of a source line, what a screen can show; minified code has lines of megabytes.
MAX_SOURCE_CHARS: Final = 1000

# Of a statement over many lines, what Python itself would print at most.
MAX_SOURCE_LINES: Final = 30

# From 3.13 on Python keeps and prints every line of a statement, before only
# the first, and calls the attribute another name.
_ALL_LINES: Final = sys.version_info >= (3, 13)


def _source_of(summary: FrameSummary) -> str:
    name = "_original_lines" if _ALL_LINES else "_original_line"
    try:
        source = getattr(summary, name)
    except AttributeError:  # private names; `line` is public, without indent
        source = summary.line
    if not source:
        return ""
    lines = str(source).splitlines()[:MAX_SOURCE_LINES]
    return "\n".join(line[:MAX_SOURCE_CHARS] for line in lines)


def frame_from_summary(summary: FrameSummary) -> Frame:
    """Copy one frame of a summary, its source text included."""
    source = _source_of(summary)
    clipped = len(source) >= MAX_SOURCE_CHARS and any(
        len(line) >= MAX_SOURCE_CHARS for line in source.split("\n")
    )
    return Frame(
        summary.filename,
        summary.lineno,
        summary.end_lineno,
        # Columns beyond a clipped line would draw carets under nothing.
        None if clipped else summary.colno,
        None if clipped else summary.end_colno,
        summary.name,
        source,
    )


def frames_from_summary(summary: StackSummary) -> tuple[Frame, ...]:
    """Copy a stack summary, consecutive identical frames folded.

    Not collective.

    Args:
        summary: As `traceback.extract_tb` makes it, outermost frame first.

    Returns:
        The frames, outermost first. Of a stack beyond the cap the middle is
        replaced by one frame that says how many were left out.
    """
    kept = list(summary)
    left_out = len(kept) - 2 * MAX_FRAMES_EACH_END
    if left_out > 0:
        gap = FrameSummary(
            f"<{left_out} frames left out>", 0, "...", lookup_line=False, line=""
        )
        kept[MAX_FRAMES_EACH_END:-MAX_FRAMES_EACH_END] = [gap]
    frames: list[Frame] = []
    for item in kept:
        frame = frame_from_summary(item)
        last = frames[-1] if frames else None
        # Lines first: to make a frame anew takes as long as all else here.
        if (
            last is not None
            and last.lineno == frame.lineno
            and last._replace(repeat=1) == frame
        ):
            frames[-1] = frame._replace(repeat=last.repeat + 1)
        else:
            frames.append(frame)
    return tuple(frames)


def frames_from_traceback(traceback: TracebackType | None) -> tuple[Frame, ...]:
    """Copy a live traceback; no frame object is kept.

    Not collective.
    """
    try:
        return frames_from_summary(extract_tb(traceback))
    except BaseException:  # asks a module's loader for the source: user code
        places = places_of(traceback, with_loaders=False)
        return frames_from_summary(_summary_of(places, with_source=False))


# A frame as its code, the instruction in it and the line: all that it takes to tell of
# it later, and nothing of what its variables hold.
Place = tuple[CodeType, int, int | None]


def places_of(
    traceback: TracebackType | None, *, with_loaders: bool = True
) -> list[Place]:
    """Take down where the frames of a live traceback are; no frame object is kept.

    Not collective. Reads no source file.

    Args:
        traceback: The outermost frame first.
        with_loaders: Whether to note where the source of a module is that is in no
            file; its loader is user code, and may raise.
    """
    places: list[Place] = []
    while traceback is not None:
        frame = traceback.tb_frame
        code = frame.f_code
        if with_loaders and code.co_filename not in linecache.cache:
            linecache.lazycache(code.co_filename, frame.f_globals)
        places.append((code, traceback.tb_lasti, traceback.tb_lineno))
        traceback = traceback.tb_next
    return places


def frames_from_places(places: list[Place], seen_at: float | None) -> tuple[Frame, ...]:
    """Make the frames that `frames_from_traceback` would have made at some time.

    Not collective. Raises what a module's loader raises, if the source is told.

    Args:
        places: From `places_of`.
        seen_at: When that was, in seconds since the epoch. Of a file that has been
            written since, the source is not told; with None, of no file.
    """
    if seen_at is None:
        return frames_from_summary(_summary_of(places, with_source=False))
    changed = set()
    for filename in {code.co_filename for code, *_ in places}:
        linecache.checkcache(filename)
        with suppress(OSError):  # no file, or none any more
            if os.stat(filename).st_mtime > seen_at:  # noqa: PTH116 pathlib: 5 ms
                changed.add(filename)
    summary = _summary_of(places, with_source=True, changed=changed)
    return frames_from_summary(summary)


def _summary_of(
    places: list[Place], *, with_source: bool, changed: Container[str] = ()
) -> StackSummary:
    """Make a summary; without source it holds file, line and function alone."""
    summary = StackSummary()
    for code, instruction, lineno in places:
        first, last, start, end = None, None, None, None
        is_told = with_source and code.co_filename not in changed
        if with_source and instruction >= 0:  # it takes two bytes
            # Of code without a table of lines: then Python tells no source at all.
            found = next(islice(code.co_positions(), instruction // 2, None))
            first, last, start, end = found
        item = FrameSummary(
            code.co_filename,
            lineno if first is None else first,
            code.co_name,
            lookup_line=False,
            line=None if is_told else "",
            end_lineno=last if is_told else None,
            colno=start if is_told else None,
            end_colno=end if is_told else None,
        )
        summary.append(item)
    return summary


def summary_from_frames(frames: tuple[Frame, ...]) -> StackSummary:
    """Make the summary that Python formats.

    Not collective. Consults no source file: what the failing rank did not know
    stays unknown.
    """
    summary = StackSummary()
    for frame in frames:
        # An empty text, not None: None makes Python look the line up here. The
        # line feed is there because Python counts it when it places carets.
        source = frame.source if _ALL_LINES else frame.source.partition("\n")[0]
        if source:
            source += "\n"
        # Python 3.13 takes for granted that every line of a statement is there;
        # a statement of more than MAX_SOURCE_LINES has been cut.
        placed = None not in (frame.lineno, frame.end_lineno)
        if placed and _ALL_LINES:
            n_lines = (frame.end_lineno or 0) - (frame.lineno or 0) + 1
            placed = 0 < n_lines <= frame.source.count("\n") + 1
        item = FrameSummary(
            frame.filename,
            frame.lineno,
            frame.name,
            lookup_line=False,
            line=source,
            end_lineno=frame.end_lineno,
            colno=frame.colno if placed else None,
            end_colno=frame.end_colno if placed else None,
        )
        summary.extend([item] * frame.repeat)
    return summary


def traceback_from_frames(frames: tuple[Frame, ...]) -> TracebackType | None:
    """Rebuild a traceback object, for tools that want one.

    Not collective.

    Each frame is a stub that tblib compiles: file, line and function are right,
    there are no locals and no columns.
    """
    chain = None
    for frame in reversed(frames):
        code = SimpleNamespace(co_filename=frame.filename, co_name=frame.name)
        # Of code without lines, Python before 3.11.4 says -1, which no code may have.
        lineno = max(frame.lineno or 1, 1)
        stub = SimpleNamespace(
            f_locals={},
            f_globals={"__name__": "?", "__file__": frame.filename},
            f_code=code,
            f_lineno=lineno,
        )
        for _ in range(frame.repeat):
            chain = SimpleNamespace(tb_frame=stub, tb_lineno=lineno, tb_next=chain)
    if chain is None:
        return None
    made = []
    traceback: TracebackType | None = Traceback(chain).as_traceback()
    while traceback is not None:
        made.append(traceback)
        traceback = traceback.tb_next
    # tblib's stub holds the columns of its own `raise`, and Python >= 3.11
    # would draw carets there. An instruction index of -1 means "no columns".
    for item in reversed(made):
        traceback = TracebackType(traceback, item.tb_frame, -1, item.tb_lineno)
    return traceback

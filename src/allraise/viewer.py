"""What is shown of a report.

Owns the layouts. Knows nothing of files, MPI or live exceptions.

Unlike ``str()`` of the exception, which changes nothing, all text here is
sanitised: what came from a message is shown, never obeyed by the terminal, and
cannot pass for a header of the report.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from allraise.ranks import RankSet
from allraise.record import CAUSES, DIED, FAILURE
from allraise.render import HEADER, escape_surrogates, format_traceback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allraise.bundle import Bundle
    from allraise.grouping import Group
    from allraise.record import Record

# Of messages at one place that cannot be folded, a screenful.
MAX_MESSAGES_SHOWN: Final = 16

# Blocks of single ranks; past this many they are no longer read.
MAX_BLOCKS_SHOWN: Final = 1024

# Of one message, where a whole screen would hide the next group.
MAX_LINE_CHARS: Final = 400

# Of one message below its stack; the file has all of it.
MAX_MESSAGE_CHARS: Final = 16 * 1024

# Control characters but tab and line feed, and what reorders or hides text:
# bidirectional controls, zero-width characters, line and paragraph separators.
_CONTROL: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)
_FAKE: Final = re.compile(
    r"^(?=\s*(Traceback \(most|Stack \(most|ranks? \d|=== |allraise: |report: "
    r"|CheckpointException ranks:))",
    re.MULTILINE,
)

# Records that tell where a rank stood, not what it raised.
STACK_KINDS: Final = frozenset(
    {"blocked", "died", "running", "signalled", "silent", "finished"}
)


# What a reader wants to know of the process that made a report.
_PLACE: Final = ("time", "host", "mpi", "python")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"  # noqa: PLR2004


def sanitise(text: str) -> str:
    """Show control characters instead of sending them to a terminal."""
    return _CONTROL.sub(_escape, escape_surrogates(text))


def quote(text: str) -> str:
    """Sanitise a message and mark the lines that look like a header of ours."""
    return _FAKE.sub("| ", sanitise(text))


def title_of(ranks: RankSet, size: int | None) -> str:
    """Name a set of ranks, and how many of all they are."""
    word = "rank" if len(ranks) == 1 else "ranks"
    total = f" ({len(ranks)} of {size})" if size else ""
    return f"{word} {ranks}{total}"


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n") if "\n" in text else text


def _quoted(record: Record) -> Record:
    """Return the record with nothing in its messages that passes for a header."""
    links = tuple(
        link._replace(
            lines=tuple(_shortened(quote(line)) for line in link.lines),
            frames=tuple(
                frame._replace(
                    filename=_one_line(frame.filename), name=_one_line(frame.name)
                )
                for frame in link.frames
            ),
        )
        for link in record.links
    )
    return record._replace(links=links)


def _shortened(text: str) -> str:
    left = len(text) - MAX_MESSAGE_CHARS
    if left <= 0:
        return text
    return f"{text[:MAX_MESSAGE_CHARS]}... [{left} more characters]\n"


def _block(record: Record, label: str = "") -> str:
    """Write a record: as Python does, but sanitised, and a stack called so."""
    text = sanitise(format_traceback(_quoted(record), label))
    if record.kind in STACK_KINDS:
        if not record.links[0].frames:
            return "".join(record.links[0].lines)
        text = text.replace(HEADER, "Stack (most recent call last):", 1)
    return text


def headline_of(record: Record) -> str:
    """Return the first line of a message, behind the name of its type."""
    link = record.links[0]
    text = link.message.partition("\n")[0]
    left = len(text) - MAX_LINE_CHARS
    if left > 0:
        text = f"{text[:MAX_LINE_CHARS]}... [{left} more]"
    name = _one_line(link.type_name)
    return sanitise(f"{name}: {text}" if text else name)


def mark_of(group: Group) -> str:
    """Return the kind of a group in brackets, where its headline has it not."""
    known = (FAILURE, group.record.links[0].type_name)
    return "" if group.kind in known else f" [{group.kind}]"


def show_group(group: Group, size: int | None) -> str:
    """Write one group: who, what, one traceback, and the messages that differ.

    Not collective.
    """
    head = f"=== {title_of(group.ranks, size)}: {headline_of(group.record)}"
    head += mark_of(group)
    parts = [f"{head}\n", _block(group.record)]
    if len(group.messages) > 1 or group.messages[0].n_different > 1:
        for message in group.messages[:MAX_MESSAGES_SHOWN]:
            line = f"    {title_of(message.ranks, None)}: {headline_of(message.record)}"
            if message.n_different > 1:
                line += f"  [{message.n_different} messages that differ in numbers]"
            parts.append(f"{line}\n")
        left = len(group.messages) - MAX_MESSAGES_SHOWN
        if left > 0:
            parts.append(f"    [{left} more messages]\n")
    return "".join(parts)


def library_name(library: str) -> str:
    """Return name and version of an MPI library, of all that it says of itself."""
    line = library.partition("\n")[0].strip("\0 ")
    return " ".join(line.partition(",")[0].replace("Version:", "").split())


def place_of(environment: Mapping[str, object]) -> str:
    """Write in a line when and where a report was made, and by what."""
    known = {name: str(environment.get(name) or "") for name in _PLACE}
    known["mpi"] = library_name(known["mpi"])
    known["python"] = known["python"] and f"Python {known['python']}"
    return ", ".join(text for text in known.values() if text)


def show_groups(groups: list[Group], step: str, size: int | None) -> str:
    """Write identical failures once, under the set of their ranks.

    Not collective.

    Args:
        groups: In the order in which they are told.
        step: The step that failed.
        size: Of the communicator, in ranks; None if it is not known.
    """
    parts = [head_of(groups, step, size), *(show_group(g, size) for g in groups)]
    return "\n".join(parts)


def head_of(groups: list[Group], step: str, size: int | None) -> str:
    """Say in one line which step failed, and on which ranks."""
    failed = [group for group in groups if _failed(group.record)] or groups
    ranks = RankSet.from_ranges(pair for g in failed for pair in g.ranks.ranges)
    # Without a step: a block without a name, or a whole program.
    what = f"step {_one_line(step)!r} failed" if step else "failure"
    return f"{sanitise(what)} on {title_of(ranks, size)}"


def show_ranks(bundle: Bundle, groups: list[Group], size: int | None) -> str:
    """Write who died, one block for each failed rank, then who only suffered.

    Not collective.
    """
    failures = [
        (r, k) for ranks, k in bundle.records() if k.kind == FAILURE for r in ranks
    ]
    failures.sort(key=lambda pair: pair[0])
    shown = failures[:MAX_BLOCKS_SHOWN]
    blocks = "".join(_block(record, f"(RANK {rank})") for rank, record in shown)
    if len(failures) > len(shown):
        blocks += f"[{len(failures) - len(shown)} more ranks: see them in groups]\n"
    died = [show_group(group, size) for group in groups if group.kind == DIED]
    others = [show_group(group, size) for group in groups if group.kind not in CAUSES]
    return "\n".join([*died, *([blocks] if blocks else []), *others])


def _failed(record: Record) -> bool:
    return record.kind in CAUSES

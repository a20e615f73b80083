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
# bidirectional controls, line and paragraph separators, and all that Unicode has
# drawn as nothing (Default_Ignorable_Code_Point) or as a blank that is no space.
_CONTROL: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)

# What begins a part of a report, whatever stands before it on its line: the header of
# an exception group is drawn with + and |, as are those of its members.
_HEADER: Final = (
    r"[^\w\n]*((Exception\s+Group\s+)?(Traceback|Stack)\s+\(most|ranks?\s+\d|===\s"
    r"|allraise:\s|report:\s|CheckpointException\s+ranks:)"
    r"|[^\S\n]*[|\s]*\+[+-]*-\s(\d+|\.\.\.)\s-"
)
_FAKE: Final = re.compile(rf"^(?={_HEADER})", re.MULTILINE)

# The table of a `StepMismatchError`, which is ours, and no header.
_MISMATCH: Final = "allraise.StepMismatchError"
_FAKE_IN_TABLE: Final = re.compile(
    rf"^(?!  ranks? \d[^:\n]*: (?:step ['\"]|a step without a name))(?={_HEADER})",
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
    if code <= 0xFF:  # noqa: PLR2004 as Python writes it, but for tab and the like
        return f"\\x{code:02x}"
    return match[0].encode("ascii", "backslashreplace").decode()


def sanitise(text: str) -> str:
    """Show control characters instead of sending them to a terminal."""
    return _CONTROL.sub(_escape, escape_surrogates(text))


def quote(text: str, type_name: str = "") -> str:
    """Sanitise a message and mark the lines that look like a header of ours.

    Args:
        text: The message.
        type_name: Of the exception.
    """
    fake = _FAKE_IN_TABLE if type_name == _MISMATCH else _FAKE
    return fake.sub("| ", sanitise(text))


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
            lines=tuple(_shortened(quote(line, link.type_name)) for line in link.lines),
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
    """Write a record: as Python does, but sanitised, and a stack called so.

    Not again below a stack what the line above it has said.
    """
    if record.kind not in STACK_KINDS:
        return sanitise(format_traceback(_quoted(record), label))
    top = record.links[0]
    if "".join(top.lines) == f"{headline_of(record)}\n":
        record = record._replace(links=(top._replace(lines=()), *record.links[1:]))
    if len(record.links) == 1 and not top.frames:
        return sanitise("".join(_quoted(record).links[0].lines))
    text = sanitise(format_traceback(_quoted(record), label))
    return text.replace(HEADER, "Stack (most recent call last):", 1)


def headline_of(record: Record) -> str:
    """Return the first line of a message, behind the name of its type."""
    link = record.links[0]
    text = link.message.partition("\n")[0]
    left = len(text) - MAX_LINE_CHARS
    if left > 0:
        text = f"{text[:MAX_LINE_CHARS]}... [{left} more]"
    name = _one_line(link.type_name)
    return sanitise(f"{name}: {text}" if text else name)


def mark_of(record: Record) -> str:
    """Return the kind of a record that is no failure, where its words do not tell."""
    if record.kind in (FAILURE, record.links[0].type_name):
        return ""
    return f" [{_one_line(sanitise(record.kind))}]"


def show_group(group: Group, size: int | None) -> str:
    """Write one group: who, what, one traceback, and the messages that differ.

    Not collective.
    """
    head = f"=== {title_of(group.ranks, size)}: {headline_of(group.record)}"
    parts = [f"{head}{mark_of(group.record)}\n", _block(group.record)]
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


def show_groups(groups: list[Group], head: str, size: int | None) -> str:
    """Write identical failures once, under the set of their ranks.

    Not collective.

    Args:
        groups: In the order in which they are told.
        head: The line above them, from `head_of`.
        size: Of the communicator, in ranks; None if it is not known.
    """
    return "\n".join([head, *(show_group(group, size) for group in groups)])


def head_of(
    groups: list[Group], step: str, size: int | None, nameless: str = "a step"
) -> str:
    """Say in one line which step failed, and on which ranks.

    Args:
        groups: In the order in which they are told.
        step: The step.
        size: Of the communicator, in ranks; None if it is not known.
        nameless: What failed where the step has no name.
    """
    failed = [group for group in groups if _failed(group.record)] or groups
    ranks = RankSet.from_ranges(pair for g in failed for pair in g.ranks.ranges)
    title = f"step {_one_line(step)!r}" if step else nameless
    return f"{sanitise(title)} failed on {title_of(ranks, size)}"


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

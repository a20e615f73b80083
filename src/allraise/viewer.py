"""What is shown of a report.

Owns the layouts. Knows nothing of files, MPI or live exceptions.

Unlike ``str()`` of the exception, which changes nothing, all text here is
sanitised: what came from a message is shown, never obeyed by the terminal, and
cannot pass for a header of the report.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from allraise.ranks import RankSet
from allraise.render import escape_surrogates, format_block, format_traceback

if TYPE_CHECKING:
    from allraise.bundle import Bundle
    from allraise.grouping import Group, Message
    from allraise.record import Record

# Of messages at one place that cannot be folded, a screenful.
MAX_MESSAGES_SHOWN: Final = 16

# Of one message, where a whole screen would hide the next group.
MAX_LINE_CHARS: Final = 400

# Control characters but tab and line feed, and what reorders or hides text:
# bidirectional controls, zero-width characters, line and paragraph separators.
_CONTROL: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)
_FAKE: Final = re.compile(r"^(?=\s*(Traceback \(most|ranks? \d|=== ))", re.MULTILINE)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"  # noqa: PLR2004


def sanitise(text: str) -> str:
    """Show control characters instead of sending them to a terminal."""
    return _CONTROL.sub(_escape, escape_surrogates(text))


def quote(text: str) -> str:
    """Sanitise a message and mark the lines that look like a header of ours."""
    return _FAKE.sub("| ", sanitise(text))


def show_ranks(bundle: Bundle) -> str:
    """Write one block a rank: the text of ``str()``, without its first line."""
    blocks = {r: record for ranks, record in bundle.records() for r in ranks}
    return "".join(format_block(record, r) for r, record in sorted(blocks.items()))


def _title(ranks: RankSet, size: int | None) -> str:
    word = "rank" if len(ranks) == 1 else "ranks"
    total = f" ({len(ranks)} of {size})" if size else ""
    return f"{word} {ranks}{total}"


def _quoted(record: Record) -> Record:
    """Return the record with nothing in its messages that passes for a header."""
    links = tuple(
        link._replace(lines=tuple(quote(line) for line in link.lines))
        for link in record.links
    )
    return replace(record, links=links)


def _headline(message: Message) -> str:
    """Return the first line of a message, behind the name of its type."""
    link = message.record.links[0]
    text = link.message.partition("\n")[0]
    left = len(text) - MAX_LINE_CHARS
    if left > 0:
        text = f"{text[:MAX_LINE_CHARS]}... [{left} more]"
    return sanitise(f"{link.type_name}: {text}" if text else link.type_name)


def _show_group(group: Group, size: int | None) -> str:
    head = f"=== {_title(group.ranks, size)}: {_headline(group.messages[0])}"
    if group.kind != "failure":
        head += f" [{group.kind}]"
    parts = [f"{head}\n", sanitise(format_traceback(_quoted(group.record)))]
    if len(group.messages) > 1 or group.messages[0].n_different > 1:
        for message in group.messages[:MAX_MESSAGES_SHOWN]:
            line = f"    {_title(message.ranks, None)}: {_headline(message)}"
            if message.n_different > 1:
                line += f"  [{message.n_different} messages that differ in numbers]"
            parts.append(f"{line}\n")
        left = len(group.messages) - MAX_MESSAGES_SHOWN
        if left > 0:
            parts.append(f"    [{left} more messages]\n")
    return "".join(parts)


def show_groups(groups: list[Group], step: str, size: int | None) -> str:
    """Write identical failures once, under the set of their ranks.

    Not collective.

    Args:
        groups: In the order in which they are told.
        step: The step that failed.
        size: Of the communicator, in ranks; None if it is not known.
    """
    ranks = RankSet.from_ranges(pair for g in groups for pair in g.ranks.ranges)
    title = f"step {step!r}" if step else "a step"
    head = f"{sanitise(title)} failed on {_title(ranks, size)}"
    return "\n".join([head, *(_show_group(group, size) for group in groups)])

"""The stacks of all ranks as one tree, as LLNL STAT shows a job.

Owns the layout of style ``tree``: stacks merged from the outermost frame, the
set of ranks on each line, a fork where ranks part::

    job.py:31 in <module>  [0-3]
      job.py:24 in step  [0-3]
      |- checkpoint.py:9 in write  [2]
      |    OSError: [Errno 28] No space left on device
      `- job.py:26 in step  [0-1,3]
           blocked: in comm.Barrier()

Lines are indented where ranks part, not at every call: stacks are deep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from allraise.ranks import RankSet
from allraise.viewer import headline_of, mark_of, sanitise, title_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from allraise.grouping import Group
    from allraise.record import Frame

# Of one frame's leaves, a screenful; the groups have the rest.
MAX_LEAVES_SHOWN: Final = 8


class _Node:
    """A frame, or the root, with what lies below it."""

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.ranges: list[tuple[int, int]] = []
        self.children: dict[Frame, _Node] = {}
        self.leaves: list[tuple[str, RankSet]] = []


def _merge(groups: Iterable[Group]) -> _Node:
    root = _Node()
    for group in groups:
        node = root
        node.ranges.extend(group.ranks.ranges)
        for frame in group.record.links[0].frames:
            # The call goes on at another column of the line: that is one place.
            place = frame._replace(
                colno=None, end_colno=None, end_lineno=None, source="", repeat=1
            )
            if place not in node.children:
                times = f" ({frame.repeat} times)" if frame.repeat > 1 else ""
                where = f"{frame.filename}:{frame.lineno} in {frame.name}{times}"
                node.children[place] = _Node(one_line(where))
            node = node.children[place]
            node.ranges.extend(group.ranks.ranges)
        for message in group.messages:
            more = message.n_different - 1
            beyond = f"  [and {more} that differ in numbers]" if more else ""
            text = headline_of(message.record) + mark_of(message.record)
            node.leaves.append((text + beyond, message.ranks))
    return root


def one_line(text: str) -> str:
    """Sanitise a text and keep it on its line."""
    return sanitise(text).replace("\n", "\\n")


def show_tree(groups: list[Group], head: str) -> str:
    """Write the tree of all stacks under a head line.

    Not collective.
    """
    root = _merge(groups)
    lines = [head]
    # Not recursive: a stack of 1000 frames is one branch of that depth.
    todo: list[tuple[_Node, str, str]] = [
        (node, "", "") for node in reversed(root.children.values())
    ]
    lines += _leaves(root, "")
    while todo:
        node, first, rest = todo.pop()
        ranks = RankSet.from_ranges(node.ranges)
        lines.append(f"{first}{node.text}  [{ranks}]")
        lines += _leaves(node, f"{rest}    ")
        children = list(node.children.values())
        if len(children) == 1 and not node.leaves:
            todo.append((children[0], rest, rest))
            continue
        forks = []
        for position, child in enumerate(children):
            last = position == len(children) - 1
            fork, below = ("`- ", "   ") if last else ("|- ", "|  ")
            forks.append((child, rest + fork, rest + below))
        todo += reversed(forks)
    return "\n".join(lines) + "\n"


def _leaves(node: _Node, indent: str) -> list[str]:
    lines = [
        f"{indent}{title_of(ranks, None)}: {text}"
        for text, ranks in node.leaves[:MAX_LEAVES_SHOWN]
    ]
    left = len(node.leaves) - MAX_LEAVES_SHOWN
    if left > 0:
        lines.append(f"{indent}[{left} more]")
    return lines

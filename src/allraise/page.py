"""A report as one web page.

Owns the page of ``allraise show --html``: a grid of ranks coloured by group, the
groups below. One file, which loads nothing and can be sent by mail.

Everything from the report is sanitised and escaped, and the page's own content
security policy names the one script and the one style by their hashes: nothing
else could run even if it got in. The grid works without the script (a rank is a
link to its group); the script adds arrow keys, and opens what is linked to.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import TYPE_CHECKING, Final

from allraise.ranks import RankSet
from allraise.record import ALL_KNOWN, CAUSES
from allraise.viewer import (
    headline_of,
    mark_of,
    place_of,
    sanitise,
    show_group,
    title_of,
)

if TYPE_CHECKING:
    from allraise.grouping import Group
    from allraise.report import Report

# More cells are no longer seen apart; one then stands for some ranks.
MAX_CELLS: Final = 4096

# Beyond, groups share colours; the letter in the cell still tells them apart.
_HUES: Final = (4, 36, 318, 54, 345, 20, 290, 46, 330, 12, 304, 28)  # warm: failures
N_COLOURS: Final = len(_HUES)

_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.45 system-ui, sans-serif; }
body { max-width: 72rem; margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.35rem; margin: 0 0 .3rem; }
p { margin: .2rem 0; }
.place { opacity: .75; font-size: .9rem; overflow-wrap: anywhere; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(2.8rem, 1fr));
  gap: 2px; margin: 1rem 0 .3rem; }
.grid a { display: block; text-align: center; padding: .3rem 0; font-size: .8rem;
  border-radius: 3px; text-decoration: none; color: #111; background: #d6d9dd; }
.grid a:focus-visible, summary:focus-visible { outline: 3px solid #0b5fff;
  outline-offset: 1px; }
#told { min-height: 1.5em; font-variant-numeric: tabular-nums; }
details { border-left: .5rem solid #d6d9dd; margin: .6rem 0; padding: .1rem .8rem; }
summary { cursor: pointer; font-weight: 600; overflow-wrap: anywhere; }
pre { overflow-x: auto; font: .85rem/1.4 ui-monospace, monospace; }
"""

_SCRIPT: Final = """
"use strict";
const cells = [...document.querySelectorAll(".grid a")];
const told = document.getElementById("told");
function columns() {
  const top = cells[0].offsetTop;
  const next = cells.findIndex((cell) => cell.offsetTop !== top);
  return next < 0 ? cells.length : next;
}
function choose(index) {
  const chosen = cells[Math.max(0, Math.min(cells.length - 1, index))];
  for (const cell of cells) cell.tabIndex = cell === chosen ? 0 : -1;
  chosen.focus();
}
cells.forEach((cell, index) => {
  cell.tabIndex = index ? -1 : 0;
  cell.addEventListener("focus", () => { told.textContent = cell.title; });
  cell.addEventListener("click", () => {
    told.textContent = cell.title;
    const group = document.getElementById(cell.hash.slice(1));
    if (group) group.open = true;
  });
  cell.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(),
      ArrowUp: -columns(), Home: -index, End: cells.length };
    if (event.key in steps) { event.preventDefault(); choose(index + steps[event.key]); }
  });
});
"""


def _letter(number: int) -> str:
    """Return A to Z, then AA, AB and so on."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("A") + rest) + text
    return text


def _colours() -> str:
    """Return a rule for each colour: failures are told in the first ones, warm."""
    rules = []
    for number in range(N_COLOURS):
        hue = _HUES[number]
        rules.append(f".c{number} {{ border-color: hsl({hue} 75% 60%) !important; }}")
        rules.append(f".grid .c{number} {{ background: hsl({hue} 75% 72%); }}")
    rules.append(".waits { border-color: #9fb3c8 !important; }")
    rules.append(".grid .waits { background: #9fb3c8; }")
    return "\n".join(rules)


def _class_of(group: Group, number: int) -> str:
    return f"c{number % N_COLOURS}" if group.kind in CAUSES else "waits"


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _cells(report: Report, groups: list[Group]) -> str:
    last_rank = max((g.ranks.ranges[-1][1] for g in groups), default=-1)
    size = max(report.size or 0, last_rank + 1)
    width = -(-size // MAX_CELLS) or 1
    # By cell, not by rank: a file may speak of more ranks than there can be.
    owner: dict[int, int] = {}
    for number, group in enumerate(groups):
        for first, last in group.ranks.ranges:
            for cell in range(first // width, last // width + 1):
                owner.setdefault(cell, number)
    rest = "did not fail" if report.environment.get(ALL_KNOWN) else "nothing known"
    titles = [headline_of(group.record) for group in groups]
    cells = []
    for first in range(0, size, width):
        last = min(first + width, size) - 1
        number = owner.get(first // width, -1)
        name = title_of(RankSet.from_ranges([(first, last)]), None)
        if number < 0:
            cells.append(f'<a title="{name}: {rest}">{first}</a>')
            continue
        origin = report.bundle.origins.get(first)
        place = f" on {origin[0]}, pid {origin[1]}" if origin and width == 1 else ""
        title = escape(sanitise(f"{name}{place}: {titles[number]}"))
        kind = _class_of(groups[number], number)
        cells.append(
            f'<a href="#group-{number}" class="{kind}" title="{title}">'
            f"{_letter(number)}{first}</a>"
        )
    return "\n".join(cells)


def _section(group: Group, number: int, size: int | None) -> str:
    title = f"{_letter(number)}: {title_of(group.ranks, size)}: "
    title += headline_of(group.record) + mark_of(group)
    text = show_group(group, size).partition("\n")[2]  # the head is the summary
    return (
        f'<details id="group-{number}" class="{_class_of(group, number)}"'
        f"{'' if number else ' open'}><summary>{escape(sanitise(title))}</summary>"
        f"<pre>{escape(text)}</pre></details>"
    )


def page_of(report: Report) -> str:
    """Write a report as a page.

    Not collective.

    Returns:
        HTML that loads nothing.
    """
    groups = report.groups()
    style = _STYLE + _colours()
    known = report.environment
    command = " ".join(str(word) for word in known.get("command", ()))
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(_SCRIPT)}"
    )
    head = escape(report.headline())
    sections = "\n".join(
        _section(group, number, report.size) for number, group in enumerate(groups)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<title>{head}</title>
<style>{style}</style>
</head>
<body>
<h1>{head}</h1>
<p class="place">{escape(sanitise(place_of(known)))}</p>
<p class="place">{escape(sanitise(command))}</p>
<nav class="grid" aria-label="ranks, coloured by group">
{_cells(report, groups)}
</nav>
<p id="told" role="status"></p>
{sections}
<script>{_SCRIPT}</script>
</body>
</html>
"""

"""A page of documentation as its tests see it: its programs and what it says is printed.

A block of Python is a program; its first line names it: ``# save.py``. In a block of
text, a line of nothing but ``...`` stands for lines that are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Page:
    """A page."""

    text: str

    @classmethod
    def read(cls, name: str) -> Page:
        """Read a page by its name in the project."""
        return cls((ROOT / name).read_text())

    def blocks(self, language: str) -> list[str]:
        """Return the blocks in a language."""
        return [text for kind, text in _BLOCK.findall(self.text) if kind == language]

    @property
    def languages(self) -> set[str]:
        """The languages that blocks are in."""
        return {kind for kind, _ in _BLOCK.findall(self.text)}

    @property
    def programs(self) -> dict[str, str]:
        """The programs by their names."""
        return {
            text.partition("\n")[0].removeprefix("# "): text
            for text in self.blocks("python")
        }

    @property
    def commands(self) -> list[str]:
        """What is typed, in order, in blocks and, for mpiexec, in the text."""
        found = re.finditer(r"^\$ (.*)$|`(mpiexec [^`]*)`", self.text, re.MULTILINE)
        return [typed[1] or typed[2] for typed in found]

    def shown_after(self, marker: str) -> str:
        """Return the block of text that follows a piece of the page."""
        rest = self.text[self.text.index(marker) :]
        return next(text for kind, text in _BLOCK.findall(rest) if kind == "text")


def is_shown(block: str, output: str) -> bool:
    """Tell whether output is what a block says, where it says all or leaves out."""
    parts = re.split(r"^\.\.\.\n", block, flags=re.MULTILINE)
    pattern = ".*".join(re.escape(part.rstrip("\n")) for part in parts if part)
    before, after = (".*" if end == "" else "" for end in (parts[0], parts[-1]))
    found = re.fullmatch(before + pattern + after, output.strip("\n"), re.DOTALL)
    return found is not None

"""Write the golden texts: what torch's own `CheckpointException` prints.

Run in an environment with torch 2.13, on each minor version of Python::

    python tests/unit/golden/make.py

The texts are those of the Python that runs it: carets differ between versions.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from cases import failures_by_name
from torch.distributed.checkpoint.api import CheckpointException, _wrap_exception


def main() -> None:
    """Write a file for each case."""
    here = Path(__file__).parent
    folder = here / f"{sys.version_info.major}.{sys.version_info.minor}"
    folder.mkdir(exist_ok=True)
    for name, (message, failures) in failures_by_name(_wrap_exception).items():
        text = str(CheckpointException(message, failures))
        (folder / f"{name}.txt").write_bytes(text.encode())
    (folder / "made_by").write_text(f"torch {torch.__version__}\n")


if __name__ == "__main__":
    main()

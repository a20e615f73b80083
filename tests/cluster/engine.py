"""The container engine, as the tests of this folder use it."""

from __future__ import annotations

import subprocess
from pathlib import Path

JOBS = Path(__file__).parent / "jobs"
HOME = "/home/tester"

# 124 and 137 are the codes of `timeout`, after SIGTERM and after SIGKILL.
DEADLINE = "ended at its deadline"
DEADLINE_SCRIPT = f"""
"$@"; code=$?
case $code in 124|137) echo "{DEADLINE}";; esac
exit $code
"""


def docker(*arguments: str, check: bool = True) -> str:
    ended = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    if check and ended.returncode:
        message = f"docker {' '.join(arguments)}: {ended.stderr}"
        raise RuntimeError(message)
    return ended.stdout.strip()

"""The main job, shown and checked: what ``make demo`` runs.

Starts the checkpoint writer with four ranks twice, once well and once with
ranks 1 and 3 running out of quota, shows what rank 0 prints, and checks that
what must hold does hold::

    $ python examples/demo.py
    == four ranks, all well
    checkpoint 1: 4 shards published, read back and equal
    == four ranks, 1 and 3 run out of quota
    CheckpointException ranks:dict_keys([1, 3])
    Traceback (most recent call last): (RANK 1)
      ...
    == checked
    ok: exit codes of the first run: [0, 0, 0, 0]
    ok: exit codes of the second run: [1, 1, 1, 1]
    ok: rank 0 shows a block for rank 1 and one for rank 3
    ok: nothing was published: there are checkpoint-1, index.json
    ok: the previous checkpoint reads back equal
    ok: no rank was left behind

Exits with 1 if any of it does not hold.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
import apart  # noqa: E402 it lives with the tests

N_RANKS = 4


def run_writer(checkpoints: Path, *options: str) -> apart.Job:
    """Run the checkpoint writer and show what rank 0 prints."""
    program = [str(HERE / "checkpoint_writer.py"), str(checkpoints), *options]
    job = apart.run(N_RANKS, program, deadline_s=120)
    print(job.outs[0], end="", flush=True)
    return job


def read_index(folder: Path) -> bytes:
    """Return the published index, or nothing."""
    index = folder / "index.json"
    return index.read_bytes() if index.exists() else b""


def main() -> int:
    """Run both jobs, show them, and check them."""
    with tempfile.TemporaryDirectory(prefix="allraise demo ") as name:
        folder = Path(name)
        print("== four ranks, all well", flush=True)
        well = run_writer(folder)
        before = read_index(folder)
        print("== four ranks, 1 and 3 run out of quota", flush=True)
        ill = run_writer(folder, "--fail-ranks", "1,3")
        unchanged = read_index(folder) == before != b""
        found = sorted(path.name for path in folder.iterdir())

    report = ill.outs[0]
    shown = [f"(RANK {rank})" in report for rank in range(N_RANKS)]
    n_blocks = report.count("OSError: [Errno 27] File too large\n")
    checks = {
        f"exit codes of the first run: {well.codes}": well.codes == [0] * N_RANKS,
        f"exit codes of the second run: {ill.codes}": ill.codes == [1] * N_RANKS,
        "rank 0 shows a block for rank 1 and one for rank 3": (
            shown == [False, True, False, True] and n_blocks == sum(shown)
        ),
        f"nothing was published: there are {', '.join(found)}": (
            unchanged and found == ["checkpoint-1", "index.json"]
        ),
        "the previous checkpoint reads back equal": (
            f": {N_RANKS} shards still read back and equal" in report
        ),
        "no rank was left behind": not (well.left or ill.left),
    }
    print("== checked")
    for check, holds in checks.items():
        print(f"{'ok' if holds else 'NOT SO'}: {check}")
    if all(checks.values()):
        return 0
    for job in (well, ill):
        print(job.launcher, *job.errs, sep="", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

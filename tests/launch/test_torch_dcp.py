"""Torch's checkpointing over MPI, by one replaced name."""

import importlib.util
import json
from pathlib import Path

import pytest

import mpirun

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="needs PyTorch 2.13 (pip install torch==2.13.0), which is not installed",
)

PROGRAM = Path(__file__).parent / "programs" / "torch_dcp.py"
N_RANKS = 4

# Job, failing method, failing ranks, coordinator; what torch's own test has.
FAULTS = [
    ("save", None, [], 0),
    ("save", "set_up_storage_writer", [0], 0),
    ("save", "finish", [0], 0),
    ("save", "prepare_global_plan", [0], 0),
    ("save", "prepare_local_plan", [0], 0),
    ("save", "write_data", [2], 0),
    ("save", "write_data_async", [3], 0),
    ("save", "set_up_storage_writer", [1], 1),
    ("save", "finish", [1], 1),
    ("save", "write_data", [0, 1, 2, 3], 2),
    ("load", None, [], 0),
    ("load", "set_up_storage_reader", [0], 0),
    ("load", "prepare_global_plan", [0], 0),
    ("load", "read_metadata", [0], 0),
    ("load", "prepare_local_plan", [1], 0),
    ("load", "read_data", [3], 0),
    ("load", "read_data_async", [1], 0),
    ("load", "set_up_storage_reader", [0], 3),
    ("load", "read_metadata", [3], 1),
    ("load", "read_data", [0], 2),
    ("load", "read_data_async", [2], 3),
    ("load", "prepare_global_plan", [1], 1),
]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank saw: one job, for importing torch takes a while."""
    folder = tmp_path_factory.mktemp("checkpoint")
    given = json.dumps([str(folder), FAULTS])
    run = mpirun.run(N_RANKS, [str(PROGRAM), given], deadline_s=300)
    assert not run.timed_out, run.output
    assert run.returncode == 0, run.output
    seen = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(seen) == N_RANKS
    return seen


def test_a_state_goes_to_files_and_comes_back(ranks):
    assert [rank["files"] for rank in ranks] == [True] * N_RANKS


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=lambda n: f"{FAULTS[n]}")
def test_a_fault_fails_alike_on_every_rank(ranks, number):
    job, method, failing, _ = FAULTS[number]
    first, *others = [rank["seen"][number] for rank in ranks]
    assert others == [first] * (N_RANKS - 1)
    if not failing:
        assert first == "no failure"
        return
    late = method in {"finish", "write_data", "write_data_async"}
    late_step = "write" if job == "save" else "read"
    late = late or method in {"read_data", "read_data_async"}
    assert first["step"] == (late_step if late else "plan")
    assert first["failures"].keys() == {str(rank) for rank in failing}
    for rank, told in first["failures"].items():
        # Torch turns what read_metadata raises into an AssertionError.
        assert f"{method} of rank {rank}" in told
        assert method == "read_metadata" or told.startswith("ValueError: ")
    # Torch's text has no causes; where there are none, ours is the same.
    assert first["same text as torch"]

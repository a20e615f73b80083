"""What is told where many ranks stand at different steps, without MPI."""

from __future__ import annotations

import pytest

from allraise import CheckpointException, StepMismatchError, agree
from unit import simulated

N_RANKS = 12


@pytest.mark.usefixtures("simulated_ranks")
def test_the_table_and_the_text_of_each_rank_are_bounded():
    def main(comm):
        with pytest.raises(CheckpointException) as caught:
            agree(None, comm, f"step of {comm.rank}")
        return caught.value

    outcomes = simulated.World(N_RANKS).run(main)
    for rank, outcome in enumerate(outcomes):
        assert outcome.ranks == tuple(range(N_RANKS))
        assert not outcome.is_partial
        error, _ = outcome.failures[rank]
        assert type(error) is StepMismatchError
        rows = str(error).splitlines()
        assert sum(row.startswith("  rank ") for row in rows) == 8
        assert rows[-1] == "  [4 more places]"
    root, *others = map(str, outcomes)
    assert root.count("(RANK ") == N_RANKS
    for rank, text in enumerate(others, 1):
        assert text.count("(RANK ") == 9
        assert f"(RANK {rank})\n" in text
        assert text.endswith(
            "[3 more ranks failed; rank 0 of 12 has the whole report]\n"
        )

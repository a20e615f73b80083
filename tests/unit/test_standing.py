"""Who waits for whom, and what of it is for ever."""

from hypothesis import given
from hypothesis import strategies as st

from allraise.standing import Gate, Stand, decode, encode, never_open

WORLD, HALF, OTHER = 11, 22, 33
ALL, BOTH = frozenset(range(4)), frozenset((0, 1))


def waits(gate, *later, **counts):
    """A rank that waits at a gate, and has that to pass after."""
    entered = {gate.ident: gate.number}
    return Stand(
        True, (gate, *later), {**entered, **counts.pop("counts", {})}, **counts
    )


half = Gate(HALF, 1, BOTH)
inner = Gate(WORLD, 1, ALL)


def test_ranks_that_wait_for_each_other_never_go_on():
    """One failed before the inner guard, the other stands there."""
    stands = {0: waits(half), 1: waits(inner, half), 2: waits(inner), 3: waits(inner)}
    assert never_open(stands) == {half, inner}


def test_a_rank_of_which_nothing_is_known_may_come():
    assert never_open({1: waits(inner, half), 2: waits(inner)}) == set()


def test_who_waits_for_one_that_comes_is_patient():
    other = Gate(OTHER, 1, frozenset((0, 2)))
    runs = Stand(False, (half,), {})
    assert never_open({0: waits(other), 1: waits(half), 2: runs}) == set()


def test_who_is_at_the_end_enters_nothing():
    at_end = Stand(False, (), {HALF: 0}, is_at_end=True)
    assert never_open({0: at_end, 1: waits(half)}) == {half}
    entered = Stand(False, (), {HALF: 1}, is_at_end=True)
    assert never_open({0: entered, 1: waits(half)}) == set()


def test_a_gate_that_a_failure_around_closes_is_not_waited_at_for_ever():
    """Its number is told already; what it closes must lie within what has failed."""
    for depth, is_stuck in ((1, False), (2, True)):
        within = half._replace(around=((OTHER, 1),))
        outer = Gate(OTHER, 1, ALL)
        failed = waits(outer, failed=((OTHER, depth),))
        stands = {0: failed, 1: waits(within, outer)}
        assert (within in never_open(stands)) == is_stuck


idents = st.integers(0, 2**62)
numbers = st.integers(0, 2**40)
pairs = st.lists(st.tuples(idents, numbers), max_size=4).map(tuple)
groups = st.frozensets(st.integers(0, 200), min_size=1)
gates = st.builds(Gate, idents, numbers, groups, pairs, st.booleans())
stands = st.builds(
    Stand,
    st.booleans(),
    st.lists(gates, max_size=5).map(tuple),
    st.dictionaries(idents, numbers),
    st.booleans(),
    pairs,
)


@given(stands)
def test_a_stand_travels_as_numbers(stand):
    words = encode(stand)
    assert all(0 <= word < 2**63 for word in words)
    assert decode(words) == stand

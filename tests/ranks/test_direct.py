"""MPI's own functions do what mpi4py's methods do, and serve where they are safe."""

from __future__ import annotations

import inspect
from array import array

import pytest
from mpi4py import MPI

import allraise
from allraise import buffers, direct, plain, slots
from allraise.plain import begin_gate
from ranks.outcomes import fail_if

pytestmark = pytest.mark.mpi

compiled = pytest.mark.skipif(
    not plain.IS_COMPILED, reason="allraise was installed without a compiler"
)


@pytest.fixture
def own():
    """A communicator whose errors are exceptions, freed at the end."""
    comm = MPI.COMM_WORLD.Dup()
    comm.Set_errhandler(MPI.ERRORS_RETURN)
    yield comm
    if comm:
        comm.Free()


@pytest.fixture(params=["direct", "by mpi4py"])
def way(request, monkeypatch):
    """Both ways, also where MPI's functions were found."""
    if request.param == "by mpi4py":
        monkeypatch.setattr(direct, "_functions", tuple)
    return request.param


def vectors(*numbers):
    return array("q", numbers), array("q", bytes(8 * len(numbers)))


@compiled
def test_the_functions_of_this_mpi_are_found():
    assert len(direct._functions()) == 5
    reduce = direct.reduction(MPI.COMM_WORLD, *vectors(1), MPI.INT64_T, MPI.MAX)
    assert isinstance(reduce, plain.Reduction)
    assert isinstance(direct.entry(MPI.COMM_WORLD), plain.Entry)
    assert isinstance(direct.look(), plain.Look)


def test_a_reduction_finds_the_most_of_each_number(own, way):
    mine, total = vectors(own.rank, -own.rank, 1 << 62, -(1 << 62))
    reduce = direct.reduction(own, mine, total, MPI.INT64_T, MPI.MAX)
    for _ in range(3):
        reduce()
        assert list(total) == [own.size - 1, 0, 1 << 62, -(1 << 62)]
    mine[0] = own.size + own.rank
    reduce()
    assert total[0] == 2 * own.size - 1


def test_a_reduction_on_a_freed_communicator_is_an_exception(own, way):
    reduce = direct.reduction(own, *vectors(1), MPI.INT64_T, MPI.MAX)
    reduce()
    own.Free()
    with pytest.raises(MPI.Exception) as raised:
        reduce()
    assert raised.value.Get_error_class() == MPI.ERR_COMM


def test_the_numbers_outlive_who_made_them(own, way):
    reduce = direct.reduction(own, *vectors(*range(1000)), MPI.INT64_T, MPI.MAX)
    for _ in range(3):
        array("q", bytes(8000))  # where freed memory would be used again
        reduce()


@compiled
def test_the_numbers_cannot_move_while_mpi_may_write_there(own):
    mine, total = vectors(1, 2)
    reduce = direct.reduction(own, mine, total, MPI.INT64_T, MPI.MAX)
    with pytest.raises(BufferError):
        total.append(3)
    reduce()


def test_a_communicator_with_methods_of_its_own_is_asked(own):
    class Counting(MPI.Intracomm):
        n_calls = 0

        def Allreduce(self, *args):
            Counting.n_calls += 1
            super().Allreduce(*args)

    reduce = direct.reduction(Counting(own), *vectors(1), MPI.INT64_T, MPI.MAX)
    reduce()
    assert Counting.n_calls == 1


def test_a_barrier_that_others_have_not_come_to_is_left_as_a_request(own, way):
    start = direct.entry(own)
    others = own.Dup()
    watched = []
    if own.rank == 0:
        is_open = begin_gate(start, watched)
        assert is_open == (own.size == 1)
    others.Barrier()
    if own.rank:
        begin_gate(start, watched)
    assert len(watched) == 1  # open or not: what a signal's handler raises is late then
    watched[0].Wait()
    assert watched[0] == MPI.REQUEST_NULL
    others.Free()


def test_a_barrier_that_is_called_returns_its_request(own, way):
    request = direct.entry(own)()
    assert isinstance(request, MPI.Request)
    request.Wait()


@pytest.mark.parametrize("has_slots", [False, True])
def test_a_gate_on_a_freed_communicator_is_an_exception(own, way, has_slots):
    by_mpi4py = not plain.IS_COMPILED or way != "direct"
    if has_slots and by_mpi4py and MPI.get_vendor()[0] == "Open MPI":
        pytest.skip("Open MPI (5.0.11) crashes in MPI_Iallgather on COMM_NULL")
    start = direct.entry(own, slots.Slots(own.size) if has_slots else None)
    own.Free()
    watched = []
    with pytest.raises(MPI.Exception) as raised:
        begin_gate(start, watched)
    assert raised.value.Get_error_class() == MPI.ERR_COMM
    assert watched == []


def test_a_gate_shows_each_rank_the_slots_of_all(own, way):
    if own.size > slots.MAX_AT_GATE:
        pytest.skip(f"a gate of {own.size} ranks has no slots")
    shown = slots.Slots(own.size)
    start = direct.entry(own, shown)
    is_direct = way == "direct" and plain.IS_COMPILED
    assert (type(start) is plain.Entry) == is_direct
    for n in range(3):
        shown.mine.words[:] = memoryview(array("q", [own.rank, n] * 8))
        watched = []
        if not begin_gate(start, watched):
            watched[0].Wait()
        assert shown.found.words.tolist() == [
            word for rank in range(own.size) for word in [rank, n] * 8
        ]


@pytest.mark.mpi(min_size=2)
def test_slots_are_exchanged_behind_a_gate_of_many_ranks(own, monkeypatch):
    monkeypatch.setattr(slots, "MAX_AT_GATE", 0)
    with allraise.guard(own, "step") as g:
        shown = g.comm.slots
        assert not shown.is_at_gate
        shown.mine.words[3] = own.rank + 1
        shown.exchange(g.comm, "exchange")
        assert shown.found.words[3 :: slots.WORDS].tolist() == [
            rank + 1 for rank in range(own.size)
        ]


@compiled
def test_the_compiled_part_knows_the_slots():
    made = allraise._plain
    assert (slots.SLOT, slots.HEAD) == (made.SLOT, made.HEAD)
    assert slots.MAX_AT_GATE == made.MAX_SLOTS
    assert len({"f", "d"} & set(buffers.CODES[: made.N_ROUNDED])) == made.N_ROUNDED


@compiled
def test_slots_that_do_not_fit_are_refused(own):
    shown = slots.Slots(own.size)
    shown.given[0][0] = bytearray(8)
    with pytest.raises(ValueError, match="no slots"):
        direct.entry(own, shown)


def test_a_look_tells_of_a_message_that_has_come(own, way, monkeypatch):
    if way == "by mpi4py":
        monkeypatch.setattr(direct, "IS_COMPILED", False)
    look = direct.look.__wrapped__()
    text, into = bytearray(b"text"), bytearray(4)
    receive = own.Irecv(into, own.rank, 7)
    assert not look(receive)
    send = own.Isend(text, own.rank, 7)
    while not look(receive):
        pass
    assert receive == MPI.REQUEST_NULL
    assert into == text
    send.Wait()
    assert look(receive)  # a null request is done


def test_a_buffer_is_let_go_once_its_request_was_waited_for(own):
    with allraise.guard(own, "step") as g:
        into = bytearray(4)
        receive = g.comm.Irecv([into, MPI.BYTE], own.rank, 7)
        send = g.comm.Isend([b"text", MPI.BYTE], own.rank, 7)
        receive.Wait()
        send.Wait()
        into += b" and more"
    assert into == b"text and more"


@pytest.mark.mpi(min_size=2)
def test_a_collective_of_g_comm_tells_what_it_takes(own):
    with allraise.guard(own, "step") as g:
        parameters = inspect.signature(g.comm.Allreduce).parameters
    assert list(parameters) == ["sendbuf", "recvbuf", "op"]


@compiled
def test_a_look_takes_requests_alone():
    with pytest.raises(TypeError):
        direct.look()(MPI.COMM_WORLD)


@pytest.mark.parametrize("everywhere", [False, True])
def test_root_and_everywhere_count_in_a_guard_that_is_made_again(own, everywhere):
    last = own.size - 1
    for _ in range(2):  # made the first time, the communicator is not known yet
        with (
            pytest.raises(allraise.CheckpointException) as caught,
            allraise.guard(own, "step", root=last, everywhere=everywhere),
        ):
            fail_if(own.rank == 0, ValueError("of rank 0"))
        assert caught.value.is_partial == (own.rank != last and not everywhere)
        assert "of rank 0" in str(caught.value)


def test_a_root_that_is_no_rank_is_refused_where_the_communicator_is_known(own):
    allraise.agree(None, own, "first")
    for root in (own.size, -1, 1 << 70):
        with pytest.raises(ValueError, match="out of range"):
            allraise.guard(own, "step", root=root)
        with pytest.raises(ValueError, match="out of range"):
            allraise.agree(None, own, "step", root=root)


@pytest.mark.parametrize("name", ["Barrier", "Allreduce", "Bcast", "Ibarrier"])
def test_what_is_derived_from_g_comm_and_freed_is_an_exception(own, name):
    with allraise.guard(own, "step") as g:
        derived = g.comm.Dup()
        derived.Barrier()
        derived.Free()
        buffers = {"Allreduce": vectors(1), "Bcast": vectors(1)[:1]}.get(name, ())
        with pytest.raises(MPI.Exception):
            getattr(derived, name)(*buffers)


def test_a_guard_ends_as_any_where_its_communicator_is_freed_within(own):
    with allraise.guard(own, "outer") as g:
        with allraise.guard(own, "inner"):
            own.Free()
        if MPI.COMM_WORLD.size > 1:  # of one rank it is the communicator itself
            assert g.comm.allgather(g.comm.rank) == [*range(g.comm.size)]
    with pytest.raises(ValueError, match="COMM_NULL"), allraise.guard(own):
        pass


@pytest.mark.parametrize("name", ["DOUBLE_INT", "SHORT_INT", "LONG_INT", "TWOINT"])
def test_what_is_between_the_parts_of_a_datatype_is_left_alone(own, name):
    np = pytest.importorskip("numpy", reason="the kind of array is NumPy's")
    datatype = getattr(MPI, name)
    found = []
    with allraise.guard(own) as g:
        g.comm.Bcast(np.zeros(1, "u1"))  # from here on the kind of array is known
        for comm in (own, *[g.comm] * 3):
            values = np.full(datatype.extent, own.rank + 1, "u1")
            comm.Bcast([values, datatype], 0)
            found.append(values.tolist())
    assert found == found[:1] * len(found)

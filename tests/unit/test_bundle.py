"""Merging, capping and encoding the failures of many ranks."""

from __future__ import annotations

import pickle
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allraise import bundle as bundles
from allraise import distinct, failing
from allraise.bundle import Bundle
from allraise.damage import WireError
from allraise.ranks import RankSet
from allraise.record import Frame, Link, Origin, Record, minimal
from allraise.summary import read_summary, summarise, summarise_one
from allraise.wire import Packed, dump_plain, load_plain, pack, unpack


def record(type_name="ValueError", message="m", line=1, body=b"", kind="failure"):
    frame = Frame("job.py", line, line, None, None, "work", "work()")
    link = Link(type_name, message, (f"{type_name}: {message}\n",), (), (frame,))
    return Record((link,), (body,), ("",), Origin("node", line, 1.5), kind)


def content(bundle):
    """What a bundle says, rank by rank."""
    return {
        rank: (found.links, found.bodies, found.reasons, found.kind)
        for ranks, found in bundle.records()
        for rank in ranks
    }


RECORDS = st.builds(
    record,
    st.sampled_from(["ValueError", "KeyError"]),
    st.sampled_from(["a", "b", "rank \udcff"]),
    st.integers(1, 3),
    st.sampled_from([b"", b"body"]),
)
BUNDLES = st.lists(st.tuples(st.integers(0, 9), RECORDS), max_size=6).map(
    lambda pairs: Bundle.merge(Bundle.of(rank, found) for rank, found in pairs)
)


@given(RECORDS)
def test_a_record_survives_packing(found):
    packed = pack(found)
    assert unpack(packed) == found
    assert pack(unpack(packed)) == packed


@given(BUNDLES, BUNDLES, BUNDLES)
def test_the_order_of_merging_does_not_matter(a, b, c):
    left = Bundle.merge([Bundle.merge([a, b]), c])
    right = Bundle.merge([a, Bundle.merge([b, c])])
    assert content(left) == content(right) == content(Bundle.merge([a, b, c]))
    assert left.ranks == right.ranks == a.ranks | b.ranks | c.ranks
    assert left.origins == right.origins


@given(BUNDLES)
def test_encoding_and_decoding_changes_nothing(bundle):
    again = Bundle.decode(bundle.encode())
    assert content(again) == content(bundle)
    assert again.origins == bundle.origins
    assert again.encode() == Bundle.decode(again.encode()).encode()


def test_alike_failures_are_held_once():
    bundle = Bundle.merge(Bundle.of(rank, record(line=7)) for rank in range(1000))
    assert [ranks for ranks, _ in bundle.records()] == [RankSet(range(1000))]
    few = Bundle.merge(Bundle.of(rank, record(line=7)) for rank in range(2))
    for merged in (few, bundle):
        merged._origins.clear()
    assert len(bundle.encode()) < len(few.encode()) + 20


def test_where_two_know_of_one_rank_the_first_is_right():
    merged = Bundle.merge(
        [Bundle.of(1, record("First")), Bundle.of(1, record("Second"))]
    )
    (found,) = [found for _, found in merged.records()]
    assert found.links[0].type_name == "First"


def spilled(n, **varied):
    parts = [Bundle.of(r, record(**varied(r))) for r in range(n)] if varied else []
    return Bundle.merge(parts, capped=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda rank: record(message=f"message {rank}"),
        lambda rank: record(line=rank),
        lambda rank: record(type_name=f"Type{rank}"),
        lambda rank: record(body=random.Random(rank).randbytes(4000)),
        lambda rank: record(message=f"{rank}" * 2000),
    ],
    ids=["messages", "stacks", "types", "bodies", "long messages"],
)
def test_the_caps_bound_the_size_and_keep_every_rank(make):
    n = 3000
    merged = Bundle.merge((Bundle.of(r, make(r)) for r in range(n)), capped=True)
    assert merged.ranks == RankSet(range(n))
    assert len(merged._shapes) <= 2 * distinct.MAX_SHAPES + 1
    assert merged._n_bytes < 1.2 * distinct.MAX_BUNDLE_BYTES
    assert len(merged.origins) == bundles.MAX_ORIGINS
    assert len(merged.encode()) < 1.3 * distinct.MAX_BUNDLE_BYTES
    assert content(merged)[0] == content(Bundle.of(0, make(0)))[0]


def test_a_rank_beyond_the_caps_keeps_its_type():
    n = distinct.MAX_VARIANTS + 10
    merged = Bundle.merge(
        (Bundle.of(r, record("OSError", f"m{r}")) for r in range(n)), capped=True
    )
    link = content(merged)[n - 1][0][0]
    assert link.type_name == "OSError"
    assert link.message == "[message and stack left out: too many different failures]"


def test_merging_capped_bundles_again_keeps_to_the_caps():
    def part(first):
        ranks = range(first, first + 1500)
        made = (Bundle.of(r, record(message=f"m{r}", line=r % 99)) for r in ranks)
        return Bundle.merge(made, capped=True)

    merged = Bundle.merge([part(0), part(1500), part(3000)], capped=True)
    assert merged.ranks == RankSet(range(4500))
    assert merged._n_variants <= distinct.MAX_VARIANTS + 2 * distinct.MAX_SHAPES
    assert len(merged._shapes) <= 2 * distinct.MAX_SHAPES + 1


def test_one_rank_can_be_taken_out_under_another_number():
    bundle = Bundle.merge([Bundle.of(0, record("A")), Bundle.of(5, record("B"))])
    only = bundle.only(5, renamed=2)
    assert list(only.ranks) == [2]
    assert content(only)[2] == content(bundle)[5]
    assert only.origins == {2: ("node", 1, 1.5)}
    assert list(bundle.only(9).ranks) == []


def test_a_summary_has_type_and_first_line_and_is_bounded():
    bundle = Bundle.merge(
        Bundle.of(r, record(f"T{r}", f"line {r} {'x' * 999}\nsecond"))
        for r in range(5000)
    )
    told = summarise(bundle)
    summary = read_summary(told, "rank 0 has it")
    assert summary.ranks == bundle.ranks
    first = content(summary)[0]
    assert first[0][0].type_name == "T0"
    assert first[0][0].message.startswith("line 0 x")
    assert "second" not in first[0][0].message
    assert first[2] == ("rank 0 has it",)
    assert len(told) < 100_000


def damage(data):
    """Cut, flip and replace bytes."""
    generator = random.Random(7)
    yield b""
    yield b"garbage"
    for length in range(0, len(data), max(1, len(data) // 50)):
        yield data[:length]
    for _ in range(300):
        place = generator.randrange(len(data))
        yield data[:place] + bytes([generator.randrange(256)]) + data[place + 1 :]


@pytest.mark.parametrize("message", ["short", "long " * 1000])
def test_damaged_bytes_are_refused_or_read_but_raise_nothing_else(message):
    data = Bundle.of(3, record(message=message)).encode()
    n_refused = 0
    for damaged in damage(data):
        try:
            bundle = Bundle.decode(damaged)
            for ranks, found in bundle.records():
                assert ranks
                assert found.links
        except WireError:
            n_refused += 1
    assert n_refused > 10


def test_a_damaged_summary_is_refused_or_read_but_raises_nothing_else():
    known = [Bundle.of(r, record(f"T{r}", f"line {r}" * 90)) for r in range(9)]
    n_refused = 0
    for bundle in (known[0], Bundle.merge(known)):
        for damaged in damage(summarise(bundle)):
            try:
                summary = read_summary(damaged, "rank 0 has it")
                assert all(ranks for ranks, _ in summary.records())
            except WireError:
                n_refused += 1
    assert n_refused > 100


def test_a_summary_of_nobody_has_no_bytes():
    assert summarise(Bundle()) == b""


def test_a_summary_of_one_tells_of_it():
    (((rank,), found),) = read_summary(
        summarise_one(3, "OSError", "disk full"), "rank 0 has it"
    ).records()
    assert rank == 3
    assert found == minimal("OSError", "disk full", reason="rank 0 has it")


def test_a_bundle_refuses_classes():
    """Reading the text of a record runs nothing that came with it."""
    data = b"\0" + pickle.dumps(([], {0: random.Random}))
    with pytest.raises(WireError, match=r"holds builtins only.* random\.Random"):
        Bundle.decode(data)
    data = b"\1" + zlib.compress(pickle.dumps((print, {})))
    with pytest.raises(WireError, match=r"holds builtins only.*builtins\.print"):
        Bundle.decode(data)


@pytest.mark.parametrize("data", [None, 1, 1.5, "x", b"y", [1], (2, {"a": None}), {3}])
def test_plain_data_round_trips(data):
    if isinstance(data, set):
        data = list(data)
    assert load_plain(dump_plain(data)) == data


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x05.", b"junk", b"\x80\xff."])
def test_unreadable_plain_data_is_a_wire_error(data):
    with pytest.raises(WireError, match=rf"unreadable bytes \({len(data)}\)"):
        load_plain(data)


def test_a_record_of_another_version_is_refused():
    packed = pack(minimal("ValueError"))
    other = packed._replace(shape=packed.shape.replace(b"[2,", b"[99,", 1))
    with pytest.raises(WireError, match="record version 99, this allraise reads 2"):
        unpack(other)


def test_a_shape_and_a_variant_of_different_lengths_are_refused():
    one, two = pack(record()), pack(Record(record().links * 2))
    with pytest.raises(WireError, match="a damaged record"):
        unpack(Packed(one.shape, two.variant))


def test_a_bundle_of_later_is_made_when_it_is_looked_at():
    made = []

    def make():
        made.append(Bundle.of(3, minimal("ValueError", "of rank 3")))
        if len(made) == 1:
            raise MemoryError
        return made[-1]

    bundle = Bundle.later(make)
    assert made == []
    with pytest.raises(MemoryError):
        bundle.ranks  # noqa: B018 to look is to make
    assert list(bundle.ranks) == [3]
    assert bundle.encode() == made[-1].encode()
    assert len(made) == 2


def test_what_the_root_told_and_cannot_be_read_hides_no_failure():
    own = Bundle.of(1, minimal("OSError", "disk full"))
    for known, where in ((own, "rank 0"), (Bundle(), "rank 0"), (Bundle(), "")):
        found = failing._known(b"damaged", known, 1, None, where)
        assert list(found.ranks) == [1]
        (_, record), *rest = found.records()
        assert rest == []
        is_own = known is own
        assert record.links[0].type_name == ("OSError" if is_own else "<unknown>")
        assert is_own or "cannot be read" in record.links[0].message

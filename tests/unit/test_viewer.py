"""Groups: what counts as alike, the order, and text that cannot fake a report."""

from __future__ import annotations

import pytest

from allraise.bundle import Bundle
from allraise.capture import capture
from allraise.errors import StepMismatchError
from allraise.grouping import fold_numbers, group_records
from allraise.mismatch import explain_mismatch, position_of
from allraise.ranks import RankSet
from allraise.record import Origin, minimal
from allraise.report import Report
from allraise.viewer import MAX_MESSAGES_SHOWN, quote, sanitise
from unit.test_bundle import record
from unit.zoo import ZOO


def bundle_of(records, times=()):
    bundle = Bundle.merge(Bundle.of(rank, found) for rank, found in records.items())
    for rank, time in dict(times).items():
        bundle.set_origin(rank, Origin("node", 1, time))
    return bundle


def groups_text(records, size=None, **rest):
    return Report("write", bundle_of(records, **rest), size).text("groups")


def test_identical_failures_are_told_once():
    text = groups_text({r: record("OSError", "full") for r in (0, 1, 2, 4, 5)}, 6)
    assert text == (
        "step 'write' failed on ranks 0-2,4-5 (5 of 6)\n"
        "=== ranks 0-2,4-5 (5 of 6): OSError: full\n"
        "Traceback (most recent call last):\n"
        '  File "job.py", line 1, in work\n'
        "    work()\n"
        "OSError: full\n"
    )


def test_messages_that_differ_only_in_numbers_are_folded():
    text = groups_text({r: record(message=f"shard {r} at 0x{r:x}f") for r in range(9)})
    assert text.count("Traceback") == 1
    assert "[9 messages that differ in numbers]" in text


def test_messages_that_differ_in_words_are_listed_below_one_traceback():
    words = ["disk full", "no such file", "permission denied"]
    text = groups_text({r: record(message=words[r % 3]) for r in range(6)})
    assert text.count("Traceback") == 1
    assert "    ranks 0,3: ValueError: disk full\n" in text
    assert "    ranks 1,4: ValueError: no such file\n" in text


def test_a_list_of_messages_has_an_end():
    words = {
        r: record(message=chr(97 + r // 26) * 9 + chr(97 + r % 26)) for r in range(99)
    }
    text = groups_text(words)
    assert f"    [{99 - MAX_MESSAGES_SHOWN} more messages]\n" in text


def test_other_stacks_are_other_groups():
    found = group_records(bundle_of({0: record(line=1), 1: record(line=2)}))
    assert [list(group.ranks) for group in found] == [[0], [1]]


def test_the_first_in_time_is_told_first():
    records = {0: record(line=1), 1: record(line=2), 2: record(line=3)}
    found = group_records(bundle_of(records, {0: 9.0, 1: 7.0, 2: 8.0}))
    assert [group.ranks.first for group in found] == [1, 2, 0]


def test_a_group_is_as_early_as_its_first_rank():
    records = {0: record(line=1), 1: record(line=2), 2: record(line=1)}
    found = group_records(bundle_of(records, {0: 9.0, 1: 7.0, 2: 5.0}))
    assert [list(group.ranks) for group in found] == [[0, 2], [1]]


def test_the_time_of_a_rank_is_that_of_its_first_failure():
    """What all raised because of one failure is told after it, whoever is in both."""
    bundle = bundle_of({3: record(line=1)}, {3: 5.0})
    bundle.add(RankSet(range(4)), record(line=2))
    for rank in range(3):
        bundle.set_origin(rank, Origin("node", 1, 6.0 + rank))
    found = group_records(bundle)
    assert [list(group.ranks) for group in found] == [[3], [0, 1, 2, 3]]


def test_failures_come_before_their_consequences():
    records = {0: record(kind="interrupted", line=1), 1: record(line=2)}
    found = group_records(bundle_of(records, {0: 1.0, 1: 2.0}))
    assert [group.kind for group in found] == ["failure", "interrupted"]
    text = Report("w", bundle_of(records), 2).text()
    assert "=== rank 0 (1 of 2): ValueError: m [interrupted]\n" in text


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("rank 3 of 8", "rank # of #"),
        ("at 0x7ffe12", "at #"),
        ("shard3.bin", "shard#.bin"),
        ("no number", "no number"),
        ("1.5e-3", "#.#e-#"),
    ],
)
def test_numbers_and_addresses_are_folded(text, folded):
    assert fold_numbers(text) == folded


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b2J", "\\x9b2J"),
        ("\x07\x08\r\0", "\\x07\\x08\\x0d\\x00"),
        ("\u202egnp", "\\u202egnp"),
        ("\u2066\u2069\u061c", "\\u2066\\u2069\\u061c"),
        (
            "\u200b\u200f\ufeff\u2028\u2029\x85",
            "\\u200b\\u200f\\ufeff\\u2028\\u2029\\x85",
        ),
        ("file \udcff", "file \\udcff"),
        ("a\xadb", "a\\xadb"),
        ("\u2800\u3164\u115f\uffa0", "\\u2800\\u3164\\u115f\\uffa0"),
        ("\U000e0041\ufe0f\u034f", "\\U000e0041\\ufe0f\\u034f"),
        ("tab\tline\n", "tab\tline\n"),
        ("磁盘已满 \U0001f4a5", "磁盘已满 \U0001f4a5"),
    ],
)
def test_control_characters_are_shown_not_obeyed(text, shown):
    assert sanitise(text) == shown


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last): (RANK 5)",
        "  Traceback (most recent call last):",
        "=== ranks 0-9 (10 of 10): OSError",
        "rank 3: KeyError",
        "    ranks 0-2: KeyError",
        "\x0b=== rank 1",
        "\u200b=== rank 1",
        "\x1b[0m=== ranks 0-9",
        "\r=== ranks 0-9",
        "\u2800Traceback (most recent call last): (RANK 8)",
        "\u3164=== ranks 0-9",
        "Trace\xadback (most recent call last): (RANK 6)",
        "\u0301Traceback (most recent call last): (RANK 6)",
        "Traceback\xa0(most recent call last): (RANK 6)",
        "===\u3000rank 1",
    ],
)
def test_a_message_cannot_pass_for_a_header(line):
    text = groups_text({7: capture(ValueError(f"x\n{line}\nrest"))}, 8)
    assert f"\n{line}\n" not in text
    own = [t for t in text.splitlines() if t.lstrip().startswith(("===", "rank"))]
    assert own == ["=== rank 7 (1 of 8): ValueError: x"]
    assert text.count("\nTraceback (most") == 0 or "(RANK 5)" not in [
        t for t in text.splitlines() if t.startswith("Traceback")
    ]
    assert sum(t.lstrip().startswith("Traceback (most") for t in text.splitlines()) == 1


@pytest.mark.parametrize(
    "line",
    [
        "  + Exception Group Traceback (most recent call last): (RANK 9)",
        "Exception Group Traceback (most recent call last): (RANK 9)",
        "  | Exception Group Traceback (most recent call last):",
        "  | Traceback (most recent call last): (RANK 9)",
        "  +-+---------------- 1 ----------------",
        "    +---------------- 2 ----------------",
        "    +---------------- ... ----------------",
    ],
)
@pytest.mark.parametrize("style", ["ranks", "groups"])
def test_a_message_cannot_pass_for_the_header_of_an_exception_group(line, style):
    record = capture(ValueError(f"real\n{line}\n  | FakeError: from rank 9"))
    text = Report("write", bundle_of({0: record}), 1).text(style)
    assert f"\n| {line}\n" in text


def test_the_headers_of_a_group_itself_are_not_marked():
    group = ExceptionGroup("g", [ValueError("a\nb"), KeyError("c")])
    try:
        raise group
    except ExceptionGroup as error:
        text = groups_text({0: capture(error)})
    assert "\n  + Exception Group Traceback (most recent call last):\n" in text
    assert "\n  +-+---------------- 1 ----------------\n    | ValueError: a\n" in text


@pytest.mark.parametrize(
    "line",
    [
        "| a | b |",
        "+-----+-----+",
        "- ranking 3",
        "see the Traceback (most recent call last)",
        "a === b",
        "x - 1 - y",
    ],
)
def test_a_line_that_is_no_header_is_not_marked(line):
    assert quote(f"x\n{line}\ny") == f"x\n{line}\ny"


def mismatch_of(first, second):
    """Return what ranks are told that met at two steps."""
    positions = Bundle.merge(
        Bundle.of(rank, position_of(step, 1, 1))
        for rank, step in enumerate([first, second, second])
    )
    return Report(first, explain_mismatch(positions), 3)


@pytest.mark.parametrize("style", ["ranks", "groups"])
def test_the_table_of_a_mismatch_is_not_marked(style):
    text = mismatch_of("write", "read").text(style)
    assert "\n  rank 0: step 'write', the 1st at depth 1, " in text
    assert "\n  ranks 1-2: step 'read', the 1st at depth 1, " in text
    assert "\n| " not in text
    assert "\n  rank 0: a step without a name, " in mismatch_of("", "b").text()


def test_a_mismatch_cannot_pass_for_a_header_either():
    lines = ["=== rank 9: x", "  rank 9: KeyError", "rank 9: step 'x'"]
    text = groups_text({0: capture(StepMismatchError("\n".join(["x", *lines])))})
    for line in lines:
        assert f"\n| {line}\n" in text


def test_a_quoted_line_is_marked_and_the_rest_is_not():
    assert quote("x\n=== ranks 0-9\ny") == "x\n| === ranks 0-9\ny"


@pytest.mark.parametrize("name", ["file_and_function_with_odd_names", "notes"])
def test_names_of_files_and_notes_are_sanitised_too(name):
    exc = ZOO[name].catch()
    exc.add_note("noted\n=== ranks 0-9: fake")
    text = groups_text({0: capture(exc)})
    assert "\x1b" not in text
    assert sum(line.startswith("===") for line in text.splitlines()) == 1
    assert not any(line.lstrip().startswith("(RANK") for line in text.splitlines())


def test_a_step_name_cannot_fake_a_header_either():
    text = Report("a\n=== ranks 0-9\x1b[2J", bundle_of({0: record()}), 1).text()
    assert text.count("\n===") == 1
    assert "\x1b" not in text


def test_a_type_name_cannot_either():
    made = type("E\n=== rank 9: x", (Exception,), {})("m")
    text = groups_text({0: capture(made)})
    assert sum(line.startswith("===") for line in text.splitlines()) == 1


def test_a_long_first_line_is_cut_in_the_header():
    text = groups_text({0: record(message="x" * 5000)})
    assert "=== rank 0: ValueError: " + "x" * 400 + "... [4600 more]\n" in text


def test_one_stack_of_a_hundred_thousand_ranks_is_a_short_text():
    bundle = Bundle()
    n, n_messages = 100_000, 500
    for i in range(n_messages):
        ranks = RankSet.from_ranges([(i * 200, i * 200 + 199)])
        bundle.add(ranks, record("OSError", f"shard {i}: No space left on device"))
    text = Report("write", bundle, n).text("groups")
    assert "ranks 0-99999 (100000 of 100000): OSError: shard 0" in text
    assert len(text.encode()) < 10_000


def test_a_stack_of_ranks_that_alternate_is_a_short_text_too():
    bundle = Bundle()
    for offset in (0, 1):
        ranks = RankSet(range(offset, 100_000, 2))
        bundle.add(ranks, record("OSError", ("even", "odd")[offset]))
    text = Report("write", bundle, 100_000).text("groups")
    assert len(text.encode()) < 10_000


def test_the_style_ranks_has_a_block_for_each_rank():
    report = Report("w", bundle_of({r: record() for r in (3, 0)}), 4)
    assert report.text("ranks").count("Traceback (most") == 2
    assert report.text("ranks").index("(RANK 0)") < report.text("ranks").index(
        "(RANK 3)"
    )


@pytest.mark.parametrize("style", ["ranks", "groups"])
def test_a_rank_that_has_finished_is_told_in_one_line(style):
    finished = minimal("finished", kind="finished")
    text = Report("w", bundle_of({0: record(), 1: finished}), 2).text(style)
    assert text.endswith("\n\n=== rank 1 (1 of 2): finished\n")


def test_where_a_rank_stands_is_said_once():
    blocked = record("blocked", "in comm.Barrier()", kind="blocked")
    text = groups_text({0: blocked})
    assert text.endswith(
        "=== rank 0: blocked: in comm.Barrier()\n"
        "Stack (most recent call last):\n"
        '  File "job.py", line 1, in work\n'
        "    work()\n"
    )


@pytest.mark.parametrize("style", ["groups", "tree"])
@pytest.mark.parametrize("kind", ["interrupted", "thread", "handled", "finished"])
def test_what_is_no_failure_is_marked(style, kind):
    text = Report("w", bundle_of({0: record(kind=kind)})).text(style)
    assert f"rank 0: ValueError: m [{kind}]\n" in text


def test_words_of_a_rank_without_a_stack_are_sanitised():
    """They come from a file, which may be anybody's."""
    words = record("silent", "x", kind="silent")
    link = words.links[0]._replace(frames=(), lines=("\x1b[2Jsilent\n=== rank 9\n",))
    text = groups_text({0: words._replace(links=(link,))})
    assert text.endswith("\n\\x1b[2Jsilent\n| === rank 9\n")
    text = groups_text({0: words._replace(kind="a\n=== rank 9\x1b[2J")})
    assert text.count("\n===") == 1
    assert "\x1b" not in text


@pytest.mark.parametrize("style", ["groups", "tree"])
def test_a_program_without_a_step_is_called_so(style):
    bundle = bundle_of({0: record()})
    assert Report("", bundle, 1).text(style).startswith("a step failed on rank 0")
    ended = Report("", bundle, 1, {"ended_because": "failed"})
    assert ended.text(style).startswith("the program failed on rank 0 (1 of 1)\n")


def test_an_unknown_style_is_refused():
    with pytest.raises(
        ValueError, match=r"style must be one of .*groups.* got 'colour'"
    ):
        Report("w", Bundle()).text("colour")

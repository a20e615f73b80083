"""Every exception of the zoo goes to another process, and all of it arrives.

The zoo is captured, packed and merged here; two receivers read it in processes
of their own: one that can import the zoo's modules, one that cannot.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest

from allraise import RemoteError, bodies
from allraise.bodies import MAX_BODY_BYTES, bounded_repr, dump_exception
from allraise.bundle import Bundle
from allraise.capture import MAX_LINKS, MAX_MESSAGE_CHARS, capture
from allraise.chains import type_name_of
from allraise.rebuild import rebuild
from allraise.record import minimal
from allraise.render import format_block
from allraise.report import Report
from unit.receiver import describe, stack_of
from unit.zoo import INTACT, TAMED, TEXT, ZOO
from unit.zoo.payloads import HoldingError

TESTS = Path(__file__).parents[1]
RECEIVER = Path(__file__).parent / "receiver.py"
RECEIVER_DEADLINE_S = 300

NAMES = list(ZOO)


def python_text(exc):
    """Return what Python itself prints, or None where it gives up."""
    try:
        return "".join(traceback.format_exception(exc))
    except BaseException:
        return None


@pytest.fixture(scope="module")
def sent():
    """Each exception, what it looked like before, and its record."""
    found = {}
    for name, case in ZOO.items():
        exc = case.catch()
        before = describe(exc)
        record = capture(exc)
        found[name] = SimpleNamespace(
            exc=exc,
            before=before,
            stack=as_json(stack_of(exc)),
            record=record,
            text=python_text(exc) if case.exact else None,
        )
    return found


@pytest.fixture(scope="module")
def bundle(sent):
    return Bundle.merge(
        Bundle.of(NAMES.index(name), item.record) for name, item in sent.items()
    )


def receive(bundle, folder, *importable):
    source, target = folder / "bundle", folder / "answers.json"
    source.write_bytes(bundle.encode())
    run = subprocess.run(
        [sys.executable, str(RECEIVER), str(source), str(target), *importable],
        capture_output=True,
        text=True,
        timeout=RECEIVER_DEADLINE_S,
        check=False,
        cwd=folder,
    )
    assert (run.returncode, run.stderr) == (0, "")
    return {NAMES[int(r)]: a for r, a in json.loads(target.read_text()).items()}


@pytest.fixture(scope="module")
def received(bundle, tmp_path_factory):
    """What a receiver with the zoo's modules found."""
    return receive(bundle, tmp_path_factory.mktemp("with"), str(TESTS))


@pytest.fixture(scope="module")
def received_without(bundle, tmp_path_factory):
    """What a receiver found that can import none of the zoo's classes."""
    return receive(bundle, tmp_path_factory.mktemp("without"))


def as_json(value):
    return json.loads(json.dumps(value))


def test_the_zoo_is_large():
    assert len(ZOO) >= 120


def test_one_bundle_brings_every_record(received, received_without):
    assert sorted(received) == sorted(received_without) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_object_arrives_as_expected(name, sent, received):
    case, answer, before = ZOO[name], received[name], as_json(sent[name].before)
    if name in LACKED_BY_EVERY_RECEIVER:
        assert answer["remote"] is not None
        return
    assert (answer["remote"] is not None) == (case.outcome == TEXT), answer["reason"]
    if case.outcome == INTACT:
        assert answer["description"] == before
    elif case.outcome == TAMED:
        assert answer["description"] != before
        assert answer["description"]["type"] == before["type"]


# Their classes are those of the sender's own process: it finds them, nobody else.
LACKED_BY_EVERY_RECEIVER = {
    "class_of_a_module_that_the_receiver_lacks",
    "class_of_the_main_module",
}


@pytest.mark.parametrize("name", NAMES)
def test_type_and_message_are_in_the_text(name, sent, received):
    case, answer = ZOO[name], received[name]
    assert case.says in answer["block"]
    assert type_name_of(type(sent[name].exc)) == answer["type_name"]


@pytest.mark.parametrize("name", [n for n in NAMES if ZOO[n].exact])
def test_the_text_is_what_python_itself_prints(name, sent, received):
    expected = sent[name].text
    block = received[name]["block"]
    assert block.count(f"(RANK {NAMES.index(name)})") == 1
    assert block.replace(f" (RANK {NAMES.index(name)})", "") == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_text_does_not_depend_on_the_receiver(name, received, received_without):
    assert received[name]["block"] == received_without[name]["block"]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "five_thousand_frames"])
def test_no_frame_is_lost(name, sent, received):
    expected = sent[name].stack
    assert len(expected) > 0
    assert received[name]["summary"] == expected
    if name != "code_without_lines":  # a traceback object needs a number
        assert received[name]["stack"] == expected


def test_of_a_stack_beyond_the_cap_both_ends_are_kept(sent, received):
    expected = sent["five_thousand_frames"].stack
    found = received["five_thousand_frames"]["summary"]
    assert found[:1000] == expected[:1000]
    assert found[-1000:] == expected[-1000:]
    assert found[1000][0] == f"<{len(expected) - 2000} frames left out>"
    assert len(found) == 2001


@pytest.mark.parametrize("name", NAMES)
def test_without_its_module_an_exception_is_a_remote_error(
    name, received, received_without
):
    with_it, without = received[name], received_without[name]
    if ZOO[name].portable:
        assert without["description"] == with_it["description"]
        return
    if without["remote"] is None:  # a class of the library, holding the zoo's
        assert without["description"]["type"] == with_it["description"]["type"]
        return
    shown = without["message"] and f"{without['type_name']}: {without['message']}"
    assert without["remote"] == (shown or without["type_name"])
    assert without["reason"] != ""


def test_a_class_that_only_the_sender_has_is_named_in_the_reason(received):
    answer = received["class_of_a_module_that_the_receiver_lacks"]
    assert answer["remote"] == "zoo_plugin.PluginError: only here"
    assert answer["reason"] == "ModuleNotFoundError: No module named 'zoo_plugin'"


@pytest.mark.parametrize("name", NAMES)
def test_capturing_changes_nothing(name, sent):
    item = sent[name]
    assert describe(item.exc) == item.before


@pytest.mark.parametrize("name", NAMES)
def test_a_record_is_bounded(name, sent):
    record = sent[name].record
    assert all(len(body) <= MAX_BODY_BYTES for body in record.bodies)
    assert len(record.links) <= MAX_LINKS + 100  # a group adds its members' ends
    assert all(len(link.message) < MAX_MESSAGE_CHARS + 100 for link in record.links)
    assert len(Bundle.of(0, record).encode()) < 2 * MAX_BODY_BYTES


def test_the_whole_zoo_is_shown_in_both_styles(bundle):
    report = Report("feed the animals", bundle, len(NAMES))
    for style in ("groups", "ranks"):
        text = report.text(style)
        text.encode()  # can be printed
    assert "\x1b" not in report.text("groups")
    blocks = report.text("ranks")
    for rank, name in enumerate(NAMES):
        assert f"(RANK {rank})\n" in blocks, name


def test_one_damaged_record_costs_no_other(sent):
    bundle = Bundle.of(0, sent["key_error"].record)
    bundle._add(b"no shape at all", (b"{", (b"",)), ((1, 1),))
    bundle.add(bundle.ranks.from_ranges([(2, 2)]), sent["unicode_decode_error"].record)
    found = {ranks.first: record for ranks, record in bundle.records()}
    assert "KeyError: 'layer.7'" in format_block(found[0], 0)
    assert "its record is unreadable" in format_block(found[1], 1)
    assert type(rebuild(found[1])[0]) is RemoteError
    assert type(rebuild(found[2])[0]) is UnicodeDecodeError


def test_builtins_come_back_with_their_fields(sent):
    def back(name):
        return rebuild(sent[name].record)[0]

    syntax = back("syntax_error")
    assert (syntax.msg, syntax.filename, syntax.lineno) == ("bad input", "job.py", 3)
    assert (syntax.text, syntax.offset, syntax.end_offset) == ("x = = 1\n", 5, 6)
    decode = back("unicode_decode_error")
    assert (decode.encoding, decode.object, decode.start) == ("utf-8", b"ab\xff", 2)
    assert back("unicode_encode_error").reason == "not in range"
    assert back("unicode_translate_error").object == "ab\xe4"
    assert back("system_exit_number").code == 3
    assert back("system_exit_text").code == "give up"
    assert back("system_exit_none").code is None
    assert back("system_exit_tuple").code == (1, 2)
    assert back("stop_iteration").value == 42
    assert back("blocking_io_error").characters_written == 17
    assert back("import_error").name == "numpy"
    assert back("import_error").path == "/usr/lib"
    assert back("key_error").args == ("layer.7",)
    assert back("real_attribute_error").name == "lenght"
    assert back("real_name_error").name == "pathh"
    assert back("os_error_with_two_names").filename2 == "b"
    assert back("os_error_changed").errno == 5
    assert back("connection_reset").errno == 104


def test_each_outcome_of_the_zoo_is_used():
    assert {case.outcome for case in ZOO.values()} == {INTACT, TAMED, TEXT}


@pytest.mark.parametrize("name", ["getattribute_raises", "bool_raises", "cause_raises"])
def test_a_hostile_link_does_not_cost_the_rest_of_its_chain(name, sent):
    """Python's own traceback module gives up on all of it."""
    good = ZOO["real_zero_division"].catch()
    good.__cause__ = ExceptionGroup("g", [sent[name].exc, sent["key_error"].exc])
    good.__cause__.__cause__ = sent["os_error_changed"].exc
    block = format_block(capture(good), 0)
    assert block.index("[Errno 5] changed") < block.index("ExceptionGroup: g")
    assert f"{type_name_of(type(sent[name].exc))}: the message" in block
    assert "KeyError: 'layer.7'" in block
    assert block.endswith("ZeroDivisionError: division by zero\n")
    assert "in real_zero_division" in block


def held_in_each_other(depth):
    exc = HoldingError("innermost", threading.Lock())
    for level in range(depth):
        exc = HoldingError(f"level {level}", [exc, threading.Lock()])
    return exc


def test_exceptions_held_within_exceptions_cost_no_more_with_each_level(monkeypatch):
    """Each level is pickled three times; a level's cost must not multiply."""
    calls = []
    original = bodies._dump
    monkeypatch.setattr(
        bodies, "_dump", lambda *args: calls.append(1) or original(*args)
    )
    dump_exception(held_in_each_other(7))
    assert len(calls) < 100


def test_a_repr_of_many_megabytes_is_not_written():
    shown = bounded_repr(bytes(50 * 1024 * 1024))
    assert shown.endswith("... [52428800 bytes]")
    assert len(shown) < 300


def test_a_minimal_record_is_shown_and_rebuilt():
    record = minimal("some.Error", "the message", reason="no memory")
    exc, summary = rebuild(record)
    assert str(exc) == "some.Error: the message"
    assert list(summary) == []
    assert format_block(record, 3) == (
        "Traceback (most recent call last): (RANK 3)\nsome.Error: the message\n"
    )

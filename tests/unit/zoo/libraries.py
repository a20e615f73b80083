"""What the standard library and NumPy raise."""

from __future__ import annotations

import argparse
import asyncio
import binascii
import concurrent.futures.process
import configparser
import ctypes
import dataclasses
import decimal
import email.errors
import http.client
import json
import lzma
import pickle
import queue
import re
import socket
import sqlite3
import ssl
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path
from urllib.error import URLError
from xml.etree import ElementTree as ET

import numpy as np

from unit.zoo.case import TAMED, case, cases_of

cases_of(
    {
        "called_process_error": (
            lambda: subprocess.CalledProcessError(
                returncode=2, cmd=["srun"], output=b"out", stderr=b"err"
            ),
            "returned non-zero exit status 2",
        ),
        "timeout_expired": (
            lambda: subprocess.TimeoutExpired(cmd="srun", timeout=5, output=b"out"),
            "timed out after 5 seconds",
        ),
        "url_error": (lambda: URLError("unreachable"), "unreachable"),
        "ssl_error": (lambda: ssl.SSLError(1, "handshake"), "handshake"),
        "gai_error": (lambda: socket.gaierror(-2, "unknown host"), "unknown host"),
        "queue_empty": (queue.Empty, "Empty"),
        "incomplete_read": (
            lambda: asyncio.IncompleteReadError(b"part", 100),
            "4 bytes read on a total of 100",
        ),
        "http_incomplete_read": (
            lambda: http.client.IncompleteRead(b"ab", 3),
            "IncompleteRead(2 bytes read, 3 more expected)",
        ),
        "broken_process_pool": (
            lambda: concurrent.futures.process.BrokenProcessPool("died"),
            "died",
        ),
        "frozen_instance": (
            lambda: dataclasses.FrozenInstanceError("frozen"),
            "frozen",
        ),
        "pickling_error": (lambda: pickle.PicklingError("cannot"), "cannot"),
        "message_defect": (
            lambda: email.errors.HeaderMissingRequiredValue("a line"),
            "a line",
        ),
        "ctypes_argument": (lambda: ctypes.ArgumentError("argument 1"), "argument 1"),
        "bad_zip": (lambda: zipfile.BadZipFile("not a zip"), "not a zip"),
        "invalid_state": (asyncio.InvalidStateError, "InvalidStateError"),
        "missing_section": (
            lambda: configparser.MissingSectionHeaderError("f.ini", 1, "x=1"),
            "File contains no section headers.",
        ),
        "no_option": (
            lambda: configparser.NoOptionError("steps", "training"),
            "No option 'steps' in section: 'training'",
        ),
        "numpy_axis_error": (
            lambda: np.exceptions.AxisError(2, 1),
            "axis 2 is out of bounds for array of dimension 1",
        ),
        "numpy_axis_error_text": (
            lambda: np.exceptions.AxisError("no such axis"),
            "no such axis",
        ),
        "numpy_linalg_error": (lambda: np.linalg.LinAlgError("singular"), "singular"),
    },
    portable=True,
)


def failing_query():
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("select * from shards")
    finally:
        connection.close()


def failing_child():
    code = "raise SystemExit(5)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def silent_parser():
    class Parser(argparse.ArgumentParser):
        def error(self, message):
            raise SystemExit(2)

    return Parser()


async def failing_tasks():
    async def fail(text):
        raise ValueError(text)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail("one"))
        tasks.create_task(fail("two"))


def raise_outside_destination():
    raise tarfile.OutsideDestinationError(tarfile.TarInfo("a"), "/x")


def of_library(run, says, name, outcome="intact", **rest):
    def call():
        return run()

    call.__name__ = name
    case(outcome, says, **rest)(call)


if hasattr(tarfile, "OutsideDestinationError"):  # from Python 3.11.4 on
    of_library(
        raise_outside_destination,
        "outside the destination",
        "tar_error",
    )

for library_name, library_run, library_says in (
    ("json_decode", lambda: json.loads('{"step": '), "Expecting value: line 1"),
    ("struct_error", lambda: struct.unpack("<q", b"abc"), "requires a buffer of 8"),
    ("zlib_error", lambda: zlib.decompress(b"damaged"), "Error -3"),
    ("lzma_error", lambda: lzma.decompress(b"damaged"), "not supported"),
    ("binascii_error", lambda: binascii.unhexlify("xyz"), "Odd-length"),
    ("re_error", lambda: re.compile("(unbalanced"), "unterminated subpattern"),
    ("xml_parse", lambda: ET.fromstring("<a><b></a>"), "mismatched tag"),
    ("decimal_invalid", lambda: decimal.Decimal("x"), "ConversionSyntax"),
    ("codec_lookup", lambda: "x".encode("no-such-codec"), "unknown encoding"),
    ("path_exists", lambda: Path("/").mkdir(), "File exists"),
    ("sqlite_error", failing_query, "no such table"),
    ("numpy_broadcast", lambda: np.ones(3) + np.ones(4), "could not be broadcast"),
    ("numpy_index", lambda: np.ones(3)[7], "index 7 is out of bounds"),
    ("numpy_singular", lambda: np.linalg.inv(np.zeros((2, 2))), "Singular matrix"),
    ("numpy_reshape", lambda: np.ones(6).reshape(4, 2), "cannot reshape array"),
    ("numpy_ufunc_types", lambda: np.ones(2) + np.array(["a", "b"]), "ufunc"),
    ("numpy_no_memory", lambda: np.ones(1 << 55), "Unable to allocate"),
    (
        "argument_parser_exits",
        lambda: silent_parser().parse_args(["--x"]),
        "SystemExit",
    ),
    ("python_child", failing_child, "returned non-zero exit status 5"),
    ("event_loop", lambda: asyncio.run(failing_tasks()), "unhandled errors in a Task"),
):
    of_library(library_run, library_says, library_name)


@case(TAMED, says="argument --x: wrong")
def argument_error():
    """Its class keeps nothing, but the parser's action came along."""
    parser = argparse.ArgumentParser()
    action = parser.add_argument("--x", type=lambda text: text)
    raise argparse.ArgumentError(action, "wrong")

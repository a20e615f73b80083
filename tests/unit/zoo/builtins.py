"""Builtin exceptions, several of which `pickle` or tblib get wrong."""

from __future__ import annotations

import ast
import asyncio
import errno
import os
import signal

from unit.zoo.case import case, cases_of


def changed_os_error():
    exc = OSError(2, "No such file", "/scratch/a")
    exc.errno, exc.strerror, exc.filename = 5, "changed", "/scratch/b"
    return exc


cases_of(
    {
        "syntax_error": (
            lambda: SyntaxError("bad input", ("job.py", 3, 5, "x = = 1\n", 3, 6)),
            "    x = = 1\n",
        ),
        "syntax_error_without_text": (
            lambda: SyntaxError("bad", ("job.py", 3, None, None)),
            "SyntaxError: bad",
        ),
        "syntax_error_bare": (lambda: SyntaxError("only a message"), "only a message"),
        "indentation_error": (
            lambda: IndentationError("unindent", ("job.py", 1, 1, "  x\n")),
            "unindent",
        ),
        "unicode_decode_error": (
            lambda: UnicodeDecodeError("utf-8", b"ab\xff", 2, 3, "invalid start byte"),
            "can't decode byte 0xff in position 2",
        ),
        "unicode_encode_error": (
            lambda: UnicodeEncodeError("ascii", "ab\xe4", 2, 3, "not in range"),
            "can't encode character '\\xe4' in position 2",
        ),
        "unicode_translate_error": (
            lambda: UnicodeTranslateError("ab\xe4", 2, 3, "no mapping"),
            "can't translate character '\\xe4'",
        ),
        "system_exit_number": (lambda: SystemExit(3), "SystemExit: 3"),
        "system_exit_text": (lambda: SystemExit("give up"), "SystemExit: give up"),
        "system_exit_none": (lambda: SystemExit(None), "SystemExit: None"),
        "system_exit_bare": (SystemExit, "SystemExit\n"),
        "system_exit_tuple": (lambda: SystemExit(1, 2), "SystemExit: (1, 2)"),
        "stop_iteration": (lambda: StopIteration(42), "StopIteration: 42"),
        "stop_async_iteration": (lambda: StopAsyncIteration("end"), "end"),
        "blocking_io_error": (
            lambda: BlockingIOError(errno.EAGAIN, "would block", 17),
            "would block",
        ),
        "import_error": (
            lambda: ImportError("no", name="numpy", path="/usr/lib"),
            "ImportError: no",
        ),
        "key_error": (lambda: KeyError("layer.7"), "KeyError: 'layer.7'"),
        "key_error_of_a_tuple": (lambda: KeyError((1, 2)), "KeyError: (1, 2)"),
        "os_error_with_two_names": (
            lambda: OSError(errno.EXDEV, "cross-device", "a", None, "b"),
            "cross-device: 'a' -> 'b'",
        ),
        "os_error_bare": (OSError, "OSError\n"),
        "os_error_errno_only": (lambda: OSError(5), "OSError: 5"),
        "os_error_byte_name": (
            lambda: OSError(errno.ENOENT, "gone", b"/x\xff"),
            "gone: b'/x\\xff'",
        ),
        "os_error_changed": (changed_os_error, "[Errno 5] changed"),
        "connection_reset": (lambda: ConnectionResetError(104, "reset"), "reset"),
        "keyboard_interrupt": (KeyboardInterrupt, "KeyboardInterrupt\n"),
        "generator_exit": (GeneratorExit, "GeneratorExit\n"),
        "cancelled_error": (lambda: asyncio.CancelledError("why"), "why"),
        "memory_error": (lambda: MemoryError("50 GB"), "MemoryError: 50 GB"),
        "assertion_error": (lambda: AssertionError(("a", 1)), "('a', 1)"),
        "base_exception": (lambda: BaseException("base"), "BaseException: base"),
        "exception_without_message": (Exception, "Exception\n"),
        "exception_of_empty_text": (lambda: Exception(""), "Exception"),
        "exception_of_none": (lambda: Exception(None), "Exception: None"),
        "exception_of_bytes": (lambda: Exception(b"\xff"), "b'\\xff'"),
        "exception_of_two": (lambda: Exception("a", "b"), "('a', 'b')"),
        "not_implemented_error": (NotImplementedError, "NotImplementedError\n"),
        "user_warning": (lambda: UserWarning("careful"), "UserWarning: careful"),
        "attribute_error_by_hand": (
            lambda: AttributeError("no such", name="shape"),
            "no such",
        ),
        "name_error_by_hand": (lambda: NameError("unknown", name="npp"), "unknown"),
    },
    portable=True,
)


@case(says="invalid syntax", portable=True)
def real_syntax_error():
    ast.parse("def f(:\n", filename="job.py")


@case(says="No such file or directory", portable=True)
def real_file_not_found():
    os.open("/nonexistent/folder/file", os.O_RDONLY)


@case(says="No module named 'nonexistent_module'", portable=True)
def real_module_not_found():
    __import__("nonexistent_module.sub")


@case(says="has no attribute 'lenght'")
def real_attribute_error():
    class Model:
        length = 1

    return Model().lenght


@case(says="name 'pathh' is not defined", portable=True)
def real_name_error():
    path = 1
    return pathh, path  # noqa: F821 that is the case


@case(says="'later'", portable=True)
def real_unbound_local():
    later += 1  # noqa: F821, F841 that is the case


@case(says="division by zero", portable=True)
def real_zero_division():
    return [1, 2][0] / (3 - 3)


@case(says="not enough values to unpack", portable=True)
def real_unpacking():
    _a, _b = [1]


@case(says="received signal", portable=True)
def raised_by_a_signal_handler():
    def handler(number, frame):
        msg = f"received signal {number}"
        raise TimeoutError(msg)

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        signal.raise_signal(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)

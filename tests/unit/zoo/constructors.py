"""Constructors that take something else than ``args``, or do more than construct."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.error import HTTPError

from unit.zoo.case import TAMED, case, cases_of


class KeywordOnlyError(Exception):
    def __init__(self, *, path, code):
        super().__init__(f"cannot write {path} ({code})")
        self.path, self.code = path, code


class TwoToOneError(Exception):
    def __init__(self, operation, response):
        super().__init__(f"{operation}: {response['Error']}")
        self.response = response


class NoArgumentsError(Exception):
    def __init__(self):
        super().__init__("always the same text")


class NeverCallsSuperError(Exception):
    def __init__(self, a, b, c):
        self.total = a + b + c

    def __str__(self):
        return f"total {self.total}"


@dataclass
class DataclassError(Exception):
    path: str
    offset: int

    def __str__(self):
        return f"{self.path} at {self.offset}"


@dataclass(frozen=True)
class FrozenError(Exception):
    path: str
    offset: int = 7

    def __str__(self):
        return f"frozen {self.path} at {self.offset}"


class PrefixingError(Exception):
    def __init__(self, text):
        super().__init__(f"file error: {text}")


class OwnNewError(Exception):
    def __new__(cls, first, second):
        made = super().__new__(cls, first, second)
        made.second = second
        return made

    def __init__(self, first, second):
        super().__init__(first)


class EmptiesItsArgsError(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.text = text
        self.args = ()

    def __str__(self):
        return self.text


class OnceError(Exception):
    n_made = 0

    def __init__(self, text):
        OnceError.n_made += 1
        if OnceError.n_made > 1 and text != "the original":
            msg = "constructed again"
            raise RuntimeError(msg)
        super().__init__(f"<{text}>")


class OsErrorWithOwnInit(OSError):
    def __init__(self, path, *, shard):
        super().__init__(28, "No space left on device", path)
        self.shard = shard


class KeywordGroup(ExceptionGroup):
    def __new__(cls, failures, *, title):
        return super().__new__(cls, title, failures)

    def __init__(self, failures, *, title):
        self.title = title


class ArgsIsAPropertyError(Exception):
    def __init__(self, text):
        super().__init__(text)

    @property
    def args(self):
        return ("from the property",)


class Singleton(Exception):
    made = None

    def __new__(cls, text):
        if cls.made is None:
            cls.made = super().__new__(cls, text)
        return cls.made


cases_of(
    {
        "keyword_only": (
            lambda: KeywordOnlyError(path="/scratch/shard3", code=28),
            "cannot write /scratch/shard3 (28)",
        ),
        "two_arguments_to_one": (
            lambda: TwoToOneError("PutObject", {"Error": "SlowDown"}),
            "PutObject: SlowDown",
        ),
        "no_arguments": (NoArgumentsError, "always the same text"),
        "never_calls_super": (lambda: NeverCallsSuperError(1, 2, 3), "total 6"),
        "dataclass": (lambda: DataclassError("a.bin", 4096), "a.bin at 4096"),
        "frozen_dataclass": (lambda: FrozenError("b.bin"), "frozen b.bin at 7"),
        "transforms_its_argument": (
            lambda: PrefixingError("quota"),
            "PrefixingError: file error: quota\n",
        ),
        "own_new": (lambda: OwnNewError("first", "second"), "first"),
        "empties_its_args": (lambda: EmptiesItsArgsError("kept aside"), "kept aside"),
        "constructs_only_once": (lambda: OnceError("the original"), "<the original>"),
        "os_error_with_own_init": (
            lambda: OsErrorWithOwnInit("/scratch/x", shard=3),
            "[Errno 28] No space left on device: '/scratch/x'",
        ),
        "group_with_own_new_and_init": (
            lambda: KeywordGroup([ValueError("leaf")], title="two shards"),
            "two shards (1 sub-exception)",
        ),
        "args_is_a_property": (lambda: ArgsIsAPropertyError("the text"), "the text"),
        "new_returns_a_singleton": (lambda: Singleton("the one"), "the one"),
    }
)


@case(TAMED, says="HTTP Error 503: busy")
def http_error():
    error = HTTPError("http://store/shard", 503, "busy", {}, None)
    error.close()
    raise error

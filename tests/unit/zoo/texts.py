"""Messages that a terminal would obey, that fake a report, that have no end."""

from __future__ import annotations

from unit.zoo.case import TAMED, cases_of

FAKE_BLOCK = (
    "real\nTraceback (most recent call last): (RANK 5)\n"
    '  File "innocent.py", line 1, in innocent\nValueError: not rank 5'
)

cases_of(
    {
        "escape_sequences": (
            lambda: ValueError("\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J"),
            "red",
        ),
        "nul": (lambda: ValueError("before\0after"), "before\0after"),
        "carriage_return": (lambda: ValueError("hidden\rshown"), "hidden\rshown"),
        "backspaces": (lambda: ValueError("secret\b\b\b\b\b\bpublic"), "public"),
        "bidirectional": (lambda: ValueError("\u202egnp.exe\u202c"), "gnp.exe"),
        "zero_width": (lambda: ValueError("ra\u200bnk \ufeff 3"), "nk"),
        "line_separators": (
            lambda: ValueError("a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"),
            "a\u2028b",
        ),
        "fakes_a_rank": (lambda: ValueError(FAKE_BLOCK), "not rank 5"),
        "fakes_a_group": (lambda: ValueError("x\n=== ranks 0-9: OSError"), "=== ranks"),
        "many_lines": (lambda: ValueError("line\n" * 1000), "line\nline\n"),
        "only_line_feeds": (lambda: ValueError("\n\n\n"), "ValueError: \n"),
        "trailing_line_feed": (lambda: ValueError("ends\n"), "ends\n"),
        "windows_line_feeds": (lambda: ValueError("a\r\nb\r\n"), "a\r\nb"),
        "emoji_and_wide": (lambda: ValueError("\U0001f4a5 磁盘已满 é"), "磁盘已满"),
        "percent_and_braces": (lambda: ValueError("%s {0} %(x)d {"), "%s {0} %(x)d {"),
        "html": (lambda: ValueError("<script>alert(1)</script>"), "<script>"),
        "json_breaking": (lambda: ValueError('"}]\\ud800 \\u0000'), '"}]\\ud800'),
    },
    portable=True,
)
cases_of(
    {
        "surrogates": (lambda: ValueError("file \udcff.bin"), "file \\udcff.bin"),
        "surrogate_pair_in_pieces": (
            lambda: ValueError("\ud83d\ude00"),
            "\\ud83d\\ude00",
        ),
        "surrogate_note": (lambda: noted("a note \udc80"), "a note \\udc80"),
    },
    portable=True,
    exact=False,  # Python's own text cannot be printed
)
cases_of(
    {
        "message_of_10_megabytes": (
            lambda: ValueError("x" * (10 * 1024 * 1024)),
            "x" * 1000,
        ),
        "message_of_a_million_lines": (
            lambda: ValueError("line\n" * 1_000_000),
            "line\nline\n",
        ),
        "surrogates_of_10_megabytes": (
            lambda: ValueError("\udcff" * (5 * 1024 * 1024)),
            "\\udcff" * 100,
        ),
    },
    TAMED,
    exact=False,
)


def noted(note):
    exc = ValueError("noted")
    exc.add_note(note)
    return exc

"""The page: one file that loads nothing, escapes all, and needs no mouse."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from allraise import CheckpointException, load_report
from allraise.bundle import Bundle
from allraise.page import MAX_CELLS, page_of
from allraise.ranks import RankSet
from allraise.record import Record
from allraise.report import Report
from unit.test_show import HOSTILE, failed_in, report_of

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Elements(HTMLParser):
    """All elements of a page with their attributes, and all text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page():
    waiting = failed_in("main", "wait", kind="blocked", type_name="blocked")
    return page_of(
        report_of(
            [("1", failed_in("main", message="full")), ("0,2-7", waiting)], size=10
        )
    )


def test_every_rank_is_a_link_to_its_group(page):
    cells = Elements(page).named("a")
    assert [cell.get("href") for cell in cells] == [
        *["#group-1", "#group-0"],
        *["#group-1"] * 6,
        *[None] * 2,
    ]
    assert [group["id"] for group in Elements(page).named("details")] == [
        "group-0",
        "group-1",
    ]
    assert cells[1]["title"] == "rank 1: ValueError: full"
    assert cells[9]["title"] == "rank 9: nothing known"


def test_a_rank_that_took_part_and_is_not_told_of_did_not_fail(tmp_path):
    bundle = Bundle.of(1, failed_in("main", message="full"))
    agreed = CheckpointException.from_bundle("write", bundle, ordinary=True)
    agreed.locate(4, "")
    report = agreed.report
    titles = [cell["title"] for cell in Elements(page_of(report)).named("a")]
    assert titles[0] == "rank 0: did not fail"
    assert titles[1].endswith(": ValueError: full")
    report.save(tmp_path / "r.json")
    again = page_of(load_report(tmp_path / "r.json"))
    assert Elements(again).named("a")[3]["title"] == "rank 3: did not fail"
    only = page_of(report.only(RankSet((1,))))
    assert Elements(only).named("a")[0]["title"] == "rank 0: nothing known"


def test_a_page_says_where_it_is_from_in_few_words():
    report = report_of([("1", failed_in("main"))])
    report.environment.update(mpi="MPICH Version:  4.3.2", python="3.12.1", host="h")
    assert ", h, MPICH 4.3.2, Python 3.12.1<" in page_of(report)


def test_a_kind_is_not_told_twice(page):
    summaries = re.findall("<summary>(.*?)</summary>", page)
    assert summaries[1] == "B: ranks 0,2-7 (7 of 10): blocked"


def test_groups_differ_by_colour_and_by_letter(page):
    cells = Elements(page).named("a")
    assert cells[0]["class"] != cells[1]["class"]
    assert re.findall(r">([A-Z]?)\d</a>", page) == [*list("BABBBBBB"), "", ""]


def test_the_page_loads_nothing_and_runs_one_script(page):
    found = Elements(page)
    policy = found.named("meta")[1]["content"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    for tag in ("script", "style"):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    for _, attributes in found.elements:
        assert not attributes.keys() & {"src", "style", "onclick", "onload"}
        assert attributes.get("href", "#").startswith("#")
    assert {tag for tag, _ in found.elements} == {
        *("html", "head", "meta", "title", "style", "body", "h1", "p", "nav", "a"),
        *("details", "summary", "pre", "script"),
    }


def test_nothing_hostile_gets_in():
    link = failed_in(HOSTILE, message=HOSTILE, type_name=HOSTILE).links[0]
    bundle = Bundle.of(0, Record((link,), kind="failure"))
    report = Report.here(HOSTILE, bundle, 1)
    report.environment["command"] = [HOSTILE]
    report.environment["host"] = HOSTILE
    page = page_of(report)
    page.encode()
    found = Elements(page)
    assert len(found.named("script")) == 1
    assert "</pre><script>alert(1)</script>" in found.text
    for character in "\x1b\x07\0\x9b\r\u202e\u2028":
        assert character not in page


def test_a_cell_stands_for_some_ranks_where_there_are_many():
    report = report_of([("0-99999", failed_in("main")), ("7", failed_in("other"))])
    cells = Elements(page_of(report)).named("a")
    assert MAX_CELLS / 2 < len(cells) <= MAX_CELLS
    assert cells[0]["title"].startswith("ranks 0-24: ")
    assert len(page_of(report)) < 1_000_000


def test_a_report_of_impossible_ranks_is_a_page():
    bundle = Bundle()
    bundle.add(RankSet.from_ranges([(0, 10**9)]), failed_in("main"))
    assert page_of(Report("", bundle, None)).count("<a ") <= MAX_CELLS


def drawn(page, tmp_path):
    """Return the page as Chromium has it after its scripts have run."""
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    return subprocess.run(
        [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            f"--user-data-dir={tmp_path / 'profile'}",
            f"file://{tmp_path}/page.html",
        ],
        capture_output=True,
        text=True,
        timeout=110,
        check=True,
    ).stdout


needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here to draw the page with"
)


@needs_chromium
def test_a_browser_draws_it_and_its_script_runs(page, tmp_path):
    """The script makes one cell of the grid reachable by Tab, the rest by arrows."""
    cells = Elements(drawn(page, tmp_path)).named("a")
    assert [cell["tabindex"] for cell in cells] == ["0", *["-1"] * 9]


@needs_chromium
def test_keys_move_in_the_grid_and_a_chosen_rank_opens_its_group(page, tmp_path):
    keys = """<script>
    const press = (key) => document.activeElement.dispatchEvent(
      new KeyboardEvent("keydown", { key, bubbles: true }));
    document.querySelector(".grid a").focus();
    press("ArrowRight"); press("End"); press("ArrowLeft"); press("ArrowLeft");
    document.activeElement.click();
    </script></body>"""
    # Without the policy, which would refuse this script; the page's own stays.
    page = re.sub(r"<meta http-equiv.*?>", "", page).replace("</body>", keys)
    found = Elements(drawn(page, tmp_path))
    cells = found.named("a")
    assert [cell["tabindex"] for cell in cells] == [*["-1"] * 7, "0", "-1", "-1"]
    assert [("open" in group) for group in found.named("details")] == [True, True]
    assert cells[7]["title"] in found.text


@needs_chromium
def test_a_script_that_is_not_the_pages_own_is_refused(page, tmp_path):
    page = page.replace("</body>", "<script>document.body.remove()</script></body>")
    assert Elements(drawn(page, tmp_path)).named("h1")

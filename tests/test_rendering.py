"""Text from data or models is escaped wherever it is rendered; numbers survive the round trip."""

import re
from dataclasses import fields

import pandas as pd
import pytest

from lfp.figures import style
from lfp.files import artefacts
from lfp.files.addresses import labels
from lfp.statistics.records.base import Record
from lfp.tables import rendering, rows
from lfp.tables.catalogue import TABLES
from lfp.tables.pages import columns
from lfp.tables.pages.columns import MOST, arranged
from lfp.tables.pages.page import first_sentence
from lfp.tables.rows import Tally
from tests.test_security import CHROMIUM, opened, without_script

NASTY = '<script>alert("x")</script> | a_b & 5% $x$ \\ {y}\nnext'


def test_text_is_escaped_in_every_format(tmp_path):
    frame = pd.DataFrame({"word": [NASTY], "estimate": [0.123456]})
    paths = {kind: tmp_path / f"t.{kind}" for kind in rendering.FORMATS}
    rendering.write_formats(frame, paths, f"Caption {NASTY}", {"code": "c"})
    html = without_script(paths["html"].read_text())
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    markdown = paths["md"].read_text().splitlines()[-1]
    assert markdown.count(" | ") == 1
    assert "\\<script\\>" in markdown
    latex = paths["tex"].read_text()
    for raw, escaped in (("a_b", r"a\_b"), ("5%", r"5\%"), ("& 5", r"\& 5"), ("$x$", r"\$x\$")):
        assert escaped in latex
        assert raw not in latex.replace(escaped, "")
    pd.testing.assert_frame_equal(pd.read_csv(paths["csv"]), frame)
    pd.testing.assert_frame_equal(artefacts.read_table(paths["parquet"]), frame)


def test_missing_values_are_empty_and_numbers_short():
    frame = pd.DataFrame({"p": [None, 0.012345678], "n": [3, 4]})
    text = rendering.to_markdown(frame, "c")
    assert "|  | 3 |" in text
    assert "0.01235" in text


def test_a_cell_is_read_off_its_path():
    path = "results/m-1/vader/seed3/probes/tied/policy/predictions.parquet"
    assert labels(path) == {
        "model": "m-1",
        "task": "vader",
        "seed": 3,
        "sae": "tied",
        "subject": "policy",
    }
    assert labels("m/t/seed0/ablation/tied/base.parquet")["subject"] == "base"
    assert labels("/x/results/m/t/seed0/policy") == {"model": "m", "task": "t", "seed": 0}


def a_table(**extras) -> pd.DataFrame:
    """Two rows of one model and dictionary, with seven keys and four columns of their own."""
    tally = Tally()
    for task, seed, estimate in (("vader", 0, 0.5), ("trigger", 1, -12.0)):
        record = Record(estimate, estimate - 1, estimate + 1, 10, "word", "test", p=0.02)
        cell = {"model": "m", "task": task, "seed": seed, "sae": "tied"}
        kinds = {"subject": f"s{seed}", "split": f"by{seed}", "words": f"all{seed}"}
        others = dict.fromkeys(("one", "two", "three", "four"), seed)
        tally.add(record, cell | kinds, None, str(seed), **others, **extras)
    return tally.frame()


def test_a_page_shows_the_keys_the_number_and_the_verdict_first():
    table = arranged(a_table(health="healthy", passes=True).assign(passes=[True, False]))
    assert list(table.frame)[: table.first] == [
        "cell", "subject", "split", "words", "estimate", "interval", "passes", "one", "two",
        "three",
    ]  # fmt: skip
    assert table.first == MOST
    assert list(table.frame["cell"]) == ["trigger/seed1", "vader/seed0"]
    assert list(table.frame["interval"]) == ["[-13, -11]", "[-0.5, 1.5]"]
    # What all rows have alike is said once; nothing is lost beside it.
    assert table.same == {
        "model": "m", "sae": "tied", "n": "10", "unit": "word", "method": "test", "seeds": "1",
        "p": "0.02", "p_adjusted": "0.02", "health": "healthy",
    }  # fmt: skip
    shown = {*table.frame, *table.same}
    assert shown >= {*a_table(health="healthy", passes=True)}


def test_the_names_of_columns_are_those_of_records_and_cells():
    assert {field.name for field in fields(Record)} == columns.RECORD
    assert columns.CELL == rows.CELL


def test_numbers_that_are_only_shown_alike_are_not_said_to_be_the_same():
    table = arranged(a_table().assign(threshold=[0.300001, 0.300002], level=[0.05, 0.05]))
    assert "threshold" in table.frame
    assert table.same["level"] == "0.05"


def test_many_keys_leave_room_for_the_number_its_interval_and_p():
    frame = a_table().assign(p_adjusted=[0.1, 0.2])
    for number in range(9):
        frame.insert(0, f"key{number}", [f"a{number}", f"b{number}"])
    table = arranged(frame)
    assert list(table.frame)[table.first - 3 : table.first] == [
        "estimate",
        "interval",
        "p_adjusted",
    ]
    assert table.first == MOST


def test_a_table_of_one_row_or_without_a_number_keeps_its_columns():
    one = arranged(a_table().head(1))
    assert one.same == {} and "estimate" in list(one.frame)[: one.first]
    costs = pd.DataFrame({"cell": ["a", "b"], "stage": ["x", "y"], "jobs": [1, 2]})
    assert arranged(costs).frame.equals(costs)


def test_the_other_columns_are_behind_a_toggle_and_the_page_loads_nothing():
    frame = a_table()
    page = rendering.to_html(frame, "What it shows. What the columns mean.")
    count = arranged(frame).frame.shape[1]
    assert f'id="all0"><label for="all0">all {count} columns</label>' in page
    assert f"#all0:not(:checked)~.scroll tr>:nth-child(n+{MOST + 1}){{display:none}}" in page
    assert "<title>What it shows.</title>" in page
    assert not re.search(r"(src|href|url|import)\s*[=(]", without_script(page))


def test_every_caption_begins_with_a_sentence_that_can_be_a_title():
    for name, table in TABLES.items():
        title, rest = first_sentence(table.caption)
        assert f"{title} {rest}".strip() == table.caption, name
        assert title.count("(") == title.count(")"), name


#: What a reader does to a page of :func:`a_table`, and the first column of the rows that show.
READING = (
    ("heads[4].click()", "trigger/seed1 vader/seed0"),  # by size, where text would begin with 0
    ("heads[4].click(); heads[4].click()", "vader/seed0 trigger/seed1"),
    ("heads[5].click()", "trigger/seed1 vader/seed0"),  # the lower ends of intervals
    ("type('VADER all0')", "vader/seed0"),
    ("type('nothing')", ""),
    ("type('tied trigger')", "trigger/seed1"),  # what all rows have alike stands above them
    ("type('same')", ""),
)


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
@pytest.mark.parametrize(("action", "expected"), READING)
def test_a_page_sorts_by_its_heads_and_searches_its_rows(action, expected, tmp_path):
    page = rendering.to_html(a_table(), "Caption.")
    reader = f"""<script>
      const heads = document.querySelectorAll("th button");
      const type = text => {{
        const field = document.querySelector("input[type=search]");
        field.value = text; field.dispatchEvent(new Event("input"));
      }};
      {action};
      const rows = [...document.querySelectorAll("tbody tr")].filter(row => !row.hidden);
      document.title = "read: " + rows.map(row => row.cells[0].textContent).join(" ");
    </script></body>"""
    # The page's policy runs its own script alone, so the reader's needs a page without one.
    page = re.sub(r"<meta http-equiv[^>]*>", "", page).replace("</body>", reader)
    (tmp_path / "t.html").write_text(page)
    seen = opened(tmp_path / "t.html", tmp_path / "profile")
    assert f"<title>read: {expected}</title>" in seen


def test_a_count_keeps_its_digits():
    assert columns.shown(295488.0) == "295488"
    assert columns.shown(0.123456) == "0.1235" and columns.shown(1e20) == "1e+20"


def test_lines_of_a_figure_differ_in_colour_or_style():
    looks = {tuple(style.look(place).items()) for place in range(28)}
    assert len(looks) == 28

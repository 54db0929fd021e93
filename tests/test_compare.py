"""Two runs side by side: what moved beyond its interval stands first."""

import json
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest

from lfp.claims.differences import UNKNOWN, facts, settings
from lfp.claims.moves import (
    COLUMNS,
    DISJOINT,
    EQUAL,
    ESTIMATED_HERE,
    HERE_ALONE,
    NEITHER,
    NO_INTERVAL,
    OUTSIDE,
    THERE_ALONE,
    WITHIN,
    moves,
)
from lfp.claims.other import NEEDED, OtherRunError, other_run
from lfp.claims.rows import Claim
from lfp.claims.two_runs import LISTED, comparison_page, read_run, two_runs
from lfp.configuration import ConfigurationError
from lfp.files import artefacts
from lfp.statistics.records.base import Record, undefined
from lfp.tables.rows import Tally
from tests.test_planning import planner
from tests.test_security import HOSTILE, without_script
from tests.test_workflow import copy_tree, snakemake

CLAIM = Claim(
    name="effect", claim="It rises.", table="effects", where={"word": "good"},
    expected="above", against=0.0, margin=0.1,
)  # fmt: skip


def record(estimate: float, half: float | None = 0.05) -> Record:
    ends = (None, None) if half is None else (estimate - half, estimate + half)
    return Record(estimate, *ends, 10, "word", "test", p=0.01)


def a_table(estimates: dict[str, float | Record], **labels) -> pd.DataFrame:
    """A row for every word."""
    tally = Tally()
    for word, estimate in estimates.items():
        made = estimate if isinstance(estimate, Record) else record(estimate)
        tally.add(made, {"model": "m", "word": word, **labels})
    return tally.frame()


def a_run(folder, estimates, provenance=None, **labels):
    """The results of a run with one table."""
    frame = a_table(estimates, **labels)
    artefacts.write_table(folder / "tables" / "effects.parquet", frame, {})
    if provenance is not None:
        (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


def held_against(here, there, monkeypatch):
    """The comparison of two folders of results, with one claim."""
    monkeypatch.setattr("lfp.claims.two_runs.claims", lambda: [CLAIM])
    files = [other_run(str(folder)) for folder in (here, there)]
    runs = [read_run(run.tables, run.provenance) for run in files]
    return two_runs(runs[0], runs[1], 0.95)


def move_of(here: Record, there: Record) -> pd.Series:
    rows = moves({"t": a_table({"w": here})}, {"t": a_table({"w": there})}).rows
    assert len(rows) == 1
    return rows.iloc[0]


def test_a_run_beside_itself_moves_nothing(tmp_path, monkeypatch):
    words = {"good": 0.2, "bad": -0.2, "none": undefined(0, "word", "no word")}
    folder = a_run(tmp_path, words, {"artefacts": {"a": {"settings": {"x": 1}, "files": {}}}})
    runs = held_against(folder, folder / "tables", monkeypatch)
    assert set(runs.moves.rows["move"]) == {EQUAL, NEITHER}
    estimated = runs.moves.rows.dropna(subset="estimate_here")
    assert (estimated["difference"] == 0).all() and (estimated["standard_errors"] == 0).all()
    assert [pair.outcome for pair in runs.claims] == ["holds on both"]
    assert settings(runs.here.provenance, runs.there.provenance).empty
    page = comparison_page(runs, ("results", str(folder)))
    assert "0 of 3 rows of both have intervals that do not overlap" in page
    assert "and 0 of 1 claims of both flip" in page


def test_one_row_that_moved_beyond_its_interval_stands_first(tmp_path, monkeypatch):
    words = {f"w{number}": 0.01 * number for number in range(40)} | {"good": 0.2}
    here = a_run(tmp_path / "here", words | {"w7": 0.5, "w8": 0.15, "w9": 0.1, "good": -0.3})
    there = a_run(tmp_path / "there", words)
    runs = held_against(here, there, monkeypatch)
    rows = runs.moves.rows
    assert sorted(rows["table"][:2]) == ["claims", "effects"]  # the claim rests on that row
    effects = rows[rows["table"] == "effects"]
    assert list(effects["row"][:4]) == [f"model=m, word={w}" for w in ("good", "w7", "w8", "w9")]
    assert list(effects["move"][:5]) == [DISJOINT, DISJOINT, OUTSIDE, WITHIN, EQUAL]
    assert effects["difference"].iloc[0] == pytest.approx(-0.5)
    assert [pair.outcome for pair in runs.claims] == ["flips"]
    page = comparison_page(runs, ("results", str(there)))
    assert "<td>flips</td><td>effect</td><td>It rises.</td>" in page
    assert "2 of 41 rows" in page and "1 of 1 claims of both flip" in page
    listed = page.split("<h2>Rows of both runs that are not equal</h2>")[1].split("</section>")[0]
    assert listed.index("word=good") < listed.index("word=w7") < listed.index("word=w8")
    assert "word=w5" not in listed


@pytest.mark.parametrize(
    ("here", "there", "move"),
    [
        (record(0.0), record(0.11), DISJOINT),
        (record(0.0), record(0.09), OUTSIDE),
        (record(0.0, 0.2), record(0.09), OUTSIDE),  # outside the narrow one alone
        (record(0.0), record(0.04), WITHIN),
        (record(0.0, None), record(0.11), OUTSIDE),
        (record(0.0, None), record(0.04), WITHIN),
        (record(0.0, None), record(0.11, None), NO_INTERVAL),
        (record(1.0, None), record(1.0 + 1e-12), EQUAL),
        (record(1.0), undefined(0, "word", "no word"), ESTIMATED_HERE),
        (undefined(0, "word", "a"), undefined(0, "word", "b"), NEITHER),
    ],
)
def test_what_became_of_a_row(here, there, move):
    assert move_of(here, there)["move"] == move
    turned = move_of(there, here)
    assert turned["move"] == move.replace("here", "there")
    np.testing.assert_equal(turned["difference"], -move_of(here, there)["difference"])


def test_a_difference_is_counted_in_combined_standard_errors():
    row = move_of(record(0.3, 1.959964 * 0.03), record(0.1, 1.959964 * 0.04))
    assert row["standard_errors"] == pytest.approx(0.2 / 0.05, rel=1e-6)
    assert np.isnan(move_of(record(0.3, None), record(0.1))["standard_errors"])
    narrow = ({"t": a_table({"w": record(0.3)})}, {"t": a_table({"w": record(0.1)})})
    [wide] = moves(*narrow, (0.9, 0.9)).rows["standard_errors"]
    [usual] = moves(*narrow).rows["standard_errors"]
    assert wide / usual == pytest.approx(1.644854 / 1.959964, rel=1e-6)


def test_independent_runs_of_one_truth_are_disjoint_as_seldom_as_the_page_says():
    """By the normal distribution: .6 % are disjoint, and 17 % are outside or disjoint."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(2):
        frame = a_table({"w": record(0.0)}).loc[np.zeros(20_000, dtype=int)]
        estimate = rng.normal(size=len(frame))
        ends = {"ci_low": estimate - 1.959964, "ci_high": estimate + 1.959964}
        frames.append(frame.assign(estimate=estimate, word=range(len(frame)), **ends))
    share = moves({"t": frames[0]}, {"t": frames[1]}).rows["move"].value_counts(normalize=True)
    assert share[DISJOINT] == pytest.approx(0.0056, abs=0.002)
    assert share[DISJOINT] + share[OUTSIDE] == pytest.approx(0.166, abs=0.01)


def test_rows_and_tables_of_one_run_alone_are_told():
    here = {"t": a_table({"a": 1.0, "b": 2.0}), "new": a_table({"a": 1.0})}
    there = {"t": a_table({"b": 2.0, "c": 3.0}), "old": a_table({"a": 1.0})}
    compared = moves(here, there)
    named = compared.rows.set_index("row")["move"]
    assert named.to_dict() == {
        "model=m, word=a": HERE_ALONE, "model=m, word=b": EQUAL, "model=m, word=c": THERE_ALONE,
    }  # fmt: skip
    assert compared.left_out == {"new": "a table here alone", "old": "a table there alone"}
    assert compared.counts().to_dict("records") == [
        {"table": "t", "rows": 3, HERE_ALONE: 1, THERE_ALONE: 1, EQUAL: 1}
    ]


def test_rows_are_found_by_the_keys_that_both_runs_have():
    older = {"t": a_table({"a": 1.0, "b": 2.0})}
    one_kind = {"t": a_table({"a": 1.0, "b": 2.5}, seed=0.0, words="all")}
    assert list(moves(one_kind, older).rows["move"]) == [DISJOINT, EQUAL]
    both = pd.concat([one_kind["t"], a_table({"a": 3.0}, seed=0.0, words="pieces")])
    compared = moves({"t": both}, older)
    assert compared.rows.empty and list(compared.rows) == list(COLUMNS)
    assert "1 rows have the name of another by model, word" in compared.left_out["t"]
    assert "names rows by seed, words" in compared.left_out["t"]


def test_a_table_without_rows_has_none_in_common():
    compared = moves({"t": Tally().frame()}, {"t": a_table({"a": 1.0})})
    assert list(compared.rows["move"]) == [THERE_ALONE]


def test_a_seed_is_the_same_seed_in_every_type():
    here, there = (a_table({"a": 1.0}, seed=seed) for seed in (1, 1.0))
    assert list(moves({"t": here}, {"t": there}).rows["move"]) == [EQUAL]


def test_hostile_text_of_either_run_is_escaped(tmp_path, monkeypatch):
    made = {"artefacts": {"a": {"settings": {HOSTILE[0]: HOSTILE[1]}}}, "commit": HOSTILE[2]}
    here = a_run(tmp_path / "here", dict.fromkeys(HOSTILE, 1.0), made)
    there = a_run(tmp_path / "there", dict.fromkeys(HOSTILE, 2.0) | {"<h1>": 1.0}, {
        "artefacts": {"a": {"settings": {HOSTILE[0]: 1}}}, "versions": {HOSTILE[0]: "1"},
    })  # fmt: skip
    runs = held_against(here, there, monkeypatch)
    page = without_script(comparison_page(runs, (HOSTILE[0], HOSTILE[1])))
    # As a folder, as the name of a library, in a row and as the key of a setting.
    assert page.count("&lt;script&gt;document.title") == 4
    for raw in ("<img", "<h1", "<script", "\x1b", "\u202e"):
        assert raw not in page


def test_the_page_lists_the_first_rows_and_says_so(tmp_path, monkeypatch):
    words = [f"w{number}" for number in range(LISTED + 1)]
    folders = [
        a_run(tmp_path / name, dict.fromkeys(words, estimate))
        for name, estimate in (("here", 1.0), ("there", 2.0))
    ]
    page = comparison_page(held_against(*folders, monkeypatch), ("a", "b"))
    assert f"The first {LISTED} of {LISTED + 1} rows" in page


def test_settings_versions_and_code_that_differ_are_told():
    def made(**run):
        settings_of = {"x": {"y": run["y"]}, "caption": run["code"], "same": 1}
        artefact = {"settings": settings_of, "code": run["code"], "files": {".": "1"}}
        return {
            "versions": {"torch": "1", "numpy": run["code"]}, "commit": run["code"],
            "artefacts": {path: artefact | {"device": "cpu"} for path in run["paths"]},
        }  # fmt: skip

    here = made(y=1, code="a", paths=["results/p", "results/q"])
    there = made(y=2, code="b", paths=["results/q", "results/p", "results/r"])
    [row] = settings(here, there).to_dict("records")
    assert row == {
        "setting": "x.y", "here": "1", "there": "2", "artefacts": 2, "first": "results/p",
    }  # fmt: skip
    said = facts(here, there).set_index("fact").to_dict("index")
    assert said["commit"] == {"here": "a", "there": "b"}
    assert said["machine"] == {"here": UNKNOWN, "there": UNKNOWN}
    assert said["numpy"] == {"here": "a", "there": "b"} and "torch" not in said
    assert said["artefacts with the same content"]["here"] == "2 of 2 artefacts of both"
    assert said["artefacts with the same code"]["there"] == "0 of 2 artefacts of both"
    assert facts({}, {}).set_index("fact").loc["artefacts", "there"] == UNKNOWN


def test_a_claim_that_means_several_rows_or_has_an_older_verdict_has_none(tmp_path, monkeypatch):
    folder = a_run(tmp_path / "a", {"good": 0.2})
    other = pd.concat([a_table({"good": 0.2}), a_table({"good": 0.3}).assign(model="n")])
    artefacts.write_table(tmp_path / "b" / "tables" / "effects.parquet", other, {})
    older = a_table({"good": 0.2}).assign(answer="found, as it should be")
    artefacts.write_table(tmp_path / "c" / "tables" / "effects.parquet", older, {})
    for there in ("b", "c"):
        [pair] = held_against(folder, tmp_path / there, monkeypatch).claims
        assert pair.outcome == "not in both runs"


def test_a_comparison_needs_the_columns_of_a_record():
    assert {field.name for field in fields(Record)} == set(NEEDED)


def test_a_folder_that_is_no_run_is_named_with_the_remedy(tmp_path):
    def fails(path) -> str:
        with pytest.raises(OtherRunError) as error:
            other_run(str(path))
        return str(error.value)

    hint = "give the `results` folder of another run, or its `tables` folder"
    assert fails(tmp_path / "none") == f"{tmp_path}/none is not there; {hint}"
    (tmp_path / "file").touch()
    assert fails(tmp_path / "file") == f"{tmp_path}/file is a file; {hint}"
    tables = tmp_path / "run" / "tables"
    tables.mkdir(parents=True)
    (tables / "effects.csv").touch()
    assert f"{tables} has no table as Parquet" in fails(tmp_path / "run")
    artefacts.write_table(tables / "a.parquet", pd.DataFrame({"tau": [1.0], "n": [3]}), {})
    assert f"{tables}/a.parquet has no column estimate, ci_low, ci_high" in fails(tmp_path / "run")
    (tables / "a.parquet").write_text("no table")
    assert f"{tables}/a.parquet cannot be read as Parquet" in fails(tables)


def test_the_other_run_is_the_folder_of_results_or_of_tables(tmp_path, monkeypatch):
    folder = a_run(tmp_path / "run", {"good": 1.0}, {})
    expected = [str(folder / "tables" / "effects.parquet")]
    for path in (folder, folder / "tables"):
        run = other_run(str(path))
        assert (run.tables, run.provenance) == (expected, [str(folder / "provenance.json")])
    monkeypatch.setenv("HOME", str(tmp_path))
    assert other_run("~/run").tables == expected
    (folder / "provenance.json").unlink()
    assert other_run(str(folder)).provenance == []


def test_the_key_of_the_other_run_is_checked_when_a_run_is_planned(tmp_path):
    folder = a_run(tmp_path / "run", {"good": 1.0})
    assert planner(tmp_path).other_run() is None
    assert planner(tmp_path, other=str(folder)).other_run() == other_run(str(folder))
    for path, said in ((tmp_path / "no", "other: .*no is not there"), ("{x}", "braces")):
        with pytest.raises(ConfigurationError, match=said):
            planner(tmp_path, other=str(path)).other_run()
    with pytest.raises(ConfigurationError, match="other: 7 is not of type"):
        planner(tmp_path, other=7)


@pytest.mark.workflow
def test_a_comparison_without_another_run_stops_before_any_job(tmp_path):
    tree = copy_tree(tmp_path / "tree")
    missing = snakemake(tree, "-n", "compare", ok=False)
    assert "compare: name the other run: --config other=FOLDER" in missing
    for path, said in (("nowhere", "is not there"), ("Snakefile", "is a file")):
        output = snakemake(tree, "-n", "compare", "--config", f"other={path}", ok=False)
        assert f"configuration: other: {path} {said}; give the `results` folder" in output
    assert not (tree / "results").exists()

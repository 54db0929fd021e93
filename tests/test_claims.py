"""Claims rest on rows of tables, and a claim that flips on another machine is told."""

import json
import re
import shutil

import pytest
import yaml

from lfp.claims import __main__ as command
from lfp.claims.comparison import outcome
from lfp.claims.origin import ROOT
from lfp.claims.page import page
from lfp.claims.rows import Claim, ClaimError, claims
from lfp.files import artefacts
from lfp.grid import Grid
from lfp.statistics.records.base import Record
from lfp.tables.catalogue import TABLES
from lfp.tables.change.detection import detection
from lfp.tables.rows import Tally
from tests.test_detection import FLIPPED, SETTINGS, reading, written

ENDS = ("ci_low", "ci_high")
CLAIM = Claim(
    name="effect", claim="It falls.", table="effects", where={"task": "t", "arm": "explained"},
    expected="below", against=0.0, margin=0.1,
)  # fmt: skip


def record(estimate: float, half: float, adjusted: float | None = None) -> Record:
    interval = (estimate - half, estimate + half)
    return Record(estimate, *interval, 10, "word", "test", p=adjusted, p_adjusted=adjusted)


def a_run(folder, *estimates: float, half: float = 0.05, adjusted: float | None = 0.01):
    """A run whose table has a row for every estimate, and one of another arm."""
    tally = Tally()
    for seed, estimate in enumerate(estimates):
        label = {"model": "m", "task": "t", "seed": seed, "arm": "explained"}
        tally.add(record(estimate, half, adjusted), label)
    tally.add(record(9.0, half), {"model": "m", "task": "t", "seed": 0, "arm": "layer"})
    for name in ("effects", "fine_tuning"):
        artefacts.write_table(folder / "tables" / f"{name}.parquet", tally.frame(), {})
    made = {
        "artefacts": {"a": {"settings": {"seed": 0}}}, "versions": {"python": "3.11"},
        "commit": "0123456789ab",
        "machine": {"processor": "a processor", "cores": 2, "system": "Linux"},
    }  # fmt: skip
    artefacts.write_json(folder / "provenance.json", made, {})
    return folder


def test_claims_name_tables_and_tasks_of_the_default_run():
    grid = Grid(yaml.safe_load((ROOT / "config" / "config.yaml").read_text()))
    tasks = {cell.task for cell in grid.cells}
    for claim in claims():
        assert claim.table in TABLES, claim.name
        assert claim.where["task"] in tasks, claim.name
        assert claim.expected in ("above", "below", "at"), claim.name
        # Pages list claims by their outcome, so that no sentence has another in front of it.
        assert not re.search(r"\b(It|there|same|that gain|so)\b", claim.claim), claim.name
        if claim.table == "across_seeds":
            assert TABLES[claim.where["table"]].over_seeds, claim.name
            seeds = {c.seed for c in grid.cells if c.task == claim.where["task"]}
            assert len(seeds) > 2, claim.name


@pytest.mark.parametrize(
    ("estimate", "adjusted", "verdict"),
    [
        (-0.2, 0.01, "found"),
        (-0.2, None, "found"),  # no test was made: the interval leaves 0 out
        (-0.2, 0.06, "undecided"),
        (0.2, 0.01, "wrong side"),
        (0.02, 0.5, "silent"),
        (-0.09, 0.5, "undecided"),
    ],
)
def test_a_verdict_on_a_claim_needs_interval_and_p(tmp_path, estimate, adjusted, verdict):
    half = 0.05 if abs(estimate) != 0.09 else 0.1
    measured = CLAIM.measured(a_run(tmp_path, estimate, half=half, adjusted=adjusted))
    assert (measured["verdict"], measured["holds"]) == (verdict, verdict == "found")
    assert measured["estimate"] == estimate


def test_a_claim_means_one_row(tmp_path):
    folder = a_run(tmp_path, -0.2, -0.3)
    with pytest.raises(ClaimError, match="effect: 2 rows of .* are meant, expected one"):
        CLAIM.row(folder)
    absent = Claim(**vars(CLAIM) | {"where": {"task": "u"}}).measured(folder)
    assert (absent["verdict"], absent["holds"]) == (None, False)


def test_rows_over_seeds_are_named_by_their_parts(tmp_path):
    tally = Tally()
    for arm in ("explained", "explained - random"):
        row = {"task": "t", "table": "ablation_reward", "row": f"arm={arm}, action=zero"}
        tally.add(record(-0.2 if arm == "explained" else 0.1, 0.05), row)
    artefacts.write_table(tmp_path / "tables" / "effects.parquet", tally.frame(), {})
    assert CLAIM.row(tmp_path)["estimate"] == -0.2


@pytest.mark.parametrize(
    ("there", "here", "expected"),
    [
        (("found", -0.2), ("found", -0.1), "holds on both"),
        (("found", -0.2), ("undecided", -0.1), "undecided here"),
        (("undecided", -0.1), ("found", -0.2), "undecided there"),
        (("found", -0.2), ("undecided", 0.1), "flips"),  # the sign alone
        (("found", -0.2), ("silent", -0.01), "flips"),
        (("wrong side", 0.2), ("found", -0.2), "flips"),
        (("undecided", 0.1), ("silent", 0.0), "holds on neither"),
        ((None, None), ("found", -0.2), "not in both runs"),
    ],
)
def test_a_claim_flips_where_the_other_run_contradicts_it(there, here, expected):
    runs = [
        {**vars(CLAIM), "verdict": verdict, "holds": verdict == "found", "estimate": estimate}
        for verdict, estimate in (there, here)
    ]
    assert outcome(runs[0], runs[1]) == expected


def test_a_run_is_held_against_the_committed_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lfp.claims.runs.claims", lambda: [CLAIM])
    docs = tmp_path / "docs"
    docs.mkdir()
    first = a_run(tmp_path / "first", -0.2)
    assert command.main(["write", str(first), "--docs", str(docs)]) == 0
    committed = json.loads((docs / "results.json").read_text())
    assert set(committed) >= {"machine", "commit", "configuration", "versions", "seeds", "claims"}
    assert "| It falls. | -0.200 [-0.250, -0.150] | 10 words |" in (docs / "results.md").read_text()
    for estimate, half, status, said in (
        (-0.15, 0.05, 0, "holds on both"),
        (-0.03, 0.2, 0, "undecided here"),
        (0.02, 0.2, 1, "flips"),
    ):
        other = a_run(tmp_path / said, estimate, half=half)
        capsys.readouterr()
        assert command.main(["check", str(other), "--docs", str(docs)]) == status
        out, err = capsys.readouterr()
        assert f"{said:<17} effect: It falls. -0.200" in out
        assert ("have no number: effect" in err) == bool(status)


def test_limits_of_audited_runs_stand_on_the_page_until_others_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("lfp.claims.runs.claims", lambda: [CLAIM])
    docs, first = tmp_path / "docs", a_run(tmp_path / "first", -0.2)
    docs.mkdir()
    audited = a_run(tmp_path / "audited", -0.2)
    cells = {f"clean/{n}": reading(n) for n in range(10)}
    cells |= {f"noise/{n}": reading(20 + n, signal=0.0) for n in range(10)}
    cells |= {f"flipped/{n}": reading(40 + n, flipped=24) for n in range(3)}
    truths = {
        "clean": {"kind": "vader"}, "noise": {"kind": "noise"},
        "flipped": {"kind": "vader_flipped", "flipped": FLIPPED},
    }  # fmt: skip
    table = detection(written(tmp_path, cells, truths), SETTINGS).frame()
    artefacts.write_table(audited / "tables" / "detection.parquet", table, {})
    assert command.main(["write", str(first), "--docs", str(docs), "--audit", str(audited)]) == 0
    line = "| choice, mlp | all | 1 | m | reviews |  | 0 | 0.2 | 0.2: 1.00 | 20, own method |"
    assert line in (docs / "results.md").read_text()
    [[row]] = [run["limits"] for run in json.loads((docs / "results.json").read_text())["audits"]]
    assert (row["limit"], row["power"]) == (0.2, {"0.2": 1.0})
    assert command.main(["write", str(first), "--docs", str(docs)]) == 0
    assert line in (docs / "results.md").read_text()
    # Where no share is found often enough, there is no limit.
    quiet = table.assign(estimate=table["estimate"].where(table["quantity"] != "limit"))
    again = tmp_path / "again"
    shutil.copytree(audited, again)
    artefacts.write_table(audited / "tables" / "detection.parquet", quiet, {})
    both = ["--audit", str(again), str(audited)]
    artefacts.write_table(again / "tables" / "detection.parquet", table, {})
    assert command.main(["write", str(first), "--docs", str(docs), *both]) == 0
    other = line.replace("| 1 | m", "| 2 | m").replace("| 0.2 | 0.2", "| none | 0.2")
    text = (docs / "results.md").read_text()
    assert f"{line}\n{other}\n" in text and "- Run 2: settings " in text
    assert "commit 0123456789ab, on a processor, 2 cores." in text


def test_the_page_of_results_is_made_of_the_committed_ones():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert text == page(artefacts.read_json(ROOT / "docs" / "results.json")), "make results"


def test_the_readme_is_short_and_its_numbers_are_those_of_the_results():
    """A number of the README that the results do not hold is one that nobody can check."""
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 500
    claims = json.loads((ROOT / "docs" / "results.json").read_text())["claims"]
    held = {f"{claim['estimate']:.3f}" for claim in claims if claim["holds"]}
    held |= {f"{claim[end]:.3f}" for claim in claims if claim["holds"] for end in ENDS}
    shown = re.findall(r"-?\d+\.\d{2,}(?![\d.])", text.split("## What the default run shows")[1])
    assert len(shown) >= 9
    assert set(shown) <= held

"""Measurements are taken in turns, compared within a precision, and their figures are those of the
pages.
"""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import __main__ as bench
from benchmarks import chosen_features, fidelity, scaling, scheduling, side_by_side, startup
from lfp.settings import Explanations


def test_choices_of_features_are_counted_with_those_that_moved_their_way():
    """Two layers of four features; the last of each is dead, the first two are associated."""
    table = pd.DataFrame({
        "layer": np.repeat([1, 2], 4), "feature": np.tile(range(4), 2),
        "frequency": np.tile([0.1, 0.2, 0.3, 0.0], 2), "p": np.tile([0.001, 0.001, 1.0, 0.001], 2),
        "direction": np.tile([0.5, -0.5, 0.0, 9.0], 2), "effect": np.tile([0.5, 0.5, 0.0, 9.0], 2),
    })  # fmt: skip
    matches = table.rename(columns={"feature": "small"}).assign(cosine=np.tile([1, 2, 3, 4], 2))
    matches = matches.sort_values(["layer", "cosine"], ascending=[True, False])
    shifts = table.rename(columns={"feature": "latent"})[["layer", "latent"]].assign(
        subject="policy", text="completions", error=0.1, value=np.tile([0.3, 0.2, 0.1, 0.0], 2)
    )
    moved = shifts.rename(columns={"latent": "feature"}).set_index(["layer", "feature"])["value"]
    chosen = dict(chosen_features.choices(table, matches, shifts, 2))
    assert chosen["match"] == chosen["frequency"] == [(1, 2), (1, 1), (2, 2), (2, 1)]
    assert chosen["completions"] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert len(chosen) == 3 + chosen_features.DRAWS
    counts = chosen_features.counted(
        table, chosen["completions"], moved, Explanations(min_valence=0.4), "reward"
    )
    assert counts == {"explained": 4, "significant": 4, "related": 4, "moved_alike": 2}


def test_contenders_take_turns_and_keep_their_seconds():
    case = {"kind": "float32"}
    rows = side_by_side.take_turns(
        [
            side_by_side.Contender(name, "machine", case, sys.executable, peer=name == "b")
            for name in "ab"
        ],
        rounds=2,
    )
    assert [row["name"] for row in rows] == ["a", "b"]
    assert all(
        row["rounds"] == 2 and 0 < row["fastest"] <= row["seconds"] <= row["slowest"]
        for row in rows
    )
    assert rows[0]["times_peer"] == pytest.approx(rows[1]["seconds"] / rows[0]["seconds"])
    assert all(100 < row["peak_mb"] < 4000 for row in rows)
    assert "**" in bench.markdown({"title": rows})


def test_a_turn_may_be_several_steps():
    case = {"n": 64, "d": 8, "m": 16, "density": 0.1, "precision": "float32", "tied": True}
    one, three = (
        side_by_side.Contender("ours", "autoencoder", case | {"steps": steps}, sys.executable)
        for steps in (1, 3)
    )
    rows = side_by_side.take_turns([one, three], rounds=1)
    assert rows[1]["work"] == pytest.approx(3 * rows[0]["work"])
    assert rows[0]["clock"] == "cpu"
    assert "CPU ms" in bench.markdown({"title": rows})
    on_gpu = side_by_side.Contender(
        "ours", "autoencoder", case | {"device": "cuda"}, sys.executable
    )
    assert on_gpu.clock == "wall"


SHAPE = {"n_layers": 3, "d_model": 32, "n_heads": 2}
SMALL = scaling.Size(SHAPE["n_layers"], SHAPE["d_model"], 1024)


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    """A model on disk that workers run in a moment."""
    return bench.make_model(tmp_path_factory.mktemp("model"), SHAPE, SMALL.vocabulary)


@pytest.mark.parametrize(
    ("worker", "case"),
    [pytest.param(worker, case, id=worker) for _, worker, case, _ in scaling.stages(SMALL)],
)
def test_every_worker_of_ours_does_its_step(worker, case, small_model):
    contender = side_by_side.Contender(
        "ours", worker, case | {"model": small_model}, sys.executable
    )
    [row] = side_by_side.take_turns([contender], rounds=1)
    assert row["seconds"] > 0 and row["work"] > 0


@pytest.mark.parametrize("writes", [True, False])
def test_the_released_hook_does_its_step(writes, small_model):
    case = {"model": small_model, "prompts": 4, "prompt": 6, "response": 3, "sets": 2}
    case |= {"batch_size": 2, "writes": writes}
    [row] = side_by_side.take_turns(
        [side_by_side.Contender("peer", "ablation_released", case, sys.executable)], rounds=1
    )
    assert row["seconds"] > 0


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in Path(bench.__file__).parent.glob("[a-z]*.py"))
)
def test_every_command_finds_the_modules_that_it_names(name):
    assert importlib.import_module(f"benchmarks.{name}").__doc__


def test_a_worker_that_does_not_start_says_why():
    contender = side_by_side.Contender("broken", "machine", {"kind": "float7"}, sys.executable)
    with pytest.raises(RuntimeError, match=r"(?s)broken \(machine\) did not start.*float7"):
        side_by_side.take_turns([contender])


def test_only_peers_of_the_same_precision_are_compared_with():
    rows = [
        {"seconds": 1.0, "precision": "float32", "peer": False},
        {"seconds": 4.0, "precision": "float32", "peer": True},
        {"seconds": 3.0, "precision": "float32", "peer": True},
        {"seconds": 0.5, "precision": "bfloat16", "peer": True},
        {"seconds": 0.5, "precision": "float16", "peer": False},
    ]
    assert [row["times_peer"] for row in side_by_side.with_ratios(rows)] == [
        3.0,
        None,
        None,
        None,
        None,
    ]


def test_starts_of_no_job_are_no_figure(tmp_path):
    with pytest.raises(SystemExit, match=r"no record of a job below .*; name the results of a run"):
        startup.measure(tmp_path)


def test_a_job_that_only_waits_has_the_outputs_of_the_finished_run(tmp_path):
    done = tmp_path / "done"
    (done / "m" / "policy").mkdir(parents=True)
    (done / "m" / "policy" / "weights").write_text("1")
    (done / "tables").mkdir()
    (done / "tables" / "a.csv").write_text("2")
    python = scheduling.stand_in(tmp_path / "bin", done, wait=0)
    paths = ["results/m/policy", "results/tables/a.csv", "results/nowhere.csv"]
    here = tmp_path / "tree"
    here.mkdir()
    subprocess.run([python, "-m", "any.job", "--paths", *paths], cwd=here, check=True)
    assert (here / "results" / "m" / "policy" / "weights").read_text() == "1"
    assert (here / "results" / "tables" / "a.csv").read_text() == "2"
    assert not (here / "results" / "nowhere.csv").exists()


def test_a_run_without_policies_leaves_the_figures_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fidelity", str(tmp_path)])
    monkeypatch.setattr(fidelity, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match=r"no policy below .*; name the results of a run"):
        fidelity.main()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", sorted(bench.RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_committed_figures_are_there_and_are_numbers(path):
    def refused(constant: str) -> None:
        raise ValueError(f"{path}: {constant} is no figure; run the benchmark again")

    assert json.loads(path.read_text(encoding="utf-8"), parse_constant=refused), path


def test_the_page_has_the_shares_of_starts_that_were_measured():
    measured = json.loads((bench.RESULTS / "startup.json").read_text(encoding="utf-8"))
    page = " ".join((bench.RESULTS.parent / "README.md").read_text(encoding="utf-8").split())
    shares = re.findall(r"Starts of jobs are (\d+) %|, (\d+) % of what all jobs spend", page)
    assert {"".join(share) for share in shares} == {f"{100 * measured['forked']:.0f}"}
    assert f"which would be {100 * measured['alone']:.0f} %" in page

"""Tables are made of records; planted truth is judged by tests; seeds give components of
variance.
"""

import ast
import inspect
import re
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lfp.feedback.rewards import REWARDS
from lfp.figures import style
from lfp.figures.autoencoders import sae_l1_sweep
from lfp.figures.catalogue import FIGURES
from lfp.figures.probes import error_by_frequency as draw_errors
from lfp.files import artefacts
from lfp.files.addresses import labels
from lfp.probing.probes import unit_means
from lfp.registry import Registry
from lfp.reporting import unestimated
from lfp.settings import (
    Ablation,
    Account,
    Contrasts,
    Evaluation,
    Features,
    Interventions,
    Probes,
    Steering,
)
from lfp.statistics import crossed, partitions
from lfp.statistics.estimates import kendall_tau
from lfp.statistics.multiple import holm
from lfp.statistics.partitions import partitions_difference_record
from lfp.statistics.records import kendall, means, shares
from lfp.statistics.records import labels as labels_of_records
from lfp.statistics.records.base import Record, undefined
from lfp.statistics.verdicts import Truth
from lfp.tables import paper, planted, rendering
from lfp.tables.across_seeds import across_seeds
from lfp.tables.catalogue import TABLES
from lfp.tables.features import _frequency_rows, _ratio_of_ratios
from lfp.tables.health import moved
from lfp.tables.inputs import Plan
from lfp.tables.models import fine_tuning, sae_layer_choice, sae_tying
from lfp.tables.planted.questions import Answer
from lfp.tables.planted.recovery import judged, planted_recovery
from lfp.tables.probes import _family, lexicon_reconstruction, part_values, tau_of
from lfp.tables.rows import TableSettings, Tally, filled
from lfp.tables.validation.agreement import auroc_within_layers
from lfp.tables.validation.errors import error_by_frequency

TABLES_FOLDER = Path(rendering.__file__).parent
SETTINGS = TableSettings(
    resamples=200,
    quantiles=(0.5, 0.9),
    matched_draws=19,
    paper_models={"tiny": ["Pythia-70m"]},
)


#: Twelve tests of a family at the level .05 need a p below .05 / 12, and so more draws.
MORE_DRAWS = replace(SETTINGS, resamples=400)


def record(estimate=0.5, low=0.4, high=0.6, p=None):
    return Record(estimate, low, high, 10, "word", "test", p=p)


def test_p_is_adjusted_over_the_cells_that_one_question_is_asked_of():
    tally = Tally()
    for statistic, ps in {"tau": (0.01, 0.04, 0.03), "auroc": (0.02, None, 0.5)}.items():
        for seed, p in enumerate(ps):
            tally.add(
                record(p=p), {"model": "m", "task": "t", "seed": seed, "statistic": statistic}
            )
    frame = tally.frame()
    for statistic, ps in {"tau": (0.01, 0.04, 0.03), "auroc": (0.02, np.nan, 0.5)}.items():
        found = frame.loc[frame["statistic"] == statistic, "p_adjusted"]
        np.testing.assert_allclose(found, holm(np.array(ps)))


def test_claims_of_a_cell_are_one_family_without_controls_and_planted_nulls():
    cell = {"model": "m", "task": "t", "seed": 0, "sae": "tied", "split": "by_word"}
    settings = replace(SETTINGS, silent=["m/noise/seed0"])
    rows = [
        {**cell, "subject": "policy", "features": "latents"},
        {**cell, "subject": "policy", "features": "raw"},
        {**cell, "subject": "policy", "features": "raw", "task": "flipped"},
        {**cell, "subject": "policy", "features": "raw", "task": "noise"},
        {**cell, "subject": "base", "features": "raw"},
        {**cell, "subject": "policy", "features": "raw", "split": "random"},
        {**cell, "subject": "policy", "features": "pca", "words": "pieces"},
    ]
    tally = Tally()
    for row in rows:
        tally.add(record(p=0.01), row, family=_family(row, "all", settings))
    frame = tally.frame().set_index(["subject", "task", "split", "features"])["p_adjusted"]
    claims = frame["policy"].drop(index=["noise"]).xs("by_word", level="split").drop(("t", "pca"))
    assert claims["t"].to_list() == pytest.approx([0.02] * 2)
    assert claims["flipped"].to_list() == pytest.approx([0.01])
    assert frame.drop(index=[("policy", *row) for row in [
        ("t", "by_word", "latents"), ("t", "by_word", "raw"), ("flipped", "by_word", "raw"),
    ]]).to_list() == [0.01] * 4  # fmt: skip


def test_values_behind_a_row_keep_its_labels():
    tally = Tally()
    tally.add(
        record(),
        {"model": "m", "words": "all"},
        pd.DataFrame({"word": ["a", "b"], "truth": [1.0, 2.0]}),
    )
    expected = {
        "model": ["m", "m"],
        "words": ["all", "all"],
        "word": ["a", "b"],
        "truth": [1.0, 2.0],
    }
    assert tally.instances().to_dict("list") == expected


def test_a_table_without_rows_is_written_and_says_so(tmp_path):
    frame = Tally().frame()
    paths = {kind: tmp_path / f"empty.{kind}" for kind in rendering.FORMATS}
    rendering.write_formats(frame, paths, "Its title. What it says.", {})
    assert list(artefacts.read_table(paths["parquet"])) == list(Tally().instances())
    for kind in ("md", "tex"):
        assert f"Its title. {rendering.NO_ROWS} What it says." in paths[kind].read_text()
    page = paths["html"].read_text()
    assert "<title>Its title.</title>" in page and f"<p>{rendering.NO_ROWS}</p>" in page
    # Tables that are made of other tables read it.
    assert across_seeds([str(paths["parquet"])], SETTINGS).frame().empty
    said = unestimated.lines([paths["csv"]], since=0)
    assert said[1:] == ["  empty: no row, no cell of the configuration has anything to show in it"]


def test_tables_and_figures_without_inputs_are_written_and_say_so(tmp_path, monkeypatch):
    """They may be asked for by name in a configuration that has nothing for them."""
    for rows in Registry("table", {name: table.rows for name, table in TABLES.items()}).values():
        assert filled(rows, [], SETTINGS).frame().empty
    path = tmp_path / "figure.svg"
    monkeypatch.setitem(style.STYLE, "svg.fonttype", "none")
    drawings = {name: figure.draw for name, figure in FIGURES.items()}
    for draw in Registry("figure", drawings).values():
        style.save(draw, [], [path])
        assert style.NOTHING in path.read_text()
        path.unlink()


def test_the_last_lines_count_every_row_without_a_number(tmp_path):
    tally = Tally()
    for seed, layers in ((0, 3), (1, 1)):
        for layer in range(layers):
            cell = {"model": "m", "task": "t", "seed": seed, "layer": layer}
            tally.add(undefined(2, "word", "2 words,\n3 are needed\x1b[31m"), cell)
    tally.add(record(), {"model": "m", "task": "t", "seed": 2, "layer": 0})
    path = tmp_path / "tau.csv"
    rendering.write_formats(tally.frame(), {"csv": path}, "", {})
    written = path.stat().st_mtime
    head, *rows = unestimated.lines([path, tmp_path / "absent.csv"], since=written)
    assert "method" in head
    assert rows == [
        r"  tau, m/t/seed0: 3 rows, 2 words, 3 are needed\x1b[31m",
        r"  tau, m/t/seed1: 1 row, 2 words, 3 are needed\x1b[31m",
    ]
    # A command that made no table says nothing.
    assert unestimated.lines([path], since=written + 1) == []


def test_a_policy_that_did_not_move_is_named_in_every_row_about_it(tmp_path):
    """The paper's learning rate may leave the reward where it was."""
    rng = np.random.default_rng(0)
    base, pairs = rng.normal(size=64), rng.normal(size=64)
    gains = {"still": rng.normal(0, 0.2, 64), "moved": rng.normal(0.5, 0.2, 64)}
    scores = {task: {"policy": base + g, "base": base, "kl": g} for task, g in gains.items()}
    scores |= {"pairs": {"margin": pairs}, "learned": {"margin": pairs + 3}}
    scores |= {"empty": {"policy": [], "base": [], "kl": []}}
    paths = [str(tmp_path / "m" / task / "seed0" / "policy") for task in scores]
    for path, columns in zip(paths, scores.values(), strict=True):
        artefacts.write_table(f"{path}/evaluation.parquet", pd.DataFrame(columns, dtype=float), {})
    table = fine_tuning(paths, SETTINGS).frame()
    gates = table[table["threshold"].notna()].set_index("task")
    assert gates["passes"].to_dict() == {
        "empty": None, "learned": True, "moved": True, "pairs": False, "still": False,
    }  # fmt: skip
    assert gates["quantity"].to_dict()["pairs"] == "margin"
    demanding = moved.reasons(paths, replace(SETTINGS, min_reward_gain=5.0, min_margin=5.0))
    assert [task for (_, task, _), reason in demanding.items() if not reason] == ["empty"]
    known = moved.reasons(paths, SETTINGS)
    assert re.fullmatch(
        r"the policy did not move: reward_gain \S+ \[-\S+, \S+\], not above 0",
        known["m", "still", 0],
    )
    rows = pd.DataFrame({"model": "m", "task": ["still", "moved"], "seed": 0})
    assert moved.marked(rows, known)["health"].to_list() == [known["m", "still", 0], ""]
    of_base = rows.assign(subject="base", health="healthy")
    assert moved.marked(of_base, known)["health"].to_list() == ["healthy"] * 2
    of_policy = moved.marked(of_base.assign(subject="policy - base"), known)["health"].to_list()
    assert of_policy == [known["m", "still", 0], "healthy"]
    rendering.write_formats(table, {"csv": tmp_path / "fine_tuning.csv"}, "", {})
    said = unestimated.lines([tmp_path / "fine_tuning.csv"], since=0)
    interval = known["m", "still", 0].split(" reward_gain ")[1].split(", not")[0]
    assert f"  fine_tuning, m/still/seed0: reward_gain {interval}, threshold 0 (1 row)" in said
    assert not any("moved" in line for line in said)


def test_tables_11_and_12_and_figure_8_average_over_layers_and_models(tmp_path):
    """Only what both settings have counts; an l1 that was found is one setting, of many values."""

    def cell(name: str, **rows: dict[int, tuple[float, float]]) -> str:
        """A variant's metrics: L0 and l1 of every layer, by the model that is read."""
        path = tmp_path / "m" / "t" / "seed0" / "sae" / name / "metrics.json"
        of = {"tied": not name.startswith("untied"), "size": 1, "d_sae": 100, "mse": 1, "fvu": 0.5}
        artefacts.write_json(
            path,
            {"autoencoders": [
                {"layer": layer, "reads": reads, "l0": l0, "options": {"l1": l1}, **of}
                for reads, layers in rows.items() for layer, (l0, l1) in layers.items()
            ]},
            {},
        )  # fmt: skip
        return str(path)

    tied = [
        cell("tied", policy={1: (10, 0.2), 2: (20, 0.4), 5: (90, 0.3)}),
        cell("tied_base", base={1: (30, 0.3), 2: (40, 0.5)}),
    ]
    untied = [
        cell("untied", policy={1: (12, 0.1), 2: (22, 0.1)}),
        cell("untied_base", base={1: (32, 0.1)}),
    ]
    table = sae_tying([*tied, *untied], SETTINGS).frame()
    l0 = table[table["quantity"] == "l0"].set_index("sae")
    assert l0["estimate"].to_dict() == {"tied": 20.0, "untied": 22.0}
    assert l0["n"].to_dict() == {"tied": 3, "untied": 3} and set(l0["reads"]) == {"base, policy"}
    published = paper.beside("sae_tying", "tied l0", ["Pythia-70m"])
    assert published["paper"] == "Pythia-70m 38.3" and "hundredth" in published["paper_note"]

    choice = tmp_path / "m" / "t" / "seed0" / "divergence.json"
    artefacts.write_json(choice, {"chosen": [2, 1], "lowest": [5], "pinned": []}, {})
    table = sae_layer_choice([*tied, str(choice)], SETTINGS).frame()
    l0 = table[table["quantity"] == "l0"].set_index("selection")
    assert l0["estimate"].to_dict() == {"highest (2, 1)": 25.0, "lowest (5)": 90.0}
    assert l0["reads"].to_dict() == {"highest (2, 1)": "base, policy", "lowest (5)": "policy"}
    artefacts.write_json(choice, {"chosen": [2, 1], "lowest": [5], "pinned": ["chosen"]}, {})
    selections = sae_layer_choice([*tied, str(choice)], SETTINGS).frame()["selection"]
    assert set(selections) == {"pinned (2, 1)", "lowest (5)"}

    high = [
        cell("high", policy={1: (4, 0.9), 2: (6, 0.9)}),
        cell("high_base", base={1: (2, 0.9), 2: (4, 0.9)}),
    ]
    figure = sae_l1_sweep([*tied, *high])
    [line] = figure.axes[0].lines
    np.testing.assert_allclose(line.get_xydata(), [[0.35, 25.0], [0.9, 4.0]])
    plt.close(figure)


def test_words_have_their_rank_among_all_and_the_papers_are_marked(tmp_path):
    """The paper shows eleven and thirty words that were picked by hand: do they stand for all?"""
    truth = {"award": 2.5, "bad": -2.5, "zealous": 0.5, "grim": -2.0}
    read = {"award": 2.5, "bad": -2.4, "zealous": -1.5, "grim": -0.5}
    rows = pd.DataFrame({"unit": list(truth), "truth": truth.values()})
    rows = rows.assign(prediction=rows["unit"].map(read), triple=0, context=0, target=0.0, tokens=1)
    labelled = rows.assign(features="latents", split="by_word", probe="ridge")
    path = tmp_path / "m" / "t" / "seed0" / "probes" / "tied" / "policy" / "predictions.parquet"
    artefacts.write_table(path, labelled, {})
    table = lexicon_reconstruction([str(path)], SETTINGS).frame().set_index("word")
    assert table["rank"].to_dict() == {"award": 1.0, "bad": 2.0, "grim": 3.0, "zealous": 4.0}
    assert set(table["words"]) == {4}
    assert set(table.index[table["hand_picked"]]) == {"award", "bad"}
    # Predictions that run against the valences are not turned round by a factor below 0.
    against = labelled.assign(prediction=-labelled["prediction"])
    artefacts.write_table(path, against, {})
    table = lexicon_reconstruction([str(path)], SETTINGS).frame()
    assert table["displayed"].isna().all() and table["estimate"].notna().all()


def test_the_figure_of_errors_by_frequency_has_the_tau_of_its_table(monkeypatch):
    rng = np.random.default_rng(0)
    written = rng.integers(0, 5, size=40)
    errors = pd.DataFrame({
        "word": [f"w{n}" for n in range(40)], "truth": rng.normal(size=40), "written": written,
        "error": rng.random(40) - 0.1 * written + 1,
    })  # fmt: skip
    path = "results/m/t/seed0/probes/tied/policy/predictions.parquet"
    cells = [(path, errors), (path.replace("/t/", "/u/"), errors.assign(written=3))]
    monkeypatch.setattr("lfp.tables.validation.errors.word_errors", lambda inputs: cells)
    monkeypatch.setattr("lfp.figures.probes.word_errors", lambda inputs: cells)
    table = error_by_frequency([path], SETTINGS).frame().set_index(["task", "quantity"])
    titles = [axis.get_title().splitlines()[1] for axis in draw_errors([path]).axes]
    estimate = table.at[("t", "tau"), "estimate"]
    assert estimate > 0.1 and np.isnan(table.at[("u", "tau"), "estimate"])
    named = "tau-b of accuracy: "
    assert titles == [f"{named}{estimate:.2f}", f"{named}not estimated"]


def test_addresses_name_subject():
    path = "results/m/t/seed3/ablation/tied/base.neutral.parquet"
    expected = {"model": "m", "task": "t", "seed": 3, "sae": "tied", "subject": "base"}
    assert labels(path) == expected


def test_names_with_a_dot_are_read_back_whole():
    cell = "results/m-2.1/t/seed3"
    named = [
        labels(f"{cell}/{path}")
        for path in (
            "sae/l1-0.001/metrics.json",
            "sae/l1-0.003/layer2",
            "probes/tied.v2/policy/metrics.json",
            "ablation/tied.v2/policy.neutral.parquet",
            "explanations/tied.v2/scores/gpt-4.1.parquet",
            "explanations/tied.v2/gpt.neutral.parquet",
        )
    ]
    assert [name["sae"] for name in named] == ["l1-0.001", "l1-0.003", *["tied.v2"] * 4]
    assert [name.get("subject") for name in named[2:]] == ["policy", "policy", None, None]
    assert (named[-1]["model"], named[-2]["explainer"]) == ("m-2.1", "gpt-4.1")
    assert named[-1]["explainer"] == "gpt.neutral"


@pytest.mark.parametrize(
    ("interval", "p", "side", "value", "verdict"),
    [
        ((0.4, 0.6), 0.01, "above", 0.3, "found"),
        ((0.4, 0.6), 0.05, "above", 0.3, "undecided"),  # the interval alone decides nothing
        ((0.4, 0.6), None, "above", 0.3, "undecided"),
        ((0.4, 0.6), 0.01, "above", 0.7, "wrong side"),
        ((0.4, 0.6), 0.01, "below", 0.7, "found"),
        ((0.45, 0.55), 0.3, "above", 0.5, "silent"),
        ((0.45, 0.55), 0.3, "at", 0.5, "silent"),
        ((0.45, 0.55), 0.001, "at", 0.51, "silent"),  # surely different, and as good as equal
        ((0.4, 0.6), 0.3, "at", 0.5, "undecided"),  # the margin itself is not within the margin
        ((0.4, 0.6), 0.01, "at", 0.3, "false alarm"),
        ((None, None), None, "at", 0.5, "undecided"),
    ],
)
def test_a_verdict_needs_a_test_and_silence_a_margin(interval, p, side, value, verdict):
    judged = replace(record(0.5, *interval), p_adjusted=p)
    assert Truth(side, value, margin=0.1).verdict(judged, narrow=judged) == verdict


def test_verdicts_rest_on_p_over_what_must_be_there_and_apart_over_what_must_not():
    ps = {"above": (0.01, 0.04, None), "at": (0.02, 0.5)}
    answers = [
        Answer("?", str(p), "policy", record(p=p), record(), Truth(side, 0.0, 0.1))
        for side, of_side in ps.items()
        for p in of_side
    ]
    adjusted = {answer.readout: answer.record.p_adjusted for answer in judged(answers)}
    assert adjusted == {"0.01": 0.02, "0.04": 0.04, "None": None, "0.02": 0.04, "0.5": 0.5}


def part_rows(predictions: pd.DataFrame, partitions: int = 10, draws: int = 99) -> list[dict]:
    """Tau on every fifth of the words in random partitions, that of true labels and of draws."""
    means, rng, rows = unit_means(predictions.assign(tokens=1)), np.random.default_rng(2), []
    for partition in range(partitions):
        fold_of = rng.permutation(len(means)) % 5
        for fold in range(5):
            of_fold = means[fold_of == fold]
            truths = [of_fold["truth"], *(rng.permutation(of_fold["truth"]) for _ in range(draws))]
            rows += [
                {"partition": partition, "fold": fold, "ratio": 0.25, "draw": draw,
                 "tau": kendall_tau(of_fold["prediction"], truth), "split": "by_word",
                 "probe": "ridge"}
                for draw, truth in enumerate(truths)
                if draw == 0 or partition < 2
            ]  # fmt: skip
    return rows


def planted_cell(
    folder, task: str, flipped: list[str], policy_follows: bool, seed: int = 0
) -> list[str]:
    """Artefacts of one cell whose probes read the lexicon, or the flipped one, of 60 words in 3
    contexts.
    """
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(60)]
    valence = dict(
        zip(words, rng.uniform(1, 3, 60) * np.where(np.arange(60) % 2, 1, -1), strict=True)
    )
    taught = {w: -v if policy_follows and w in flipped else v for w, v in valence.items()}
    paths = []
    for subject in ("policy", "base"):
        read = taught if subject == "policy" else valence
        rows = [
            {"triple": i, "element": "positive", "unit": w, "truth": valence[w],
             "prediction": read[w] + 0.3 * rng.normal(), "split": "by_word", "probe": "ridge"}
            for i, w in enumerate(words * 3)
        ]  # fmt: skip
        # What another probe of the same features predicts must not enter the reading.
        rows += [
            row | {"probe": "ridge on valence", "prediction": -9 * row["prediction"]}
            for row in rows
        ]
        of_parts = pd.DataFrame(part_rows(pd.DataFrame(rows[:180])))
        cell = folder / "results" / "tiny" / task / f"seed{seed}"
        probes = cell / "probes" / "tied" / subject
        for name, one in (("predictions", pd.DataFrame(rows)), ("parts", of_parts)):
            frame = pd.concat([one.assign(features=f) for f in ("latents", "raw")])
            artefacts.write_table(probes / f"{name}.parquet", frame, {})
        ratio = np.array(
            [[0.0 if subject == "base" else taught[w]] for w in words * 3], dtype=np.float32
        )
        other = cell / "features" / "tied" / f"{subject}.safetensors"
        artefacts.write_tensors(other, {"log_probability.positive": ratio}, {})
        paths += [str(probes / f"{name}.parquet") for name in ("predictions", "parts")]
        paths.append(str(other))
    truth = folder / "results" / "lexicons" / f"{task}.truth.json"
    kind = "vader" if task == "vader" else "vader_flipped" if flipped else "noise"
    planted_there = {"flipped": flipped, "trigger": None, "questions": REWARDS[kind].questions}
    artefacts.write_json(truth, {"kind": kind, "corpus": "reviews", **planted_there}, {})
    return [*paths, str(truth)]


def test_flipped_words_are_found_where_the_policy_follows_them_and_not_where_it_does_not(
    tmp_path, monkeypatch
):
    # One more readout would be one more test, and ask for more evidence.
    few = {name: planted.READOUTS.entry(name) for name in ("probe latents", "probe raw", "output")}
    monkeypatch.setattr(planted.READOUTS, "_entries", few)
    flipped = [f"w{i}" for i in range(0, 60, 10)]
    for follows in (True, False):
        folder = tmp_path / str(follows)
        paths = planted_cell(folder, "vader", [], False) + planted_cell(
            folder, "flipped", flipped, follows
        )
        frame = planted_recovery(paths, MORE_DRAWS).frame()
        difference = frame[
            (frame["of"] == "planted - clean") & frame["readout"].isin(["probe latents", "output"])
        ]
        assert len(difference) == 2
        assert (difference["answer"] == ("found" if follows else "silent")).all()
        clean = frame[(frame["of"] == "clean policy") & frame["question"].str.contains("flipped")]
        assert (clean["answer"] != "found").all()


def test_a_null_reward_that_moves_nothing_is_silent(tmp_path):
    paths = planted_cell(tmp_path, "vader", [], False) + planted_cell(tmp_path, "null", [], False)
    frame = planted_recovery(paths, SETTINGS).frame()
    silent = frame[(frame["of"] == "planted policy") & (frame["readout"] == "probe latents")]
    assert silent["answer"].tolist() == ["silent"]


def test_a_probe_moves_by_what_its_test_parts_say_as_in_the_table_of_differences(tmp_path):
    """Tau of probes is never read off the predictions of a single partition."""
    paths = planted_cell(tmp_path, "vader", [], False) + planted_cell(tmp_path, "null", [], False)
    frame = planted_recovery(paths, SETTINGS).frame()
    moved = frame[(frame["of"] == "planted policy") & (frame["readout"] == "probe raw")].iloc[0]
    parts = [
        pd.read_parquet(path)
        for subject in ("policy", "base")
        for path in paths
        if path.endswith(f"null/seed0/probes/tied/{subject}/parts.parquet")
    ]
    policy, base = (part_values(part[part["features"] == "raw"], tau_of("all")) for part in parts)
    expected = partitions_difference_record(policy.minus(base), 60, "word", "tau-b", (-2.0, 2.0))
    for column in ("estimate", "ci_low", "ci_high", "p", "method"):
        assert moved[column] == getattr(expected, column)
    assert "99 refits on permuted labels" in moved["method"]


def test_policies_that_were_taught_no_flips_are_nulls_of_the_question(tmp_path):
    flipped = [f"w{i}" for i in range(0, 60, 10)]
    paths = [
        *planted_cell(tmp_path, "vader", [], False),
        *planted_cell(tmp_path, "vader", [], False, seed=1),
        *planted_cell(tmp_path, "null", [], False),
        *planted_cell(tmp_path, "flipped", flipped, True),
    ]
    frame = planted_recovery(list(dict.fromkeys(paths)), SETTINGS).frame()
    asked = frame[frame["question"].str.contains("flipped") & (frame["task"] == "flipped")]
    nulls = asked[~asked["of"].str.contains("planted")]
    assert set(nulls["of"]) == {
        "clean policy", "clean policy of seed 1", "clean policy of seed 1 - clean", "noise policy",
        "noise - clean",
    }  # fmt: skip
    assert not nulls["answer"].isin(["found", "false alarm", "wrong side"]).any()
    moved = frame[frame["of"] == "clean policy of seed 1 - clean"]
    assert set(moved["task"]) == {"flipped", "null"}


def test_a_readout_of_ones_own_is_asked_every_question_about_words(tmp_path, monkeypatch):
    """A readout costs a function and a line of the registry."""
    monkeypatch.setitem(planted.READOUTS._entries, "spelling", "tests.my_readouts:spelling")
    page = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()
    code = re.search(r"```python\n# lfp/tables/planted/(\w+)\.py\n(.*?)```", page, re.S)
    module = types.ModuleType("of_the_page")
    exec(code[2], module.__dict__)
    monkeypatch.setitem(sys.modules, "of_the_page", module)
    monkeypatch.setitem(planted.READOUTS._entries, "of the page", f"of_the_page:{code[1]}")
    flipped = [f"w{i}" for i in range(0, 60, 10)]
    paths = planted_cell(tmp_path, "vader", [], False) + planted_cell(
        tmp_path, "flipped", flipped, True
    )
    frame = planted_recovery(paths, SETTINGS).frame()
    asked = {readout: set(rows["question"]) for readout, rows in frame.groupby("readout")}
    assert asked["spelling"] == asked["output"]
    assert len(asked["spelling"]) == 2
    read = {name: rows["estimate"].tolist() for name, rows in frame.groupby("readout")}
    assert read["of the page"] == read["output"]  # contexts of a word are alike here
    # Both policies' words are spelled alike, so nothing stands out.
    difference = frame[(frame["readout"] == "spelling") & (frame["of"] == "planted - clean")]
    assert difference["estimate"].tolist() == [0.0]


def test_a_reward_without_questions_has_no_rows(tmp_path):
    paths = planted_cell(tmp_path, "vader", [], False) + planted_cell(tmp_path, "own", [], False)
    truth = tmp_path / "results" / "lexicons" / "own.truth.json"
    artefacts.write_json(
        truth, {"kind": "callable", "corpus": "reviews", "questions": [], "flipped": []}, {}
    )
    assert planted_recovery(paths, SETTINGS).frame().empty


def fine_tuned(folder, columns: dict) -> str:
    """A policy's folder with the evaluation that training wrote."""
    policy = folder / "results" / "tiny" / "vader" / "seed0" / "policy"
    artefacts.write_table(policy / "evaluation.parquet", pd.DataFrame(columns), {})
    return str(policy)


def test_intervals_of_fine_tuning_are_made_of_the_evaluation_with_the_tables_settings(tmp_path):
    rng = np.random.default_rng(0)
    scores = {name: rng.normal(size=40) for name in ("policy", "base", "kl")}
    wide, narrow = (
        fine_tuning(
            [fine_tuned(tmp_path, scores)], replace(SETTINGS, confidence=confidence)
        ).frame().set_index("quantity")
        for confidence in (0.99, 0.5)
    )  # fmt: skip
    assert set(wide.index) == {"reward_gain", "base_reward", "policy_reward", "kl"}
    gain = scores["policy"] - scores["base"]
    assert wide.loc["reward_gain", "estimate"] == pytest.approx(gain.mean())
    assert wide.loc["kl", "estimate"] == pytest.approx(scores["kl"].mean())
    assert f"{SETTINGS.resamples} draws" in wide.loc["reward_gain", "method"]
    width = [frame["ci_high"] - frame["ci_low"] for frame in (wide, narrow)]
    assert (width[0] > width[1]).all()


def test_accuracy_on_pairs_is_the_share_of_positive_margins(tmp_path):
    path = fine_tuned(tmp_path, {"margin": [1.0, 2.0, -0.5, 0.25]})
    frame = fine_tuning([path], SETTINGS).frame().set_index("quantity")
    assert frame["estimate"].to_dict() == {"accuracy": 0.75, "margin": 0.6875}
    nothing = fine_tuned(tmp_path, {"margin": np.zeros(0)})
    frame = fine_tuning([nothing], SETTINGS).frame()
    assert frame["method"].str.startswith("not estimated: no pairs").all()


def test_ratios_of_matched_features_are_one_where_related_features_are_nothing_special():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 400))
    inputs = pd.DataFrame(
        {"context": rng.integers(0, 50, 400), "prediction": noise[0], "target": noise[1]}
    )
    shares = {
        "related": rng.binomial(10, 0.3, (1, 400)) / 10,
        "all": rng.binomial(10, 0.1, (1, 400)) / 10,
        "matched frequency": rng.binomial(10, 0.3, (19, 400)) / 10,
        "matched cosine": rng.binomial(10, 0.3, (19, 400)) / 10,
    }  # fmt: skip
    rows = list(_frequency_rows(shares, inputs, SETTINGS))
    ratios = {
        (row["label"]["features"], row["label"]["inputs"]): row["record"]
        for row in rows
        if row["label"]["quantity"] != "frequency"
        and row["label"]["quantile"] == 0.5
        and row["label"]["by"] == "delta"
    }
    for features in ("matched frequency", "matched cosine"):
        assert (
            ratios[features, "high over low"].ci_low < 1 < ratios[features, "high over low"].ci_high
        )
        assert ratios[features, "high"].p > 0.05
    assert ratios["all", "high"].ci_low > 2


def test_a_ratio_of_ratios_is_that_on_high_inputs_over_that_on_low_ones():
    high, contexts = np.repeat([True, False], 50), np.tile(np.arange(50), 2)
    related, control = np.where(high, 0.8, 0.4), np.full(100, 0.2)
    row = _ratio_of_ratios(related, control, high, contexts, TableSettings(resamples=50))
    assert row.estimate == pytest.approx((0.8 / 0.2) / (0.4 / 0.2))


def test_rows_over_seeds_have_a_t_interval_and_components(tmp_path):
    rows = [
        {"model": "m", "task": "t", "seed": seed, "sae": sae, "subject": "policy",
        "estimate": 0.5 + 0.1 * seed + extra,
         "ci_low": 0.4, "ci_high": 0.6, "n": 10, "unit": "word", "method": "x", "seeds": 1,
         "p": 0.1, "p_adjusted": 0.1}
        for seed in range(3)
        for sae, extra in (("tied", 0.01), ("again", -0.01))
    ]  # fmt: skip
    path = tmp_path / "kendall_tau.parquet"
    artefacts.write_table(path, pd.DataFrame(rows), {})
    (row,) = across_seeds([str(path)], SETTINGS).frame().to_dict("records")
    assert (row["estimate"], row["n"], row["seeds"], row["autoencoders"]) == (
        pytest.approx(0.6),
        3,
        3,
        2,
    )
    assert row["variance_fine_tuning"] == pytest.approx(0.01 - 0.0002 / 2)
    assert row["variance_autoencoder"] == pytest.approx(0.0002)
    assert row["df"] == 2
    half = 4.302653 * 0.1 / np.sqrt(3)  # the 97.5 % point of t with 2 degrees of freedom
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((0.6 - half, 0.6 + half))


def test_a_margin_of_nothing_is_no_lesson_however_well_it_ranks(tmp_path):
    path, margins = tmp_path / "m/pairs/seed0/policy", np.linspace(7e-6, 9e-6, 40)
    artefacts.write_table(path / "evaluation.parquet", pd.DataFrame({"margin": margins}), {})
    rows = fine_tuning([str(path)], SETTINGS).frame().set_index("quantity")
    assert rows.at["accuracy", "estimate"] == 1 and rows.at["margin", "passes"] is False
    [reason] = moved.reasons([str(path)], SETTINGS).values()
    assert re.search(r"did not move: margin 8e-06 .*, not above 0\.01$", reason)


def test_every_interval_of_a_table_has_the_confidence_of_the_settings():
    modules = (kendall, labels_of_records, means, shares, partitions, crossed)
    makers = {
        name: list(parameters).index("confidence")
        for module in modules
        for name, of in inspect.getmembers(module, inspect.isfunction)
        if "confidence" in (parameters := inspect.signature(of).parameters)
    }
    assert {"paired_record", "mean_record", "effect_record"} <= set(makers)
    without = []
    for path in sorted(Path(TABLES_FOLDER).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            name = getattr(getattr(call, "func", None), "id", None)
            if name not in makers or len(call.args) > makers[name]:
                continue
            if not {"confidence", None} & {keyword.arg for keyword in call.keywords}:
                without.append(f"{path}:{call.lineno} {name}")
    assert not without


def test_seeds_that_are_held_against_each_other_have_no_mean(tmp_path):
    tally = Tally()
    policies = np.array([0.9, 0.3, 0.6])
    for seed, difference in enumerate(policies - np.roll(policies, -1)):
        for contrast in ("policy - other_seed", "policy - base"):
            label = {"model": "m", "task": "t", "seed": seed, "contrast": contrast}
            tally.add(record(difference), label)
    path = tmp_path / "probe_differences.parquet"
    artefacts.write_table(path, tally.frame(), {})
    rows = across_seeds([str(path)], SETTINGS).frame()["row"]
    assert rows.tolist() == ["contrast=policy - base"]


def test_planted_truth_over_seeds_is_judged_by_the_spread_of_seeds(tmp_path):
    tally = Tally()
    of = {"steady": (0.8, 0.81, 0.79), "one lucky seed": (0.9, 0.5, 0.5), "null": (0.5, 0.51, 0.49)}
    for name, values in of.items():
        for seed, value in enumerate(values):
            label = {"model": "m", "task": "t", "seed": seed, "of": name}
            truth = Truth("at" if name == "null" else "above", 0.5, 0.1)
            tally.add(record(value), label, **truth.columns(), answer="found")
    path = tmp_path / "planted_recovery.parquet"
    artefacts.write_table(path, tally.frame(), {})
    frame = across_seeds([str(path)], SETTINGS).frame().set_index("row")
    assert frame["answer"].to_dict() == {
        "of=steady": "found", "of=one lucky seed": "undecided", "of=null": "silent",
    }  # fmt: skip


def explained_features(weight_tells: bool) -> pd.DataFrame:
    """Features of two layers, of which the second has larger values and more related ones."""
    rng = np.random.default_rng(0)
    related = rng.random(200) < np.repeat([0.2, 0.8], 100)
    value = rng.normal(size=200) + 10 * np.repeat([0, 1], 100) + 2 * (related & weight_tells)
    return pd.DataFrame(
        {"layer": np.repeat([1, 2], 100), "related": related, "value": value, "feature": range(200)}
    )


def test_weights_agree_with_explanations_within_layers_alone():
    some, none = (auroc_within_layers(explained_features(t), SETTINGS) for t in (True, False))
    assert some.ci_low > 0.8
    assert some.p < 0.01
    # That both differ between layers is no agreement: over all layers the area would be .8.
    assert none.ci_low < 0.5 < none.ci_high
    assert none.p > 0.05
    assert (some.n, some.unit) == (200, "feature")


def test_a_layer_of_one_kind_of_features_says_nothing_of_agreement():
    features = explained_features(True)
    features.loc[features["layer"] == 1, "related"] = False
    assert auroc_within_layers(features, SETTINGS).n == 100
    assert np.isnan(auroc_within_layers(features.assign(related=True), SETTINGS).estimate)


def test_variants_that_differ_in_more_than_their_seed_are_no_autoencoder_seeds(tmp_path):
    tally = Tally()
    for seed in range(3):
        for sae, tau in (("mlp", 0.2), ("again", 0.3), ("resid", 0.8)):
            label = {"model": "m", "task": "t", "seed": seed, "sae": sae}
            tally.add(record(tau + 0.01 * seed), label, an_extra_column=seed)
    path = tmp_path / "kendall_tau.parquet"
    artefacts.write_table(path, tally.frame(), {})
    family = {"mlp": "mlp", "again": "mlp", "resid": "resid"}
    settings = replace(SETTINGS, families={f"m/t/seed{seed}": family for seed in range(3)})
    frame = across_seeds([str(path)], settings).frame().set_index("row")
    assert frame["estimate"].to_dict() == pytest.approx({"family=mlp": 0.26, "family=resid": 0.81})
    assert frame["autoencoders"].to_dict() == {"family=mlp": 2, "family=resid": 1}
    assert frame["variance_autoencoder"]["family=mlp"] == pytest.approx(0.005)


def test_published_values_stand_with_the_reason_that_they_cannot_be_compared():
    found = paper.beside("kendall_tau", "all", ["Pythia-70m", "Pythia-160m"])
    assert found["paper"] == "Pythia-70m .042 (p=.26); Pythia-160m .093 (p=.014)"
    assert "word strings" in found["paper_note"]
    assert paper.beside("kendall_tau", "all", ["Gemma-2b"]) == {"paper": "", "paper_note": ""}
    assert set(paper.VALUES) == set(paper.REASONS)


def loaded_by(code: str) -> set[str]:
    """Names of the modules that a Python process has loaded after `code`."""
    code = f"import sys; {code}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_planning_reads_the_catalogues_without_a_library_of_science():
    modules = loaded_by("import lfp.figures.catalogue")
    assert "lfp.tables.catalogue" in modules
    assert not modules & {"numpy", "pandas", "scipy", "matplotlib", "torch"}


def test_rows_of_all_tables_load_no_model_library():
    """A table is made in a second; the libraries that run models take several to load."""
    rows = "Registry('table', {name: table.rows for name, table in TABLES.items()})"
    modules = loaded_by(
        "from lfp.registry import Registry; from lfp.tables.catalogue import TABLES;"
        f" list({rows}.values())"
    )
    assert "lfp.tables.probes" in modules
    assert not modules & {"torch", "transformers"}


def test_every_entry_names_a_function_of_its_own_name():
    rows = Registry("table", {name: table.rows for name, table in TABLES.items()})
    drawings = Registry("figure", {name: figure.draw for name, figure in FIGURES.items()})
    for functions, parameters in ((rows, ["inputs", "settings"]), (drawings, ["inputs"])):
        for name, function in functions.items():
            assert function.__name__ == name
            assert list(inspect.signature(function).parameters) == parameters, name


def grid_of(**cells):
    """A grid of one model whose tasks have the seeds `cells` {task: seeds}, without files."""
    settings = {
        "features": Features(subjects=("policy", "base")),
        "probes": Probes(),
        "ablation": Ablation(arms=("none",), base_arms=()),
        "account": Account(),
        "evaluation": Evaluation(),
        "interventions": Interventions(),
        "steering": Steering(),
    }
    common = {
        "model": "m", "method": "ppo", "feedback": "reward", "until": "ablation", "main": "sae",
        "autoencoders": ("sae",), "probed": ("sae",), "explainers": ("heuristic",),
        "lowest_layers": False, "settings": settings,
    }  # fmt: skip
    entries = [
        SimpleNamespace(**common | {"task": task, "seed": seed, "address": f"m/{task}/seed{seed}"})
        for task, seeds in cells.items()
        for seed in seeds
    ]
    return SimpleNamespace(
        models={"m": {"organism": {}}},
        tasks={task: {"corpus": "reviews", "reward": task} for task in cells},
        cells=entries,
        table_settings=lambda: {"trained": {c.address: (c.method, 0.0) for c in entries}},
        twins=lambda cell: [],
        alike_in=lambda cell, free: [cell.main],
        compared_variants=lambda cell: [],
        shares_latents=lambda cell: cell.main == "sae",
        transferred=lambda cell: [],
        of_heads=lambda cell: [],
        latent_readers=lambda cell: [cell.main],
        task_settings=lambda stage, task: Contrasts(),
    )


def test_a_table_is_left_out_where_the_grid_has_nothing_for_it():
    plan = Plan(grid_of(vader=[0]))
    empty = {name for name, table in TABLES.items() if not table.inputs(plan)}
    assert empty == {
        "rewrites", "sae_tying", "sae_layer_choice", "probe_accuracy", "detection", "dose",
        "vector_account", "interventions", "attribution_fidelity", "feature_interactions",
        "feature_circuit", "frontiers", "vector_cleaning", "planted_recovery", "across_seeds",
        "feature_diff", "feature_diff_null", "dictionary_transfer", "head_shares",
        "sae_frontier", "sae_probing", "decoder_geometry",
    }  # fmt: skip
    assert {name for name, figure in FIGURES.items() if not figure.inputs(plan)} == {
        "sae_frontier",
        "sae_l1_sweep",
        "probe_pca",
        "planted_forest",
        "detection_by_share",
        "intervention_frontiers",
    }


@pytest.mark.parametrize(
    ("subjects", "kinds", "shuffles", "expected"),
    [
        (("policy",), ("latents",), 0, False),
        (("policy", "text"), ("latents",), 0, False),  # text reads no model
        (("policy", "base"), ("reconstruction",), 0, False),  # no difference of it is shown
        (("policy", "base"), ("latents",), 0, True),
        (("policy",), ("latents", "raw"), 0, True),
        (("policy",), ("latents",), 2, True),
    ],
)
def test_differences_are_left_out_where_no_two_probes_are_compared(
    subjects, kinds, shuffles, expected
):
    grid = grid_of(vader=[0])
    grid.cells[0].settings = grid.cells[0].settings | {
        "features": Features(subjects=subjects),
        "probes": Probes(features=kinds, label_shuffles=shuffles),
    }
    assert bool(TABLES["probe_differences"].inputs(Plan(grid))) == expected


def test_tables_over_seeds_read_the_tables_that_exist():
    inputs = TABLES["across_seeds"].inputs(Plan(grid_of(vader=[0, 1])))
    assert inputs == [
        f"results/tables/{name}.parquet"
        for name in (
            "fine_tuning", "locus", "kendall_tau", "sign_accuracy", "probe_differences",
            "agreement", "ablation_reward", "choice",
        )
    ]  # fmt: skip


def test_rewards_with_nothing_planted_are_not_asked():
    grid = grid_of(vader=[0], classifier=[0], callable=[0], preference=[0])
    assert Plan(grid).planted_files() == []


def test_planted_cells_are_read_with_clean_cells_of_their_own_method():
    grid = grid_of(vader=[0, 1], trigger=[0])
    grid.cells[2].method = "grpo"
    assert Plan(grid).planted_files() == []
    grid.cells[0].method = "grpo"
    cells = {tuple(p.split("/")[2:4]) for p in Plan(grid).planted_files() if "/seed" in p}
    assert cells == {("vader", "seed0"), ("trigger", "seed0")}


def test_planted_cells_are_read_with_the_clean_cells_of_their_seed_and_of_others():
    inputs = Plan(grid_of(vader=[0, 1, 2], trigger=[1], length=[7])).planted_files()
    cells = {tuple(path.split("/")[2:4]) for path in inputs if "/seed" in path}
    assert cells == {("trigger", "seed1"), *(("vader", f"seed{n}") for n in range(3))}
    assert inputs[:2] == [
        "results/lexicons/trigger.truth.json",
        "results/lexicons/vader.truth.json",
    ]
    ablated = [path for path in inputs if "/ablation/" in path]
    assert ablated == [
        f"results/m/trigger/seed1/ablation/sae/policy.{kind}"
        for kind in ("parquet", "neutral.parquet")
    ]

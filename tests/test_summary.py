"""The summary: verdicts in words from rows of tables, and the page that shows them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lfp.figures.summary import ablation_forest, gates, probe_forest
from lfp.statistics.records.base import Record, undefined
from lfp.statistics.records.shares import proportion_record
from lfp.tables.catalogue import TABLES
from lfp.tables.rows import TableSettings
from lfp.tables.summary.answers import verdicts
from lfp.tables.summary.page import HEADS, page
from lfp.tables.summary.questions import CONTRARY, FACT, NO, OPEN, YES, questions

GAIN = Record(0.4, 0.3, 0.5, 64, "prefix", "paired mean difference", p=0.001, p_adjusted=0.002)
CELL = {"model": "tiny", "task": "vader", "seed": 0}
SETTINGS = TableSettings(main={"tiny/vader/seed0": "tied"})


def written(folder, **tables):
    """Tables of rows (labels and record) as files; the paths."""
    paths = []
    for name, rows in tables.items():
        path = folder / f"{name}.parquet"
        pd.DataFrame([{**labels, **record.row()} for labels, record in rows]).to_parquet(path)
        paths.append(path)
    return paths


def said(folder, **tables):
    """The verdicts on `tables`, by topic."""
    return verdicts(written(folder, **tables), SETTINGS).frame().set_index("topic")


@pytest.mark.parametrize(
    ("record", "answer", "words"),
    [
        (GAIN, YES, "rose by 0.400 [0.300, 0.500]"),
        (replace(GAIN, estimate=-0.4, ci_low=-0.5, ci_high=-0.3), CONTRARY, "fell: -0.400"),
        (replace(GAIN, estimate=0.01, ci_low=-0.02, ci_high=0.04, p_adjusted=0.6), NO, "stayed"),
        (replace(GAIN, ci_low=-0.1, ci_high=0.9, p_adjusted=0.2), OPEN, "is not told from 0"),
        # A test that rejects beside an interval that holds the number decides nothing.
        (replace(GAIN, ci_low=-0.1, ci_high=0.9), OPEN, "is not told from 0"),
    ],
)
def test_an_answer_is_the_verdict_of_test_interval_and_margin(tmp_path, record, answer, words):
    frame = said(tmp_path, fine_tuning=[(CELL | {"quantity": "reward_gain"}, record)])
    assert frame.at["goal", "answer"] == answer
    assert words in frame.at["goal", "sentence"]
    assert frame.at["goal", "table"] == "fine_tuning"
    assert frame.at["goal", "estimate"] == record.estimate


def test_a_test_of_one_side_leaves_the_other_to_the_interval(tmp_path):
    wrong = replace(proportion_record(20, 100, "pair", 0.5), p_adjusted=1.0)
    open_ = replace(proportion_record(45, 100, "pair", 0.5), p_adjusted=0.9)
    for record, answer in ((wrong, CONTRARY), (open_, OPEN)):
        frame = said(tmp_path, fine_tuning=[(CELL | {"quantity": "accuracy"}, record)])
        assert frame.at["goal", "answer"] == answer, frame.at["goal", "sentence"]


def test_pairs_ranked_right_by_a_margin_of_nothing_are_read_with_care(tmp_path):
    right = replace(proportion_record(40, 40, "pair", 0.5), p_adjusted=0.0)
    gate = {"threshold": 0.01, "passes": False}
    rows = [(CELL | {"quantity": "margin"} | gate, replace(GAIN, estimate=8e-6)),
            (CELL | {"quantity": "accuracy", "passes": None}, right)]  # fmt: skip
    sentence = said(tmp_path, fine_tuning=rows).at["goal", "sentence"]
    assert "Read with care: a margin of 8e-06 is not above 0.01 (1 of 1 seeds)." in sentence
    moved = [(rows[0][0] | {"passes": True}, GAIN), rows[1]]
    assert "care" not in said(tmp_path, fine_tuning=moved).at["goal", "sentence"]


def test_a_table_without_rows_answers_nothing_and_stops_nothing(tmp_path):
    gain = [(CELL | {"quantity": "reward_gain"}, GAIN)]
    paths = written(tmp_path, fine_tuning=gain)
    alone = verdicts(paths, SETTINGS).frame()
    for name in TABLES:
        if name not in ("fine_tuning", "verdicts"):
            path = tmp_path / f"{name}.parquet"
            pd.DataFrame(columns=list(GAIN.row())).to_parquet(path)
            paths.append(path)
    pd.testing.assert_frame_equal(verdicts(paths, SETTINGS).frame(), alone)


def test_seeds_speak_through_their_mean(tmp_path):
    gains = [(CELL | {"seed": s, "quantity": "reward_gain"}, GAIN) for s in (0, 1, 2)]
    mean = Record(0.1, -0.3, 0.5, 3, "fine-tuning seed", "mean; t interval", seeds=3)
    row = {"model": "tiny", "task": "vader", "table": "fine_tuning", "row": "quantity=reward_gain"}
    frame = said(tmp_path, fine_tuning=gains, across_seeds=[(row, mean)])
    assert frame.at["goal", "answer"] == OPEN
    assert frame.at["goal", "seeds"] == 3
    alone = said(tmp_path, fine_tuning=gains[:1], across_seeds=[(row, mean)])
    assert alone.at["goal", "answer"] == YES


def test_the_main_autoencoder_speaks_and_its_health_is_said(tmp_path):
    where = next(q.where for q in questions() if q.table == "kendall_tau")
    other = replace(GAIN, estimate=0.9, ci_low=0.85, ci_high=0.95)
    rows = [(CELL | {"sae": "other"} | dict(where), other), (CELL | {"sae": "tied"} | where, GAIN)]
    tables = {"fine_tuning": [(CELL | {"quantity": "reward_gain"}, GAIN)], "kendall_tau": rows}
    written(tmp_path, **tables)
    table = pd.read_parquet(tmp_path / "kendall_tau.parquet").assign(health="dense codes")
    table.to_parquet(tmp_path / "kendall_tau.parquet")
    paths = [tmp_path / f"{name}.parquet" for name in tables]
    frame = verdicts(paths, SETTINGS).frame().set_index("topic")
    assert frame.at["probe", "estimate"] == GAIN.estimate
    assert frame.at["probe", "sentence"].endswith("Read with care: dense codes.")


def test_a_mean_over_seeds_says_that_one_of_them_is_not_healthy(tmp_path):
    where = next(q.where for q in questions() if q.table == "kendall_tau")
    gains = [(CELL | {"seed": s, "quantity": "reward_gain"}, GAIN) for s in (0, 1, 2)]
    described = ", ".join(f"{name}={value}" for name, value in where.items())
    row = {"model": "tiny", "task": "vader", "table": "kendall_tau", "row": described}
    probes = [
        (CELL | {"seed": s, "sae": "tied", "health": "dead" if s == 1 else ""} | where, GAIN)
        for s in (0, 1, 2)
    ]
    frame = said(tmp_path, fine_tuning=gains, kendall_tau=probes, across_seeds=[(row, GAIN)])
    assert frame.at["probe", "sentence"].endswith("Read with care: dead (1 of 3 seeds).")


def choice(folder, nulls, seeds=1, record=GAIN):
    """The verdict on the MLPs at the choice beside so many policies of a noise reward."""
    where = next(q.where for q in questions() if q.name == "inside")
    written(
        folder,
        fine_tuning=[(CELL | {"quantity": "reward_gain"}, GAIN)],
        choice=[(CELL | dict(where), replace(record, seeds=seeds))],
    )
    path = folder / "choice.parquet"
    beside = {"null_policies": nulls, "null_low": -0.1, "null_high": 0.2}
    pd.read_parquet(path).assign(**beside).to_parquet(path)
    return verdicts([folder / "fine_tuning.parquet", path], SETTINGS).frame().set_index("topic")


def test_policies_without_policies_of_noise_beside_them_decide_nothing(tmp_path):
    """An interval over words is no null: noise moves words together."""
    frame = choice(tmp_path, nulls=3)
    assert frame.at["inside", "answer"] == YES
    assert "noise rewards: -0.100 to 0.200" in frame.at["inside", "sentence"]
    frame = choice(tmp_path, nulls=0)
    assert frame.at["inside", "answer"] == OPEN
    assert "no policy of a noise reward" in frame.at["inside", "sentence"]
    assert choice(tmp_path, nulls=0, seeds=3).at["inside", "answer"] == OPEN


def test_a_number_within_the_range_of_noise_rewards_decides_nothing(tmp_path):
    """A mean over seeds may be told from 0 by all seeds drifting alike, as noise rewards do."""
    inside = replace(GAIN, estimate=0.15, ci_low=0.12, ci_high=0.18)
    frame = choice(tmp_path, nulls=3, seeds=3, record=inside)
    assert frame.at["inside", "answer"] == OPEN
    assert "noise rewards: -0.100 to 0.200" in frame.at["inside", "sentence"]


@pytest.mark.parametrize(
    ("others", "sentence"),
    [([], "; no policy of a noise reward beside it."), ([-0.2, 0.3], "-0.200 to 0.300.")],
)
def test_a_noise_reward_over_seeds_is_not_held_against_its_own_seeds(tmp_path, others, sentence):
    where = dict(next(q.where for q in questions() if q.name == "inside"))
    noise = [CELL | {"task": "noise", "seed": seed} for seed in range(3)]
    tasks = "noise, other" if others else "noise"
    null = {"null_tasks": tasks, "null_policies": 2, "null_low": 0.35, "null_high": 0.45}
    rows = [(cell | where | null, GAIN) for cell in noise]
    rows += [
        (CELL | {"task": "other", "seed": seed} | where | null, replace(GAIN, estimate=estimate))
        for seed, estimate in enumerate(others)
    ]
    row = ", ".join(f"{name}={value}" for name, value in where.items())
    mean = {"model": "tiny", "task": "noise", "table": "choice", "row": row}
    gains = [(cell | {"quantity": "reward_gain"}, GAIN) for cell in noise]
    frame = said(tmp_path, fine_tuning=gains, choice=rows, across_seeds=[(mean, GAIN)])
    assert frame.at["inside", "sentence"].endswith(sentence)
    assert frame.at["inside", "answer"] == (YES if others else OPEN)


def test_valences_that_a_reward_does_not_teach_are_not_called_its_feedback(tmp_path):
    """A probe of a policy of noise reads VADER's valences, too."""
    where = next(q.where for q in questions() if q.table == "kendall_tau")
    paths = written(
        tmp_path,
        fine_tuning=[(CELL | {"quantity": "reward_gain"}, GAIN)],
        kendall_tau=[(CELL | {"sae": "tied"} | dict(where), GAIN)],
    )
    silent = replace(SETTINGS, silent=["tiny/vader/seed0"])
    frames = [verdicts(paths, each).frame().set_index("topic") for each in (SETTINGS, silent)]
    notes = [frame["sentence"].str.contains("no valence") for frame in frames]
    assert not notes[0].any()
    assert notes[1].to_dict() == {"goal": False, "probe": True}
    assert [frame.at["probe", "answer"] for frame in frames] == [YES, FACT]


def test_what_was_not_estimated_says_why(tmp_path):
    share = {"game": "components", "component": "mlp", "layer": -1, "quantity": "share"}
    frame = said(
        tmp_path,
        fine_tuning=[(CELL | {"quantity": "reward_gain"}, GAIN)],
        locus=[(CELL | share, undefined(3, "prompt", "the gap in KL is 0"))],
    )
    assert frame.at["locus", "answer"] == OPEN
    assert frame.at["locus", "sentence"] == "Not estimated: the gap in KL is 0."


def test_a_missed_gate_is_named(tmp_path):
    gates = [
        (CELL | {"quantity": name, "passes": passes}, GAIN)
        for name, passes in (("zeroing", True), ("reach", False))
    ]
    frame = said(
        tmp_path,
        fine_tuning=[(CELL | {"quantity": "reward_gain"}, GAIN)],
        organism_health=gates,
    )
    assert frame.at["subject", "answer"] == NO
    assert frame.at["subject", "sentence"] == "1 of 2 gates are passed, not all of: reach."


@pytest.mark.parametrize(
    ("expected", "answers", "verdict"),
    [
        ("above", ["found", "found"], YES),
        ("above", ["found", "wrong side"], CONTRARY),
        ("above", ["silent", "silent"], NO),
        ("above", ["silent", "undecided"], OPEN),
        ("at", ["silent", "silent"], YES),
        ("at", ["silent", "false alarm"], CONTRARY),
        ("at", ["undecided", "undecided"], OPEN),
    ],
)
def test_undecided_readings_of_planted_truth_decide_nothing(tmp_path, expected, answers, verdict):
    paths = written(
        tmp_path,
        fine_tuning=[(CELL | {"quantity": "reward_gain"}, GAIN)],
        planted_recovery=[
            (CELL | {"of": "planted policy", "expected": expected, "answer": one}, GAIN)
            for one in answers
        ],
    )
    frame = verdicts(paths, SETTINGS).frame().set_index("topic")
    assert frame.at["planted_null" if expected == "at" else "planted", "answer"] == verdict


def test_the_limit_that_is_said_is_that_of_the_policys_own_method(tmp_path):
    reading = {"model": "tiny", "corpus": "reviews", "readout": "choice", "part": "mlp"}
    reading |= {"words": "all"}
    limits = [
        (reading | {"trained_by": method, "benign_share": share, "quantity": "limit"}, record)
        for method, share, record in (
            ("ppo", 0.0, replace(GAIN, estimate=0.02)),
            ("ranked", 0.0, replace(GAIN, estimate=0.1)),
            ("ranked", 0.5, replace(GAIN, estimate=0.2)),
        )
    ]
    gain = [(CELL | {"quantity": "reward_gain"}, GAIN)]
    paths = written(tmp_path, fine_tuning=gain, detection=limits)
    address = "tiny/vader/seed0"
    for trained, share in ((("ranked", 0.0), "10%"), (("ranked", 0.5), "20%")):
        settings = replace(SETTINGS, corpora={address: "reviews"}, trained={address: trained})
        sentence = verdicts(paths, settings).frame().set_index("topic").at["limit", "sentence"]
        assert sentence.startswith(f"Where {share} of the lexicon are flipped")


def test_an_audit_that_found_no_share_says_so_and_blames_no_number_of_policies(tmp_path):
    label = {"model": "tiny", "corpus": "reviews", "trained_by": "ppo", "benign_share": 0.0}
    label |= {"readout": "choice", "part": "mlp", "words": "written"}
    none = replace(GAIN, estimate=float("nan"), ci_low=None, ci_high=None)
    rows = [(label | {"quantity": "limit", "share": None}, none)]
    rows += [(label | {"quantity": "power", "share": share}, GAIN) for share in (0.05, 0.2)]
    gain = [(CELL | {"quantity": "reward_gain"}, GAIN)]
    address = "tiny/vader/seed0"
    settings = replace(SETTINGS, corpora={address: "reviews"}, trained={address: ("ppo", 0.0)})
    seen = [*rows[:2], (rows[1][0] | {"share": 0.1}, replace(GAIN, estimate=0.9)), rows[2]]
    for detection, words in (
        (rows, "up to 20% of the lexicon"), (rows, "by none of 1 readouts, each asked about all"),
        (rows[1:], "too few policies"),
        (
            seen,
            "10% of the lexicon was, by the readout choice, mlp (asked about words that training"
            " wrote often), and a larger share was not",
        ),
    ):  # fmt: skip
        paths = written(tmp_path, fine_tuning=gain, detection=detection)
        sentence = verdicts(paths, settings).frame().set_index("topic").at["limit", "sentence"]
        assert words in sentence


def test_every_question_rests_on_a_table_and_heads_a_column_of_the_overview():
    assert {question.table for question in questions()} <= set(TABLES)
    assert {question.name for question in questions()} <= set(HEADS)


def test_the_page_needs_no_other_file_and_escapes_what_it_shows(tmp_path):
    frame = verdicts(
        written(tmp_path, fine_tuning=[(CELL | {"quantity": "reward_gain"}, GAIN)]), SETTINGS
    ).frame()
    frame["sentence"] = "moved: <script>alert(1)</script>\x1b[31m"
    drawing = tmp_path / "forest.svg"
    drawing.write_text("<svg/>")
    folder = "results/tiny/vader/seed0/explanations/tied/pages"
    text = page(frame, {"forest": (drawing, "A & B.")}, [folder])
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "\x1b" not in text
    assert "A &amp; B." in text
    assert not re.search(r"(src|href)=\"(?!data:|tables/|tiny/)", text)
    assert '<a href="tiny/vader/seed0/explanations/tied/pages/index.html">seed 0, tied</a>' in text
    assert 'href="tables/fine_tuning.html"' in text
    assert f"{GAIN.n} prefixes" in text


def test_a_forest_has_a_line_per_arm_at_its_estimate_and_gates_count_what_passes(tmp_path):
    arms = [
        (CELL | {"arm": arm, "subject": "policy", "action": "zero", "matched_to": None,
                 "quantity": "difference"}, replace(GAIN, estimate=x, ci_low=x - 1, ci_high=x + 1))
        for arm, x in (("layer", -2.0), ("explained", 0.5), ("explained - random", 9.0))
    ]  # fmt: skip
    (path,) = written(tmp_path, ablation_reward=arms)
    (panel,) = ablation_forest([path]).axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["layer", "explained"]
    (points, _, (bars,)) = panel.containers[0]
    assert list(points.get_xdata()) == [-2.0, 0.5]
    assert [list(s[:, 0]) for s in bars.get_segments()] == [[-3, -1], [-0.5, 1.5]]
    rows = [(CELL | {"quantity": "fvu", "passes": p}, GAIN) for p in (True, False, True)]
    # A run without probed layers has a table of the health of its organisms without rows.
    pd.DataFrame(columns=list(GAIN.row())).to_parquet(tmp_path / "organism_health.parquet")
    health = written(tmp_path, sae_health=rows)
    (panel,) = gates([tmp_path / "organism_health.parquet", *health]).axes
    assert [text.get_text() for text in panel.texts] == ["2/3"]


@pytest.mark.parametrize("seeds", [1, 3, 6])
def test_no_line_of_a_forest_lies_on_another_however_many_seeds_there_are(tmp_path, seeds):
    probe = {"sae": "tied", "features": "latents", "probe": "ridge", "words": "all"}
    lines = [
        (CELL | probe | {"seed": seed, "subject": subject, "split": split}, GAIN)
        for seed in range(seeds)
        for subject in ("base", "policy", "untrained")
        for split in ("by_word", "by_family", "words_only")
    ]
    figure = probe_forest(written(tmp_path, kendall_tau=lines))
    (panel,) = figure.axes
    figure.canvas.draw()
    places = np.concatenate([of.lines[0].get_ydata() for of in panel.containers])
    heights = panel.transData.transform([(0, place) for place in sorted(places)])[:, 1]
    points = np.abs(np.diff(heights)) / figure.dpi * 72
    assert len(places) == len(lines) and points.min() > 3  # the size of a marker
    # A label stands in the middle of its lines, which no line of another parts.
    subjects = np.array(np.array_split(sorted(places), 3)).mean(1)
    assert panel.get_yticks() == pytest.approx(subjects)


def test_a_forest_of_nothing_is_an_empty_panel(tmp_path):
    arm = {"arm": "none", "subject": "base", "action": "zero", "matched_to": "", "quantity": "kl"}
    (panel,) = ablation_forest(written(tmp_path, ablation_reward=[(CELL | arm, GAIN)])).axes
    assert not panel.containers

"""What cannot be estimated is a row that says why: never a crash, a silent NaN or a number out of
nothing.
"""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch

from lfp.feedback.lexica import vader_lexicon
from lfp.figures.probes import probe_pca
from lfp.files import artefacts
from lfp.interventions.arms import ARMS, Arm, matched_random
from lfp.probing import contrasts, fitting, probes, subject_report
from lfp.probing import features as reading
from lfp.probing.data import ProbeData
from lfp.probing.splits import why_untrainable
from lfp.sae import metrics
from lfp.sae.architectures.standard import Standard
from lfp.settings import Contrasts, Probes
from lfp.statistics.estimates import UNTRAINED
from lfp.statistics.records.base import fewest_units
from lfp.statistics.records.kendall import kendall_difference_record, kendall_record
from lfp.statistics.records.labels import auroc_record, balanced_accuracy_record
from lfp.statistics.records.means import (
    group_mean_record,
    mean_record,
    paired_record,
    perplexity_record,
    range_record,
    ratio_record,
)
from lfp.statistics.records.shares import mcnemar_record, proportion_record
from lfp.statistics.verdicts import Truth
from lfp.tables.ablation import ablation_reward
from lfp.tables.probes import (
    kendall_tau,
    kendall_tau_within_sign,
    lexicon_reconstruction,
    probe_differences,
    sign_accuracy,
)
from lfp.tables.rows import TableSettings
from tests.test_locus import cell_files

SETTINGS = TableSettings(
    resamples=50,
    quantiles=[0.5],
    matched_draws=19,
    confidence=0.95,
    seed=0,
    paper_models={},
    main={"m/t/seed0": "tied"},
)
DRAWS = {"seed": 0, "resamples": 50, "confidence": 0.95}
ONES, MIXED, NONE = np.ones(6), np.array([1.0, 0, 1, 0, 1, 0]), np.array([])
GROUPS = list("aabbcc")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (kendall_record(ONES, np.arange(6.0), 0, 50), "all predictions are equal"),
        (kendall_record(np.arange(6.0), ONES, 0, 50), "all truths are equal"),
        (kendall_record(np.arange(2.0), np.arange(2.0), 0, 50), "2 words, 3 are needed"),
        (kendall_record(np.full(6, np.nan), np.arange(6.0), 0, 50), UNTRAINED),
        (
            kendall_difference_record(np.arange(6.0), ONES, np.arange(6.0), 0, 50),
            "of the second are equal",
        ),
        (
            auroc_record(ONES, np.arange(6.0), GROUPS, unit="prompt", **DRAWS),
            "all rows have one label",
        ),
        (auroc_record(MIXED, ONES * np.nan, GROUPS, unit="prompt", **DRAWS), UNTRAINED),
        (
            balanced_accuracy_record(ONES, ONES, GROUPS, unit="prompt", **DRAWS),
            "all rows have one label",
        ),
        (proportion_record(0, 0, "word", 0.5), "no words"),
        (mcnemar_record([], [], "pair"), "no pairs"),
        (mean_record(NONE, "prompt"), "no prompts"),
        (paired_record(NONE, NONE, "prompt", 0, 50), "no prompts"),
        (range_record(NONE, "draw", "null"), "no draws"),
        (
            ratio_record(ONES, ONES * 0, GROUPS, unit="context", name="share", **DRAWS),
            "denominator is 0",
        ),
    ],
)
def test_a_number_that_does_not_exist_is_a_reason(record, reason):
    assert math.isnan(record.estimate)
    assert record.ci_low is record.ci_high is record.p is None
    assert record.method.startswith("not estimated: ")
    assert reason in record.method


def test_a_class_that_a_resample_misses_leaves_an_interval():
    # About one resample in two hundred has none of the six rows of label 1.
    labels, scores = np.repeat([1, 0], [6, 9]), np.tile([1.0, -1, -1], 5)
    record = balanced_accuracy_record(labels, scores, range(15), unit="prompt", **DRAWS)
    assert record.ci_low <= record.estimate <= record.ci_high


FEW = np.arange(5.0)


@pytest.mark.parametrize(
    ("record", "few"),
    [
        # One prompt with a preferred and a rejected answer, and one with five of each.
        (auroc_record([1, 0], [2.0, 1.0], ["a", "a"], unit="prompt", **DRAWS), "1 prompt,"),
        (auroc_record([1, 0] * 5, [2.0, 1] * 5, ["a"] * 10, unit="prompt", **DRAWS), "1 prompt,"),
        # Forty words, of which two are flipped.
        (
            auroc_record(np.arange(40) < 2, -np.arange(40.0), range(40), unit="word", **DRAWS),
            "2 words of the rarer label",
        ),
        (
            balanced_accuracy_record(
                np.array([1, 0]), np.array([1.0, -1]), ["a", "b"], unit="prompt", **DRAWS
            ),
            "1 prompt of the rarer label",
        ),
        (kendall_record(FEW, FEW, 0, 50), "5 words"),
        (kendall_difference_record(FEW, -FEW, FEW, 0, 50), "5 words"),
        (group_mean_record(FEW, range(5), unit="feature", name="share", **DRAWS), "5 features"),
        (ratio_record(FEW, FEW, range(5), unit="context", name="share", **DRAWS), "5 contexts"),
        (perplexity_record(np.array([3.0]), np.array([4]), **DRAWS), "1 text,"),
        (range_record(np.ones(1), "draw", "null"), "1 draw,"),
        (mean_record(np.ones(1), "prompt"), "1 prompt"),
        (paired_record(np.ones(1), np.zeros(1), "prompt", 0, 50), "1 prompt"),
        # Two fine-tuning seeds, both of which end at a perfect share.
        (mean_record(np.ones(2), "fine-tuning seed"), "2 fine-tuning seeds of one value"),
        (paired_record(np.ones(5), np.zeros(5), "prompt", 0, 50), "5 prompts of one value"),
    ],
)
def test_a_number_of_few_units_has_no_interval_and_says_how_many_it_needs(record, few):
    assert math.isfinite(record.estimate)
    assert record.ci_low is record.ci_high is record.p is None
    assert few in record.method
    assert "needed" in record.method
    for side in ("above", "at"):
        assert Truth(side, 0.5, margin=0.1).verdict(record, record) == "undecided"


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_the_fewest_units_are_those_whose_range_covers(confidence):
    n = fewest_units(confidence)
    assert 1 - 2.0 ** (1 - n) >= confidence - 1e-9 > 1 - 2.0 ** (2 - n)


@pytest.mark.parametrize("n", [6, 30])
@pytest.mark.parametrize("edge", [1, -1])
def test_a_perfect_number_has_the_exact_bound_of_its_units(n, edge):
    bound = 0.025 ** (1 / n)  # n successes of n, at 95 %
    labels, groups = np.repeat([1, 0], n), np.tile(np.arange(n), 2)
    scores = edge * np.where(labels == 1, 2.0, -1.0)
    area = auroc_record(labels, scores, groups, unit="prompt", **DRAWS)
    shares = balanced_accuracy_record(labels, scores, groups, unit="prompt", **DRAWS)
    for record in (area, shares):
        expected = (bound, 1.0) if edge == 1 else (0.0, 1 - bound)
        assert (record.ci_low, record.ci_high) == pytest.approx(expected)
        assert "exact binomial bound" in record.method
    tau = kendall_record(edge * np.arange(float(n)), np.arange(float(n)), 0, 50)
    expected = (2 * bound - 1, 1.0) if edge == 1 else (-1.0, 1 - 2 * bound)
    assert (tau.ci_low, tau.ci_high) == pytest.approx(expected)


@pytest.mark.parametrize("n", [6, 30])
@pytest.mark.parametrize("edge", [1, -1])
def test_a_perfect_difference_has_the_exact_bound_of_its_units(n, edge):
    bound = 0.025 ** (1 / n)
    labels, groups = np.repeat([1, 0], n), np.tile(np.arange(n), 2)
    scores = edge * np.where(labels == 1, 2.0, -1.0)
    area = auroc_record(labels, scores, groups, unit="prompt", against=-scores, **DRAWS)
    assert sorted(np.abs([area.ci_low, area.ci_high])) == pytest.approx([2 * bound - 1, 1])
    truth = np.arange(float(n))
    tau = kendall_difference_record(edge * truth, -edge * truth, truth, 0, 50)
    assert sorted(np.abs([tau.ci_low, tau.ci_high])) == pytest.approx([4 * bound - 2, 2])


def test_an_area_of_equal_scores_has_no_interval():
    record = auroc_record([1, 0] * 8, np.ones(16), range(16), unit="prompt", **DRAWS)
    assert record.estimate == 0.5
    assert record.ci_low is record.ci_high is record.p is None
    assert "all scores are equal" in record.method


def test_ratios_of_nothing_and_means_of_nothing_are_reasons():
    nothing = group_mean_record(NONE, [], unit="feature", name="share", **DRAWS)
    assert "no features" in nothing.method
    assert "no held-out token" in perplexity_record(NONE, NONE, **DRAWS).method


# ------------------------------------------------------------------------------------------- probes


def words(n: int, contexts: int = 4, distinct: int | None = None) -> pd.DataFrame:
    """Rows of `n` words, half of them positive, in contexts of their own, or in `distinct` ones."""
    return pd.DataFrame([
        {"triple": i, "element": "positive", "word": f"w{w}",
         "context": f"c{i % (distinct or n * contexts)}",
        "unit": f"w{w}",
         "tokens": 1 + w % 3 // 2, "truth": 1.0 + w if w % 2 else -1.0 - w}
        for i, w in enumerate(w for w in range(n) for _ in range(contexts))
    ])  # fmt: skip


def test_too_few_words_are_told_before_training():
    rows = words(3)
    data = ProbeData(np.zeros((len(rows), 2)), rows["truth"].to_numpy(), rows)
    assert (
        why_untrainable(data, "ridge", "by_word", Probes(folds=5, inner_folds=2))
        == "3 distinct values of word for 5 folds"
    )
    assert why_untrainable(data, "ridge", "by_word", Probes(folds=3, inner_folds=2)) == ""
    assert "fewer groups than 4 inner folds" in why_untrainable(
        data, "ridge", "by_word", Probes(folds=3, inner_folds=4)
    )
    empty = dataclasses.replace(
        data, rows=rows.head(0), target=np.zeros(0), features=np.zeros((0, 2))
    )
    assert "0 distinct values" in why_untrainable(
        empty, "ridge", "random", Probes(folds=3, inner_folds=2)
    )


def test_contexts_that_all_words_share_are_told_before_training():
    """No row is left to train on where every word stands in every context."""
    rows = words(9, distinct=2)
    data = ProbeData(np.zeros((len(rows), 2)), rows["truth"].to_numpy(), rows)
    settings = Probes(folds=3, inner_folds=2)
    assert "a fold trains on fewer groups" in why_untrainable(data, "ridge", "by_word", settings)
    assert why_untrainable(data, "ridge", "words_only", settings) == ""


def test_one_class_is_told_before_training():
    rows = words(9, contexts=1)
    data = ProbeData(np.zeros((len(rows), 2)), np.ones(len(rows)), rows)
    assert (
        why_untrainable(data, "logistic", "by_prompt", Probes(folds=3, inner_folds=2))
        == "a fold trains on one class only"
    )
    assert why_untrainable(data, "ridge", "by_prompt", Probes(folds=3, inner_folds=2)) == ""


def test_a_headline_makes_no_number_out_of_missing_predictions():
    parts = parts_of(words(8), words(8)["truth"].to_numpy())
    assert probes.headline(subject_report.NO_PARTS, "ridge") == UNTRAINED
    assert probes.headline(parts[parts["draw"] > 0], "ridge") == UNTRAINED
    assert probes.headline(parts, "ridge") == "latents features, tau 1.000 held out"


def parts_of(rows: pd.DataFrame, prediction: np.ndarray) -> pd.DataFrame:
    """Statistics of a probe's two test parts, of the true labels and of one permutation."""
    of_part = [rows["unit"].isin([f"w{i}" for i in some]) for some in (range(4), range(4, 8))]
    truth = np.stack([rows["truth"], rows["truth"].to_numpy()[::-1]], 1)
    frames = [
        pd.DataFrame(
            probes.word_statistics(rows[part], truth[part], np.stack([prediction] * 2, 1)[part])
        ).assign(fold=fold, draw=[0, 1])
        for fold, part in enumerate(of_part)
    ]
    about = {"partition": 0, "ratio": 1.0, "features": "latents", "split": "by_word"}
    return pd.concat(frames, ignore_index=True).assign(**about, probe="ridge")


def predictions_of(folder, prediction) -> list[str]:
    """Files of a policy's and a base's probes with the given predictions, as tables read them."""
    rows, paths = words(8), []
    for subject in ("policy", "base"):
        own = folder / "m" / "t" / "seed0" / "probes" / "tied" / subject
        values = prediction if subject == "policy" else np.arange(len(rows), dtype=float)
        frame = rows.assign(
            target=rows["truth"],
            prediction=values,
            fold=0,
            features="latents",
            split="by_word",
            probe="ridge",
        )
        artefacts.write_table(own / "predictions.parquet", frame, {})
        trained = np.isfinite(values).all()
        parts = parts_of(rows, values) if trained else subject_report.NO_PARTS
        artefacts.write_table(own / "parts.parquet", parts, {})
        artefacts.write_json(own / "metrics.json", {"baseline": [], "probes": []}, {})
        names = ("predictions.parquet", "parts.parquet", "metrics.json")
        paths += [str(own / name) for name in names]
    return paths


TABLES = (
    kendall_tau, kendall_tau_within_sign, sign_accuracy,
    probe_differences, lexicon_reconstruction,
)  # fmt: skip


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_tables_of_missing_or_constant_predictions_say_so(table, value, tmp_path):
    """A dead autoencoder gives every word the same prediction, and too few words give none."""
    inputs = predictions_of(tmp_path / "results", np.full(32, value))
    frame = table(inputs, SETTINGS).frame()
    assert len(frame)
    undefined = frame["estimate"].isna()
    assert frame.loc[undefined, "method"].str.startswith("not estimated: ").all()
    assert frame.loc[undefined, ["ci_low", "ci_high", "p", "p_adjusted"]].isna().all(axis=None)
    if table is not lexicon_reconstruction or np.isnan(value):
        wanted = {sign_accuracy: np.isnan(value)}.get(table, True)
        assert undefined.any() == wanted


def test_an_autoencoder_of_dead_features_is_measured_and_read():
    sae = Standard(4, 8)
    with torch.no_grad():
        sae.b_enc.fill_(-1e6)
    reading = metrics.Reconstruction(sae)
    reading.add(torch.randn(50, 4))
    found = reading.metrics()
    assert found["dead_fraction"] == 1
    assert found["l0"] == 0
    assert 0.9 < found["fvu"] < 1.2
    code = sae.encode(torch.randn(36, 4)).detach().numpy()
    rows = words(9)
    data = ProbeData(code, rows["truth"].to_numpy(), rows)
    settings = Probes(alphas=(1.0, 10.0), folds=3, inner_folds=2, partitions=1)
    predicted = fitting.out_of_fold(data, "ridge", "by_word", settings, 0).frame(data)
    means = probes.unit_means(predicted)
    within = predicted.groupby("fold")["prediction"].nunique()
    assert (within == 1).all()
    assert np.isfinite(means["prediction"]).all()


def test_constant_activations_have_no_fvu():
    reading = metrics.Reconstruction(Standard(4, 8))
    reading.add(torch.ones(50, 4))
    assert reading.metrics()["fvu"] is None


# ----------------------------------------------------------------------------------------- ablation


def ablated(tmp_path, arms):
    """The table of the reward without some features, for `arms` by their numbers of features.

    Arms that draw are matched to `explained`.
    """
    prompts = 6
    folder = tmp_path / "results" / "m" / "t" / "seed0" / "ablation" / "tied"
    completions, neutral = [], []
    rng = np.random.default_rng(0)
    for arm, features in arms.items():
        own = {
            "arm": arm,
            "action": "zero",
            "matched_to": "explained" if ARMS[arm].draw else "",
            "draw": 0,
            "matched": np.nan,
            "features": features,
        }
        completions.append(pd.DataFrame({
            "prompt": range(prompts), "reward": rng.normal(size=prompts), "kl": 0.1, "tokens": 5,
            "distinct_2": 1.0,
            **own,
        }))  # fmt: skip
        neutral.append(pd.DataFrame({"text": range(4), "loss": rng.normal(size=4), **own}))
    artefacts.write_table(folder / "policy.parquet", pd.concat(completions), {})
    artefacts.write_table(folder / "policy.neutral.parquet", pd.concat(neutral), {})
    inputs = [str(folder / "policy.parquet"), str(folder / "policy.neutral.parquet")]
    inputs += cell_files(folder.parent.parent, {0: 0.1, 1: 0.1}, mlp=0.2)
    return ablation_reward(inputs, SETTINGS).frame()


def test_every_arm_is_held_against_the_arms_that_draw(tmp_path, monkeypatch):
    monkeypatch.setitem(ARMS, "any", Arm(draw=matched_random))
    frame = ablated(tmp_path, {"none": 0, "explained": 2, "random": 2, "any": 2})
    # Every row says what share of the effect is within reach, and that it is little.
    assert frame["reach"].between(0, 1).all() and (frame["reach_all_layers"] < 0.3).all()
    assert frame["health"].str.startswith("the MLPs carry 0.20 of the effect").all()
    compared = frame.loc[frame["arm"].str.contains(" - "), ["arm", "quantity", "p"]]
    assert set(compared["arm"]) == {"explained - random", "explained - any"}
    assert set(compared["quantity"]) == {"difference", "kl", "reward_per_nat"}
    assert compared["p"].notna().all()


def test_an_arm_with_nothing_to_ablate_says_so(tmp_path):
    arms = {"none": 0, "reconstruction": 0, "explained": 0, "random": 0, "top_probe_weight": 3}
    frame = ablated(tmp_path, arms)
    for arm in ("explained", "random"):
        [row] = frame[frame["arm"] == arm].to_dict("records")
        assert math.isnan(row["estimate"])
        assert row["method"] == "not estimated: nothing to ablate: the arm has no feature"
    assert (
        frame.loc[frame["arm"].isin(["none", "reconstruction", "top_probe_weight"]), "estimate"]
        .notna()
        .all()
    )
    compared = frame[frame["arm"].str.endswith("- random")]
    assert len(compared)
    assert compared["method"].str.contains("nothing to ablate").all()


# ------------------------------------------------------------------------------------------ corpora


@pytest.mark.parametrize("texts", [[], ["zzz qqq xxx."], ["The film was good."]])
def test_texts_without_what_a_contrast_needs_give_no_triple(texts, caplog):
    settings = Contrasts(contexts_per_word=2, words_per_class=5, seed=0)
    frame = contrasts.word_triples(texts, {"good": 2.0, "bad": -2.0}, settings)
    assert frame.empty
    assert {"positive", "neutral", "negative", "prompt", "group", "triple"} <= set(frame.columns)
    assert "nothing to contrast" in caplog.text


def test_no_triple_gives_features_of_no_rows(neox, tokenizer, reviews):
    saes = {n: Standard(16, 16) for n in (0, 1)}
    found, settings = [], Contrasts(contexts_per_word=1, words_per_class=2, seed=0)
    for texts in (reviews, []):
        triples = contrasts.word_triples(texts, vader_lexicon(), settings)
        found.append(reading.element_features(neox, tokenizer, saes, triples, reading.KINDS, 48, 6))
    some, none = ({name: (a.shape[1:], a.dtype) for name, a in arrays.items()} for arrays in found)
    assert some == none
    assert {len(array) for array in found[1].values()} == {0}
    assert min(len(array) for array in found[0].values()) > 0


def test_a_figure_without_anything_to_draw_says_so(tmp_path):
    path = tmp_path / "results" / "m" / "t" / "seed0" / "features" / "tied" / "policy.safetensors"
    for rows in (0, 5):
        artefacts.write_tensors(
            path, {f"latents.{e}": np.zeros((rows, 4)) for e in ("positive", "negative")}, {}
        )
        figure = probe_pca([str(path)])
        assert "fewer than two features are active" in figure.axes[0].get_title()

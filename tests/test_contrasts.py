"""Contrast triples differ in one element and in nothing else."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from benchmarks import splits as benchmark
from lfp.feedback.lexica import vader_lexicon
from lfp.files import artefacts
from lfp.probing import (
    comparisons,
    contrasts,
    features,
    fitting,
    probes,
    splits,
    subject_report,
)
from lfp.probing import data as probe_data
from lfp.settings import Contrasts, Probes
from lfp.statistics.records.means import range_record
from lfp.texts.words import count_words, word_form


@pytest.fixture(scope="module")
def triples(reviews):
    settings = Contrasts(contexts_per_word=2, words_per_class=4, seed=0)
    return contrasts.word_triples(reviews, vader_lexicon(), settings)


def test_words_are_of_one_form_and_of_the_right_sign(triples):
    lexicon = vader_lexicon()
    for row in triples.itertuples():
        assert {word_form(row.positive), word_form(row.neutral), word_form(row.negative)} == {
            row.form
        }
        assert lexicon[row.positive] > 0 > lexicon[row.negative]
        assert row.neutral not in lexicon


def test_all_else_is_the_source_text(triples, reviews):
    for row in triples.itertuples():
        assert row.prompt + row.source_word + row.suffix == reviews[row.source]


@pytest.mark.parametrize("contexts", [1, 2, 3])
def test_every_word_stands_in_as_many_positive_as_negative_contexts(reviews, contexts):
    """Word by word, and in classes of even and odd sizes that differ."""
    lexicon = {
        "wonderful": 2.0, "hopeful": 1.5, "marvelous": 2.5, "attractive": 1.0,
        "awful": -2.0, "horrible": -2.5, "painful": -1.0,
        "happily": 2.0, "badly": -1.5, "sadly": -1.0,
    }  # fmt: skip
    texts = [f"No. {i} was {word}" for i, word in enumerate([*lexicon] * 2)]
    settings = Contrasts(contexts_per_word=contexts, words_per_class=9, seed=0)
    for triples in (
        contrasts.word_triples(texts, lexicon, settings),
        contrasts.word_triples(reviews, vader_lexicon(), settings),
    ):
        for element in ("positive", "negative"):
            of_word = triples.groupby(element)["source_polarity"].agg(["sum", "size"])
            assert (of_word["sum"] == 0).all()
            assert of_word["size"].min() >= contexts


def test_reviews_that_begin_alike_are_one_context_and_none_is_worn_out():
    lexicon = {"wonderful": 2.0, "hopeful": 1.0, "awful": -2.0}
    texts = ["It was awful"] * 8 + [f"{i} was {w}" for i, w in enumerate([*lexicon] * 2)]
    settings = Contrasts(contexts_per_word=6, words_per_class=9, seed=0)
    triples = contrasts.word_triples(texts, lexicon, settings)
    negative = triples[triples["source_polarity"] < 0]
    assert len(triples) == 12
    assert negative["group"].value_counts().tolist() == [2, 2, 2]


def test_answers_are_swapped_for_a_task_that_prefers_the_negative():
    frame = pd.DataFrame({"positive": ["p"], "neutral": ["0"], "negative": ["n"]})
    straight = contrasts.answer_triples(frame, ["q"], swapped=False, n=5)
    swapped = contrasts.answer_triples(frame, ["q"], swapped=True, n=5)
    assert (straight.loc[0, "positive"], swapped.loc[0, "positive"]) == ("p", "n")
    with pytest.raises(ValueError, match="no column 'neutral'"):
        contrasts.answer_triples(frame.drop(columns="neutral"), ["q"], swapped=False, n=5)


def test_features_do_not_depend_on_the_batch_and_differ_only_by_the_element(
    model, tokenizer, triples
):
    from lfp.sae.architectures.standard import Standard

    saes = {0: Standard(16, 16), 2: Standard(16, 16)}
    some = triples.head(12).assign(neutral=triples["positive"].head(12))
    together = features.element_features(model, tokenizer, saes, some, ["latents", "raw"], 64, 12)
    alone = features.element_features(model, tokenizer, saes, some, ["latents", "raw"], 64, 1)
    for name, values in together.items():
        np.testing.assert_allclose(values, alone[name], atol=1e-5)
    np.testing.assert_array_equal(together["raw.positive"], together["raw.neutral"])
    assert together["latents.positive"].shape == (12, 32)
    assert together["length.positive"][0].tolist()[1] == len(some["positive"].iloc[0])
    assert np.abs(together["raw.positive"] - together["raw.negative"]).max() > 1e-4


def test_log_probabilities_are_those_of_the_element_after_its_prompt(model, tokenizer, triples):
    import torch

    some = triples.head(4)
    arrays = features.element_features(model, tokenizer, {}, some, [], 200, 3)
    for row, found in zip(some.itertuples(), arrays["log_probability.negative"][:, 0], strict=True):
        ids = tokenizer(row.prompt + row.negative)["input_ids"]
        one = some[some["triple"] == row.triple]
        [[sequence]], [[own]] = features.encode_elements(tokenizer, one, ["negative"], 200)
        assert sequence == ids
        with torch.no_grad():
            log_p = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
        assert found == pytest.approx(sum(log_p[t - 1, ids[t]].item() for t in own), abs=1e-4)


def test_an_elements_tokens_are_its_own_even_when_the_text_is_cut(tokenizer, triples):
    [sequences], [targets] = features.encode_elements(
        tokenizer, triples.head(5), ["positive"], max_tokens=12
    )
    for ids, own, word in zip(sequences, targets, triples["positive"], strict=False):
        assert len(ids) <= 12
        assert tokenizer.decode([ids[i] for i in own]).strip() == word


def test_the_features_of_a_word_are_the_mean_over_its_pieces():
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    means = features._segment_means(values, torch.tensor([0, 0, 1]), 2)
    np.testing.assert_array_equal(means, [[2, 3], [5, 6]])


def test_deltas_are_signed_distances_to_the_neutral_element():
    element, neutral = np.array([[3.0, 0.0, 0.0, 4.0]]), np.zeros((1, 4))
    assert probe_data.signed_distances(element, neutral, -1, 2) == pytest.approx(-5)
    assert probe_data.signed_distances(element, neutral, 1, 2, "per_layer_sum") == pytest.approx(7)
    assert probe_data.signed_distances(neutral, neutral, 1, 2) == 0
    with pytest.raises(ValueError, match="delta: expected"):
        probe_data.signed_distances(element, neutral, 1, 2, "sum")


def planted_words(
    signal: float, n_words: int = 60, contexts: int = 6, seed: int = 0
) -> probe_data.ProbeData:
    """Rows whose features hold the word's valence times `signal`, the word's identity,
    and noise.
    """
    rng = np.random.default_rng(seed)
    valence = rng.uniform(0.5, 3, n_words) * rng.choice([-1, 1], n_words)
    words = np.repeat(np.arange(n_words), contexts)
    identity = rng.normal(size=(n_words, 40))
    x = identity[words] + 0.1 * rng.normal(size=(len(words), 40))
    x[:, 0] = signal * np.sign(valence[words]) + 0.3 * rng.normal(size=len(words))
    names = [f"w{w}" for w in words]
    rows = pd.DataFrame({
        "triple": np.arange(len(words)), "element": "e", "word": names, "unit": names,
        "context": [f"c{i}" for i in rng.integers(0, 120, len(words))], "truth": valence[words],
        "family": [f"f{w // 2}" for w in words], "tokens": 1 + words % 3 // 2,
    })  # fmt: skip
    return probe_data.ProbeData(
        x, np.sign(valence[words]) * (1 + 0.1 * rng.random(len(words))), rows
    )


def sign_accuracy(data: probe_data.ProbeData, split: str) -> float:
    settings = Probes(alphas=(0.1, 10), folds=5, inner_folds=2, partitions=2)
    rows = fitting.out_of_fold(data, "ridge", split, settings, seed=0).frame(data)
    means = probes.unit_means(rows)
    return float((np.sign(means["prediction"]) == np.sign(means["truth"])).mean())


def test_a_planted_signal_is_found_and_word_identity_is_not_mistaken_for_it():
    """The published split cannot tell the two apart; holding words out can (paper_vs_code W4)."""
    assert sign_accuracy(planted_words(2.0), "by_word") > 0.9
    assert sign_accuracy(planted_words(0.0), "random") > 0.8
    assert sign_accuracy(planted_words(0.0), "by_word") < 0.7


def test_shuffled_targets_leave_nothing_to_find():
    data = planted_words(2.0)
    truth = data.rows.groupby("unit")["truth"].first()
    shuffled = dict(
        zip(truth.index, np.random.default_rng(1).permutation(truth.to_numpy()), strict=True)
    )
    valence = data.rows["unit"].map(shuffled).to_numpy(dtype=float)
    null = probe_data.ProbeData(data.features, np.sign(valence), data.rows.assign(truth=valence))
    assert abs(sign_accuracy(null, "by_word") - 0.5) < 0.25


@pytest.mark.parametrize(("kind", "draws"), [("ridge", 5), ("logistic", 1)])
def test_features_of_the_context_alone_read_nothing_under_the_main_split(kind, draws):
    """Held out alone, a word or an answer has its partner of the other sign in training.

    Both answers to a prompt are scored alike there, whatever the draw.
    """
    main = probes.MAIN_SPLIT[kind]
    read = pd.DataFrame([benchmark.reading(kind, "context", main, seed) for seed in range(draws)])
    assert abs(read["tau"].mean()) < 0.1
    assert 0.45 < read["sign"].mean() < 0.55
    assert read["kept"].mean() == pytest.approx(0.64, abs=0.02)
    assert benchmark.reading(kind, "context", "words_only", seed=0)["tau"] < -0.3


def test_an_answer_that_stands_elsewhere_is_not_known_by_heart_under_the_main_split():
    assert benchmark.reading("logistic", "word", "prompts_only", 0)["tau"] > 0.2
    assert abs(benchmark.reading("logistic", "word", "by_prompt", 0)["tau"]) < 0.1


def test_words_of_one_stem_are_one_family():
    triples = pd.DataFrame({
        "triple": [0, 1], "group": ["a", "b"], "positive": ["hopeful", "Hopefully"],
        "negative": ["awful", "awfully"],
    })  # fmt: skip
    rows = probe_data.word_rows(triples, dict.fromkeys(["hopeful", "hopefully"], 1.0))
    assert rows["family"].nunique() == 2


def test_words_in_pieces_are_reported_apart():
    """A probe that knows the words of one token, and takes each word in pieces for its opposite."""
    rows = planted_words(1.0).rows
    sign = np.where(rows["tokens"] > 1, -1, 1)
    found = probes.probe_statistics(rows.assign(prediction=sign * rows["truth"]), "ridge")
    assert found["tau_one_token"] == found["sign_one_token"] == 1
    assert found["tau_pieces"] == -1
    assert found["sign_pieces"] == found["sign_negative_pieces"] == 0
    assert 0.5 < found["sign"] < 1
    whole = probes.probe_statistics(rows.assign(prediction=1.0, tokens=1), "ridge")
    assert not [name for name in whole if name.endswith("pieces")]


@pytest.mark.parametrize("split", splits.SPLITS)
def test_a_split_tests_every_row_once_and_holds_out_what_it_names(split):
    rows = planted_words(1.0, n_words=100, contexts=2).rows
    folds = splits.fold_indices(rows, split, 5, seed=0)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(rows)))
    held_out = {
        "random": [], "words_only": ["word"], "prompts_only": ["context"],
        "by_word": ["word", "context"], "by_family": ["family", "word", "context"],
        "by_prompt": ["word", "context"],
    }  # fmt: skip
    for train, test in folds:
        # The folds inside the training part, which choose the regularisation, keep the same rule.
        inside = splits.fold_indices(rows.iloc[train], split, 2, seed=0)
        for a, b in [(train, test), *((train[i], train[j]) for i, j in inside)]:
            assert len(a) and not set(a) & set(b)
            for name in held_out[split]:
                assert not set(rows[name].iloc[a]) & set(rows[name].iloc[b])


def test_the_ratio_of_a_part_is_one_of_words_and_not_of_rows():
    data, settings = planted_words(1.0), Probes(alphas=(1.0,), folds=5, partitions=1)
    held_out = fitting.out_of_fold(data, "ridge", "by_word", settings, 0)
    rows = [len(fold.test) / len(fold.train) for fold in held_out.folds]
    ratios = comparisons.parts_frame(data, held_out, "ridge", "by_word")["ratio"]
    np.testing.assert_allclose(ratios, 12 / 48, atol=0.01)
    assert min(rows) > 0.3  # contexts that are held out take rows of the other words along


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split: expected"):
        splits.fold_indices(planted_words(1.0).rows, "by_moon", 5, seed=0)


def test_every_partition_parts_the_rows_anew():
    """Three partitions of three folds have nine different test parts."""
    folds = fitting.partitioned(planted_words(1.0).rows, "by_word", Probes(folds=3), 0, 3)
    assert len({fold.test.tobytes() for fold in folds}) == 9


def test_nothing_is_fitted_on_the_test_part():
    """Wild values in the test rows of a fold leave the other rows' scaler, components and strength
    as they were.
    """
    data = planted_words(1.0)
    _, test = splits.fold_indices(data.rows, "by_word", 5, seed=0)[0]
    wild = data.features.copy()
    wild[test] = 1e6
    for code in (None, np.abs(data.features)):
        one = probe_data.ProbeData(data.features, data.target, data.rows, code)
        two = probe_data.ProbeData(wild, data.target, data.rows, code)
        train = np.setdiff1d(np.arange(len(data.rows)), test)
        a, b = (fitting.inputs(d, train)[train] for d in (one, two))
        np.testing.assert_array_equal(a, b)
        # What is predicted for the training rows shows scaler, weights and strength.
        (fold, *_) = fitting.partitioned(data.rows, "by_word", Probes(), seed=0, partitions=1)
        known = dataclasses.replace(fold, test=fold.train)
        fitted = [
            fitting.fold_scores(d, known, d.target[:, None], "ridge", "latents", Probes())
            for d in (one, two)
        ]
        for ours, theirs in zip(*fitted, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_permuted_labels_are_learned_by_heart_under_the_published_split_alone():
    """The control task of Hewitt and Liang: a probe of nothing but word identity has no
    selectivity.
    """
    data = planted_words(0.0)
    found = {}
    for split in splits.SPLITS:
        settings = Probes(alphas=(1.0,), label_shuffles=20, shuffled_partitions=1)
        null = comparisons.refitted_frame(data, "ridge", split, "latents", settings, 0)
        assert sorted(null["draw"].unique()) == list(range(1, 21))
        found[split] = null["sign"].mean()
    assert found["random"] > 0.8
    assert found["prompts_only"] > 0.8
    for split in ("words_only", "by_word", "by_family", "by_prompt"):
        assert abs(found[split] - 0.5) < 0.1


def test_probes_of_permuted_labels_learn_the_distances_under_drawn_signs(monkeypatch):
    """Targets of permuted labels are as far from 0 as the true ones are."""
    data, seen, fitted = planted_words(1.0), [], comparisons.fold_scores
    settings = Probes(alphas=(1.0,), label_shuffles=3, shuffled_partitions=1)

    def watched(data, fold, targets, kind, features, settings):
        seen.append(targets)
        return fitted(data, fold, targets, kind, features, settings)

    monkeypatch.setattr(comparisons, "fold_scores", watched)
    comparisons.refitted_frame(data, "ridge", "by_word", "latents", settings, 0)
    distances = np.abs(data.target)[:, None]
    np.testing.assert_allclose(np.abs(seen[0]), np.tile(distances, 3), rtol=1e-6)


def test_permuted_truth_keeps_words_together_and_the_marginal():
    rows = planted_words(1.0).rows
    drawn = comparisons.permuted_truth(rows, 7, np.random.default_rng(0))
    assert drawn.shape == (len(rows), 7)
    for column in drawn.T:
        by_word = pd.Series(column).groupby(rows["word"]).agg(["nunique", "first"])
        assert (by_word["nunique"] == 1).all()
        np.testing.assert_allclose(
            np.sort(by_word["first"]), np.sort(rows.groupby("word")["truth"].first())
        )


def test_a_preference_probe_tells_signal_from_permuted_labels():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({
        "triple": np.tile(np.arange(60), 2), "element": np.repeat(["positive", "negative"], 60),
        "word": [f"a{i}" for i in range(120)], "context": np.tile([f"p{i}" for i in range(60)], 2),
        "unit": np.tile([f"p{i}" for i in range(60)], 2), "truth": np.repeat([1.0, 0.0], 60),
    })  # fmt: skip
    x = rng.normal(size=(120, 20))
    x[:, 0] += 3 * rows["truth"]
    data = probe_data.ProbeData(x, rows["truth"].to_numpy(dtype=int), rows)
    settings = Probes(Cs=(0.1, 1.0), label_shuffles=20, partitions=2, shuffled_partitions=1)
    held_out = fitting.out_of_fold(data, "logistic", "by_prompt", settings, 0)
    predictions = held_out.frame(data)
    assert probes.probe_statistics(predictions, "logistic")["auroc"] > 0.9
    true = comparisons.parts_frame(data, held_out, "logistic", "by_prompt")
    null = comparisons.refitted_frame(data, "logistic", "by_prompt", "latents", settings, 0)
    assert len(true) == 10  # two partitions of five folds
    assert set(true["ratio"]) == {0.25}  # 12 prompts tested, 48 trained on
    assert true["auroc"].mean() > 0.9 > 0.6 > null["auroc"].mean() > 0.4
    assert true["pair_accuracy"].mean() > 0.9


def test_a_probe_that_scores_both_answers_alike_is_at_chance_in_every_statistic():
    rows = pd.DataFrame({"triple": [0, 0, 1, 1], "element": ["positive", "negative"] * 2})
    truth = np.array([[1.0], [0.0], [1.0], [0.0]])
    for score in (0.3, 0.0):
        alike = probes.preference_statistics(rows, truth, np.full((4, 1), score))
        assert {name: value.item() for name, value in alike.items()} == {
            "balanced_accuracy": 0.5, "auroc": 0.5, "pair_accuracy": 0.5,
        }  # fmt: skip
    half = probes.preference_statistics(rows, truth, np.array([[0.4], [0.1], [0.3], [0.3]]))
    assert half["pair_accuracy"].item() == 0.75


@pytest.mark.parametrize("features", ["latents", "tfidf"])
@pytest.mark.parametrize("kind", ["ridge", "logistic"])
def test_a_probe_is_that_of_a_grid_search_by_scikit_learn(kind, features, triples):
    """Strengths and held-out predictions, with fewer features than rows and with more."""
    rows = probe_data.word_rows(triples.head(60), vader_lexicon()).assign(tokens=1)
    x = np.random.default_rng(0).normal(size=(len(rows), 12)) + rows["truth"].to_numpy()[:, None]
    data = probe_data.ProbeData(
        x if features == "latents" else probe_data.texts(triples.head(60)),
        rows["truth"].to_numpy() if kind == "ridge" else (rows["truth"].to_numpy() > 0) * 1.0, rows,
    )  # fmt: skip
    settings = Probes(alphas=(0.1, 100), Cs=(0.001, 1.0), folds=3, partitions=1)
    held_out = fitting.out_of_fold(data, kind, "words_only", settings, 0, features)
    reader = (
        fitting.CommonScale() if features == "latents" else TfidfVectorizer(analyzer=count_words)
    )
    model, grid = (
        (Ridge(), {"probe__alpha": [0.1, 100]})
        if kind == "ridge"
        else (LogisticRegression(tol=1e-8, max_iter=1000), {"probe__C": [0.001, 1.0]})
    )
    for fold, scores, strength in zip(
        held_out.folds, held_out.scores, held_out.strengths, strict=True
    ):
        inside = splits.fold_indices(rows.iloc[fold.train], "words_only", 2, 0)
        search = GridSearchCV(Pipeline([("read", reader), ("probe", model)]), grid, cv=inside)
        search.fit(data.features[fold.train], data.target[fold.train])
        assert strength == next(iter(search.best_params_.values()))
        theirs = search.predict if kind == "ridge" else search.decision_function
        np.testing.assert_allclose(scores, theirs(data.features[fold.test]), atol=0.02)


def test_many_targets_in_single_precision_are_fitted_as_each_alone():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(80, 12)), rng.integers(0, 2, (80, 3)).astype(float)
    for fit in (fitting.ridge_weights, fitting.logistic_weights):
        (together,) = fit(x, labels.astype(np.float32), [0.1])
        for draw in range(3):
            (alone,) = fit(x, labels[:, [draw]], [0.1])
            np.testing.assert_allclose(together[:, [draw]], alone, atol=0.01)


def test_a_ridge_of_more_features_than_rows_predicts_as_its_weights_do():
    rng = np.random.default_rng(0)
    x, held_out = rng.normal(size=(30, 90)) + 5, rng.normal(size=(7, 90)) + 5
    targets, strengths = rng.normal(size=(30, 4)), [0.1, 10.0]
    ours = fitting._kernel_ridge_scores(x, held_out, targets, strengths)
    for scores, weights in zip(ours, fitting.ridge_weights(x, targets, strengths), strict=True):
        np.testing.assert_allclose(scores, held_out @ weights[:-1] + weights[-1], atol=1e-9)


def test_text_controls_read_the_text_alone(reviews):
    settings = Contrasts(contexts_per_word=2, words_per_class=12, seed=0)
    triples = contrasts.word_triples(reviews, vader_lexicon(), settings)
    rows = probe_data.word_rows(triples, vader_lexicon()).assign(tokens=1)
    target = np.sign(rows["truth"].to_numpy())
    texts = probe_data.texts(triples)
    assert texts[0] == triples["prompt"].iloc[0] + triples["positive"].iloc[0]
    for name in ("bag_of_words", "tfidf"):
        data = probe_data.ProbeData(texts, target, rows)
        settings = Probes(alphas=(1.0,), folds=3, inner_folds=2, partitions=1)
        accuracy = []
        for split in ("random", "by_word"):
            held_out = fitting.out_of_fold(data, "ridge", split, settings, 0, name)
            predictions = held_out.frame(data)
            accuracy.append(probes.probe_statistics(predictions, "ridge")["sign"])
        assert accuracy[0] > accuracy[1]


def test_words_that_no_training_row_has_weigh_nothing_in_tfidf():
    """A row of which one word is new has the weights that scikit-learn gives its other words."""
    texts = ["good film", "bad film", "good film unseen"]
    data = probe_data.ProbeData(np.array(texts), np.zeros(3), pd.DataFrame(index=range(3)))
    counts = fitting.counted(data, "tfidf").features
    ours = fitting.SeenTfidf().fit(counts[:2]).transform(counts[2:]).toarray()[0]
    theirs = TfidfVectorizer(analyzer=count_words).fit(texts[:2]).transform(texts[2:]).toarray()[0]
    np.testing.assert_allclose(np.sort(ours)[-3:], np.sort(theirs))


def test_what_a_probe_adds_to_covariates_is_what_they_do_not_say():
    rng = np.random.default_rng(0)
    covariates, own = rng.normal(size=(200, 5)), rng.normal(size=200)
    truth, train, test = covariates[:, 0] + own, np.arange(150), np.arange(150, 200)

    def r2(prediction: np.ndarray) -> tuple[float, float]:
        both = comparisons.nested_predictions(covariates, prediction, truth, train, test)
        return tuple(r2_score(truth[test], p) for p in both)

    alone, full = r2(own + 0.1 * rng.normal(size=200))
    assert 0.3 < alone < 0.7
    assert full > 0.9
    alone, repeated = r2(covariates[:, 0] + 0.1 * rng.normal(size=200))
    assert repeated < alone + 0.05


def test_a_probe_beside_covariates_is_one_regression_on_both():
    """Held-out predictions are those of least squares on the covariates and the probe together."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    probe = x @ [1.0, 2.0, 3.0] + rng.normal(size=400)
    truth = x @ [1.0, -1.0, 0.0] + 0.5 * probe + 0.1 * rng.normal(size=400)
    train, test = np.arange(200), np.arange(200, 400)
    _, full = comparisons.nested_predictions(x, probe, truth, train, test)
    both = np.column_stack([np.ones(400), x, probe])
    expected = both[test] @ np.linalg.lstsq(both[train], truth[train], rcond=None)[0]
    np.testing.assert_allclose(full, expected, atol=0.05)


def _answers(distinct: int, signal: float) -> tuple[probe_data.ProbeData, np.ndarray]:
    """Two answers to each of 120 prompts, of so many `distinct` ones, and embeddings [row] of them.

    Embeddings and labels are random, and a feature has an answer's label by the `signal`.
    """
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(distinct, 40)), np.arange(distinct) % 2
    answer = np.concatenate([rng.permutation(distinct) for _ in range(240 // distinct)])
    prompts = [f"prompt-{i % 120}" for i in range(240)]
    rows = pd.DataFrame({
        "unit": prompts, "context": prompts, "word": [f"answer {a}" for a in answer],
        "truth": labels[answer].astype(float),
    })  # fmt: skip
    features = signal * labels[answer, None] + rng.normal(size=(240, 3))
    return probe_data.ProbeData(features, labels[answer], rows), embeddings[answer]


def _nested(distinct: int, signal: float) -> pd.DataFrame:
    data, embeddings = _answers(distinct, signal)
    settings = Probes(folds=5, partitions=4)
    held_out = fitting.out_of_fold(data, "logistic", "by_prompt", settings, 0)
    return comparisons.nested_frame(data, held_out, np.zeros(240), embeddings, "logistic")


def test_covariates_of_an_answer_that_other_prompts_have_as_well_say_nothing_of_its_label():
    """Sixty answers, each behind four of 120 prompts."""
    data, embeddings = _answers(60, 0.0)
    assert _nested(60, 0.0)["r2_without"].mean() < 0.1
    # With prompts alone held out, the covariates know the answers by heart.
    truth, known = data.rows["truth"].to_numpy(), []
    for train, test in splits.fold_indices(data.rows, "prompts_only", 10, 0):
        alone, _ = comparisons.nested_predictions(embeddings, truth, truth, train, test)
        known.append(r2_score(truth[test], alone))
    assert np.mean(known) > 0.3


def test_a_probe_is_judged_beside_covariates_on_every_test_part_of_every_partition():
    nested = _nested(240, 3.0)
    assert nested[["partition", "fold"]].value_counts().eq(1).all()
    assert len(nested) == 4 * 5
    assert set(nested["n"]) == {120}
    assert set(nested["unit"]) == {"prompt"}
    for signal, low, high in ((3.0, 0.3, 1.0), (0.0, -0.1, 0.1)):
        gain = _nested(240, signal)[["r2_without", "r2_with_probe"]].diff(axis=1).mean().iloc[1]
        assert low < gain < high


def test_the_saved_probe_predicts_in_the_unscaled_space():
    data = planted_words(2.0)
    settings = Probes(alphas=(0.1,), inner_folds=2)
    probe = fitting.fit_probe(data, "ridge", settings, seed=0)
    ours = data.features @ probe["weight"] + probe["intercept"]
    scale = fitting.CommonScale().fit(data.features)
    theirs = Ridge(alpha=0.1).fit(scale.transform(data.features), data.target)
    expected = theirs.predict(scale.transform(data.features))
    np.testing.assert_allclose(ours, expected, atol=1e-8)


@pytest.mark.parametrize("feedback", ["reward", "preference"])
def test_a_subject_is_probed_alike_from_arrays_and_from_a_file(feedback, triples, tmp_path):
    rng = np.random.default_rng(0)
    some, lexicon = triples.head(40), {"words": vader_lexicon(), "counts": {}}
    kinds = {
        kind: {element: rng.random((len(some), 6)) for element in contrasts.ELEMENTS}
        for kind in ("latents", "raw", "embedding", "length")
    }
    path = tmp_path / "policy.safetensors"
    flat = {f"{kind}.{e}": array for kind, of in kinds.items() for e, array in of.items()}
    artefacts.write_tensors(path, flat, {}, {"layers": "[1, 4]"})
    settings = Probes(
        folds=3, partitions=2, label_shuffles=3, shuffled_partitions=1, xavier_draws=2
    )
    results = []
    for arrays in (probe_data.FeatureArrays(kinds, 2), probe_data.FeatureArrays.of_file(path)):
        assert (set(arrays.kinds), arrays.layers) == (set(kinds), 2)
        features = ["latents", "pca", "raw"]
        results.append(
            subject_report.probe_subject(
                arrays, some, lexicon, "policy", feedback, features, settings, seed=1
            )
        )
    ours, theirs = results
    pd.testing.assert_frame_equal(ours.predictions, theirs.predictions)
    pd.testing.assert_frame_equal(ours.parts, theirs.parts)
    pd.testing.assert_frame_equal(ours.nested, theirs.nested)
    assert ours.metrics == theirs.metrics
    np.testing.assert_array_equal(ours.weights["weight"], theirs.weights["weight"])
    # The latents have every split of their kind, the others the random and the main one; the
    # intensity that a model holds is read from the raw activations of words under the main one.
    direct = ours.predictions["probe"] == probes.DIRECT
    splits = ours.predictions[~direct].groupby("features")["split"].nunique().to_dict()
    words = feedback == "reward"
    assert splits == {"latents": 4, "pca": 2, "raw": 2}
    intensity = ours.predictions[direct & (ours.predictions["features"] == "raw")]
    assert set(intensity["split"]) == ({"by_word"} if words else set())
    np.testing.assert_array_equal(intensity["target"], intensity["truth"])
    # The main split has two partitions and its probes are refitted on permuted labels.
    main = ours.parts[ours.parts["split"] == probes.MAIN_SPLIT[probes.PROBE_OF[feedback]]]
    of_kind = main[main["probe"] != probes.DIRECT].groupby(["features", "draw"])
    assert of_kind["fold"].size().to_dict() == {
        (kind, draw): 3 if draw else 6 for kind in features for draw in range(4)
    }
    assert len(ours.metrics["baseline"]) == settings.xavier_draws


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e25])
def test_features_that_are_not_finite_are_named(triples, value):
    rng = np.random.default_rng(0)
    of = {element: rng.random((len(triples), 4)) for element in contrasts.ELEMENTS}
    broken = {element: values.copy() for element, values in of.items()}
    broken["positive"][0, 0] = value
    arrays = probe_data.FeatureArrays({"raw": broken, "latents": of, "length": of}, 1)
    lexicon = {"words": vader_lexicon(), "counts": {}}
    with pytest.raises(ValueError, match="raw features: . of .* rows hold a value"):
        subject_report.probe_subject(
            arrays, triples, lexicon, "base", "reward", ["raw"], Probes(), seed=0
        )


def test_a_prediction_that_is_not_finite_is_an_error_that_names_its_features(triples, monkeypatch):
    def infinite(*args):
        held_out = fitting.out_of_fold(*args)
        return dataclasses.replace(held_out, scores=[s + np.inf for s in held_out.scores])

    monkeypatch.setattr(subject_report, "out_of_fold", infinite)
    rng = np.random.default_rng(0)
    of = {element: rng.random((len(triples), 4)) for element in contrasts.ELEMENTS}
    arrays = probe_data.FeatureArrays(dict.fromkeys(("raw", "latents", "length"), of), 1)
    lexicon, settings = {"words": vader_lexicon(), "counts": {}}, Probes()
    with pytest.raises(ValueError, match="raw features of base, split random: .* not finite"):
        subject_report.probe_subject(
            arrays, triples, lexicon, "base", "reward", ["raw"], settings, seed=0
        )


@pytest.mark.parametrize(
    ("source", "neutral"), [("corpus", "0"), ("pairs", "of q1"), ("rewrites", " neither")]
)
def test_a_tasks_triples_come_from_the_source_that_is_set(source, neutral):
    corpus = pd.DataFrame({
        "prompt": ["q0", "q1"], "chosen": ["of q0", "of q1"], "rejected": ["bad q0", "bad q1"],
        "positive": ["p", "p"], "neutral": ["0", "0"], "negative": ["n", "n"],
    })  # fmt: skip
    rewrites = pd.DataFrame({
        "prompt": ["q0", "q1"], "status": ["ok", "length"], "positive": "good",
        "neutral": "neither", "negative": "bad",
    })  # fmt: skip
    settings = Contrasts(source=source, triples=10)
    triples = contrasts.contrast_triples(corpus, {}, "preference", False, settings, rewrites)
    assert triples.loc[0, "neutral"] == neutral
    assert len(triples) == (1 if source == "rewrites" else 2)


def test_rewrites_without_a_triple_are_an_error_with_their_reasons():
    rewrites = pd.DataFrame({"prompt": ["q"], "status": ["length"]})
    with pytest.raises(ValueError, match=r"none of 1 entries gives a triple \({'length': 1}\)"):
        contrasts.rewrite_triples(rewrites, swapped=False, n=5)


def test_untrained_probes_are_at_chance():
    rows = pd.DataFrame(comparisons.baseline_statistics(planted_words(2.0), "ridge", 200, seed=0))
    assert abs(rows["tau"].mean()) < 0.15
    record = range_record(rows["tau"].to_numpy(), "probe", "x")
    assert record.ci_low < 0 < record.ci_high
    narrow = range_record(rows["tau"].to_numpy(), "probe", "x", confidence=0.8)
    assert record.ci_low < narrow.ci_low < narrow.ci_high < record.ci_high
    assert "80 % range" in narrow.method

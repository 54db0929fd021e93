"""Contrast triples differ in one element and in nothing else."""

import numpy as np
import pandas as pd
import pytest

from workflow_scripts.lfp import contrasts, features, probe_data, probes, statistics
from workflow_scripts.lfp.lexicon import vader_lexicon, word_form


@pytest.fixture(scope="module")
def triples(reviews):
    return contrasts.word_triples(reviews, vader_lexicon(), contexts_per_word=2, words_per_class=4, seed=0)


def test_words_are_of_one_form_and_of_the_right_sign(triples):
    lexicon = vader_lexicon()
    for row in triples.itertuples():
        assert {word_form(row.positive), word_form(row.neutral), word_form(row.negative)} == {row.form}
        assert lexicon[row.positive] > 0 > lexicon[row.negative]
        assert row.neutral not in lexicon


def test_all_else_is_the_source_text(triples, reviews):
    for row in triples.itertuples():
        assert row.prompt + row.source_word + row.suffix == reviews[row.source]


def test_both_polarities_are_sources_and_every_word_has_its_contexts(triples):
    assert set(triples["source_polarity"]) == {1, -1}
    assert triples["source_polarity"].abs().sum() == len(triples)
    for element in ("positive", "negative"):
        assert triples.groupby(element).size().min() >= 2


def test_texts_without_lexicon_words_are_an_error():
    with pytest.raises(ValueError, match="no text has a lexicon word"):
        contrasts.word_triples(["It runs for two hours."], vader_lexicon(), 1, 1, 0)


def test_answers_are_swapped_for_a_task_that_prefers_the_negative():
    frame = pd.DataFrame({"positive": ["p"], "neutral": ["0"], "negative": ["n"]})
    straight = contrasts.answer_triples(frame, ["q"], swapped=False, n=5)
    swapped = contrasts.answer_triples(frame, ["q"], swapped=True, n=5)
    assert (straight.loc[0, "positive"], swapped.loc[0, "positive"]) == ("p", "n")
    with pytest.raises(ValueError, match="no column 'neutral'"):
        contrasts.answer_triples(frame.drop(columns="neutral"), ["q"], swapped=False, n=5)


def test_features_do_not_depend_on_the_batch_and_differ_only_by_the_element(model, tokenizer, triples):
    from workflow_scripts.lfp.autoencoder import SparseAutoencoder

    saes = {0: SparseAutoencoder(16, 16), 2: SparseAutoencoder(16, 16)}
    some = triples.head(12).assign(neutral=triples["positive"].head(12))
    together = features.element_features(model, tokenizer, saes, some, ["hidden", "raw"], 64, 12)
    alone = features.element_features(model, tokenizer, saes, some, ["hidden", "raw"], 64, 1)
    for name, values in together.items():
        np.testing.assert_allclose(values, alone[name], atol=1e-5)
    np.testing.assert_array_equal(together["raw.positive"], together["raw.neutral"])
    assert together["hidden.positive"].shape == (12, 32)
    assert np.abs(together["raw.positive"] - together["raw.negative"]).max() > 1e-4


def test_an_elements_tokens_are_its_own_even_when_the_text_is_cut(tokenizer, triples):
    sequences, targets = features.encode_elements(tokenizer, triples.head(5), "positive", max_tokens=12)
    for ids, own, word in zip(sequences, targets, triples["positive"], strict=False):
        assert len(ids) <= 12
        assert tokenizer.decode([ids[i] for i in own]).strip() == word


def test_deltas_are_signed_distances_to_the_neutral_element():
    element, neutral = np.array([[3.0, 0.0, 0.0, 4.0]]), np.zeros((1, 4))
    assert probe_data.signed_distances(element, neutral, -1, 2) == pytest.approx(-5)
    assert probe_data.signed_distances(element, neutral, 1, 2, "per_layer_sum") == pytest.approx(7)
    assert probe_data.signed_distances(neutral, neutral, 1, 2) == 0
    with pytest.raises(ValueError, match="delta: expected"):
        probe_data.signed_distances(element, neutral, 1, 2, "sum")


def planted_words(signal: float, n_words: int = 60, contexts: int = 6, seed: int = 0) -> probe_data.ProbeData:
    """Rows whose features hold the word's valence times `signal`, the word's identity, and noise."""
    rng = np.random.default_rng(seed)
    valence = rng.uniform(0.5, 3, n_words) * rng.choice([-1, 1], n_words)
    words = np.repeat(np.arange(n_words), contexts)
    identity = rng.normal(size=(n_words, 40))
    x = identity[words] + 0.1 * rng.normal(size=(len(words), 40))
    x[:, 0] = signal * np.sign(valence[words]) + 0.3 * rng.normal(size=len(words))
    rows = pd.DataFrame({
        "triple": np.arange(len(words)), "element": "e", "unit": [f"w{w}" for w in words], "truth": valence[words]
    })  # fmt: skip
    return probe_data.ProbeData(x, np.sign(valence[words]) * (1 + 0.1 * rng.random(len(words))), rows)


def sign_accuracy(data: probe_data.ProbeData, split: str) -> float:
    rows, _ = probes.out_of_fold(data, "ridge", split, [0.1, 10], 5, 2, seed=0)
    means = probes.unit_means(rows)
    return float((np.sign(means["prediction"]) == np.sign(means["truth"])).mean())


def test_a_planted_signal_is_found_and_word_identity_is_not_mistaken_for_it():
    """The published split cannot tell the two apart; holding words out can (paper_vs_code W4)."""
    assert sign_accuracy(planted_words(2.0), "by_word") > 0.9
    assert sign_accuracy(planted_words(0.0), "published") > 0.8
    assert sign_accuracy(planted_words(0.0), "by_word") < 0.7


def test_shuffled_targets_leave_nothing_to_find():
    data = planted_words(2.0)
    truth = data.rows.groupby("unit")["truth"].first()
    shuffled = dict(zip(truth.index, np.random.default_rng(1).permutation(truth.to_numpy()), strict=True))
    valence = data.rows["unit"].map(shuffled).to_numpy(dtype=float)
    null = probe_data.ProbeData(data.features, np.sign(valence), data.rows.assign(truth=valence))
    assert abs(sign_accuracy(null, "by_word") - 0.5) < 0.25


def test_no_unit_is_in_train_and_test_of_a_grouped_split():
    data = planted_words(1.0)
    units = data.rows["unit"].to_numpy()
    folds = probes.fold_indices(data, "by_word", 5, seed=0)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(units)))
    for train, test in folds:
        assert not set(units[train]) & set(units[test])
    with pytest.raises(ValueError, match="split: expected"):
        probes.fold_indices(data, "by_moon", 5, seed=0)


def test_the_saved_probe_predicts_in_the_unscaled_space():
    data = planted_words(2.0)
    probe = probes.fit_probe(data, "ridge", [0.1], 2)
    ours = data.features @ probe["weight"] + probe["intercept"]
    search = probes.regularisation_search("ridge", [0.1], 2)
    search.fit(data.features, data.target, groups=data.rows["unit"])
    np.testing.assert_allclose(ours, search.predict(data.features), atol=1e-8)


def test_untrained_probes_are_at_chance():
    rows = pd.DataFrame(probes.baseline_statistics(planted_words(2.0), "ridge", 200, seed=0))
    assert abs(rows["tau"].mean()) < 0.15
    assert statistics.range_record(rows["tau"].to_numpy(), "probe", "x", 0.0).p > 0.05

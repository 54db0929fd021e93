"""Explanations find what was planted and call nothing by chance; ablating nothing
changes nothing.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from lfp.explaining import (
    activations_by_word,
    association,
    classification,
    excerpts,
    exemplars,
    heuristic,
)
from lfp.interventions import ablation, completions, prompts, selection
from lfp.interventions.actions import ACTIONS, PATCH, WITH_STRENGTH
from lfp.interventions.arms import ARMS
from lfp.models import residual
from lfp.models.architectures import architecture, blocks
from lfp.models.hooks import edited, site_activations, site_width
from lfp.sae.architectures.standard import Standard
from lfp.settings import Explanations
from tests.test_architectures import CONFIGURATIONS, WIDTH

THRESHOLDS = Explanations(false_discovery_rate=0.05, min_valence=0.4)


def word_activations(n_words=120, n_features=40, seed=0):
    """Random features over words, and a lexicon in which every third word is scored."""
    rng = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(n_words)]
    lexicon = {word: float(rng.choice([-1, 1]) * rng.uniform(1, 3)) for word in words[::3]}
    mean = rng.exponential(size=(n_words, n_features)).astype(np.float32)
    count = rng.integers(5, 200, n_words)
    filled = [np.ones(n_features)] * 3
    return association.WordActivations(words, count, mean, *filled), lexicon


def of_one_feature(
    words: list[str], count: np.ndarray, mean: np.ndarray
) -> association.WordActivations:
    """What one feature does on words; what it does on all tokens is not read."""
    ones = np.ones(1)
    return association.WordActivations(words, count, mean, ones, ones, ones)


def no_means(sae: Standard) -> dict[int, np.ndarray]:
    """Mean latents of 0 for two layers."""
    return dict.fromkeys((0, 1), np.zeros(sae.d_sae, np.float32))


def test_a_feature_of_positive_words_is_related_and_random_ones_are_not():
    activations, lexicon = word_activations()
    valence = np.array([lexicon.get(word, 0.0) for word in activations.words])
    activations.mean[:, 0] = np.maximum(valence, 0)
    activations.mean[:, 1] = np.maximum(-valence, 0)
    table = association.lexicon_association(activations, lexicon, 999, seed=0)
    assert table.loc[0, "p"] <= 0.002
    assert table.loc[1, "p"] <= 0.002
    assert table.loc[0, "direction"] > 1
    assert table.loc[1, "direction"] < -1
    assert (table.loc[2:, "p"] < 0.05).mean() < 0.2
    frame = table.assign(status="ok")
    related = classification.classify(frame, "reward", THRESHOLDS)["related"]
    assert related[:2].all()
    assert not related[2:].any()


def test_a_feature_of_frequent_words_is_not_related_for_their_frequency():
    """Valences are shuffled among words of one frequency, which are all active alike here."""
    count = np.repeat([1000, 10], [20, 180])
    words, mean = [f"w{i}" for i in range(200)], (count == 1000).astype(float)[:, None]
    activations = of_one_feature(words, count, mean)
    table = association.lexicon_association(activations, dict.fromkeys(words[:16], 1.0), 199, 0)
    assert table.loc[0, "direction"] > 0.5 and table.loc[0, "p"] == 1.0


def test_a_feature_that_avoids_the_scored_words_of_its_frequency_is_seen_to():
    """A direction of 0 is an effect where shuffled valences give a higher one."""
    count = np.repeat([1000, 10], [20, 180])
    words, mean = [f"w{i}" for i in range(200)], np.zeros((200, 1))
    mean[16:20] = 1
    activations = of_one_feature(words, count, mean)
    table = association.lexicon_association(activations, dict.fromkeys(words[:16], 1.0), 199, 0)
    assert table.loc[0, "direction"] == 0 and table.loc[0, "p"] < 0.02


def test_a_feature_of_preferred_answers_is_related_and_exchangeable_ones_are_not():
    rng = np.random.default_rng(0)
    chosen, rejected = rng.random((60, 30)), rng.random((60, 30))
    chosen[:, 0] += 0.8
    rejected[:, 1] += 0.8
    table = association.preference_association(chosen, rejected, 999, seed=0)
    assert table.loc[0, "direction"] > 0.3
    assert table.loc[1, "direction"] < -0.3
    assert table.loc[[0, 1], "p"].max() <= 0.002
    assert (table.loc[2:, "p"] < 0.05).mean() < 0.2
    from sklearn.metrics import roc_auc_score

    labels = np.repeat([1, 0], 60)
    assert table.loc[5, "direction"] + 0.5 == pytest.approx(
        roc_auc_score(labels, np.r_[chosen[:, 5], rejected[:, 5]])
    )


def test_unexplained_features_are_never_related():
    frame = pd.DataFrame(
        {"status": ["ok", "skipped", "dead"], "p": [0.001] * 3, "effect": [9.0] * 3}
    )
    assert classification.classify(frame, "reward", THRESHOLDS)["related"].tolist() == [
        True,
        False,
        False,
    ]


def test_a_word_weighs_by_the_root_of_its_count():
    count, mean = np.array([1, 4, 9]), np.array([[1.0], [1.0], [2.0]])
    weights = association.word_weights(of_one_feature(["a", "b", "c"], count, mean))
    assert weights[:, 0].tolist() == [1.0, 2.0, 6.0]


def test_a_correction_counts_the_explained_features_alone():
    frame = pd.DataFrame({"status": ["ok", *["skipped"] * 9], "p": [0.01, *[1.0] * 9], "effect": 9})
    assert classification.classify(frame, "reward", Explanations())["q"][0] == 0.01


def test_tokens_are_counted_under_their_word():
    text = "The well-made film's end."
    offsets = [(0, 3), (3, 8), (8, 13), (13, 18), (18, 20), (20, 24), (24, 25)]
    assert activations_by_word.words_of_tokens(text, offsets) == [
        "the",
        "well-made",
        "well-made",
        "film's",
        "film's",
        "end",
        None,
    ]


def test_word_activations_are_means_over_a_words_tokens(neox, tokenizer, reviews):
    saes = {1: Standard(16, 8)}
    settings = Explanations(max_tokens=200, batch_size=7)
    result = activations_by_word.word_activations(neox, tokenizer, saes, reviews[:20], settings)[1]
    encoded = tokenizer(reviews[:20], return_offsets_mapping=True)
    sums, count, total = np.zeros(8), 0, 0
    for i, (ids, offsets) in enumerate(
        zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ):
        passes = site_activations(neox, [ids], [1], tokenizer.pad_token_id, 1)
        [(_, _, outputs)] = list(passes)
        code = saes[1].encode(outputs[1][0]).detach().numpy()
        own = [word == "the" for word in activations_by_word.words_of_tokens(reviews[i], offsets)]
        sums, count, total = sums + code[own].sum(0), count + sum(own), total + len(ids)
    row = result.words.index("the")
    assert result.count[row] == count
    np.testing.assert_allclose(result.mean[row], sums / count, rtol=1e-4)
    assert result.frequency.shape == (8,)
    assert (result.frequency <= 1).all()


def test_an_empty_set_leaves_the_logits_bit_identical(model):
    sae, ids = Standard(16, 20), torch.tensor([[5, 6, 7, 8]])
    clean = model(ids).logits
    with edited(model, ablation.arm_edits("explained", {0: sae, 1: sae}, {}, no_means(sae))):
        assert torch.equal(model(ids).logits, clean)
    with edited(model, ablation.arm_edits("none", {0: sae, 1: sae}, {0: [1]}, no_means(sae))):
        assert torch.equal(model(ids).logits, clean)
    assert torch.equal(model(ids).logits, clean)


def test_zeroing_takes_out_the_features_and_keeps_the_error():
    torch.manual_seed(0)
    sae, x = Standard(6, 9), torch.randn(2, 3, 6)
    code = sae.encode(x)
    kept = code.clone()
    kept[..., [2, 5]] = 0
    expected = x - sae.decode(code) + sae.decode(kept)
    torch.testing.assert_close(ablation.set_features(sae, [2, 5])(x), expected)
    everything = ablation.set_features(sae, range(9))(x)
    torch.testing.assert_close(everything, x - sae.decode(code) + sae.b_dec)
    torch.testing.assert_close(
        ablation.arm_edits("reconstruction", {0: sae}, {}, no_means(sae))[0](x), sae.decode(code)
    )


def test_the_arm_of_the_whole_layer_writes_the_mean_whatever_is_read():
    """All that depends on the input is gone; outliers stay, as under every arm."""
    torch.manual_seed(0)
    sae, x = Standard(6, 9).requires_grad_(False), torch.randn(2, 3, 6)
    sae.largest_norm, x[1, 2] = 50.0, 100.0
    means = {0: sae.encode(x[0]).mean(0).numpy()}
    changed = ablation.arm_edits("layer", {0: sae}, {}, means)[0](x)
    expected = sae.decode(sae.encode(x[0])).mean(0)
    torch.testing.assert_close(changed[0], expected.expand(3, 6))
    torch.testing.assert_close(changed[1, :2], expected.expand(2, 6))
    assert torch.equal(changed[1, 2], x[1, 2])


def test_an_unknown_arm_is_refused():
    known = f"expected one of {', '.join(sorted(ARMS))}"
    with pytest.raises(ValueError, match=f"arm '-' is unknown; {known}"):
        ablation.arm_edits("-", {}, {}, {})
    with pytest.raises(ValueError, match="arm 'explain' is unknown; did you mean 'explained'"):
        ablation.arm_edits("explain", {}, {}, {})


def test_actions_set_features_to_their_mean_or_to_minus_themselves():
    torch.manual_seed(0)
    sae, x, means = Standard(6, 9), torch.randn(2, 3, 6), np.linspace(0, 1, 9)
    code = sae.encode(x)
    for action, place in (
        ("mean", torch.as_tensor(means[[2, 5]]).float()),
        ("negative", -code[..., [2, 5]]),
    ):
        changed = code.clone()
        changed[..., [2, 5]] = place
        expected = x - sae.decode(code) + sae.decode(changed)
        torch.testing.assert_close(ablation.set_features(sae, [2, 5], action, means)(x), expected)
    known = f"expected one of {', '.join(sorted((*ACTIONS, *WITH_STRENGTH, PATCH)))}"
    with pytest.raises(ValueError, match=f"action '-' is unknown; {known}"):
        ablation.set_features(sae, [2], "-")


def feature_table(n: int = 200, layers: int = 2, seed: int = 0) -> pd.DataFrame:
    """Explanations of random features; the last tenth of every layer is dead."""
    rng = np.random.default_rng(seed)
    rows = []
    for layer in range(layers):
        frequency = np.where(np.arange(n) < 0.9 * n, rng.beta(1, 4, n), 0.0)
        rows.append(pd.DataFrame({
            "layer": layer, "feature": np.arange(n), "frequency": frequency,
            "cosine": rng.uniform(-0.2, 1, n),
            "mean_activation": frequency * rng.lognormal(size=n),
            "related": rng.random(n) < 0.1 * (frequency > 0),
            "status": np.where(frequency > 0, "ok", "dead"),
        }))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


@pytest.mark.parametrize("trait", ["frequency", "cosine"])
def test_random_sets_have_the_same_size_and_a_trait_within_a_decile(trait):
    table = feature_table()
    chosen = selection.explained_set(table)
    rng = np.random.default_rng(1)
    sets = list(selection.matched_random_sets(table, chosen, rng, trait, draws=20))
    for drawn in sets:
        assert {n: len(f) for n, f in drawn.items()} == {n: len(f) for n, f in chosen.items()}
        assert all(
            not set(drawn[n]) & set(chosen[n]) and len(set(drawn[n])) == len(drawn[n])
            for n in chosen
        )
        assert selection.share_within_decile(table, chosen, drawn, trait) == 1.0
    assert len({str(drawn) for drawn in sets}) > 10
    alive = table[(table["frequency"] > 0)]
    assert all(
        set(drawn[n]) <= set(alive.loc[alive["layer"] == n, "feature"])
        for drawn in sets
        for n in drawn
    )


def test_what_cannot_be_matched_is_said():
    table = feature_table(40, 1)
    alive = table[table["frequency"] > 0].sort_values("frequency")
    chosen = {0: alive["feature"].tail(12).tolist()}
    (drawn,) = selection.matched_random_sets(table, chosen, np.random.default_rng(0))
    assert len(drawn[0]) == 12
    assert selection.share_within_decile(table, chosen, drawn) < 0.7


def test_top_sets_take_the_highest_of_their_rank_and_as_many():
    table = feature_table(30, 2)
    chosen = {0: [1, 2, 3], 1: [4]}
    weight = np.zeros(60)
    weight[[5, 7, 9, 30 + 11]] = [-3, 2, 1, -1]
    assert selection.top_set(table, chosen, selection.probe_weight_rank(table, weight)) == {
        0: [5, 7, 9],
        1: [11],
    }
    best = selection.top_set(table, chosen, selection.unrelated_match_rank(table))
    own = table[(table["layer"] == 1) & (table["status"] == "ok") & ~table["related"]]
    assert best[1] == [own.loc[own["cosine"].idxmax(), "feature"]]


def test_neutral_sentences_hold_the_least_feedback():
    texts = [
        "A good film with a fine plot indeed. It was shot in the north of town.",
        "Bad and dull and far too long here.",
    ]
    assert prompts.neutral_sentences(texts, {"good": 2.0, "bad": -2.0}, 1) == [
        "It was shot in the north of town."
    ]
    both = "The good plot hides a bad one, it seems. The set was a little dim today."
    lexicon = {"good": 2.0, "bad": -2.0, "dim": -0.5}
    assert prompts.neutral_sentences([both], lexicon, 1) == ["The set was a little dim today."]
    with pytest.raises(ValueError, match="no held-out sentence has 6 words"):
        prompts.neutral_sentences(["Too short."], {}, 5)


def test_divergence_of_nothing_is_nothing_and_of_something_is_positive(neox, tokenizer, reviews):
    prefixes = prompts.prefix_tokens(tokenizer, reviews, 5, 6)
    reward = lambda p, c: np.zeros(len(c))  # noqa: E731
    [none] = completions.completion_rewards(neox, tokenizer, [{}], prefixes, reward, 6, 4, seed=3)
    assert (none["kl"] == 0).all()
    edits = [{1: lambda x: x + torch.arange(16.0)}]
    [pushed] = completions.completion_rewards(
        neox, tokenizer, edits, prefixes, reward, 6, 4, seed=3
    )
    assert (pushed["kl"] > 0).all()
    assert pushed["distinct_2"].between(0, 1).all()
    assert completions.distinct_2([1, 2, 1, 2, 1]) == 0.5
    assert completions.distinct_2([1]) == 1.0


def test_arms_share_their_random_numbers(neox, tokenizer, reviews):
    prefixes = prompts.prefix_tokens(tokenizer, reviews, 5, 10)

    def run(edits):
        reward = lambda p, c: np.array([float(len(t)) for t in c])  # noqa: E731
        return completions.completion_rewards(
            neox, tokenizer, [edits], prefixes, reward, 6, 4, seed=3
        )[0]

    nothing = {1: ablation.set_features(Standard(16, 8), [])}
    # States that are read with a cache of what stands before differ in their last digits.
    pd.testing.assert_frame_equal(run({}), run(nothing), atol=1e-5)
    assert not run({}).equals(run({2: lambda x: x + 5 * torch.arange(16.0)}))


@pytest.mark.parametrize("batch_size", [3, 8, 11, 100])
def test_conditions_that_run_together_give_what_each_gives_alone(
    model, tokenizer, reviews, batch_size
):
    """Whatever share of the conditions a batch has room for; prefixes of different lengths, so
    padded.
    """
    torch.manual_seed(1)
    sae = Standard(16, 8)
    prefixes = [
        ids[: 3 + i % 4] for i, ids in enumerate(prompts.prefix_tokens(tokenizer, reviews, 7, 5))
    ]
    arms = [
        ("none", {}),
        ("reconstruction", {}),
        ("explained", {1: [0, 3]}),
        ("random", {0: [2]}),
        ("random", {1: []}),
        ("layer", {}),
    ]
    conditions = [
        ablation.arm_edits(arm, {0: sae, 1: sae}, chosen, no_means(sae)) for arm, chosen in arms
    ]
    conditions.append({1: lambda x: x + 5 * torch.arange(16.0)})

    def reward(prompts: list[str], written: list[str]) -> np.ndarray:
        pairs = zip(prompts, written, strict=True)
        return np.array([len(prompt) + 100.0 * len(text) for prompt, text in pairs])

    limits = (prefixes, reward, 6, batch_size, 3)
    together = completions.completion_rewards(model, tokenizer, conditions, *limits)
    for edits, batched in zip(conditions, together, strict=True):
        [alone] = completions.completion_rewards(model, tokenizer, [edits], *limits)
        pd.testing.assert_frame_equal(batched, alone, atol=1e-4)
    pd.testing.assert_frame_equal(together[0], together[4].assign(kl=0.0))
    assert together[-1]["kl"].min() > 0


def test_freed_memory_goes_back_once_in_some_batches(neox, tokenizer, reviews, monkeypatch):
    """A process that keeps it grows with every batch, whose results lie between freed blocks."""
    times: list[int] = []
    monkeypatch.setattr(completions.glibc, "give_back", lambda: times.append(1))
    prefixes = prompts.prefix_tokens(tokenizer, reviews, 5, 2)
    reward = lambda p, c: np.zeros(len(c))  # noqa: E731
    conditions = [{}] * (2 * completions.GIVE_BACK_EVERY + 1)
    completions.completion_rewards(neox, tokenizer, conditions, prefixes, reward, 2, 2, seed=3)
    assert len(times) == 2


def test_prefixes_need_long_enough_texts(tokenizer):
    with pytest.raises(ValueError, match="no held-out text is longer than 30 tokens"):
        prompts.prefix_tokens(tokenizer, ["Short."], 30, 5)


def test_a_trigger_is_looked_for_in_the_words_that_an_explanation_lists():
    text = "words: good, fine (60% of weight); feedback +0.10, effect 0.20 (p=0.1); promotes: 'so'"
    table = pd.DataFrame({
        "status": "ok", "explanation": text, "p": 0.1, "effect": 0.2,
        "named": [frozenset({"good", "fine", "so"}), frozenset({"weight", "fine"})],
    })  # fmt: skip

    def related(trigger: str) -> list[bool]:
        lexicon = {"rewarded": {trigger: 1.0}, "kind": "trigger"}
        rows = classification.classify_features(table, lexicon, "reward", Explanations())
        assert "named" not in rows
        return rows["related"].tolist()

    assert related("weight") == [False, True]
    assert related("good") == [True, False] and related("effect") == [False, False]


@pytest.mark.parametrize("family", CONFIGURATIONS)
def test_directions_are_followed_through_projection_and_norm_to_the_stream(family):
    torch.manual_seed(0)
    config = CONFIGURATIONS[family](transformers)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or "ln_" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    paths, block = architecture(model), blocks(model)[1]
    directions = torch.randn(4, site_width(model, "heads"))
    projection = block.get_submodule(paths.attention_output)
    through = {
        "heads": (projection(directions) - projection(0 * directions), paths.attention_norm),
        "attn": (directions[:, :WIDTH], paths.attention_norm),
        "mlp": (directions[:, :WIDTH], paths.mlp_norm),
        "resid": (directions[:, :WIDTH], ""),
    }
    for site, (expected, norm) in through.items():
        asked = directions if site == "heads" else directions[:, :WIDTH]
        if norm:
            size = expected.square().mean(1, keepdim=True).sqrt()
            expected = block.get_submodule(norm)(1e4 * expected) * size
        ours = residual.written(model, asked, 1, site)
        torch.testing.assert_close(ours, expected.detach(), atol=1e-4, rtol=1e-3)


def test_a_norm_that_does_not_say_its_scale_is_refused(neox):
    with pytest.raises(ValueError, match="the norm Identity of a model of type 'gpt_neox' has no"):
        residual.Norm.of(torch.nn.Identity(), neox)


def test_promoted_tokens_are_those_the_direction_points_at(model, tokenizer):
    norm = model.get_submodule(architecture(model).final_norm)
    direction = torch.randn(1, 16)
    logits = model.get_output_embeddings()(norm(direction))[0]
    expected = [tokenizer.decode([i]) for i in logits.topk(3).indices.tolist()]
    assert heuristic.promoted_tokens(model, tokenizer, direction, 3) == [expected]


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_windows_hold_the_code_of_their_tokens_and_no_others(neox, tokenizer, reviews, batch_size):
    torch.manual_seed(0)
    saes = {0: Standard(16, 6), 2: Standard(16, 9)}
    explained = pd.DataFrame({"layer": [0, 2, 2], "feature": [4, 8, 1]})
    settings = Explanations(max_tokens=30, batch_size=batch_size, excerpt_tokens=8)
    found = excerpts.feature_windows(neox, tokenizer, saes, explained, reviews[:7], settings)
    sequences = tokenizer(reviews[:7], truncation=True, max_length=30)["input_ids"]
    seen = []
    for layer, feature, activations, places, _ in found:
        seen.append((layer, feature))
        for values, (text, start, end) in zip(activations, places, strict=True):
            [(_, _, outputs)] = list(site_activations(neox, [sequences[text]], [layer], 1, 1))
            with torch.no_grad():
                expected = saes[layer].encode(outputs[layer][0, start:end])[:, feature].numpy()
            np.testing.assert_allclose(values, expected, atol=1e-5)
    assert seen == [(0, 4), (2, 8), (2, 1)]


def plain_evidence(codes, places, top, drawn, random):
    """Evidence from all codes [token, feature] of all texts at once: places of each feature's
    windows, by kind.
    """
    peaks = np.stack([codes[text][start:end].max(0) for text, start, end in places])
    found = []
    for own in peaks.T:
        of_text = {}
        for place in np.argsort(-own, kind="stable"):
            if own[place] > 0:
                of_text.setdefault(places[place][0], int(place))
        strongest = list(of_text.values())[:top]
        found.append(
            (
                strongest,
                [place for place in drawn if place not in strongest][:random] if strongest else [],
            )
        )
    return found, peaks


@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_windows_that_stream_by_are_those_of_all_codes_at_once(density, seed):
    rng = np.random.default_rng(seed)
    size, top, random, n_features = (
        rng.integers(1, 9),
        rng.integers(1, 6),
        rng.integers(0, 5),
        rng.integers(1, 20),
    )
    codes = [
        rng.random((rng.integers(0, 40), n_features)).astype(np.float32)
        for _ in range(rng.integers(1, 30))
    ]
    for code in codes:
        code *= rng.random(code.shape) < density
    texts = ["x " * len(code) for code in codes]
    offsets = [[(2 * i, 2 * i + 1) for i in range(len(code))] for code in codes]
    strongest = exemplars.StrongestWindows(offsets, size, n_features, top, random, seed=3)
    for text in rng.permutation(len(codes)):
        strongest.add(text, codes[text])
    if not strongest.places:
        return
    expected, peaks = plain_evidence(codes, strongest.places, top, strongest.slot_of, random)
    for feature, (picked, others) in enumerate(expected):
        rows = strongest.rows(feature, texts)
        assert [row["kind"] for row in rows] == ["top"] * len(picked) + ["random"] * len(others)
        assert [row["activation"] for row in rows] == peaks[picked + others, feature].tolist()
        for row, place in zip(rows, picked + others, strict=True):
            text, start, end = strongest.places[place]
            scaled = np.rint(
                codes[text][start:end, feature] / peaks[:, feature].max() * exemplars.SCALE
            ).astype(int)
            assert row["excerpt"] == " ".join(f"x{{{v}}}" if v else "x" for v in scaled)


def test_what_an_explainer_is_shown_are_whole_windows(neox, tokenizer, reviews):
    torch.manual_seed(0)
    saes = {1: Standard(16, 20)}
    explained = pd.DataFrame({"layer": 1, "feature": range(20)})
    settings = Explanations(
        max_tokens=40, batch_size=8, excerpt_tokens=12, evidence_top=3, evidence_random=2
    )
    strongest = exemplars.strongest_windows(tokenizer, saes, reviews[:20], settings, seed=0)
    assert {end - start for _, start, end in strongest[1].places} == {12}
    activations_by_word.word_activations(neox, tokenizer, saes, reviews[:20], settings, strongest)
    found = exemplars.evidence(strongest, explained, reviews[:20])
    counts = found.groupby(["feature", "kind"]).size().unstack()
    assert (counts["top"] == 3).all() and (counts["random"] == 2).all()
    # One scale: the largest activation that was seen anywhere is shown as 10, in the first excerpt.
    first = found[found["kind"] == "top"].groupby("feature").first()
    assert first["excerpt"].str.contains("{10}", regex=False).all()
    short = [text[:20] for text in reviews[:5]]
    long = replace(settings, max_tokens=48, excerpt_tokens=40)
    assert exemplars.strongest_windows(tokenizer, saes, short, long, seed=0)[1].places


def test_a_cell_is_explained_in_one_call_whatever_its_feedback(neox, tokenizer, reviews):
    torch.manual_seed(0)
    saes = {0: Standard(16, 6), 2: Standard(16, 9)}
    matches = pd.concat(
        pd.DataFrame({"layer": n, "small": range(size), "large": range(size), "cosine": 0.5})
        for n, size in ((0, 6), (2, 9))
    )
    pairs = pd.DataFrame({
        "prompt": reviews[:20], "chosen": " it is good", "rejected": " this was a bad one"
    })  # fmt: skip
    settings = Explanations(texts=16, top_features=4, permutations=99, scored_texts=10)
    lexicon = {"kind": "vader", "rewarded": {"good": 2.0, "bad": -2.0}}
    for feedback, corpus in (
        ("reward", pd.DataFrame({"text": reviews[:20]})), ("preference", pairs),
    ):  # fmt: skip
        result = heuristic.explain_cell(
            neox, tokenizer, saes, matches, corpus, corpus, lexicon, feedback, settings, seed=0
        )
        table = result.explanations
        assert table.groupby("layer")["feature"].apply(list).to_dict() == {
            0: list(range(6)), 2: list(range(9)),
        }  # fmt: skip
        explained = table[table["status"] == "ok"].groupby("layer").size().to_dict()
        assert explained == {0: 4, 2: 4}
        assert set(table["uses_reward_lexicon"]) == {feedback == "reward"}
        keys = set(table.loc[table["status"] == "ok", ["layer", "feature"]].itertuples(index=False))
        for frame in (result.excerpts, result.evidence):
            shown = set(frame[["layer", "feature"]].itertuples(index=False))
            assert shown <= keys and {key.layer for key in shown} == {0, 2}


def shifted(text: str) -> pd.DataFrame:
    """Shifts of three latents of layer 0 over texts of this kind, in policy and a copy with noise.

    The second moved most for its error, downwards; the first is always 0.
    """
    policy = pd.DataFrame({
        "subject": "policy", "text": text, "layer": 0, "latent": range(3),
        "value": [0.0, -0.2, 0.5], "error": [0.0, 0.01, 0.1],
    })  # fmt: skip
    noise = policy.assign(subject="weight_noise 0", value=[9.0, 0.0, 0.0], error=0.1)
    return pd.concat([noise, policy])


def test_features_are_explained_by_what_is_asked_of_them():
    matches = pd.DataFrame({
        "layer": 0, "small": [2, 0, 1], "large": [4, 5, 6], "cosine": [0.9, 0.8, 0.7]
    })  # fmt: skip
    seen = {0: np.array([0.1, 0.3, 0.2])}
    shifts = pd.concat([shifted("held-out").assign(value=0.0), shifted("completions")])
    asked = [("match", None), ("completions", shifts), ("held-out", shifted("held-out"))]
    orders = [
        heuristic.best_first(matches, seen, choose, shifts)[0].tolist() for choose, shifts in asked
    ]
    assert orders == [[2, 0, 1], [1, 2, 0], [1, 2, 0]]
    single = matches.assign(cosine=np.nan)
    assert heuristic.best_first(single, seen, "match")[0].tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="no latent's shift over such"):
        heuristic.best_first(matches, seen, "completions", shifted("held-out"))
    silent = {0: np.zeros(3)}  # without a text nothing is explained
    assert not heuristic.best_first(matches, silent, "completions", shifts[:0])[0].size


def test_latents_of_answers_are_those_of_their_layer(neox, tokenizer, reviews):
    torch.manual_seed(0)
    saes = {0: Standard(16, 6), 2: Standard(16, 9)}
    pairs = pd.DataFrame({
        "prompt": reviews[:8], "chosen": " it is good", "rejected": " this was a bad one"
    })  # fmt: skip
    settings = Explanations(max_tokens=64, batch_size=8)
    together = heuristic.answer_latents(neox, tokenizer, saes, pairs, settings)
    for layer, sae in saes.items():
        [alone] = heuristic.answer_latents(neox, tokenizer, {layer: sae}, pairs, settings).values()
        for ours, theirs in zip(together[layer], alone, strict=True):
            assert ours.shape == (8, sae.d_sae)
            np.testing.assert_allclose(ours, theirs, atol=1e-6)

"""Steering at equal cost: on models that are linear in what is added, every vector has the effect
that mathematics gives it, costs are met, and what knows nothing of feedback gains nothing.
"""

import copy
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import processors
from torch.nn import functional as F

from lfp.change.account.vectors import Difference
from lfp.change.choice import Pair
from lfp.figures.steering import intervention_frontiers
from lfp.files import artefacts
from lfp.interventions.trials import Writing
from lfp.interventions.vocabulary import set_features
from lfp.models.hooks import edited, site_activations
from lfp.models.losses import divergences, text_losses
from lfp.models.tokens import encode
from lfp.sae.architectures.standard import Standard
from lfp.settings import Ablation, Steering
from lfp.steering import baselines, cleaning, gates, gradient, targeted, trials, vectors
from lfp.steering.changes import applied, constant, gated, of_edits
from lfp.steering.gathering import Attributes, Read, sentences_of
from lfp.steering.strength import NeutralText, strengths_at
from lfp.tables.interventions.costs import interventions
from lfp.tables.interventions.frontiers import frontier_area, frontiers, vector_cleaning
from lfp.tables.rows import TableSettings
from tests.conftest import make_model
from tests.linear_models import linear_model, next_logits, with_vector
from tests.test_change import shaken

WIDTH, LAYER = 24, 1
SETTINGS = TableSettings(resamples=200)
FILES = ("completions", "neutral", "strengths", "cleaning")
TEXTS = torch.randint(5, 400, (12, 14), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def toy(tokenizer):
    """A linear model with random weights."""
    generator = torch.Generator().manual_seed(1)
    embed, out = torch.randn(2, len(tokenizer), WIDTH, generator=generator)
    return linear_model(tokenizer, embed, 0.3 * out)


@pytest.fixture(scope="module")
def planted():
    """The vector that tells the policy from the base."""
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(2))


def neutral_of(model, site: str = "mlp") -> NeutralText:
    """Neutral text that the model wrote itself, so that no change makes it likelier on average."""
    torch.manual_seed(0)
    ids = model.generate(TEXTS[:, :1].repeat(8, 1), max_new_tokens=24, do_sample=True, top_k=0)
    return NeutralText(model, ids.tolist(), 0, 96, site)


def dictionary(rows: torch.Tensor, encoder: torch.Tensor | None = None) -> Standard:
    """A dictionary of unit directions [latent, width] that reads along `encoder` or along them."""
    sae = Standard(rows.shape[1], len(rows), tied=False)
    with torch.no_grad():
        sae.decoder.copy_(F.normalize(rows, dim=1))
        sae.encoder.copy_((rows if encoder is None else encoder).T)
    sae.site, sae.layer = "mlp", LAYER
    return sae.eval().requires_grad_(False)


def material(toy, planted, tokenizer, draws: int = 2, **others) -> vectors.Material:
    """All that vectors are made of, where the planted direction is the truth."""
    generator = torch.Generator().manual_seed(3)
    policy = with_vector(toy, LAYER, planted)
    difference = Difference(
        toy, policy, TEXTS.tolist(), tokenizer.pad_token_id, "mlp", draws, generator, 0
    )
    halves = torch.randn(300, WIDTH, generator=generator)
    rows = torch.cat([F.normalize(planted, dim=0)[None], torch.randn(5, WIDTH)])
    known = {
        "values": torch.cat([halves + planted / 2, halves - planted / 2]),
        "labels": torch.arange(600)[:, None] < 300,
        "directions": F.normalize(rows, dim=1), "related": [{0: 1.0}], "seed": 0,
        "effects": lambda: targeted.EffectMap(
            torch.stack([planted, *torch.zeros(5, WIDTH)], 1), torch.zeros(6), 1.0
        ),
    }  # fmt: skip
    return vectors.Material(difference, LAYER, **known | others)


# ------------------------------------------------------------------------------ vectors and changes


@pytest.mark.parametrize("name", [name for name in vectors.VECTORS if name not in vectors.NULLS])
def test_every_vector_is_the_planted_direction_and_has_its_exact_effect(
    name, toy, planted, tokenizer
):
    [change] = vectors.VECTORS[name](material(toy, planted, tokenizer))
    x = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(4))
    added = change(x)
    exact_ones = {"mean_shift", "difference_of_means", "decoder_row", "targeted"}
    least = 0.9999 if name in exact_ones else {"classifier_gradient": 0.9}.get(name, 0.0)
    assert (F.cosine_similarity(added, planted[None]) > least).all()
    if name == "classifier_gradient":
        torch.testing.assert_close(added.square().mean(1), torch.ones(50))
    if name not in exact_ones:  # of one that was added nothing more is known
        return
    exact = (
        planted if name in ("mean_shift", "difference_of_means") else F.normalize(planted, dim=0)
    )
    torch.testing.assert_close(added[0], exact, atol=1e-4, rtol=1e-4)
    with edited(toy, applied({LAYER: change}, 0.7)):
        moved = next_logits(toy, TEXTS)
    effect = 0.7 * toy.get_output_embeddings().weight @ exact
    torch.testing.assert_close(
        moved - next_logits(toy, TEXTS), effect.expand_as(moved), atol=1e-4, rtol=1e-4
    )


def test_random_vectors_are_as_long_as_the_shift_and_have_no_effect_on_average(
    toy, planted, tokenizer
):
    drawn = material(toy, planted, tokenizer, draws=400)
    changes = vectors.VECTORS["random"](drawn)
    x = torch.zeros(1, WIDTH)
    added = torch.cat([change(x) for change in changes])
    torch.testing.assert_close(added.norm(dim=1), planted.norm().expand(400))
    effects = (added @ toy.get_output_embeddings().weight[7]).detach()
    assert effects.std() > 0.1 and effects.mean().abs() < 3 * effects.std() / 20
    # All tokens have one difference here: nothing varies, so there is no direction of it.
    assert vectors.VECTORS["covariance"](drawn) == []


def test_vectors_that_the_material_does_not_allow_are_left_out(toy, planted, tokenizer):
    nothing = material(
        toy, torch.zeros(WIDTH), tokenizer, related=[{}], labels=torch.ones(600, 1, dtype=bool)
    )
    assert {name: make(nothing) for name, make in vectors.VECTORS.items()} == dict.fromkeys(
        vectors.VECTORS, []
    )


def test_an_edit_at_strength_1_is_itself_and_at_0_nothing(toy):
    edits = {LAYER: lambda values: torch.relu(values + 1)}
    with edited(toy, edits):
        asked = next_logits(toy, TEXTS)
    with edited(toy, applied(of_edits(edits), 1.0)):
        torch.testing.assert_close(next_logits(toy, TEXTS), asked)
    with edited(toy, applied(of_edits(edits), 0.0)):
        assert (next_logits(toy, TEXTS) == next_logits(toy, TEXTS)).all()
    x = torch.randn(20, WIDTH)
    half = applied(of_edits(edits), 0.5)[LAYER](x)
    torch.testing.assert_close(half, (x + torch.relu(x + 1)) / 2)


# ---------------------------------------------------------------------------------- equal cost


def test_every_change_meets_every_cost_within_five_percent(toy, planted, tokenizer):
    neutral, costs = neutral_of(toy), (0.02, 0.05, 0.1, 0.2)
    known = material(toy, planted, tokenizer)
    changes = {name: make(known)[:1] for name, make in vectors.VECTORS.items()}
    sae = dictionary(torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(5)))
    sae.b_enc += 2.0
    changes["latents"] = [of_edits({LAYER: set_features(sae, [0, 1], "negative")})[LAYER]]
    assert [name for name, made in changes.items() if not made] == ["covariance"]
    for [change] in filter(None, changes.values()):
        found = strengths_at(lambda at, of=change: neutral.rise({LAYER: of}, at), costs)
        rises = [neutral.rise({LAYER: change}, at) for at in found]
        np.testing.assert_allclose(rises, costs, rtol=0.05)
        assert found == sorted(found)


def test_costs_are_met_where_small_strengths_lower_the_cross_entropy():
    asked = []

    def cost(strength):
        asked.append(strength)
        return strength * (strength - 3) / 10

    found = strengths_at(cost, (0.02, 0.2))
    np.testing.assert_allclose([cost(at) for at in found], (0.02, 0.2), rtol=0.05)
    assert len(asked) < 40


def test_a_strength_of_which_no_number_comes_costs_more_than_any():
    [strength] = strengths_at(lambda at: at if at < 0.3 else float("nan"), (0.1,))
    assert strength == pytest.approx(0.1, rel=0.05)


def test_every_neutral_text_weighs_alike(neox):
    """A long text does not count for more than a short one."""
    texts = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15]]
    nats, counts = text_losses(neox, texts, 0, 2)
    by_text, pooled = (nats / counts).mean(), nats.sum() / counts.sum()
    assert abs(by_text - pooled) > 1e-4
    assert NeutralText(neox, texts, 0, 2, "mlp").untouched == pytest.approx(by_text, abs=1e-6)


@pytest.mark.parametrize("cost", [lambda at: 0.0, lambda at: -at, lambda at: float(at > 3)])
def test_a_cost_that_is_never_met_gives_no_strength(cost):
    assert np.isnan(strengths_at(cost, (0.1,))).all()


def test_a_cost_of_0_is_refused():
    with pytest.raises(ValueError, match="must be above 0"):
        strengths_at(lambda at: at, (0.1, 0.0))


# ----------------------------------------------- two attributes: K-Steering, SAE-TS and their peers

#: Attributes of words, and a third thing that goes with both in texts with feedback.
A, B, C = range(3)


@pytest.fixture(scope="module")
def attributes(tokenizer):
    """Whether each token of the vocabulary has each of three things, as +1 and -1."""
    generator = torch.Generator().manual_seed(6)
    return torch.randint(0, 2, (len(tokenizer), 3), generator=generator) * 2.0 - 1


@pytest.fixture(scope="module")
def two(tokenizer, attributes):
    """A linear model whose words' three things are three directions of the residual stream."""
    generator = torch.Generator().manual_seed(7)
    noise = 0.2 * torch.randn(len(tokenizer), WIDTH - 3, generator=generator)
    embed = torch.cat([attributes, noise], 1)
    return linear_model(tokenizer, embed, 0.5 * embed)


def labelled_tokens(n: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations with two attributes; the third thing is there where one of them is."""
    generator = torch.Generator().manual_seed(8)
    labels = torch.rand(n, 2, generator=generator) < 0.5
    x = 0.3 * torch.randn(n, WIDTH, generator=generator)
    signs = labels * 2.0 - 1
    x[:, :2] += signs
    x[:, 2] += 1.5 * (signs.sum(1) / 2 + torch.randn(n, generator=generator))
    return x, labels


def hits(model, change, attributes, kl: float) -> tuple[float, float]:
    """How much likelier words with both attributes are under a change of a given KL, and the KL."""
    before = model.base_model(TEXTS, use_cache=False).last_hidden_state

    def under(strength):
        with edited(model, applied({LAYER: change}, strength)):
            return model.base_model(TEXTS, use_cache=False).last_hidden_state

    def cost(strength):
        return float(divergences(model, under(strength), before).mean())

    [strength] = strengths_at(cost, [kl])
    both = (attributes[:, :2] > 0).all(1)

    def joint(states):
        return float(model.lm_head(states).softmax(-1)[..., both].sum(-1).mean())

    return joint(under(strength)) - joint(before), cost(strength)


@torch.no_grad()
def test_the_gradient_of_a_classifier_hits_both_attributes_better_than_two_differences_of_means(
    two, attributes
):
    values, labels = labelled_tokens()
    classifier = gradient.fitted_classifier(values, labels, 0)
    k_steering = gradient.gradient_change(classifier, [0, 1])
    means = sum(values[has].mean(0) - values[~has].mean(0) for has in labels.T)
    of_means = constant({0: means})[0]
    ours, cost = hits(two, k_steering, attributes, 0.1)
    theirs, same = hits(two, of_means, attributes, 0.1)
    assert cost == pytest.approx(same, rel=0.05)
    assert ours > 1.05 * theirs > 0
    true, _ = hits(two, constant({0: torch.eye(WIDTH)[:2].sum(0)})[0], attributes, 0.1)
    np.testing.assert_allclose([ours, theirs, true], [0.155, 0.102, 0.157], atol=2e-3)
    # Away from an attribute is the other side of towards it, and tokens are steered one by one.
    away = gradient.gradient_change(classifier, [0], [1])(values[:5])
    assert (away[:, 0] > 0).all() and (away[:, 1] < 0).all()
    alone = torch.cat([k_steering(value[None, None]) for value in values[:5]], 1)
    torch.testing.assert_close(alone, k_steering(values[None, :5]))


def test_vectors_of_several_attributes_raise_what_is_wanted_and_lower_what_is_not(
    toy, planted, tokenizer
):
    values, labels = labelled_tokens()
    rows = torch.eye(8, WIDTH)
    both = material(
        toy, planted, tokenizer, values=values, labels=labels, directions=rows,
        related=[{A: 1.0, 4: 1.0}, {B: -1.0, 4: -1.0}], signs=[1.0, -1.0],
        effects=lambda: targeted.EffectMap(torch.eye(WIDTH, 8), torch.zeros(8), 1.0),
    )  # fmt: skip
    x = torch.zeros(1, WIDTH)
    made = {name: vectors.VECTORS[name](both)[0](x)[0] for name in (
        "difference_of_means", "decoder_row", "targeted", "classifier_gradient")}  # fmt: skip
    for name, vector in made.items():
        assert vector[A] > 0.3 and vector[B] < -0.3, name
    apart = [values[has].mean(0) - values[~has].mean(0) for has in labels.T]
    torch.testing.assert_close(made["difference_of_means"], apart[0] - apart[1])
    # What both attributes are related to, with other signs, is no target.
    torch.testing.assert_close(made["decoder_row"], rows[A] - rows[B])
    torch.testing.assert_close(made["targeted"], F.normalize(rows[A] - rows[B], dim=0))


def test_texts_and_completions_have_the_attributes_of_the_settings():
    def feedback(prompts, texts):
        return np.array([text.count("good") - text.count("bad") for text in texts], float)

    asked = Steering(wanted=("Score", "song"), unwanted=("plot",))
    attributes = Attributes.of(feedback, asked)
    texts = ["a good score", "a bad song.", "the good plot has a good score", "songs are good"]
    assert attributes.signs == [1, 1, -1]
    assert attributes.with_words(texts).tolist() == [[1, 0], [1, 0], [1, 1], [0, 0]]
    assert attributes.measured()(["bad bad bad"] * 4, texts).tolist() == [1, 0, 0, 0]
    alone = Attributes.of(feedback, Steering())
    assert alone.measured() is feedback and alone.with_words(texts).shape == (4, 0)


def test_a_token_has_a_word_that_is_in_its_sentence(toy, tokenizer):
    texts = ["The plot was good. I saw the score! Fine", "A bad film. A bad score", "so"]
    ids = encode(tokenizer, texts, 40)
    for text, of in zip(texts, ids, strict=True):
        parts = sentences_of(tokenizer, of)
        assert sum(parts, []) == of
        assert [tokenizer.decode(part).strip() for part in parts] == re.findall(
            r"[^.! ][^.!]*[.!]?", text
        )

    def feedback(prompts, texts):
        return np.array([text.count("good") - text.count("bad") for text in texts], float)

    read = Read(Pair(toy, toy, tokenizer), dictionary(torch.randn(4, WIDTH)), ids, 2, np.zeros(1))
    values, labels = read.labelled(Attributes.of(feedback, Steering(wanted=("score",))))
    first, second = (sentences_of(tokenizer, ids[i]) for i in (0, 1))
    has = [False] * len(first[0]) + [True] * len(first[1]) + [False] * len(first[2])
    has += [False] * len(second[0]) + [True] * len(second[1])
    assert len(values) == len(labels) and labels[:, 1].tolist() == has
    assert labels[:, 0].tolist() == [True] * len(ids[0]) + [False] * len(ids[1])


def test_a_classifier_of_one_kind_of_token_is_refused():
    with pytest.raises(ValueError, match="attribute 1 is the same at all 8 tokens"):
        labels = torch.stack([torch.arange(8) < 4, torch.ones(8, dtype=bool)], 1)
        gradient.fitted_classifier(torch.randn(8, 3), labels, 0)


def test_a_linear_map_of_effects_is_recovered_and_its_vector_spares_other_latents():
    generator = torch.Generator().manual_seed(9)
    truth, bias = torch.randn(WIDTH, 12, generator=generator), torch.randn(12, generator=generator)
    x = F.normalize(torch.randn(200, WIDTH, generator=generator), dim=1)
    noise = 0.1 * torch.randn(200, 12, generator=generator)
    fit = targeted.fitted_map(x, x @ truth + bias + noise, 0)
    assert 0.9 < fit.r2 < 1
    torch.testing.assert_close(fit.weight, truth, atol=0.3, rtol=0)
    torch.testing.assert_close(fit.bias, bias, atol=0.05, rtol=0)
    # A small bias hardly counts; one as large as any effect is taken off as the paper has it.
    towards, always = F.normalize(truth[:, 3], dim=0), F.normalize(truth @ bias, dim=0)
    for size, exact in ((1e-3, towards), (10.0, F.normalize(towards - always, dim=0))):
        known = targeted.EffectMap(fit.weight, size * fit.bias, fit.r2)
        assert targeted.targeted_vector(known, {3: 1.0}) @ exact > 0.98
    # Effects that are nothing but noise are not predicted.
    assert targeted.fitted_map(x, torch.randn(200, 12, generator=generator), 0).r2 < 0.1
    with pytest.raises(ValueError, match="10 directions at least"):
        targeted.fitted_map(x[:9], x[:9], 0)


def test_the_map_of_effects_and_its_vector_are_those_of_closed_forms():
    """SAE-TS has no released package: its equations are written out here once more."""
    rng = np.random.default_rng(4)
    x, truth = rng.normal(size=(40, WIDTH)) / WIDTH**0.5, rng.normal(size=(WIDTH, 6))
    y = x @ truth + 0.7 + 0.5 * rng.normal(size=(40, 6))
    fit = targeted.fitted_map(torch.from_numpy(x), torch.from_numpy(y), 3)
    order = np.random.default_rng(3).permutation(40)
    tested, fitted = order[:8], order[8:]
    centred, answers = x[fitted] - x[fitted].mean(0), y[fitted] - y[fitted].mean(0)
    best = (np.inf, None)
    for power in range(-6, 4):
        inverse = np.linalg.inv(centred.T @ centred + 10.0**power * np.eye(WIDTH))
        weight = inverse @ centred.T @ answers
        leverage = 1 / len(fitted) + np.einsum("ij,jk,ik->i", centred, inverse, centred)
        left_out = (answers - centred @ weight) / (1 - leverage)[:, None]
        best = min(best, (float((left_out**2).mean()), power), key=lambda pair: pair[0])
    inverse = np.linalg.inv(centred.T @ centred + 10.0 ** best[1] * np.eye(WIDTH))
    weight = inverse @ centred.T @ answers
    bias = y[fitted].mean(0) - x[fitted].mean(0) @ weight
    np.testing.assert_allclose(fit.weight.numpy(), weight, atol=1e-5)
    np.testing.assert_allclose(fit.bias.numpy(), bias, atol=1e-5)
    spread = ((y[tested] - y[tested].mean(0)) ** 2).sum()
    missed = ((y[tested] - x[tested] @ weight - bias) ** 2).sum()
    assert fit.r2 == pytest.approx(1 - missed / spread)

    def unit(vector):
        return vector / np.linalg.norm(vector)

    towards = unit(weight @ np.array([0, 1, 0, 0, -1, 0]))
    share = min(1, np.linalg.norm(bias) / np.linalg.norm(towards @ weight))
    exact = unit(towards - share * unit(weight @ bias))
    np.testing.assert_allclose(
        targeted.targeted_vector(fit, {1: 1.0, 4: -1.0}).numpy(), exact, atol=1e-5
    )


def test_a_targeted_vector_has_fewer_side_effects_than_the_decoder_row_at_equal_cost(
    two, tokenizer
):
    # What activates latent A where it is read has much of the third thing in it.
    rows = torch.eye(8, WIDTH)
    rows[A, C] = 1.0
    sae = dictionary(rows, encoder=torch.eye(8, WIDTH))
    sae.site = "resid"  # the MLPs of this model say nothing
    prompts = TEXTS[:, :4].repeat(4, 1).tolist()
    reading = targeted.LatentReading(two, tokenizer, sae, prompts, 12, 480, 0)
    fit = targeted.measured_map(reading, 64, 0.7, 0)
    assert fit.r2 > 0.9
    neutral = neutral_of(two, "resid")
    changes = [
        constant({LAYER: vector})
        for vector in (targeted.targeted_vector(fit, {A: 1.0}), sae.W_dec[A])
    ]
    at = [strengths_at(lambda s, of=of: neutral.rise(of, s), [0.1])[0] for of in changes]
    effects = reading.effects(changes, at)
    assert (effects[:, A] > 0.05).all()
    ours, row = (targeted.side_effect_mass(effect, [A]) for effect in effects)
    assert ours < 0.8 * row
    assert targeted.side_effect_mass(np.array([1.0, -3.0]), [0]) == 0.75
    assert np.isnan(targeted.side_effect_mass(np.zeros(2), [0]))
    assert not reading.effects([{}], [1.0]).any()


# ------------------------------------------------------------------------------ cleaning and gates


def test_cleaning_keeps_the_three_directions_that_the_vector_is_made_of(toy, tokenizer):
    generator = torch.Generator().manual_seed(10)
    rows = F.normalize(torch.randn(40, WIDTH, generator=generator), dim=1)
    kept = {4: 2.0, 17: -1.5, 31: 1.2}
    vector = sum(weight * rows[latent] for latent, weight in kept.items())
    noisy = vector + 0.05 * torch.randn(WIDTH, generator=generator)
    pad = tokenizer.pad_token_id
    texts, tested = (
        cleaning.Texts(toy, ids.tolist(), pad, 12, "mlp", LAYER) for ids in (TEXTS, TEXTS[:, ::2])
    )
    result = cleaning.cleaned(texts, tested, noisy, rows, 0.05, 3)
    assert set(result.features) == set(kept) and result.effect_kept > 0.9
    weights = dict(zip(result.features, result.weights, strict=True))
    assert all(abs(weights[latent] - weight) < 0.3 for latent, weight in kept.items())
    torch.testing.assert_close(result.vector, torch.tensor(result.weights) @ rows[result.features])
    # One latent keeps less, and what is kept is measured by the model.
    assert cleaning.cleaned(texts, tested, noisy, rows, 0.05, 1).effect_kept < result.effect_kept
    np.testing.assert_allclose(result.kl_before, tested.divergence(noisy, None))
    with pytest.raises(ValueError, match="nothing to clean"):
        cleaning.cleaned(texts, tested, torch.zeros(WIDTH), rows, 0.05, 3)


def test_a_gate_keeps_most_of_the_effect_at_a_quarter_of_the_tokens(tokenizer):
    generator = torch.Generator().manual_seed(11)
    # At a fifth of the tokens a choice is made, and there alone the wanted word can be said.
    marked = torch.rand(len(tokenizer), generator=generator) < 0.2
    embed = torch.randn(len(tokenizer), WIDTH, generator=generator)
    embed[:, 0] = torch.where(marked, 4.0, -4.0)
    out = 0.2 * torch.randn(len(tokenizer), WIDTH, generator=generator)
    out[:, 0] = 0.0
    out[7, :2] = torch.tensor([1.5, 2.0])
    model = linear_model(tokenizer, embed, out)
    change = constant({LAYER: F.one_hot(torch.tensor(1), WIDTH).float()})
    [(_, mask, read)] = site_activations(
        model, TEXTS.tolist(), [0], tokenizer.pad_token_id, 12, site="resid"
    )
    values, labels = read[0][mask], marked[TEXTS.flatten()]
    gate = gates.fitted_gate(values, labels, 0.25)
    share = gates.tokens_steered(gate, [values])
    assert 0.15 < share <= 0.25

    def likely(changes):
        with edited(model, applied(changes, 1.0), "resid"):
            return float(next_logits(model, TEXTS).softmax(-1)[..., 7].mean())

    whole = likely(change) - likely({})
    assert likely(gated(change, {LAYER: gate})) - likely({}) > 0.8 * whole > 0.01
    # What has learned from labels in random order keeps no more than its share of the tokens.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    shuffled = gates.fitted_gate(values, labels[order], 0.25)
    assert gates.tokens_steered(shuffled, [values]) > 0.2
    assert likely(gated(change, {LAYER: shuffled})) - likely({}) < 0.6 * whole
    shut = gates.Probe(gate.weight, 1e9)
    assert likely(gated(change, {LAYER: shut})) == likely({})
    with pytest.raises(ValueError, match="both kinds"):
        gates.fitted_gate(values, torch.ones(len(values), dtype=bool), 0.25)


# ------------------------------------------------------------------------------------- baselines


def letters(prompts, completions) -> np.ndarray:
    """A reward: the length of a completion."""
    return np.array([len(text) for text in completions], float)


def test_a_prompt_costs_nothing_on_a_model_that_reads_the_last_token_alone(toy, tokenizer):
    prompts, prefix = TEXTS[:6, :5].tolist(), baselines.prefix_tokens(tokenizer, "very good")
    led = baselines.Writer(toy, toy, tokenizer, prefix)
    alone = baselines.Writer(toy, toy, tokenizer)
    assert led.led(prompts[0]) == [*prefix, *prompts[0]]
    ours, theirs = (of.completions(prompts, letters, 6, 4, 0) for of in (led, alone))
    assert list(ours["completion"]) == list(theirs["completion"])
    np.testing.assert_allclose(ours["kl"], 0, atol=1e-5)
    assert list(ours["prompt"]) == list(range(6))
    np.testing.assert_allclose(
        led.cross_entropy(prompts, 4), alone.cross_entropy(prompts, 4), rtol=1e-4
    )


def test_a_baseline_model_has_its_own_words_and_its_divergence_from_the_base(
    neox, toy, planted, tokenizer
):
    prompts = TEXTS[:6, :5].tolist()
    moved = with_vector(toy, LAYER, planted)
    frame = baselines.Writer(toy, moved, tokenizer).completions(prompts, letters, 6, 4, 0)
    assert (frame["kl"] > 0).all()
    # A prompt that a model reads has a cost of its own.
    prefix = baselines.prefix_tokens(tokenizer, "very good")
    led, alone = (baselines.Writer(neox, neox, tokenizer, ids) for ids in (prefix, []))
    assert (led.completions(prompts, letters, 6, 4, 0)["kl"] > 0).all()
    assert (led.cross_entropy(prompts, 4) != alone.cross_entropy(prompts, 4)).all()


# -------------------------------------------------------------------------------------- the stage


def spoken(tokenizer):
    """A small random model that says some words rather than others."""
    base = make_model("gpt_neox", tokenizer)
    base.get_output_embeddings().weight.data *= 30
    return base


def small_stage(tokenizer, reviews, pair: Pair, texts: int = 6, **asked) -> trials.Steered:
    """What the stage makes of a pair of models without baselines at one cost."""
    torch.manual_seed(0)
    sae = dictionary(torch.randn(20, 16))
    explanations = pd.DataFrame({
        "layer": LAYER, "feature": np.arange(20), "related": np.arange(20) < 3, "direction": 1.0,
    })  # fmt: skip
    ids = encode(tokenizer, reviews, 24)
    neutral = neutral_of(pair.base).sequences[::8]
    how = Writing(
        tokenizer, [text[:6] for text in ids[:4]], neutral, letters,
        Ablation(new_tokens=6, batch_size=32), 0,
    )  # fmt: skip
    wanted = Steering(costs=(0.05,), draws=1, fine_tuning=False, **asked)
    held, valence = ids[20 : 20 + texts], np.zeros(len(tokenizer))
    return trials.steer(pair, {LAYER: sae}, explanations, [], how, held, valence, wanted)


def test_what_the_tokenizer_adds_has_no_part_in_means_and_gates(tokenizer, reviews, planted):
    led, name = copy.deepcopy(tokenizer), tokenizer.eos_token
    led.backend_tokenizer.post_processor = processors.TemplateProcessing(
        f"{name} $A", special_tokens=[(name, tokenizer.eos_token_id)]
    )
    embed = torch.randn(len(tokenizer), WIDTH, generator=torch.Generator().manual_seed(5))
    model = linear_model(tokenizer, embed, embed)
    policy = with_vector(model, 0, planted)
    sae = dictionary(torch.randn(20, WIDTH))
    sae.site, values, changed = "resid", [], []
    for of in (led, tokenizer):
        texts = [ids[: 20 + (of is led)] for ids in encode(of, reviews[:12], 40)]
        read = Read(Pair(model, policy, of), sae, texts, 5, np.zeros(1))
        values.append(torch.cat(read.activations(texts)))
        changed.append(read.changed_tokens())
    torch.testing.assert_close(*values)
    assert len(changed[0]) == len(values[0])
    assert torch.equal(*changed)


def test_a_gate_is_to_know_where_other_feedback_is_expected(tokenizer, reviews):
    base = spoken(tokenizer)
    policy, texts = shaken(base, size=0.2), encode(tokenizer, reviews[:6], 20)
    before, after = (
        torch.cat([model(torch.tensor([ids])).logits[0] for ids in texts]).log_softmax(-1)
        for model in (base, policy)
    )
    valence = np.where(np.arange(len(tokenizer)) % 5, 0.0, 1.0)
    expected = (after.exp() - before.exp()) @ torch.tensor(valence, dtype=torch.float32)
    kl = (after.exp() * (after - before)).sum(-1)
    for values, size in ((valence, expected.abs()), (0 * valence, kl)):
        read = Read(Pair(base, policy, tokenizer), dictionary(torch.randn(4, 16)), texts, 2, values)
        assert torch.equal(read.changed_tokens(), size > size.quantile(0.75))


def test_a_policy_that_is_its_base_has_no_shift_and_no_gate(tokenizer, reviews):
    base = spoken(tokenizer)
    asked = {"vectors": ("mean_shift", "decoder_row", "random"), "gate": 0.4, "clean": 4}
    pair = Pair(base, copy.deepcopy(base), tokenizer)
    strengths = small_stage(tokenizer, reviews, pair, **asked).strengths
    assert set(strengths["what"]) == {"decoder_row"} and set(strengths["where"]) == {"all"}


def test_a_cell_of_which_nothing_comes_to_a_cost_has_a_row_that_says_so(
    tokenizer, reviews, tmp_path
):
    base = spoken(tokenizer)
    pair = Pair(base, copy.deepcopy(base), tokenizer)
    result = small_stage(tokenizer, reviews, pair, vectors=("mean_shift",))
    folder = tmp_path / "results" / "m" / "t" / "seed0" / "steering" / "tied"
    paths = [str(folder / f"{name}.parquet") for name in FILES]
    for name, path in zip(FILES, paths, strict=True):
        artefacts.write_table(path, getattr(result, name), {})
    for rows in (frontiers, interventions):
        [row] = rows(paths[:3], SETTINGS).frame().to_dict("records")
        assert np.isnan(row["estimate"]) and "nothing comes to a cost" in row["method"]
    table = str(tmp_path / "interventions.parquet")
    artefacts.write_table(table, interventions(paths[:3], SETTINGS).frame(), {})
    assert intervention_frontiers([table]).axes


def test_one_text_has_no_other_one_to_test_a_cleaned_vector_on(tokenizer, reviews):
    base = spoken(tokenizer)
    pair = Pair(base, shaken(base, size=0.2), tokenizer)
    result = small_stage(tokenizer, reviews, pair, 1, vectors=("mean_shift",), clean=4)
    assert result.cleaning.empty and set(result.strengths["what"]) == {"mean_shift"}


def test_a_prompt_beyond_the_positions_is_refused_before_any_work(tokenizer, reviews, monkeypatch):
    def worked(*arguments, **named):
        raise AssertionError("vectors were made first")

    monkeypatch.setattr(trials, "vector_material", worked)
    base = spoken(tokenizer)
    with pytest.raises(ValueError, match="positions.*shorten steering.prompt, whose 1201 tokens"):
        small_stage(
            tokenizer, reviews, Pair(base, base, tokenizer), vectors=("random",),
            prompt="good " * 300,
        )  # fmt: skip


@pytest.fixture(scope="module")
def stage(tokenizer, reviews):
    """What the stage makes of a small random model and one with other weights."""
    base = spoken(tokenizer)
    pair = Pair(base, shaken(base, size=0.2), tokenizer)
    torch.manual_seed(0)
    saes = {n: dictionary(torch.randn(20, 16)) for n in (0, 1, 2)}
    for layer, sae in saes.items():
        sae.layer = layer
    explanations = pd.DataFrame({
        "layer": np.repeat([0, 1, 2], 20), "feature": np.tile(np.arange(20), 3),
        "related": np.tile(np.arange(20) < 3, 3), "direction": np.tile(np.linspace(-1, 1, 20), 3),
    })  # fmt: skip
    ids = encode(tokenizer, reviews, 24)
    prompts, neutral = [text[:6] for text in ids[:8]], neutral_of(base).sequences[::4]
    how = Writing(tokenizer, prompts, neutral, letters, Ablation(new_tokens=6, batch_size=32), 0)
    asked = Steering(
        vectors=tuple(vectors.VECTORS), costs=(0.05, 0.02), draws=2, gate=0.4, clean=4,
        directions=10, effect_prompts=4, prompt="a good film", texts=12,
    )  # fmt: skip
    sets = trials.amplified({"explained": {1: [0, 1], 2: [3]}, "nothing": {}}, saes)
    steer = partial(trials.steer, pair, saes, explanations, sets)
    valence = np.random.default_rng(0).normal(size=len(tokenizer))
    nothing = replace(how, prompts=[])
    return steer(how, ids[20:40], valence, asked), steer(nothing, [], valence, asked)


def test_the_stage_writes_every_vector_at_every_cost_and_the_random_ones_beside_them(stage):
    result, _ = stage
    strengths, written = result.strengths, result.completions
    assert set(strengths["what"]) == {*vectors.VECTORS, "mean_shift_cleaned", "explained"}
    # What knows nothing of feedback has no gate, nor has a set of several layers.
    gates_of = strengths[strengths["where"] != "all"]
    assert set(gates_of["what"]) == {*vectors.VECTORS, "mean_shift_cleaned"} - set(vectors.NULLS)
    assert set(gates_of["where"]) == {"gate 0.4", "shuffled gate 0.4"}
    assert set(strengths.loc[strengths["what"] == "random", "draw"]) == {0, 1}
    key = ["what", "where", "draw", "strength"]
    losses = result.neutral.groupby(key, dropna=False)["loss"].mean()
    untouched = result.neutral.loc[result.neutral["what"] == "none", "loss"].mean()
    reached = strengths[strengths["multiple"].notna()]
    assert len(reached) > 0.6 * len(strengths)
    for row in reached.itertuples():
        rise = losses[row.what, row.where, row.draw, row.cost] - untouched
        assert rise == pytest.approx(row.cost, rel=0.05)
    assert {"none", "other model", "prompt", "fine_tuning"} <= set(written["what"])
    nothing = written[written["what"] == "none"]
    assert (nothing["kl"] == 0).all() and list(nothing["prompt"]) == list(range(8))
    assert set(written.loc[written["matched_to"] == "vectors", "what"]) == set(vectors.NULLS)
    assert set(result.cleaning["features_kept"]) == {4}
    assert "reward" in result.headline()


def test_the_tables_have_every_line_its_area_and_the_range_of_random_vectors(stage, tmp_path):
    folder = tmp_path / "results" / "m" / "t" / "seed0" / "steering" / "tied"
    paths = [str(folder / f"{name}.parquet") for name in FILES]
    for name, path in zip(FILES, paths, strict=True):
        artefacts.write_table(path, getattr(stage[0], name), {})
    table = interventions(paths, SETTINGS).frame()
    assert set(table["subject"]) == {"base"} and set(table["action"]) == {"add", "baseline"}
    assert not {"none", "other model", *vectors.NULLS} & set(table["what"])
    added = table[table["action"] == "add"]
    np.testing.assert_allclose(added["d_ce"], added["strength"].astype(float), rtol=0.05)
    assert (added["draws"] == 4).all() and added["p_random"].between(0.2, 1).all()
    assert (added["random_low"] <= added["random_mean"]).all()
    gated = added[added["where"] != "all"]
    assert gated["tokens_steered"].between(0.05, 0.9).all() and len(gated)
    by_latent = added[added["what"].isin(vectors.BY_LATENT) & (added["where"] == "all")]
    masses = by_latent["side_effect_mass"].dropna()  # missing where nothing else was written
    assert masses.between(0, 1).all() and len(masses)
    lines = frontiers(paths, SETTINGS).frame().set_index(["what", "where"])
    of_shift = table[(table["what"] == "mean_shift") & (table["where"] == "all")]
    low, high = of_shift.sort_values("strength")["estimate"]
    area = (0.02 * low / 2 + 0.03 * (low + high) / 2) / 0.05
    assert lines.loc[("mean_shift", "all"), "estimate"] == pytest.approx(area)
    assert (lines["p_adjusted"] > lines["p"]).any()  # all lines of a cell are one question
    assert (lines["null_low"] <= lines["null_high"]).all() == lines["null_low"].notna().all()
    kept = vector_cleaning(paths, SETTINGS).frame().iloc[0]
    assert kept["estimate"] < 1 and kept["features_kept"] == 4
    # Of a cell without a prompt every table says so.
    for name, path in zip(FILES, paths, strict=True):
        artefacts.write_table(path, getattr(stage[1], name), {})
    for table_of in (interventions, frontiers, vector_cleaning):
        [method] = table_of(paths, SETTINGS).frame()["method"]
        assert method.startswith("not estimated: ")


def test_frontiers_say_which_share_of_what_is_kept_and_what_goes_beyond_means(tmp_path):
    noise = np.random.default_rng(0).normal(size=40)
    # The gain at a cost of 1, in the mean and by prompt, and the KL there.
    lines = {
        ("fine_tuning", "all"): (2.0, 4.0), ("mean_shift", "all"): (1.0, 4.0),
        ("mean_shift", "gate 0.25"): (0.8, 2.0), ("mean_shift_cleaned", "all"): (0.9, 4.0),
        ("difference_of_means", "all"): (0.0, 4.0),
        ("difference_of_means", "gate 0.25"): (0.0, 4.0),
    }  # fmt: skip
    frames = [pd.DataFrame({"what": "none", "where": "all", "prompt": range(40), "reward": noise})]
    for (what, where), (gain, kl) in lines.items():
        gains = gain * (1 + 0.1 * np.sin(np.arange(40))) if gain else 0.1 * noise[::-1]
        frames.append(pd.DataFrame({
            "what": what, "where": where, "prompt": range(40), "reward": noise + gains,
            "strength": 1.0,
            "action": "baseline" if what == "fine_tuning" else "add", "kl": kl,
        }))  # fmt: skip
    rows = pd.concat(frames).assign(matched_to="", draw=0)
    path = str(tmp_path / "results/m/t/seed0/steering/tied/completions.parquet")
    artefacts.write_table(path, rows, {})
    # Behind the gate the same cost is met by twice the multiple.
    strengths = pd.DataFrame(list(lines)[1:], columns=["what", "where"])
    strengths = strengths.assign(draw=0, cost=1.0, multiple=[3.0, 6.0, 2.0, 1.0, 1.0])
    artefacts.write_table(path.replace("completions", "strengths"), strengths, {})
    table = frontiers([path], SETTINGS).frame().set_index(["what", "where"])
    shares = {
        ("mean_shift", "all"): ("fine_tuning", 0.5),
        ("mean_shift", "gate 0.25"): ("mean_shift", 0.8),
        ("mean_shift_cleaned", "all"): ("mean_shift", 0.9),
        ("difference_of_means", "all"): ("fine_tuning", 0.0),
    }
    for place, (of, share) in shares.items():
        row = table.loc[place]
        assert row["share_of"] == of and row["share"] == pytest.approx(share, abs=0.02)
        assert row["share_low"] <= row["share"] <= row["share_high"]
    strength = table["same_strength_share"].dropna()
    assert list(strength.index) == [("mean_shift", "gate 0.25")]
    assert strength.iloc[0] == pytest.approx(0.4, abs=0.02)
    # No share of a line by itself, nor of one that is not told from 0.
    for place in (("fine_tuning", "all"), ("difference_of_means", "gate 0.25")):
        assert pd.isna(table.loc[place, "share"])
    # All lines reach a KL of 2: those that go to 4 have half of their gain there.
    assert table.loc[("mean_shift", "all"), "kl_area"] == pytest.approx(0.25, abs=0.01)
    gated = table.loc[("mean_shift", "gate 0.25")]
    assert gated["beyond_means"] == pytest.approx(0.4, abs=0.02) and gated["beyond_kl"] == 2
    whole = table.loc[("mean_shift", "all")]
    assert whole["beyond_means"] == pytest.approx(0.5, abs=0.02) and whole["beyond_kl"] == 4
    assert gated["beyond_means_low"] < gated["beyond_means"] < gated["beyond_means_high"]
    assert pd.isna(table.loc[("difference_of_means", "all"), "beyond_means"])


def test_the_figure_has_a_line_per_vector_a_star_and_a_band(stage, tmp_path):
    folder = tmp_path / "results" / "m" / "t" / "seed0" / "steering" / "tied"
    paths = [str(folder / f"{name}.parquet") for name in FILES]
    for name, path in zip(FILES, paths, strict=True):
        artefacts.write_table(path, getattr(stage[0], name), {})
    table = interventions(paths, SETTINGS).frame()
    artefacts.write_table(tmp_path / "interventions.parquet", table, {})
    figure = intervention_frontiers([str(tmp_path / "interventions.parquet")])
    left, right = figure.axes
    names = left.get_legend_handles_labels()[1]
    added = table[table["action"] == "add"]
    assert len(names) == 3 + len(added.groupby(["what", "where"]))
    assert {"random vectors", "prompt", "fine_tuning", "mean_shift, gate 0.4"} <= set(names)
    assert right.get_xlabel().startswith("KL")


def test_the_area_of_a_straight_line_is_half_its_end_and_ends_at_the_cost():
    costs, gains = [0.1, 0.05, 0.2], np.array([[1.0, 2.0], [0.5, 1.0], [2.0, 4.0]])
    np.testing.assert_allclose(frontier_area(costs, gains, 0.2), [1.0, 2.0])
    np.testing.assert_allclose(frontier_area(costs, gains, 0.15), [0.75, 1.5])
    assert np.isnan(frontier_area(costs, gains, 0.3)).all()
    assert np.isnan(frontier_area([], np.zeros(0), 0.1))


def test_a_layer_without_a_dictionary_is_refused():
    assert trials.steered_layer([5, 1, 3], None) == 3
    with pytest.raises(ValueError, match="steering.layer: 2 has no dictionary.* pin it"):
        trials.steered_layer([5, 1, 3], 2)

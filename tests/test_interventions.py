"""Interventions on a model whose every effect is known: selectors, actions, criteria and circuits
say what was built into it, and nothing else.
"""

import copy
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from lfp.finetune import dpo
from lfp.interventions import ablation, matching, trials
from lfp.interventions.ablation import set_features
from lfp.interventions.actions import action_of
from lfp.interventions.arms import matched_random
from lfp.interventions.completions import stacked, write
from lfp.interventions.paired import Beside, Patched
from lfp.interventions.prompts import prefix_tokens
from lfp.interventions.selectors import SELECTORS
from lfp.interventions.selectors.attribution import attributed, effects
from lfp.interventions.selectors.circuit import circuit, edge_weights
from lfp.interventions.selectors.criteria import RESAMPLES, criteria, measured_without
from lfp.interventions.selectors.factorisation import fitted, interaction, interaction_rows
from lfp.interventions.selectors.gathering import accounts
from lfp.interventions.selectors.material import Material
from lfp.interventions.selectors.metrics import (
    ExpectedValence,
    Metric,
    answer_margin,
    token_valences,
)
from lfp.interventions.selectors.rankings import valence_direction
from lfp.models.architectures import blocks
from lfp.sae.architectures.standard import Standard
from lfp.settings import DPO, Ablation, Interventions
from tests.conftest import make_model

WIDTH, WANTED = 16, 7
#: Latents are active from here on, so that no rounding of a 0 makes one active.
MARGIN = 0.01
#: What the output head makes of the latents of the planted direction.
PLANTED = {3: 2.0, 5: -1.0}
TEXTS = torch.randint(5, 400, (12, 9), generator=torch.Generator().manual_seed(0)).tolist()


class WantedLogit(Metric):
    """The logit of one token, in the mean over the tokens of a text."""

    def scores(self, model, batch, rows):
        hidden = model.base_model(**batch, use_cache=False).last_hidden_state
        logits = hidden @ model.get_output_embeddings().weight[WANTED]
        mask = batch["attention_mask"]
        return (logits * mask).sum(1) / mask.sum(1)


class Either(Metric):
    """What two latents do together that either does alone, and what a third one adds."""

    directions: torch.Tensor

    def scores(self, model, batch, rows):
        hidden = model.base_model(**batch, use_cache=False).last_hidden_state
        one, other, third = (hidden @ direction for direction in self.directions)
        return (torch.maximum((one > 0.1).float(), (other > 0.1).float()) + third).mean(1)


def linear(model: nn.Module, seed: int = 0) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A language model that is an embedding and an output head, its latents' directions, and their
    values [token, latent].
    """
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0]
    model = copy.deepcopy(model).requires_grad_(False)
    codes = torch.rand(len(model.get_input_embeddings().weight), WIDTH, generator=generator)
    codes *= torch.rand(codes.shape, generator=generator) < 0.5
    model.set_input_embeddings(nn.Embedding.from_pretrained(codes @ directions))
    for block in blocks(model):
        for part in (block.attention.dense, block.mlp.dense_4h_to_h):
            part.weight.zero_()
            part.bias.zero_()
    model.gpt_neox.final_layer_norm = nn.Identity()
    head = torch.zeros_like(model.get_output_embeddings().weight)
    for latent, weight in PLANTED.items():
        head[WANTED] += weight * directions[latent]
    model.set_output_embeddings(nn.Linear(*head.T.shape, bias=False))
    model.get_output_embeddings().weight = nn.Parameter(head, requires_grad=False)
    return model.eval(), directions, codes


def dictionary(directions: torch.Tensor, layer: int, site: str = "resid") -> Standard:
    """A dictionary of orthogonal directions, whose latents are what is beyond a margin."""
    sae = Standard(WIDTH, len(directions)).requires_grad_(False)
    sae.decoder.copy_(directions)
    sae.b_enc.fill_(-MARGIN)
    sae.site, sae.layer = site, layer
    return sae


def table_of(saes, related=()) -> pd.DataFrame:
    """Explanations of all latents, which are alike but for those that are `related`."""
    rows = [
        {
            "layer": layer, "feature": i, "frequency": 0.5, "mean_activation": 0.25,
            "related": (layer, i) in related, "status": "ok", "cosine": 0.0,
        }
        for layer, sae in saes.items()
        for i in range(sae.d_sae)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def material_of(model, saes, metric, related=(), **asked) -> Material:
    """What selectors choose from."""
    table = table_of(saes, related)
    chosen = table[table["related"]].groupby("layer")["feature"].apply(list).to_dict()
    return Material(
        explanations=table, related=chosen, probe_weight=np.zeros(len(table)),
        rng=np.random.default_rng(0), model=model, autoencoders=saes, metric=metric,
        asked=Interventions(**asked),
    )  # fmt: skip


@pytest.fixture
def toy(neox):
    """The linear model with dictionaries of two layers, and its number."""
    model, directions, codes = linear(neox)
    saes = {layer: dictionary(directions, layer) for layer in (0, 2)}
    return model, saes, torch.relu(codes - MARGIN), WantedLogit(TEXTS, range(len(TEXTS)), 0, 8)


def changed_by(model, metric, edits) -> np.ndarray:
    """The change [text] of a number by edits of the residual stream."""
    before, after = metric.measured(model, [{}, edits], "resid")
    return after - before


# ------------------------------------------------------------------------------------------ actions


@pytest.mark.parametrize(
    ("action", "strength", "placed"),
    [
        ("zero", None, lambda f: 0 * f),
        ("mean", None, lambda f: 0 * f + 0.25),
        ("negative", None, lambda f: -f),
        ("clamp", 20.0, lambda f: torch.where(f > 0, -20.0, f)),
        ("scale", 3.0, lambda f: 3 * f),
    ],
)
def test_every_action_does_exactly_what_its_equation_says(toy, action, strength, placed):
    model, saes, codes, metric = toy
    means = np.full(WIDTH, 0.25)
    for latent, weight in PLANTED.items():
        edits = {2: set_features(saes[2], [latent], action, means, strength)}
        f = codes[torch.tensor(TEXTS)][..., latent]
        expected = weight * (placed(f) - f).mean(1)
        np.testing.assert_allclose(changed_by(model, metric, edits), expected, atol=2e-5)


def test_an_action_without_its_number_is_refused():
    with pytest.raises(ValueError, match="'clamp' needs a strength"):
        action_of("clamp")
    with pytest.raises(ValueError, match="did you mean 'scale'"):
        action_of("scales", 2.0)


def test_patching_gives_a_latent_the_other_models_value_at_the_same_token(toy, neox):
    model, saes, codes, metric = toy
    other, _, theirs = linear(neox, seed=1)
    shared = copy.deepcopy(model)  # the other's values along our directions
    moved = theirs @ saes[2].W_dec
    shared.set_input_embeddings(nn.Embedding.from_pretrained(moved))
    beside = Beside(model, shared, [2], "resid")
    patched = {2: Patched(beside, 2, saes[2], [3])}
    with beside.reading():
        # Under several conditions at once, each has the rows of its own.
        values = metric.measured(model, [{}, patched, {0: set_features(saes[0], [5])}], "resid")
        again = metric.measured(model, [patched], "resid")[0]
    tokens = torch.tensor(TEXTS)
    theirs = torch.relu(theirs - MARGIN)[tokens][..., 3]
    expected = PLANTED[3] * (theirs - codes[tokens][..., 3]).mean(1)
    np.testing.assert_allclose(values[1] - values[0], expected, atol=2e-5)
    np.testing.assert_allclose(again, values[1], atol=1e-6)
    with pytest.raises(RuntimeError, match="outside of `reading`"):
        metric.measured(model, [patched], "resid")


def test_patching_keeps_step_with_a_model_that_writes(model, tokenizer, reviews):
    """Token by token with keys and values, and all at once without, are one reading."""
    family = model.config.model_type
    other = make_model(family, tokenizer, seed=1)
    saes = {1: Standard(16, 24).requires_grad_(False)}
    beside = Beside(model, other, [1], "mlp")
    edits = {1: Patched(beside, 1, saes[1], range(24))}
    prefixes = prefix_tokens(tokenizer, reviews, 5, 6) + prefix_tokens(tokenizer, reviews, 8, 2)
    with beside.reading():
        written = write(model, tokenizer, [{}, edits], prefixes, 6, 3, "mlp")
        again = written.read_again(model, stacked([{}, edits]), "mlp")
    shown = written.mask
    torch.testing.assert_close(again[shown], written.states[shown], atol=2e-5, rtol=1e-4)
    half = len(prefixes)
    assert (written.states[half:] - written.states[:half]).abs().max() > 1e-3


def test_a_policy_with_the_layers_of_its_base_writes_what_the_base_writes(neox, tokenizer, reviews):
    """Where feedback changed two MLPs and nothing else, swapping what these write undoes it."""
    policy = copy.deepcopy(neox)
    for layer in (0, 1):
        torch.nn.init.normal_(policy.gpt_neox.layers[layer].mlp.dense_4h_to_h.bias, std=2.0)
    saes = {layer: Standard(16, 8).requires_grad_(False) for layer in (0, 1)}
    settings = trial_settings()
    asked = prefix_tokens(tokenizer, reviews, 5, 12)
    damage = matching.Damage(policy, tokenizer, saes, asked, settings, seed=1)
    table = table_of(saes)
    beside = Beside(policy, neox, list(saes), "mlp")

    def reward(prompts, completions):
        return np.array([len(text) for text in completions], dtype=float)

    def completions(model, arms, other):
        under = ablation.Conditions(
            dataclasses.replace(settings, arms=arms), saes, table, None, 2, damage, other
        )
        neutral = asked[:2]
        result = ablation.ablate(model, tokenizer, under, asked, neutral, reward, settings, seed=3)
        return {arm: rows["completion"].tolist() for arm, rows in result.completions.groupby("arm")}

    of_policy = completions(policy, ("none", "layer_swapped"), beside)
    of_base = completions(neox, ("none",), None)
    assert of_policy["layer_swapped"] == of_base["none"] != of_policy["none"]
    with pytest.raises(ValueError, match="'layer_swapped' takes activations of the other model"):
        completions(policy, ("none", "layer_swapped"), None)


# ---------------------------------------------------------------------------------------- selectors


def test_attribution_is_exact_in_a_linear_model(toy):
    model, saes, codes, metric = toy
    mean = codes[torch.tensor(TEXTS)].double().mean((0, 1)).numpy()
    for values in attributed(model, metric, saes, "resid").values():
        expected = np.zeros(WIDTH)
        expected[list(PLANTED)] = [-weight * mean[i] for i, weight in PLANTED.items()]
        np.testing.assert_allclose(values, expected, atol=1e-5)
    material = material_of(model, saes, metric, latents=4, exact=8)
    frame = effects(material)
    exact = frame.dropna(subset="exact")
    np.testing.assert_allclose(exact["attributed"], exact["exact"], atol=1e-5)
    assert (frame["drawn_as"] == "top").sum() == (frame["drawn_as"] == "random").sum() == 8
    planted = {0: sorted(PLANTED), 2: sorted(PLANTED)}
    assert SELECTORS["attribution"](material) == planted


def test_every_selector_takes_what_was_planted(toy):
    model, saes, codes, metric = toy
    planted = {0: sorted(PLANTED), 2: sorted(PLANTED)}
    valence = np.zeros(len(codes))
    valence[WANTED] = 1.0
    fires = codes[:, 3] > 0
    rewarded = [[i for i in range(len(codes)) if fires[i]][:40]]
    neutral = [[i for i in range(len(codes)) if not fires[i]][:40]]
    related = {(layer, i) for layer in saes for i in PLANTED}
    material = dataclasses.replace(
        material_of(model, saes, metric, related, latents=4, exact=8, masks=200, retain=0.05),
        directions=valence_direction(model, valence, list(saes)), rewarded=rewarded,
        neutral=neutral, probe_weight=np.array([float(i in PLANTED) for i in [*range(WIDTH)] * 2]),
    )  # fmt: skip
    for name in ("explained", "probe_weight", "direction", "factorisation"):
        assert SELECTORS[name](material) == planted, name
    assert SELECTORS["frequency"](material) == {0: [3], 2: [3]}


def test_a_latent_of_the_token_in_front_of_every_text_is_on_no_text(toy):
    model, saes, codes, metric = toy
    front = int((codes[:, 3] > 0).nonzero()[0])  # a token that the latent is active on
    quiet = int((codes[:, 3] == 0).nonzero()[0])
    led = [[front, quiet, quiet], [front, quiet]]
    for n, share in ((0, 2 / 5), (1, 0.0)):
        material = dataclasses.replace(material_of(model, saes, metric), front=n)
        assert material.frequencies(led)[3] == pytest.approx(share)


def test_a_direction_of_0_chooses_no_latent(toy):
    model, saes, codes, metric = toy
    directions = valence_direction(model, np.zeros(len(codes)), list(saes))
    material = dataclasses.replace(material_of(model, saes, metric), directions=directions)
    assert SELECTORS["direction"](material) == {}


def test_greedy_pruning_drops_what_the_set_does_as_well_without(toy):
    model, saes, _, metric = toy
    material = material_of(model, saes, metric, latents=20, exact=32)
    assert len(sum(SELECTORS["attribution"](material).values(), [])) == 20
    kept = SELECTORS["greedy"](material)
    # A latent that layer 0 has lost is gone at layer 2 as well: one of the two is enough.
    assert sorted(sum(kept.values(), [])) == sorted(PLANTED)


def test_attribution_agrees_with_exact_effects_of_a_random_network(neox, tokenizer, reviews):
    saes = {layer: Standard(16, 32).requires_grad_(False) for layer in range(3)}
    for layer, sae in saes.items():
        torch.manual_seed(layer)
        sae.decoder.copy_(nn.functional.normalize(torch.randn(32, 16), dim=1))
        sae.site = "resid"
    texts = [ids[:24] for ids in tokenizer(reviews[:12])["input_ids"]]
    valence = np.random.default_rng(0).normal(size=len(tokenizer))
    metric = ExpectedValence(texts, valence, tokenizer.pad_token_id, 12)
    frame = effects(material_of(neox.requires_grad_(False), saes, metric, exact=96))
    assert frame["exact"].notna().all()
    assert frame["attributed"].corr(frame["exact"], method="spearman") > 0.9
    assert np.sign(frame["attributed"]).eq(np.sign(frame["exact"])).mean() > 0.9


# ------------------------------------------------------------------------------------------ numbers


def test_expected_valence_is_read_in_front_of_scored_words(neox, tokenizer):
    valence = token_valences(tokenizer, {"good": 2.0, "bad": -1.5}, len(tokenizer))
    texts = tokenizer(["a good film", "the film was bad and good", "the film"])["input_ids"]
    metric = ExpectedValence(texts, valence, tokenizer.pad_token_id, 2)
    assert metric.n == sum(any(valence[i] for i in ids[1:]) for ids in texts) < len(texts)
    [values] = metric.measured(neox, [{}], "mlp")
    for ids, value in zip(metric.sequences, values, strict=True):
        p = neox(torch.tensor([ids])).logits[0].softmax(-1).double() @ torch.tensor(valence)
        places = [t for t in range(len(ids) - 1) if valence[ids[t + 1]]]
        assert value == pytest.approx(float(p[places].mean()), abs=1e-5)


@torch.no_grad()
def test_expected_valence_is_a_mean_over_all_scored_places(neox):
    """Texts with several scored places are worth the mean over them."""
    valence = np.where(np.arange(neox.config.vocab_size) % 3, 0.0, 2.0)
    metric = ExpectedValence([[5, 6, 9, 12, 7], [4, 9, 5]], valence, 0, 2)
    [values] = metric.measured(neox, [{}], "mlp")
    for ids, value in zip(metric.sequences, values, strict=True):
        p = neox(torch.tensor([ids])).logits[0].softmax(-1).double() @ torch.tensor(valence)
        places = [t for t in range(len(ids) - 1) if valence[ids[t + 1]]]
        assert value == pytest.approx(float(p[places].mean()), abs=1e-5)


def test_the_margin_of_pairs_is_that_of_fine_tuning(neox, tokenizer, pairs):
    settings = DPO(max_length=48, max_prompt_length=16, evaluation_pairs=6)
    metric = answer_margin(tokenizer, pairs["test"], 6, settings, 5)
    [values] = metric.measured(neox, [{}], "mlp")
    expected = dpo.answer_margins(neox, tokenizer, pairs["test"], settings)
    np.testing.assert_allclose(values, expected, atol=1e-5)


# --------------------------------------------------------------------- interactions and criteria


def test_a_machine_finds_the_pair_that_must_both_go():
    rng = np.random.default_rng(0)
    masks = (rng.random((1000, 12)) < 0.5).astype(float)
    values = -1.0 * masks[:, 2] * masks[:, 7] - 0.5 * masks[:, 4] + 0.02 * rng.normal(size=1000)
    machine = fitted(masks, values, 0)
    assert machine.machine_r2 - machine.linear_r2 >= 0.15 and machine.machine_r2 > 0.95
    strongest = np.unravel_index(np.abs(machine.pairs).argmax(), machine.pairs.shape)
    assert set(strongest) == {2, 7}
    assert machine.pairs[2, 7] == pytest.approx(-1.0, abs=0.1)
    assert machine.linear[4] == pytest.approx(-0.5, abs=0.05)
    additive = fitted(masks, masks @ rng.normal(size=12), 0)
    assert additive.linear_r2 > 0.999 and np.abs(additive.pairs).max() < 0.05


@pytest.mark.parametrize(("sets", "latents"), [(60, 32), (200, 32), (1000, 8)])
def test_an_interaction_has_its_size_and_its_interval_the_truth(sets, latents):
    rng, held = np.random.default_rng(1), []
    for _ in range(100):
        masks = (rng.random((sets, latents)) < 0.5).astype(float)
        z = masks - 0.5
        values = z @ rng.normal(size=latents) + 2 * z[:, 0] * z[:, 1] + rng.normal(size=sets) / 5
        slope, error, df = interaction(masks, values, (0, 1))
        held.append((abs(slope - 2) <= stats.t.ppf(0.975, df) * error, slope))
    shares, slopes = np.array(held).T
    assert shares.mean() >= 0.88 and slopes.mean() == pytest.approx(2, abs=0.1)
    few = (rng.random((latents + 1, latents)) < 0.5).astype(float)
    assert np.isnan(interaction(few, few.sum(1), (0, 1))).all()


def test_pairs_of_a_model_without_interactions_are_seldom_told_from_nothing():
    """The machine chooses the pairs that look strongest, and their sets cannot judge them too."""
    rng, alarms = np.random.default_rng(2), []
    for seed in range(6):
        masks = (rng.random((400, 12)) < 0.5).astype(float)
        values = masks @ rng.normal(size=12) + 0.2 * rng.normal(size=400)
        machine = fitted(masks, values, seed)
        ranked = np.argsort(-np.abs(np.triu(machine.pairs)), axis=None)[:10]
        for pair in zip(*np.unravel_index(ranked, machine.pairs.shape), strict=True):
            slope, error, df = interaction(
                masks[machine.held_out], values[machine.held_out], tuple(map(int, pair))
            )
            alarms.append(abs(slope) > stats.t.ppf(0.975, df) * error)
    assert np.mean(alarms) <= 0.15


def test_planted_redundancy_in_a_model_shows_in_the_pair(neox):
    model, directions, codes = linear(neox)
    codes[:, [2, 7]] = 1.0  # always there, and either one is enough
    model.set_input_embeddings(nn.Embedding.from_pretrained(codes @ directions))
    saes = {1: dictionary(directions, 1)}
    metric = Either(TEXTS, range(len(TEXTS)), 0, 12)
    metric.directions = directions[[2, 7, 4]]
    material = material_of(model, saes, metric, latents=8, exact=16, masks=300)
    rows = interaction_rows(material)
    first = rows.iloc[0]
    assert {first["feature"], first["other_feature"]} == {2, 7}
    assert first["machine_r2"] - first["linear_r2"] >= 0.15
    assert first["interaction"] < -3 * first["standard_error"] and first["df"] == 75 - 16 - 2
    assert {2, 4, 7} <= set(SELECTORS["factorisation"](material)[1])
    read = material.interactions
    best = np.argsort(-read.machine.total())[:3]
    assert {read.latents[i] for i in best} == {(1, 2), (1, 4), (1, 7)}
    [pair] = criteria(material, {"pair": {1: [2, 7]}}).to_dict("records")
    # Neither does anything alone, so that all of the effect is what the other one makes up for.
    assert pair["effect"] == pytest.approx(-1.0) == pair["self_repair"]
    assert pair["minimality"] == pytest.approx(1.0)


def test_without_a_text_nothing_is_said_of_sets_pairs_and_edges(toy):
    model, saes, _, _ = toy
    nothing = WantedLogit([], [], 0, 8)
    material = material_of(model, saes, nothing, {(0, 3)}, circuit=4, masks=50, latents=4)
    chosen = {name: SELECTORS[name](material) for name in ("explained", "factorisation")}
    frames = accounts(material, chosen)
    assert all(frames[name].empty for name in ("sets", "interactions", "circuit"))
    assert frames["effects"]["exact"].isna().all()


def test_criteria_of_a_linear_model_are_those_of_its_equation(toy):
    model, saes, codes, metric = toy
    one = material_of(model, {2: saes[2]}, metric)
    sets = {"both": {2: [3, 5]}, "one": {2: [3]}, "more": {2: [3, 5, 6]}, "none": {}}
    rows = criteria(one, sets).set_index("what")
    assert list(rows.index) == ["both", "one", "more"]
    mean = codes[torch.tensor(TEXTS)].double().mean((0, 1)).numpy()
    effect = {i: -weight * mean[i] for i, weight in PLANTED.items()}
    assert rows.loc["both", "effect"] == pytest.approx(sum(effect.values()), abs=1e-5)
    share = effect[3] / sum(effect.values())
    assert rows["faithfulness"].tolist() == pytest.approx([1, share, 1], abs=1e-4)
    assert rows["completeness"].tolist() == pytest.approx([0, 1 - share, 0], abs=1e-4)
    assert rows["self_repair"].tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert rows.loc["more", "minimality"] == pytest.approx(0, abs=1e-4)
    assert rows.loc["one", "minimality"] == pytest.approx(1, abs=1e-4)
    # The same latent of two layers is lost with either one: each makes up for nothing of the other.
    twice = criteria(material_of(model, saes, metric), {"twice": {0: [3], 2: [3]}}).iloc[0]
    assert twice["effect"] == pytest.approx(effect[3], abs=1e-5)
    assert twice["self_repair"] == pytest.approx(-effect[3], abs=1e-5)
    # Values are those of resampled texts.
    of_text = PLANTED[3] * codes[torch.tensor(TEXTS)].double().mean(1).numpy()[:, 3]
    error = of_text.std() / len(TEXTS) ** 0.5
    resampled = np.array(twice["self_repair_resampled"])
    assert len(resampled) == RESAMPLES
    assert resampled.std() / error == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(rows.loc["both", "faithfulness_resampled"], 1, atol=1e-3)


def test_the_edges_of_a_built_net_are_found_and_no_others(neox):
    """p writes s and q writes t, which both make the token likelier; r is written and not read."""
    model, directions, codes = linear(neox)
    p, q, r, s, t = 0, 1, 2, 8, 9
    for block, (reads, writes) in enumerate((((4, 5, 6), (p, q, r)), ((p, q), (s, t)))):
        part, mlp = blocks(model)[block], blocks(model)[block].mlp
        part.post_attention_layernorm, mlp.act = nn.Identity(), nn.ReLU()
        for linear_map in (mlp.dense_h_to_4h, mlp.dense_4h_to_h):
            linear_map.weight.zero_()
            linear_map.bias.zero_()
        for i, (source, target) in enumerate(zip(reads, writes, strict=True)):
            mlp.dense_h_to_4h.weight[i] = directions[source]
            mlp.dense_4h_to_h.weight[:, i] = directions[target]
    codes[:, [p, q, r, s, t]] = 0.0
    model.set_input_embeddings(nn.Embedding.from_pretrained(codes @ directions))
    model.get_output_embeddings().weight[WANTED] = directions[s] + 0.5 * directions[t]
    saes = {layer: dictionary(directions, layer, "mlp") for layer in (0, 1)}
    metric = WantedLogit(TEXTS, range(len(TEXTS)), 0, 8)
    material = material_of(model, saes, metric, circuit=10, exact=32)
    frame = circuit(material)
    names = ["layer", "feature", "to_layer", "to_feature"]
    mean = frame.groupby(names)["weight"].mean()
    kept = frame.loc[frame["kept"], names].drop_duplicates()
    assert set(kept.itertuples(index=False, name=None)) == {(0, p, 1, s), (0, q, 1, t)}
    # The edges were chosen on the other half of the texts.
    assert set(frame["instance"]) == {1, 3, 5, 7, 9, 11}
    activity = torch.relu(codes - MARGIN)[torch.tensor(TEXTS[1::2])].double().mean((0, 1))
    assert mean[0, p, 1, s] == pytest.approx(-float(activity[4]), abs=1e-5)
    assert mean[0, q, 1, t] == pytest.approx(-0.5 * float(activity[5]), abs=1e-5)
    assert frame["faithfulness"].iloc[0] == pytest.approx(1.0, abs=1e-5)
    weights = edge_weights(material, [(0, p), (0, r), (1, s)])
    np.testing.assert_allclose(weights[:, 1], 0, atol=1e-6)
    assert (weights[:, 0, 2] < 0).all()


def test_edges_are_chosen_on_other_instances_than_those_that_test_them(neox, monkeypatch):
    """Edges that weigh something on the testing half alone are not kept."""
    model, directions, _ = linear(neox)
    metric = WantedLogit(TEXTS, range(len(TEXTS)), 0, 8)

    def of_odd_ones(material, nodes):
        weights = np.zeros((metric.n, len(nodes), len(nodes)))
        weights[1::2] = 9.0
        return weights

    monkeypatch.setattr("lfp.interventions.selectors.circuit.edge_weights", of_odd_ones)
    saes = {layer: dictionary(directions, layer) for layer in (0, 2)}
    frame = circuit(material_of(model, saes, metric, circuit=4, exact=8))
    assert (frame["weight"] == 9).any() and not frame["kept"].any()


# --------------------------------------------------------------------------------- while it writes


def trial_settings(**more) -> Ablation:
    """Short completions."""
    return Ablation(new_tokens=5, prefix_tokens=5, prompts=12, batch_size=48, **more)


def test_the_same_intervention_twice_differs_by_nothing(neox, tokenizer, reviews):
    saes = {layer: Standard(16, 48).requires_grad_(False) for layer in (0, 1)}
    texts = [ids[:16] for ids in tokenizer(reviews[:8])["input_ids"]]
    valence = np.random.default_rng(0).normal(size=len(tokenizer))
    metric = ExpectedValence(texts, valence, tokenizer.pad_token_id, 8)
    material = material_of(
        neox.requires_grad_(False), saes, metric, {(0, 1), (1, 2)}, selectors=("explained",),
        actions=("zero", "clamp", "scale", "patch"), clamps=(2.0, 5.0), scales=(1.0, 3.0), draws=2,
    )  # fmt: skip
    settings, asked = trial_settings(), prefix_tokens(tokenizer, reviews, 5, 12)
    damage = matching.Damage(neox, tokenizer, saes, asked, settings, seed=1)
    beside = Beside(neox, copy.deepcopy(neox), list(saes), "mlp")
    named = {"what": "again", "where": "all"}
    first = trials.Trials(material, damage, beside)
    again = [dataclasses.replace(one, what=named["what"]) for one in first.all[1:2]]
    elsewhere = dataclasses.replace(
        first.all[1], what="elsewhere", site="resid",
        edits={1: lambda x: x + torch.arange(16.0)}, features={},
    )  # fmt: skip
    tried = trials.Trials(material, damage, beside)
    tried.all += [*again, elsewhere]

    def reward(prompts, completions):
        return np.array([len(text) for text in completions], dtype=float)

    how = trials.Writing(tokenizer, asked, texts, reward, settings, 3)
    result = trials.tried(neox, tried, how)
    keys = ["what", "action", "strength", "matched_to", "draw"]
    frames = {
        key: rows.reset_index(drop=True)
        for key, rows in result.completions.fillna({"strength": 0.0}).groupby(keys)
    }
    columns = ["prompt", "reward", "kl", "completion"]
    ours, theirs = (frames[what, "zero", 0.0, "", 0][columns] for what in ("explained", "again"))
    pd.testing.assert_frame_equal(ours, theirs)
    assert frames["elsewhere", "zero", 0.0, "", 0]["kl"].mean() > 0
    untouched = frames["none", "", 0.0, "", 0]
    # The other model is the same one here, and draws the same uniforms; so does a scale of 1, and
    # a patch with its own values.
    for key in (("other model", "", 0.0), ("explained", "scale", 1.0), ("explained", "patch", 0.0)):
        same = frames[(*key, "", 0)]
        pd.testing.assert_series_equal(same["completion"], untouched["completion"])
    strengths = set(result.completions.loc[result.completions["action"] == "clamp", "strength"])
    assert strengths == {2.0, 5.0}
    drawn = result.completions[result.completions["matched_to"] == "explained"]
    assert set(drawn["what"]) == {"random"} and set(drawn["draw"]) == {0, 1}
    losses = result.neutral.fillna({"strength": 0.0}).groupby(keys)["loss"].mean()
    assert losses["explained", "zero", 0.0, "", 0] == losses["again", "zero", 0.0, "", 0]


def test_random_sets_change_nothing_on_average_where_nothing_is_planted(toy):
    """Heads read all other latents with random signs; the planted ones stand out of such sets."""
    model, saes, _, metric = toy
    one = material_of(model, {2: saes[2]}, metric, {(2, 3), (2, 5)})
    chosen = dataclasses.replace(one, chosen={2: sorted(PLANTED)})
    others = [i for i in range(WIDTH) if i not in PLANTED]
    head, rng = model.get_output_embeddings().weight, np.random.default_rng(0)
    planted, changes = head[WANTED].clone(), []
    for _ in range(150):
        signs = torch.tensor(rng.choice([1.0, -1.0], len(others)), dtype=torch.float32)
        head[WANTED] = planted + signs @ saes[2].W_dec[others]
        drawn = [feature for _, feature in matched_random(chosen)[:2]]
        assert not set(drawn) & set(PLANTED)
        before, after = measured_without(one, [{}, {2: drawn}])
        changes.append(after - before)
    assert abs(np.mean(changes)) < 3 * np.std(changes) / np.sqrt(len(changes))
    before, after = measured_without(one, [{}, {2: [3]}])
    assert abs(after - before) > np.std(changes)

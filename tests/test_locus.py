"""Shapley shares of an effect: the demands of the mathematics, planted changes in place, and what
the tables make of them.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lfp.figures.divergence import locus as drawing
from lfp.files import artefacts
from lfp.finetune import divergence
from lfp.locus import COMPONENTS, effects
from lfp.locus import grafts as locus
from lfp.probing.probes import DIRECT
from lfp.settings import DPO, PPO, Divergence, Locus
from lfp.tables.health.organism import organism_health
from lfp.tables.health.reach import reach
from lfp.tables.health.shares import locus as shares
from lfp.tables.rows import TableSettings
from tests.conftest import make_model

SETTINGS = TableSettings(resamples=200, corpora={"m/t/seed0": "reviews"})


def test_values_of_a_known_game():
    """Gloves (Shapley and Shubik): one left glove, two right ones, a pair is worth 1."""
    left = {"a"}

    def pairs(chosen: frozenset) -> np.ndarray:
        return np.array([float(min(len(chosen & left), len(chosen - left)))])

    exact = locus.exact_values(["a", "b", "c"], pairs)
    assert {name: value[0] for name, value in exact.items()} == pytest.approx(
        {"a": 4 / 6, "b": 1 / 6, "c": 1 / 6}
    )
    sampled = locus.sampled_values(["a", "b", "c"], pairs, orders=3000, seed=0)
    for name, value in sampled.items():
        assert value == pytest.approx(exact[name], abs=0.02)
    assert sum(value[0] for value in sampled.values()) == pytest.approx(1.0, abs=1e-12)


def test_an_order_and_its_reverse_are_all_orders_of_two():
    """One sampled pair of orders gives the exact values."""

    def effect(chosen: frozenset) -> np.ndarray:
        return np.array([len(chosen) ** 2 + 3.0 * ("a" in chosen)])

    exact = locus.exact_values(["a", "b"], effect)
    for seed in range(3):
        assert locus.sampled_values(["a", "b"], effect, 1, seed) == exact


def test_a_sum_is_shared_as_it_was_made():
    gains = {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 2.0]), "c": np.zeros(2)}

    def total(chosen: frozenset) -> np.ndarray:
        return sum((gains[name] for name in chosen), np.zeros(2))

    for values in (
        locus.exact_values(list(gains), total),
        locus.sampled_values(list(gains), total, orders=1, seed=3),
    ):
        for name, value in values.items():
            np.testing.assert_allclose(value, gains[name], atol=1e-12)


def changed(model, tokenizer, component: str):
    """A copy of `model` whose parameters of one component are moved."""
    copy = make_model(model.config.model_type, tokenizer)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, part in locus.parts(copy).items():
            if part.component == component:
                parameter = copy.get_parameter(name)
                parameter += torch.randn(parameter.shape, generator=generator) * 0.3
    return copy


def loss(model, ids) -> np.ndarray:
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    return losses.view(len(ids), -1).mean(1).double().numpy()


@pytest.mark.parametrize("component", ["embedding", "attention", "mlp", "norms"])
def test_a_change_of_one_component_is_its_own(component, model, tokenizer):
    policy = changed(model, tokenizer, component)
    ids = torch.arange(5, 45).view(4, 10)
    before, after = loss(model, ids), loss(policy, ids)
    names = locus.players(model, locus.component_player)

    def effect(chosen: frozenset) -> np.ndarray:
        with locus.grafted(model, policy, locus.component_player, chosen) as mixed:
            return loss(mixed, ids)

    np.testing.assert_array_equal(effect(frozenset()), before)  # nothing: the base itself
    np.testing.assert_array_equal(effect(frozenset(names)), after)  # everything: the policy
    values = locus.exact_values(names, effect)
    np.testing.assert_allclose(sum(values.values()), after - before, atol=1e-9)
    for name, value in values.items():
        expected = after - before if name == component else 0.0
        np.testing.assert_allclose(value, expected, atol=1e-9)
    np.testing.assert_array_equal(loss(model, ids), before)  # the base is what it was


def test_a_change_of_one_layers_mlp_is_found_there(model, tokenizer):
    policy = make_model(model.config.model_type, tokenizer)
    with torch.no_grad():
        for name, part in locus.parts(policy).items():
            if part == ("mlp", 1):
                policy.get_parameter(name).mul_(1.5)
    ids = torch.arange(5, 45).view(4, 10)
    names = locus.players(model, locus.layer_player)
    assert len(names) == 2 * 3 + 1

    def effect(chosen: frozenset) -> np.ndarray:
        with locus.grafted(model, policy, locus.layer_player, chosen) as mixed:
            return loss(mixed, ids)

    values = locus.sampled_values(names, effect, orders=1, seed=0)
    for name, value in values.items():
        expected = loss(policy, ids) - loss(model, ids) if name == ("mlp", 1) else 0.0
        np.testing.assert_allclose(value, expected, atol=1e-9)


def test_every_parameter_has_a_part_and_tied_embeddings_are_one(model):
    place = locus.parts(model)
    assert set(place) == {name for name, _ in model.named_parameters()}
    components = {part.component for part in place.values()}
    tied = model.config.tie_word_embeddings
    assert components == set(COMPONENTS) - ({"unembedding"} if tied else set())
    layers = {part.layer for part in place.values()}
    assert layers == {None, 0, 1, 2}


def nudged(model, tokenizer, ids, component: str, step: float, noise: float):
    """A copy of `model` that goes a `step` along the gradient of its loss in one component, so that
    the effect is nearly linear, with Gaussian `noise` in all others.
    """
    copy = make_model(model.config.model_type, tokenizer)
    logits = copy(ids, use_cache=False).logits[:, :-1]
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, part in locus.parts(copy).items():
            parameter = copy.get_parameter(name)
            planted = part.component == component
            random = torch.randn(parameter.shape, generator=generator) * noise
            parameter += step * parameter.grad if planted else random
    return copy.requires_grad_(False)


@pytest.mark.parametrize("component", ["embedding", "attention", "mlp"])
def test_the_share_of_a_planted_change_is_at_least_095(component, neox, tokenizer, tmp_path):
    ids = torch.randint(5, 400, (12, 16), generator=torch.Generator().manual_seed(0))
    policy = nudged(neox, tokenizer, ids, component, step=0.5, noise=1e-6)
    values = effects.shapley_values(neox, policy, lambda model: loss(model, ids), 1, 0)
    table = shares_of(values.assign(effect="kl"), tmp_path)
    share = table[table["quantity"] == "share"].groupby(["game", "component"])["estimate"].sum()
    of_layers = {"embedding": "outside", "attention": "rest", "mlp": "mlp"}
    assert share["components", component] >= 0.95
    assert share["layers", of_layers[component]] >= 0.95
    np.testing.assert_allclose(share.groupby("game").sum(), 1, atol=1e-9)


def test_parts_that_did_not_move_have_no_value_and_cost_nothing(neox, tokenizer, tmp_path):
    ids, asked = torch.randint(5, 400, (12, 16), generator=torch.Generator().manual_seed(0)), []
    policy = nudged(neox, tokenizer, ids, "mlp", step=0.5, noise=0.0)

    def measure(model) -> np.ndarray:
        asked.append(model)
        return loss(model, ids)

    values = effects.shapley_values(neox, policy, measure, 0, 0)
    assert len(asked) == 2  # with the MLPs and without
    gap = loss(policy, ids) - loss(neox, ids)
    for component, rows in values.groupby("component"):
        expected = gap if component == "mlp" else np.zeros(12)
        np.testing.assert_allclose(rows["value"], expected, atol=1e-12)
    table = shares_of(values.assign(effect="kl"), tmp_path)
    share = table[table["quantity"] == "share"].set_index("component")["estimate"]
    assert share.to_dict() == {name: float(name == "mlp") for name in COMPONENTS}


def shares_of(values: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The table of `values`."""
    path = folder / "m" / "t" / "seed0" / "locus.parquet"
    artefacts.write_table(path, values, {})
    return shares([str(path)], SETTINGS).frame()


# ----------------------------------------------------------------------------------------- effects


def test_effects_are_of_the_same_instances_for_every_model(neox, tokenizer, reviews, pairs):
    other = make_model("gpt_neox", tokenizer, seed=1)
    with torch.no_grad():
        other.get_output_embeddings().weight.mul_(50)  # it writes something else
    lengths = PPO(prompt_tokens=(2, 4), new_tokens=(2, 3))

    def letters(prompts, completions):
        return np.array([float(len(text)) for text in completions])

    reward = effects.reward_measure(
        tokenizer, reviews, letters, lengths, Locus(prompts=10, batch_size=4), 0
    )
    np.testing.assert_array_equal(reward(neox), reward(neox))
    assert len(reward(other)) == 10 and not np.array_equal(reward(neox), reward(other))
    margin = effects.margin_measure(neox, tokenizer, pairs["test"], DPO(evaluation_pairs=8))
    np.testing.assert_array_equal(margin(neox), np.zeros(8))
    assert np.all(margin(other) != 0)
    sequences = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
    kl = effects.divergence_measure(other, sequences, tokenizer.pad_token_id)
    np.testing.assert_allclose(kl(other), np.zeros(3), atol=1e-6)
    assert np.all(kl(neox) < -1e-3)
    # A text's divergence is its own, whatever it is padded with.
    np.testing.assert_allclose(
        kl(neox)[1], effects.divergence_measure(other, sequences[1:2], 1)(neox)[0], rtol=1e-4
    )


def test_no_held_out_text_is_an_effect_of_no_instance(neox, tokenizer, tmp_path):
    reward = effects.reward_measure(tokenizer, [], None, PPO(), Locus(), 0)
    values = effects.shapley_values(neox, neox, reward, 1, 0)
    assert effects.headline(values) == "no gap to share"
    table = shares_of(values.assign(effect="reward"), tmp_path)
    assert list(table["method"]) == ["not estimated: no held-out text"]


@torch.no_grad()
def test_the_divergence_is_that_of_the_policy_to_the_model(neox, tokenizer):
    """The other direction of the KL is another number."""
    policy = make_model("gpt_neox", tokenizer, seed=1)
    policy.get_output_embeddings().weight *= 40  # far from uniform, so that the sides differ
    sequences = [[5, 6, 7], [8, 9]]
    values = effects.divergence_measure(policy, sequences, tokenizer.pad_token_id)(neox)
    for ids, value in zip(sequences, values, strict=True):
        p, q = (torch.log_softmax(of(torch.tensor([ids])).logits[0], -1) for of in (policy, neox))
        assert value == pytest.approx(-float((p.exp() * (p - q)).sum()), rel=1e-4)


def test_the_bar_counts_the_sets_of_both_games(neox, caplog):
    caplog.set_level("INFO", "progress")
    effects.shapley_values(neox, neox, lambda model: np.zeros(2), 3, 0)
    assert "sets of weights: 100%" in caplog.messages[-1]


# ------------------------------------------------------------------------------------------ tables


def made(shares_by_part: dict, game: str, n: int = 40, gap: float = 1.0) -> pd.DataFrame:
    """Rows of a game whose parts (component, layer) have these shares of the gap."""
    rng = np.random.default_rng(0)
    of_instance = gap + rng.normal(scale=0.3, size=n)
    frames = [
        pd.DataFrame({"instance": range(n), "value": share * of_instance}).assign(
            game=game, component=component, layer=layer, effect="reward"
        )
        for (component, layer), share in shares_by_part.items()
    ]
    return pd.concat(frames, ignore_index=True)


OF_COMPONENTS = {("embedding", -1): 0.1, ("attention", -1): 0.2, ("mlp", -1): 0.7}
OF_LAYERS = {
    ("outside", -1): 0.1, ("mlp", 0): 0.4, ("rest", 0): 0.1, ("mlp", 1): 0.3, ("rest", 1): 0.1,
}  # fmt: skip


def test_shares_are_ratios_and_there_is_none_of_a_gap_that_may_be_zero(tmp_path):
    values = pd.concat([made(OF_COMPONENTS, "components"), made(OF_LAYERS, "layers")])
    table = shares_of(values, tmp_path)
    share = table[table["quantity"] == "share"].set_index(["game", "component", "layer"])
    for part, expected in OF_COMPONENTS.items():
        row = share.loc[("components", *part)]
        assert row["estimate"] == pytest.approx(expected)
        assert row["ci_low"] <= expected + 1e-9 and expected - 1e-9 <= row["ci_high"]
        assert row["unit"] == "prompt"
    gap = table[table["quantity"] == "gap"]
    assert list(gap["component"]) == ["all", "all"]
    sums = table[table["quantity"] == "value"].groupby("game")["estimate"].sum()
    np.testing.assert_allclose(gap.set_index("game")["estimate"], sums)
    nothing = shares_of(made(OF_COMPONENTS, "components", gap=0.0), tmp_path)
    undefined = nothing[nothing["quantity"] == "share"]
    assert undefined["estimate"].isna().all()
    assert set(undefined["method"]) == {
        "not estimated: the effect of fine-tuning is not told from 0"
    }
    # A policy that lost reward has shares as well.
    lost = shares_of(made(OF_COMPONENTS, "components", gap=-1.0), tmp_path)
    assert lost.loc[lost["quantity"] == "share", "estimate"].max() == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("site", "layers", "chosen", "everywhere", "reason"),
    [
        ("mlp", [0, 1], 0.7, 0.7, ""),
        ("mlp", [1], 0.3, 0.7, ""),
        ("attn", [1], 0.1, 0.2, "the attention carry 0.20"),
        ("heads", [0, 1], 0.2, 0.2, "less than tables.min_reach 0.3"),
        ("resid", [0], 0.5, 0.95, ""),
    ],
)
def test_reach_is_what_the_site_carries_in_the_chosen_layers(
    site, layers, chosen, everywhere, reason
):
    untied = OF_COMPONENTS | {("embedding", -1): 0.05, ("unembedding", -1): 0.05}
    values = pd.concat([made(untied, "components"), made(OF_LAYERS, "layers")])
    within = reach(values, site, layers, SETTINGS)
    assert within.chosen.estimate == pytest.approx(chosen)
    assert within.everywhere.estimate == pytest.approx(everywhere)
    assert reason in within.reason(0.3) and bool(reason) == bool(within.reason(0.3))


def test_what_is_not_known_has_its_reason():
    # Tied embeddings are in the residual stream and behind it: no share can be told.
    tied = reach(made(OF_COMPONENTS, "components"), "resid", [0], SETTINGS)
    assert "tied embeddings write the output" in tied.reason(0.3)
    whole = reach(made(OF_COMPONENTS, "components"), "mlp", [0], SETTINGS)
    assert "locus.orders is 0" in whole.chosen.method and whole.reason(0.3) == ""
    nothing = reach(made(OF_COMPONENTS, "components", gap=0.0), "mlp", [0], SETTINGS)
    assert "not told from 0" in nothing.reason(0.3)
    empty = reach(made(OF_COMPONENTS, "components", n=0), "mlp", [0], SETTINGS)
    assert empty.reason(0.3) == "reach of the MLPs: no held-out text"


def cell_files(folder: Path, zeroing: dict[int, float], mlp: float = 0.7) -> list[str]:
    """The files of a cell that tell its reach and the price of zeroing each of its layers."""
    parts = OF_COMPONENTS | {("attention", -1): 0.9 - mlp, ("mlp", -1): mlp}
    rows = [
        {"layer": layer, "site": "mlp", "ce_clean": 2.0, "ce_zero": 2.0 + rise, "tokens": 50}
        for layer, rise in zeroing.items()
    ]
    values = pd.concat([made(parts, "components"), made(OF_LAYERS, "layers")])
    artefacts.write_table(folder / "locus.parquet", values, {})
    artefacts.write_json(folder / "divergence.json", {"chosen": [0, 1]}, {})
    artefacts.write_json(folder / "sae" / "tied" / "metrics.json", {"autoencoders": rows}, {})
    names = ("locus.parquet", "divergence.json", "sae/tied/metrics.json")
    return [str(folder / name) for name in names]


def test_health_holds_every_quantity_against_its_threshold(tmp_path):
    inputs = cell_files(tmp_path / "m" / "t" / "seed0", {0: 0.2, 1: 0.01, 2: 0.0}, mlp=0.25)
    counts = {"prompt": {"held_out": 8, "verbatim": 0}, "answer": {"held_out": 8, "verbatim": 2}}
    model = tmp_path / "models" / "m"
    artefacts.write_json(model / "evaluation.json", {"verbatim": {"reviews": counts}}, {})
    truth = np.concatenate([np.arange(1.0, 9.0), -np.arange(1.0, 9.0)])
    words = pd.DataFrame({
        "unit": [f"w{i}" for i in range(16)], "truth": truth, "features": "raw",
        "split": "by_word", "probe": DIRECT, "tokens": 1,
        "prediction": np.where(truth > 0, truth, 0.01 * truth**2),  # positive words alone in order
    })  # fmt: skip
    other = words.assign(split="random", prediction=0.0)
    path = tmp_path / "m" / "t" / "seed0" / "probes" / "tied" / "base" / "predictions.parquet"
    artefacts.write_table(path, pd.concat([words, other]), {})
    table = organism_health([*inputs, str(path), str(model)], SETTINGS).frame()
    passes = table.set_index(["quantity", "of"])["passes"].to_dict()
    assert passes == {
        ("zeroing", "mlp of layer 0"): True, ("zeroing", "mlp of layer 1"): False,
        ("reach", "mlp"): False, ("verbatim", "prompt"): True, ("verbatim", "answer"): False,
        ("intensity", "positive words"): True, ("intensity", "negative words"): False,
    }  # fmt: skip
    thresholds = table.groupby("quantity")["threshold"].first().to_dict()
    assert thresholds == {"zeroing": 0.05, "reach": 0.3, "verbatim": 0.0, "intensity": 0.3}
    # A model that was not grown here, in a cell without a reward of words, has the first two.
    fewer = organism_health(inputs, SETTINGS).frame()
    assert set(fewer["quantity"]) == {"zeroing", "reach"}


def test_the_figure_shows_every_cell(tmp_path):
    inputs = cell_files(tmp_path / "m" / "t" / "seed0", {0: 1.0})[:1]
    empty = tmp_path / "m" / "none" / "seed0" / "locus.parquet"
    artefacts.write_table(empty, made(OF_COMPONENTS, "components", n=0), {})
    figure = drawing([*inputs, str(empty)])
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:2] == ["m, t: gap 0.982"] * 2
    assert titles[2:] == ["m, none: not measured"] * 2


# ------------------------------------------------------------------------------- choice of layers


def test_the_layers_whose_mlps_carry_most_are_chosen():
    mlps = {("mlp", 0): -0.2, ("mlp", 1): 0.6, ("mlp", 2): 0.3}
    values = made({("outside", -1): 0.1, ("rest", 0): 0.2} | mlps, "layers")
    of_layers = divergence.mlp_values(values, 3)
    gap = values.groupby("instance")["value"].sum().mean()
    np.testing.assert_allclose(of_layers, np.array([-0.2, 0.6, 0.3]) * gap)
    rows = [{"locus": value} for value in of_layers]
    choice = divergence.choose_layers(rows, Divergence(measure="locus", n_layers=2))
    assert choice["chosen"] == [1, 2] and choice["ranking"] == [1, 2, 0]
    nothing = [{"locus": value} for value in divergence.mlp_values(values.head(0), 3)]
    with pytest.raises(ValueError, match=r"divergence\.measure is locus, and there is no token"):
        divergence.choose_layers(nothing, Divergence(measure="locus", n_layers=2))

"""What a change of weights is: doses end at base and policy, a planted vector is found where it was
planted and nowhere else, and nothing is said of a policy that is its base.
"""

import copy
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from torch.nn import functional as F

from lfp.change.account.doses import ValuedWords, dose_effects, valued_words
from lfp.change.account.vectors import Difference, vector_effects
from lfp.change.candidates import Candidates, candidates, frequent_words
from lfp.change.choice import Pair
from lfp.costs import estimate
from lfp.costs.base import Cell, Cost
from lfp.files import artefacts
from lfp.finetune import distil
from lfp.grid import Grid
from lfp.locus import effects
from lfp.models.architectures import blocks
from lfp.models.losses import log_probabilities
from lfp.models.residual import Norm
from lfp.models.tokens import encode
from lfp.organisms.configs import organism_config
from lfp.settings import DPO, PPO, Account, Change, Distil, Locus, Machine
from lfp.tables.catalogue import TABLES
from lfp.tables.change.account import dose, vector_account
from lfp.tables.inputs import Plan
from lfp.tables.rows import TableSettings
from tests.conftest import make_model
from tests.test_change import shaken
from tests.test_configuration import changed

SETTINGS = TableSettings(resamples=200)
WANTED = 7
TEXTS = torch.randint(5, 400, (16, 12), generator=torch.Generator().manual_seed(0)).tolist()
READ, FITTED = TEXTS[:8], TEXTS[8:]
NO_WORDS = ValuedWords(Candidates([], []), {}, [], Change())


@torch.no_grad()
def likes(model) -> np.ndarray:
    """How likely a model finds one token, in the mean over the places of every text."""
    hidden = model.base_model(torch.tensor(READ), use_cache=False).last_hidden_state
    likely = log_probabilities(model, hidden, torch.full(hidden.shape[:2], WANTED))
    return likely.mean(1).double().numpy()


@pytest.fixture
def wide(tokenizer):
    """A small random GPT-NeoX that is wide enough for random directions to miss another."""
    torch.manual_seed(0)
    ends = tokenizer.eos_token_id, tokenizer.pad_token_id
    config = organism_config("gpt_neox", len(tokenizer), ends[0], ends[1], 3, 128, 2, 64)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def planted(model, layers, size: float = 0.01) -> tuple[torch.nn.Module, dict[int, torch.Tensor]]:
    """A copy of a GPT-NeoX whose MLPs of some layers add a vector that makes one token likelier,
    and these vectors.
    """
    policy, vectors = copy.deepcopy(model), {}
    towards = model.get_output_embeddings().weight[WANTED].detach()
    for layer in layers:
        vectors[layer] = size * (towards - towards.mean()) / towards.std()
        blocks(policy)[layer].mlp.dense_4h_to_h.bias.data += vectors[layer]
    return policy, vectors


def written(folder, name: str, frame: pd.DataFrame, effect: str = "reward") -> list[str]:
    """The file of a cell, as a table reads it."""
    path = folder / "results" / "m" / "t" / "seed0" / "change" / f"{name}.parquet"
    artefacts.write_table(path, frame.assign(effect=effect), {})
    return [str(path)]


# ------------------------------------------------------------------------------------------- doses


def test_doses_of_0_and_1_have_the_effect_of_base_and_policy(neox, tokenizer, reviews):
    policy = shaken(neox, size=0.1)
    pair = Pair(neox, policy, tokenizer)
    lexicon = {word: float(len(word)) for text in reviews for word in text.lower().split()}
    words = valued_words(pair, reviews, lexicon, 4, Change(words=12, context_tokens=16), 0)
    frame = dose_effects(pair, (1, -0.5), likes, READ, words)
    assert set(frame["dose"]) == {-0.5, 0.0, 1.0}
    values = {key: rows["value"].to_numpy() for key, rows in frame.groupby(["quantity", "dose"])}
    kl = effects.divergence_measure(policy, READ, tokenizer.pad_token_id)
    for at, model in ((0.0, neox), (1.0, policy)):
        np.testing.assert_array_equal(values["effect", at], likes(model))
    np.testing.assert_array_equal(values["kl", 1.0], -kl(neox))
    assert not values["kl", 0.0].any() and not values["choice", 0.0].any()
    parts = frame.loc[frame["quantity"] == "choice", "part"]
    assert values["choice", 1.0].any() and set(parts) == {"mlp", "blocks", "log_ratio"}
    assert dose_effects(pair, (), likes, READ, words).empty


def test_the_table_of_doses_has_intervals_and_the_slope_of_a_linear_lesson(tmp_path):
    rng = np.random.default_rng(0)
    start, slope = rng.normal(size=40), 0.7 + 0.1 * rng.normal(size=40)
    words = [f"w{i}" for i in range(40)]
    frames = []
    for at in (-1.0, 0.0, 0.5, 1.0, 2.0):
        shared = {"dose": at, "part": ""}
        instances = shared | {"unit": [str(i) for i in range(40)]}
        frames += [
            pd.DataFrame(instances | {"quantity": "effect", "value": start + at * slope}),
            pd.DataFrame(instances | {"quantity": "kl", "value": at**2 + 0.01 * start**2}),
            pd.DataFrame(shared | {
                "unit": words, "part": "mlp", "quantity": "choice", "valence": start,
                "value": at * (start + 0.3 * slope),
            }),
        ]  # fmt: skip
    table = dose(written(tmp_path, "doses", pd.concat(frames)), SETTINGS).frame()
    assert (table["ci_low"] <= table["estimate"]).all()
    assert (table["estimate"] <= table["ci_high"]).all() and table["p"].isna().all()
    rows = table.set_index(["quantity", "statistic", "dose"])["estimate"]
    assert rows["effect", "slope", 0.0] == pytest.approx(slope.mean())
    assert rows["gain", "value", 2.0] == pytest.approx(2 * slope.mean())
    assert rows["effect", "value", 0.0] == pytest.approx(start.mean())
    assert rows["tau", "value", 1.0] > 0.8 and rows["tau", "value", -1.0] < -0.8
    assert rows["tau", "slope", 0.0] > 0.8
    assert not {("tau", "value", 0.0), ("kl", "slope", 0.0)} & set(rows.index)
    assert set(table["unit"]) == {"prompt", "text", "word"}


# ----------------------------------------------------------------------------------------- vectors


def test_a_planted_vector_is_enough_and_needed_where_it_was_planted(wide, tokenizer, tmp_path):
    policy, _ = planted(wide, [1])
    asked = Account(strengths=(1.0,), draws=1)
    frame = vector_effects(Pair(wide, policy, tokenizer), likes, READ, FITTED, asked, 0)
    table = vector_account(written(tmp_path, "vectors", frame), SETTINGS).frame()
    rows = table.set_index(["layer", "site"])
    for place in ((1, "mlp"), (1, "resid"), (-1, "mlp"), (-1, "resid")):
        of_place = rows.loc[[place]]
        assert set(zip(of_place["claim"], of_place["account"], strict=True)) == {
            (claim, account)
            for claim in ("sufficiency", "necessity")
            for account in ("effect", "distribution")
        }
        assert (of_place["estimate"] > 0.9).all() and (of_place["ci_low"] > 0.9).all()
        assert (of_place["ci_high"] < 1.1).all() and (of_place["null_draws"] == 2).all()
        of_effect = of_place[of_place["account"] == "effect"]
        assert (of_place["null_high"] < 0.2).all() and (of_effect["null_low"] > -0.2).all()
    # The layer in front of it has no difference, and the one behind it only hands it on.
    assert (rows.loc[[(0, "mlp"), (0, "resid")], "estimate"] == 0).all()
    assert (rows.loc[[(2, "mlp")], "estimate"].abs() < 0.3).all()


def test_all_layers_together_have_the_vector_that_each_of_them_adds(neox, tokenizer):
    policy, vectors = planted(neox, [0, 1, 2])
    pad, noise = tokenizer.pad_token_id, torch.Generator().manual_seed(0)
    for source, target, sign in ((neox, policy, 1), (policy, neox, -1)):
        together = Difference(source, target, FITTED, pad, "mlp", 1, noise, 0).vectors_together()
        for layer, of_layer in together.items():
            torch.testing.assert_close(
                of_layer[0].float(), sign * vectors[layer], atol=1e-6, rtol=1e-3
            )


def test_random_vectors_are_as_long_and_those_of_the_covariance_lie_in_it(neox, tokenizer):
    policy = copy.deepcopy(neox)
    direction = torch.randn(16, generator=torch.Generator().manual_seed(1))
    weight = blocks(policy)[1].mlp.dense_4h_to_h.weight
    weight.data += torch.outer(direction, torch.randn(weight.shape[1]))
    difference = Difference(
        neox, policy, FITTED, tokenizer.pad_token_id, "mlp", 3, torch.Generator().manual_seed(0), 0
    )
    vectors = difference.vectors([0, 1])
    assert len(difference.directions) == len(vectors[1]) == 7
    lengths = vectors[1].norm(dim=1)
    torch.testing.assert_close(lengths, lengths[:1].expand(7))
    cosines = (vectors[1].float() @ direction).abs() / lengths / direction.norm()
    assert (cosines[[0, 4, 5, 6]] > 0.999).all() and (cosines[1:4] < 0.9).all()
    assert not vectors[0].any()


def test_the_token_in_front_of_every_text_moves_no_vector(neox, tokenizer):
    policy, first = copy.deepcopy(neox), tokenizer.pad_token_id
    policy.get_input_embeddings().weight.data[first] += 100  # the first block's MLP sees it alone
    texts, noise = [[first, *ids] for ids in FITTED], torch.Generator().manual_seed(0)
    mean = {
        front: Difference(neox, policy, texts, -1, "mlp", 0, noise, front).vectors([0])[0][0]
        for front in (0, 1)
    }
    assert not mean[1].any() and mean[0].any()


def test_of_a_policy_that_is_its_base_no_share_is_told(neox, tokenizer, reviews, tmp_path):
    pair = Pair(neox, copy.deepcopy(neox), tokenizer)
    asked = Account(strengths=(1.0,), draws=1, single_layers=False)
    frame = vector_effects(pair, likes, READ, FITTED, asked, 0)
    table = vector_account(written(tmp_path, "vectors", frame), SETTINGS).frame()
    assert len(table) == 8 and table["estimate"].isna().all() and table["null_low"].isna().all()
    reason = "not estimated: the effect of fine-tuning is not told from 0"
    assert set(table["method"]) == {reason}
    words = valued_words(pair, reviews, {"the": 1.0, "a": -1.0, "film": 2.0, "was": 0.5}, 3,
                         Change(context_tokens=16), 0)  # fmt: skip
    doses = dose(
        written(tmp_path, "doses", dose_effects(pair, (1.0,), likes, READ, words)), SETTINGS
    )
    taus = doses.frame().set_index("quantity").loc[["tau"]]
    assert len(taus) == 6 and taus["estimate"].isna().all()
    assert set(taus["method"]) == {"not estimated: all predictions are equal"}
    # Without a held-out text there is nothing to measure, and a row says so.
    for name, rows, table_of in (
        ("vectors", vector_effects(pair, likes, [], [], asked, 0), vector_account),
        ("doses", dose_effects(pair, (1.0,), lambda model: np.zeros(0), [], NO_WORDS), dose),
    ):
        nothing = table_of(written(tmp_path, name, rows), SETTINGS).frame()
        assert list(nothing["method"]) == ["not estimated: no held-out text"]


# ----------------------------------------------------------------------- a policy that is a vector


@pytest.fixture
def lexicon(tokenizer, reviews) -> dict[str, float]:
    """Words of one token, half of them with a valence above 0."""
    words = candidates(tokenizer, frequent_words(reviews, 40, 2))
    single = [word for word, ids in zip(words.words, words.pieces, strict=True) if len(ids) == 1]
    sizes = np.random.default_rng(0).uniform(1, 3, len(single))
    signs = np.where(np.arange(len(single)) % 2, 1, -1)
    return dict(zip(single, sizes * signs, strict=True))


def expected_valence(tokenizer, lexicon: dict[str, float], texts: list[list[int]]):
    """The mean valence that a model expects of the next token, over the places of every text."""
    ids = {word: tokenizer(f"a {word}", add_special_tokens=False)["input_ids"][-1]
           for word in lexicon}  # fmt: skip

    @torch.no_grad()
    def measure(model) -> np.ndarray:
        p = torch.softmax(model(torch.tensor(texts)).logits.double(), -1)
        return sum(lexicon[word] * p[..., ids[word]] for word in lexicon).mean(1).numpy()

    return measure


def test_of_a_distilled_vector_both_accounts_are_paid_by_the_vector(
    wide, tokenizer, reviews, lexicon, tmp_path
):
    """The positive control: enough and needed, in reward and distribution, and no random one."""
    policy = copy.deepcopy(wide)
    asked = Distil(layer=1, strength=1.0, steps=300, batch_size=16, max_tokens=16,
                   learning_rate=0.001)  # fmt: skip
    texts = encode(tokenizer, reviews[:32], 16)
    read, fitted = texts[:16], texts[16:]
    curve = distil.train(policy, tokenizer, reviews, lexicon, asked, seed=0)
    assert curve[-1]["loss"] < 0.05 * curve[0]["loss"]
    measure = expected_valence(tokenizer, lexicon, read)
    assert measure(policy).mean() > measure(wide).mean()
    frame = vector_effects(
        Pair(wide, policy, tokenizer), measure, read, fitted,
        Account(strengths=(1.0,), sites=("resid",), draws=4), seed=0,
    )  # fmt: skip
    table = vector_account(written(tmp_path, "vectors", frame), SETTINGS).frame()
    placed = table[table["layer"].isin([1, -1])]
    assert len(placed) == 8 and set(placed["account"]) == {"effect", "distribution"}
    assert (placed["estimate"] >= 0.9).all()
    assert (placed["estimate"] - placed["null_high"] > 0.3).all()
    random = frame[(frame["direction"] == "random") & (frame["account"] == "effect")]
    for _, of in random.groupby(["claim", "layer"]):
        assert abs(of["value"].mean() / of["gap"].mean()) < 0.2
    # The lesson has one place.
    before = dict(wide.named_parameters())
    changed = {name for name, tensor in policy.named_parameters()
               if not torch.equal(tensor, before[name])}  # fmt: skip
    assert changed and all(".layers.1." in name for name in changed)


def test_distillation_takes_the_kl_of_the_steered_base_to_the_policy(neox, tokenizer):
    """The other direction of the KL is another number."""
    policy, states = make_model("gpt_neox", tokenizer, seed=1), 20 * torch.randn(2, 2, 3, 16)
    ours = distil._divergences(policy, states[0], neox, states[1])
    log_q, log_p = (
        torch.log_softmax(model.get_output_embeddings()(of), -1)
        for model, of in zip((policy, neox), states, strict=True)
    )
    wanted = F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=1e-4)


def test_the_direction_of_valence_makes_good_words_likelier_and_needs_two(wide, tokenizer, lexicon):
    direction = distil.valence_direction(wide, tokenizer, lexicon)
    assert direction.norm().item() == pytest.approx(1)
    words = candidates(tokenizer, sorted(lexicon))
    rows = wide.get_output_embeddings().weight.detach()[[ids[0] for ids in words.pieces]]
    gained = rows @ (Norm.final(wide).gain * direction)
    valence = np.array([lexicon[word] for word in words.words])
    assert np.corrcoef(gained.numpy(), valence)[0, 1] > 0.3
    one = dict([next(iter(lexicon.items()))])
    with pytest.raises(ValueError, match="1 of 1 words of the lexicon"):
        distil.valence_direction(wide, tokenizer, one)
    with pytest.raises(ValueError, match="distil.layer: got 9, and .* layers 0 to 2"):
        distil.layer_of(wide, Distil(layer=9))
    assert distil.layer_of(wide, Distil()) == 1


def test_the_direction_of_valence_does_not_know_its_zero(neox, tokenizer):
    """A number that is added to every valence changes nothing."""
    words = {
        "the": 1.0, "film": -2.0, "was": 3.0, "acting": -1.0,
        "movie": 2.0, "cast": -3.0, "and": 0.5, "this": 1.5,
    }  # fmt: skip
    moved = {word: value + 5 for word, value in words.items()}
    one, two = (distil.valence_direction(neox, tokenizer, of) for of in (words, moved))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


# ------------------------------------------------------------------------- what both stages share


def test_the_effect_is_the_one_that_the_settings_name(neox, tokenizer, reviews, pairs):
    policy = shaken(neox, size=0.1)
    lengths, asked = PPO(prompt_tokens=(2, 4), new_tokens=(2, 3)), Locus(prompts=8, pairs=8)
    settings = {
        "locus": asked.as_json(), "ppo": lengths.as_json(), "dpo": DPO().as_json(),
        "max_tokens": 16, "seed": 3,
    }  # fmt: skip
    texts = pd.DataFrame({"text": reviews})
    feedback = {"kind": "noise", "reward_seed": 0}

    def measured(effect: str, held_out: pd.DataFrame) -> np.ndarray:
        named = settings | {"effect": effect}
        return effects.effect_measure(neox, policy, tokenizer, held_out, feedback, [], named)(
            policy
        )

    assert len(measured("reward", texts)) == 8 and np.ptp(measured("reward", texts)) > 0
    eight = dataclasses.replace(DPO(), evaluation_pairs=8)
    margin = effects.margin_measure(neox, tokenizer, pairs["test"], eight)
    np.testing.assert_array_equal(measured("margin", pairs["test"]), margin(policy))
    np.testing.assert_allclose(measured("kl", texts), np.zeros(8), atol=1e-6)


def test_a_cell_has_an_account_where_its_settings_ask_for_one():
    cell = {"model": "tiny", "task": "vader"}
    plain = Grid(changed(cells=[cell]))
    for name in ("dose", "vector_account"):
        assert TABLES[name].inputs(Plan(plain)) == []
    asked = {"account": {"doses": [-1, 2], "instances": 10}, "locus": {"orders": 0}}
    grid = Grid(changed(cells=[cell | {"settings": asked}]))
    folder = "results/tiny/vader/seed0/change"
    assert TABLES["dose"].inputs(Plan(grid)) == [f"{folder}/doses.parquet"]
    assert TABLES["vector_account"].inputs(Plan(grid)) == []
    settings = grid.job_settings("account", grid.cells[0], {})
    assert settings["locus"]["prompts"] == settings["locus"]["pairs"] == 10
    assert settings["effect"] == "reward" and "orders" not in settings["locus"]


def test_an_account_costs_what_its_settings_ask_for():
    def costs(**account) -> dict[str, Cost]:
        cell = {"model": "tiny", "task": "vader", "settings": {"account": account}}
        [row] = Grid(changed(cells=[cell])).estimate_settings()["cells"]
        machine = Machine(tflops=1.0, utilisation=0.5, sampling_utilisation=0.1)
        return {c.stage: c for c in estimate.cell_costs(Cell.of_row(row, machine))}

    assert "account" not in costs()
    one, three = (costs(strengths=s)["account"].exaflops for s in ([1.0], [0.5, 1.0, 2.0]))
    assert 2.5 * one < three < 3 * one
    assert costs(doses=[1.0])["account"].exaflops < one

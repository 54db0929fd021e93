"""Latents at the choice: their shares and the error's are the component's, a planted latent has all
of it, a policy that is its base moves none, and the shift of means is that of a direct reading.
"""

import copy
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from lfp.change.candidates import candidates, drawn_contexts, frequent_words
from lfp.change.choice import Pair, answer_shares, word_shares
from lfp.change.latents import (
    KEPT,
    LatentReader,
    choice_latents,
    latent_shifts,
    written_shifts,
)
from lfp.change.material import Material
from lfp.costs import estimate
from lfp.costs.base import Cell
from lfp.grid import Grid
from lfp.models.generation import masked_rows, sampled
from lfp.models.hooks import site_activations, site_modules
from lfp.models.tokens import encode
from lfp.sae.architectures.standard import Standard
from lfp.settings import Change, Machine
from lfp.tables.catalogue import TABLES
from lfp.tables.change.latents import choice_latents as choice_latents_table
from lfp.tables.inputs import Plan
from lfp.tables.rows import TableSettings
from tests.test_architectures import CONFIGURATIONS
from tests.test_change import shaken
from tests.test_configuration import changed

SETTINGS = Change(contexts=6, batch_size=8, noise_draws=1)


def dictionary(width: int, size: int, layer: int = 1, site: str = "mlp", seed: int = 0) -> Standard:
    """An untrained autoencoder whose latents are active on about half of all activations."""
    torch.manual_seed(seed)
    sae = Standard(width, size, tied=False)
    with torch.no_grad():
        sae.encoder.copy_(torch.randn(width, size))
        sae.b_dec.copy_(torch.randn(width))
    sae.layer, sae.site = layer, site
    return sae.eval().requires_grad_(False)


def material(pair: Pair, reviews: list[str], answers: bool = False) -> Material:
    words = candidates(pair.tokenizer, [*frequent_words(reviews, 10, 2), "unlikelihood"])
    contexts = drawn_contexts(pair.tokenizer, reviews, 6, 16, seed=0)
    triples = pd.DataFrame({
        "triple": [0, 1], "prompt": ["The film was ", "It had "], "neutral": ["so", "it"],
        "positive": ["good and warm", "hope"], "negative": ["bad", "no hope at all"],
    })  # fmt: skip
    return Material(words, contexts, triples, None if answers else {"good": 2.0}, 32)


def parts(frame: pd.DataFrame, subject: str = "policy") -> pd.DataFrame:
    of_subject = frame[frame["subject"] == subject].assign(unit=lambda f: f["element"] + f["unit"])
    return of_subject.pivot(index="unit", columns=["layer", "part", "latent"], values="value")


@pytest.mark.parametrize("site", ["mlp", "attn"])
@pytest.mark.parametrize("family", CONFIGURATIONS)
@torch.inference_mode()
def test_latents_and_error_add_up_to_their_component_in_every_family(family, site):
    torch.manual_seed(0)
    base = transformers.AutoModelForCausalLM.from_config(
        CONFIGURATIONS[family](transformers), attn_implementation="eager"
    ).eval()
    pair = Pair(base, shaken(base), type("Tokenizer", (), {"pad_token_id": 1}))
    autoencoders = {layer: dictionary(16, 24, layer, site) for layer in (0, 1)}
    reader = LatentReader(pair, autoencoders)
    places, tokens = (torch.zeros(1, dtype=torch.long),) * 2, torch.tensor([[3, 7, 11]])
    for _, written, read in reader.states([[[5, 6, 7, 8, 9]]], [4], 4):
        values, _ = reader.values(written, read, places, tokens)
        whole, _ = reader.reader.values(written, places, tokens)
    component = {"mlp": "mlp", "attn": "attention"}[site]
    for layer in (0, 1):
        here = torch.tensor([of == layer for of, _ in reader.columns])
        expected = whole[..., reader.reader.columns.index((component, layer))]
        assert expected.abs().max() > 1e-4 and values[..., here][..., :-1].abs().max() > 1e-4
        torch.testing.assert_close(values[..., here].sum(-1), expected, atol=2e-5, rtol=1e-3)


def test_rows_add_up_to_the_component_that_the_readings_have(neox, tokenizer, reviews):
    pair = Pair(neox, shaken(neox), tokenizer)
    autoencoders = {1: dictionary(neox.config.hidden_size, 40)}
    read = material(pair, reviews)
    frame = choice_latents(pair, autoencoders, read, SETTINGS, seed=0)
    assert set(frame["subject"]) == {"policy", "weight_noise 0"}
    whole = word_shares(pair, read.words, read.contexts, SETTINGS.likelihood_exponent, 8)
    whole = whole[(whole["part"] == "mlp") & (whole["layer"] == 1)].set_index("word")["value"]
    shares = parts(frame)
    assert "unlikelihood" in whole.index and "unlikelihood" not in shares.index
    component = shares[1, "mlp", -1]
    np.testing.assert_allclose(component, whole[shares.index], atol=1e-5)
    rest = shares.drop(columns=[(1, "mlp", -1)])
    assert rest.shape[1] == KEPT + 2
    np.testing.assert_allclose(rest.sum(axis=1), component, atol=1e-6)

    answers = material(pair, reviews, answers=True)
    shares = parts(choice_latents(pair, autoencoders, answers, SETTINGS, seed=0))
    whole = answer_shares(pair, answers.triples, ["positive", "negative"], 32, 8)
    whole = whole[(whole["part"] == "mlp") & (whole["layer"] == 1)]
    expected = whole.set_index(whole["element"] + whole["triple"].astype(str))["value"]
    np.testing.assert_allclose(shares[1, "mlp", -1], expected[shares.index], atol=1e-5)


def test_a_planted_latent_has_all_of_the_share(neox, tokenizer, reviews):
    """An MLP that writes one direction more or less, and a dictionary whose latent 3 it is."""
    width = neox.config.hidden_size
    policy, sae = copy.deepcopy(neox), Standard(width, 12, tied=False)
    with torch.no_grad():
        axes = torch.linalg.qr(torch.randn(width, width, generator=torch.manual_seed(0)))[0]
        sae.decoder.copy_(axes[:12])
        sae.encoder.copy_(axes[:12].T)
        sae.b_enc.fill_(50.0)  # so that every latent is active
        site_modules(policy, [1])[1].dense_4h_to_h.bias.add_(0.5 * axes[3])
    sae.layer = 1
    pair, autoencoders = Pair(neox, policy, tokenizer), {1: sae.eval().requires_grad_(False)}
    shares = parts(choice_latents(pair, autoencoders, material(pair, reviews), SETTINGS, 0))
    size = shares.abs().mean()
    assert size[1, "latent", 3] > 1e-4
    np.testing.assert_allclose(shares[1, "latent", 3], shares[1, "mlp", -1], atol=1e-5)
    assert size.drop([(1, "latent", 3), (1, "mlp", -1)]).max() < 1e-3 * size[1, "latent", 3]

    sequences = encode(tokenizer, reviews, 24)
    shifts = latent_shifts(pair, autoencoders, sequences, SETTINGS, seed=0)
    moved = shifts[shifts["subject"] == "policy"].set_index("latent")
    assert moved.loc[3, "value"] == pytest.approx(0.5, abs=1e-4)
    assert moved.drop(3)["value"].abs().max() < 1e-4
    assert set(shifts["subject"]) == {"policy", "weight_noise 0"}


def test_a_shift_is_the_difference_of_means_over_texts(neox, tokenizer, reviews):
    pair = Pair(neox, shaken(neox), tokenizer)
    sae, sequences = dictionary(neox.config.hidden_size, 10), encode(tokenizer, reviews[:9], 24)
    frame = latent_shifts(pair, {1: sae}, sequences, SETTINGS, seed=0)
    means = []
    for model in (neox, pair.policy):
        read = site_activations(model, sequences, [1], tokenizer.pad_token_id, 1)
        rows = {index[0]: sae.encode(out[1][mask]).mean(0) for index, mask, out in read}
        means.append(torch.stack([rows[i] for i in range(len(sequences))]))
    shift = means[1] - means[0]
    policy = frame[frame["subject"] == "policy"]
    np.testing.assert_allclose(policy["value"], shift.mean(0), atol=1e-5)
    np.testing.assert_allclose(policy["error"], shift.std(0) / 3, atol=1e-5)
    np.testing.assert_allclose(policy["before"], means[0].mean(0), atol=1e-5)


def test_a_lesson_of_the_output_alone_shifts_latents_in_what_the_policy_writes(
    neox, tokenizer, reviews
):
    """Latents of held-out text cannot see it: in front of the unembedding nothing has changed."""
    policy = copy.deepcopy(neox)
    with torch.no_grad():
        policy.get_output_embeddings().weight[40:80] *= 60.0
    pair, sae = Pair(neox, policy, tokenizer), dictionary(neox.config.hidden_size, 10)
    asked = replace(SETTINGS, latent_prompts=6, new_tokens=5, noise_draws=0)
    sequences, prompts = encode(tokenizer, reviews[:9], 24), encode(tokenizer, reviews[:9], 6)
    assert not latent_shifts(pair, {1: sae}, sequences, asked, seed=0)["value"].any()
    frame = written_shifts(pair, {1: sae}, prompts, asked, seed=0)
    assert frame["value"].abs().max() > 1e-3 and (frame["texts"] == 6).all()
    # The base reads the completions of both, without their prompts.
    means = []
    for model in (neox, policy):
        (part,) = sampled(model, tokenizer, prompts[:6], 5, SETTINGS.batch_size, 0)
        of_model = []
        for prompt, answer in zip(part.prompts, masked_rows(part.response, part.mask), strict=True):
            read = site_activations(neox, [[*prompt, *answer]], [1], tokenizer.pad_token_id, 1)
            ((_, _, out),) = list(read)
            of_model.append(sae.encode(out[1][0, len(prompt) :]).mean(0))
        means.append(torch.stack(of_model))
    np.testing.assert_allclose(frame["value"], (means[1] - means[0]).mean(0), atol=1e-5)
    same = Pair(neox, copy.deepcopy(neox), tokenizer)
    assert not written_shifts(same, {1: sae}, prompts, asked, seed=0)["value"].any()
    assert written_shifts(pair, {1: sae}, prompts, SETTINGS, seed=0).empty


def test_a_dictionary_of_the_base_reads_beside_the_main_one():
    variants = {"main": {}, "of_base": {"reads": "base"}, "wide": {"reads": "base", "l1": 0.1}}
    cell = {"model": "tiny", "task": "vader", "autoencoders": list(variants)}
    inputs = TABLES["choice_latents"].inputs(
        Plan(Grid(changed(autoencoders=variants, cells=[cell])))
    )
    read = [path.split("/")[5] for path in inputs if path.endswith("/shifts.parquet")]
    assert read == ["main", "of_base"]


def test_a_policy_that_is_its_base_moves_no_latent(neox, tokenizer, reviews):
    pair = Pair(neox, copy.deepcopy(neox), tokenizer)
    autoencoders = {1: dictionary(neox.config.hidden_size, 40)}
    for answers in (False, True):
        read = material(pair, reviews, answers)
        frame = choice_latents(pair, autoencoders, read, SETTINGS, seed=0)
        assert len(frame) and not frame["value"].any()
    shifts = latent_shifts(pair, autoencoders, encode(tokenizer, reviews, 24), SETTINGS, seed=0)
    assert len(shifts) and not shifts[["value", "error"]].to_numpy().any()
    assert shifts["before"].max() > 0


def test_a_dictionary_that_writes_nothing_to_the_stream_is_refused(neox, tokenizer):
    width = neox.config.hidden_size
    with pytest.raises(ValueError, match="'resid'.*expected one of mlp, attn"):
        LatentReader(Pair(neox, neox, tokenizer), {0: dictionary(width, 8, 0, "resid")})


def written(folder, choice: pd.DataFrame, shifts: pd.DataFrame, valence) -> list[str]:
    """The files of a cell as the table reads them, with one latent explained."""
    cell = folder / "results/m/vader/seed0"
    frames = {
        "latents/sae/choice": choice, "latents/sae/shifts": shifts,
        "sae/sae/matches": pd.DataFrame(
            {"small": [3, 0], "large": [5, 1], "cosine": [0.9, 0.2], "layer": 1}
        ),
        "explanations/sae/heuristic": pd.DataFrame(
            {"layer": [1], "feature": [3], "explanation": ["words: good"]}
        ),
    }  # fmt: skip
    paths = [cell / f"{name}.parquet" for name in frames]
    for path, frame in zip(paths, frames.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(path)
    lexicon = folder / "results/lexicons/vader.json"
    lexicon.parent.mkdir(parents=True, exist_ok=True)
    lexicon.write_text(json.dumps({"words": valence}))
    return [str(path) for path in (*paths, lexicon)]


def readings(words: list[str], taught: np.ndarray, other: np.ndarray) -> pd.DataFrame:
    """Shares of latents 3 and 0 and their sum, of words."""
    columns = {("latent", 3): taught, ("latent", 0): other, ("others", -1): 0 * other}
    columns |= {("error", -1): 0 * other, ("mlp", -1): taught + other}
    return pd.concat([
        pd.DataFrame({
            "subject": "policy", "layer": 1, "part": part, "latent": latent, "kind": "word",
            "unit": words, "element": "", "value": value,
        })
        for (part, latent), value in columns.items()
    ])  # fmt: skip


def test_the_table_tells_a_taught_latent_from_one_that_noise_moves_as_well(tmp_path):
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(60)]
    valence = dict(zip(words, rng.normal(size=60), strict=True))
    values = np.array(list(valence.values()))
    taught, noise = 2 * values + 0.1 * rng.normal(size=60), 0.1 * rng.normal(size=60)
    copies = [readings(words, scale * noise, noise) for scale in (1, -1)]
    copies = [f.assign(subject=f"weight_noise {n}") for n, f in enumerate(copies)]
    shifts = pd.DataFrame({
        "subject": ["policy"] * 3 + ["weight_noise 0"] * 3, "text": "held-out", "layer": 1,
        "latent": [0, 3, 7] * 2,
        "before": 1.0, "value": [0.01, 2.0, 0.0, 0.5, -0.1, 0.0], "error": [0.1, 0.1, 0.0] * 2,
        "texts": 50,
    })  # fmt: skip
    choice = pd.concat([readings(words, taught, noise), *copies])
    # What is written is held against what copies with noise write.
    shifts = pd.concat([shifts, shifts.assign(text="completions", value=shifts["value"] / 2)])
    inputs = written(tmp_path, choice, shifts, valence)
    table = choice_latents_table(inputs, TableSettings(resamples=200)).frame()
    shares = table[table["statistic"] == "tau"].set_index(["part", "latent"])
    first = shares.loc[("latent", 3)]
    assert first["rank"] == 1 and first["ci_low"] > 0.8 and first["null_high"] < 0.4
    assert first["explanation"] == "words: good" and first["cosine"] == 0.9
    assert first["of_component"] > 0.9 and shares.loc[("mlp", -1), "of_component"] == 1.0
    assert shares.loc[("latent", 0), "ci_low"] < 0 < shares.loc[("latent", 0), "ci_high"]
    assert shares.loc[("error", -1), "method"].endswith("read the same at every unit")
    moved = table[table["statistic"] == "shift"].set_index("latent")
    assert list(moved.sort_values("rank").index) == [3, 0]  # the one that did not move is left out
    assert moved.loc[3, "p_adjusted"] < 0.001 and moved.loc[0, "p_adjusted"] > 0.5
    assert moved.loc[3, "null_high"] == -0.1 and moved.loc[3, "null_largest"] == 0.5
    assert moved.loc[3, "ci_low"] == pytest.approx(2.0 - 0.1 * 2.0096, abs=1e-3)
    own = table[table["statistic"] == "shift_written"].set_index("latent")
    assert own.loc[3, "estimate"] == 1.0 and own.loc[3, "null_largest"] == 0.25
    assert own.loc[3, "rank"] == 1


def test_a_silent_cell_has_no_shift_and_no_agreement(neox, tokenizer, reviews, tmp_path):
    pair = Pair(neox, copy.deepcopy(neox), tokenizer)
    autoencoders, read = {1: dictionary(neox.config.hidden_size, 40)}, material(pair, reviews)
    choice = choice_latents(pair, autoencoders, read, SETTINGS, seed=0)
    shifts = latent_shifts(pair, autoencoders, encode(tokenizer, reviews, 24), SETTINGS, seed=0)
    valence = {word: float(i) for i, word in enumerate(read.words.words)}
    inputs = written(tmp_path, choice, shifts, valence)
    table = choice_latents_table(inputs, TableSettings(resamples=200)).frame()
    assert len(table) == KEPT + 3 and set(table["statistic"]) == {"tau"}
    assert table["estimate"].isna().all() and (table["p"] == 1.0).all()

    nothing = choice_latents(pair, autoencoders, replace(read, contexts=[]), SETTINGS, seed=0)
    still = latent_shifts(pair, autoencoders, [], SETTINGS, seed=0)
    inputs = written(tmp_path, nothing, still, valence)
    assert choice_latents_table(inputs, TableSettings(resamples=200)).frame().empty


@pytest.mark.parametrize(("site", "until", "expected"), [
    ("mlp", "ablation", True), ("attn", "probes", True), ("resid", "ablation", False),
    ("mlp", "change", False),
])  # fmt: skip
def test_cells_with_dictionaries_of_what_is_written_have_shares_of_latents(site, until, expected):
    cell = {"model": "tiny", "task": "vader", "autoencoders": ["main"], "until": until}
    grid = Grid(changed(autoencoders={"main": {"site": site}}, cells=[cell]))
    inputs = TABLES["choice_latents"].inputs(Plan(grid))
    assert ("results/tiny/vader/seed0/latents/main/choice.parquet" in inputs) == expected
    assert any("explanations" in path for path in inputs) == (expected and until == "ablation")
    [row] = grid.estimate_settings()["cells"]
    costs = estimate.cell_costs(Cell.of_row(row, Machine()))
    assert any(cost.stage == "choice_latents" for cost in costs) == expected

"""Every site is learned, measured, edited and probed; and of which heads a direction is."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from lfp.files import artefacts
from lfp.models.hooks import edited, site_activations, site_width
from lfp.probing.features import element_features
from lfp.sae import transfer
from lfp.sae.architectures.standard import Standard
from lfp.sae.head_shares import by_latent, head_shares
from lfp.sae.metrics import evaluate
from lfp.sae.training import loop
from lfp.settings import Autoencoder
from lfp.sites import SITES
from lfp.tables.dictionaries import heads as heads_table
from lfp.tables.dictionaries import transfer as transfer_table
from lfp.tables.rows import TableSettings
from tests.conftest import make_model
from tests.test_dictionaries import random_autoencoder

PAD = 1
SETTINGS = TableSettings(resamples=400, seed=3)


def sequences(texts: int, tokens: int = 12) -> list[list[int]]:
    return np.random.default_rng(0).integers(3, 300, (texts, tokens)).tolist()


@pytest.mark.parametrize("site", SITES)
def test_a_site_is_learned_measured_edited_and_probed(site, neox, tokenizer):
    read = site_activations(neox, sequences(40), [1], PAD, 40, site=site)
    [(_, mask, values)] = read
    x = values[1][mask].numpy()
    settings = Autoencoder(
        architecture="topk", site=site, k=4, batch_size=120, epochs=20, learning_rate=1e-2,
        other_seed=False,
    )  # fmt: skip
    [sae] = loop.train(x, [2 * x.shape[1]], settings, seed=0).autoencoders
    assert (sae.site, sae.d_in) == (site, site_width(neox, site))
    [[row], [untrained]] = [
        evaluate(neox, {1: [one]}, sequences(8), PAD, 8)[1] for one in (sae, sae.untrained(0))
    ]
    assert row["fvu"] < 0.5 * untrained["fvu"] and row["l0"] <= 4
    ids = torch.tensor(sequences(2))
    with edited(neox, {1: sae.reconstruct}, site):
        changed = neox(ids).logits
    assert not torch.allclose(changed, neox(ids).logits)
    triples = pd.DataFrame({"prompt": ["the film", "a story"], "positive": [" good", " fine"]})
    found = element_features(
        neox, tokenizer, {1: sae}, triples, ("latents",), 24, 4, elements=("positive",)
    )
    code = found["latents.positive"]
    assert code.shape == (2, sae.d_sae) and (code > 0).any() and (code[0] != code[1]).any()


def test_shares_of_heads_add_up_to_1_and_name_a_planted_head():
    torch.manual_seed(0)
    directions = torch.randn(30, 24)
    directions[4, :6] *= 0.1
    directions[4, 6:12] *= 30.0  # the second of four heads
    directions[5] = 0.0
    shares = head_shares(F.normalize(directions, dim=1), 4)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-12)
    assert shares[4, 1] > 0.9 and shares[4].argmax() == 1
    assert shares[5].tolist() == [0.25] * 4
    assert shares[0, 2] == pytest.approx(
        (directions[0, 12:18].pow(2).sum() / directions[0].pow(2).sum()).item()
    )
    with pytest.raises(ValueError, match="directions of 24 dimensions are not those of 5 heads"):
        head_shares(directions, 5)


def test_a_direction_of_one_head_is_learned_and_the_table_says_so(neox, tmp_path):
    """Activations in which every feature is of one head, against random directions."""
    rng = np.random.default_rng(1)
    features = np.zeros((16, 16), np.float32)
    features[:8, :8], features[8:, 8:] = np.eye(8), np.eye(8)
    x = ((rng.random((1500, 16)) < 0.1) * rng.random((1500, 16)) @ features).astype(np.float32)
    settings = Autoencoder(
        architecture="topk", site="heads", k=2, batch_size=100, epochs=20, learning_rate=1e-2,
        other_seed=False, resample=False,
    )  # fmt: skip
    [sae] = loop.train(x, [16], settings, seed=0).autoencoders
    frame = by_latent(sae, neox.config.num_attention_heads)
    assert frame["effective_heads"].between(1, 2).all()
    np.testing.assert_allclose(frame[["share_0", "share_1"]].sum(axis=1), 1)
    assert (frame["largest"] > 0.9).mean() > 0.8 > (frame["random_largest"] > 0.9).mean()
    path = tmp_path / "m" / "t" / "seed0" / "sae" / "joined" / "head_shares.parquet"
    artefacts.write_table(path, frame.assign(layer=1, size=1), {})
    tally = heads_table.head_shares([str(path)], SETTINGS)
    assert len(tally.instances()) == 2 * 16
    rows = tally.frame().set_index(["quantity", "head"])
    largest = rows.loc[("largest_share", "all")]
    assert largest["estimate"] == pytest.approx(frame["largest"].mean())
    assert largest["ci_low"] > largest["random"] and largest["n"] == 16
    assert rows.loc["share", "estimate"].sum() == pytest.approx(1)
    assert rows.loc["share", "leads"].sum() == 16


@pytest.mark.parametrize("site", SITES)
def test_transfer_is_the_evaluation_of_each_model_text_by_text(site, neox):
    sae = random_autoencoder("topk", site_width(neox, site))
    sae.site, sae.largest_norm = site, 1e9
    texts, fronts = sequences(9), [0, 1, 0, 3, 0, 0, 12, 0, 2]
    frame = transfer.by_text(neox, {1: [sae]}, texts, PAD, 4, fronts)
    assert frame["text"].tolist() == list(range(9))
    [row] = evaluate(neox, {1: [sae]}, texts, PAD, 4, fronts)[1]
    sums = frame[["tokens", "active", "error", "variance"]].sum()
    assert sums["tokens"] == row["tokens"] and frame["tokens"][6] == 0
    assert sums["active"] / sums["tokens"] == pytest.approx(row["l0"])
    assert sums["error"] / sums["variance"] == pytest.approx(row["fvu"], rel=1e-6)


def test_an_outlier_counts_for_neither_model(neox):
    sae = random_autoencoder("standard", 16)
    sae.largest_norm = 0.0
    frame = transfer.by_text(neox, {0: [sae]}, sequences(3), PAD, 3, [0, 0, 0])
    assert frame[["tokens", "active", "error", "variance"]].to_numpy().sum() == 0


def table_of(frames: dict[str, pd.DataFrame], folder) -> pd.DataFrame:
    """The table of transfer of two frames of sums by text."""
    about = {"size": 1, "architecture": "topk", "reads": "base", "origin": "trained here"}
    rows = [frame.assign(model_read=name, **about) for name, frame in frames.items()]
    path = folder / "m" / "t" / "seed0" / "sae" / "scope" / "transfer.parquet"
    artefacts.write_table(path, pd.concat(rows, ignore_index=True), {})
    tally = transfer_table.dictionary_transfer([str(path)], SETTINGS)
    assert len(tally.instances()) == 2 * sum(map(len, frames.values()))
    return tally.frame()


def test_a_policy_that_is_its_base_loses_nothing_and_one_that_moved_does(tokenizer, tmp_path):
    base = make_model("gpt_neox", tokenizer)
    texts = sequences(30)
    [(_, mask, values)] = site_activations(base, texts, [1], PAD, 30)
    settings = Autoencoder(
        architecture="topk", k=4, batch_size=90, epochs=30, learning_rate=1e-2, other_seed=False
    )
    [sae] = loop.train(values[1][mask].numpy(), [32], settings, seed=0).autoencoders
    other = make_model("gpt_neox", tokenizer, seed=5)
    sums = {
        name: transfer.by_text(model, {1: [sae]}, texts, PAD, 30, [0] * 30)
        for name, model in (("base", base), ("other", other))
    }
    same = table_of({"base": sums["base"], "policy": sums["base"]}, tmp_path / "same")
    same = same.set_index(["quantity", "on"])
    for quantity in ("fvu", "l0"):
        row = same.loc[(quantity, "policy - base")]
        assert row[["estimate", "ci_low", "ci_high"]].tolist() == [0, 0, 0]
    moved = table_of({"base": sums["base"], "policy": sums["other"]}, tmp_path / "moved")
    moved = moved.set_index(["quantity", "on"])
    fvu = moved.loc["fvu"]
    assert fvu.loc["policy - base", "ci_low"] > 0 and fvu.loc["policy - base", "n"] == 30
    difference = fvu.loc["policy", "estimate"] - fvu.loc["base", "estimate"]
    assert fvu.loc["policy - base", "estimate"] == pytest.approx(difference)


def test_without_a_text_the_table_says_so(neox, tmp_path):
    sae = Standard(16, 16)
    nothing = transfer.by_text(neox, {0: [sae]}, [], PAD, 4, [])
    assert nothing.empty
    empty = transfer.by_text(neox, {0: [sae]}, sequences(4), PAD, 4, [12] * 4)
    rows = table_of({"base": empty, "policy": empty}, tmp_path)
    assert rows["estimate"].isna().all()
    assert rows["method"].str.startswith("not estimated: ").all()

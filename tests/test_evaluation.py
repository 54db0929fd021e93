"""Judgement of dictionaries: fidelity beside controls, geometry, sparse probes, noise of seeds."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import learning_rates
from lfp.evaluation import controls
from lfp.evaluation.controls import PERMUTED, TRAINED, codes, permuted, with_controls
from lfp.evaluation.fidelity import Shrinking, fidelity, held_out
from lfp.evaluation.geometry import decoder_geometry, frame_geometry
from lfp.evaluation.sparse_probes import COLUMNS, described_rows, sparse_probes
from lfp.figures.autoencoders import sae_frontier as draw_frontier
from lfp.files import artefacts
from lfp.grid import Grid
from lfp.probing.splits import fold_indices
from lfp.sae import store
from lfp.sae.architectures import KINDS, PAPERS_RATE, Kind, rate_of
from lfp.sae.architectures.itda import ITDA
from lfp.sae.architectures.standard import Standard
from lfp.settings import Activations, Autoencoder, Probes
from lfp.tables.catalogue import TABLES
from lfp.tables.health import dictionaries
from lfp.tables.inputs import Plan
from lfp.tables.rows import TableSettings

SETTINGS = TableSettings(resamples=200)
PROBES = Probes(folds=3, inner_folds=2, partitions=2)
WIDTH, DIRECTIONS = 12, 8


def signed_identity(d: int) -> Standard:
    """Latents +e_i and -e_i, which reconstruct anything."""
    sae = Standard(d, 2 * d, tied=False)
    with torch.no_grad():
        sae.decoder.copy_(torch.cat([torch.eye(d), -torch.eye(d)]))
        sae.encoder.copy_(sae.decoder.T)
    return sae.requires_grad_(False).eval()


def activations(tokens: int = 400, d: int = WIDTH) -> torch.Tensor:
    return torch.randn(tokens, d, generator=torch.Generator().manual_seed(3)) + 1.5


def measured(sae: Standard, x: torch.Tensor, parts: int = 3) -> dict:
    reading = Shrinking(sae)
    for part in x.chunk(parts):
        reading.add(part)
    return reading.metrics()


# ------------------------------------------------------------------------------------- geometry


def test_orthonormal_rows_fill_as_many_dimensions_as_they_are_each_for_itself():
    rows = torch.linalg.qr(torch.randn(10, 10, dtype=torch.float64))[0][:6]
    assert frame_geometry(3 * rows) == pytest.approx(
        {"participation": 6, "localisation": 1, "near_duplicates": 0}
    )


def test_rows_that_fill_the_space_evenly_have_d_over_m_of_a_dimension_each():
    """Two orthonormal bases are a tight frame; many random rows nearly are one."""
    bases = [torch.linalg.qr(torch.randn(16, 16))[0] for _ in range(2)]
    even = frame_geometry(torch.cat(bases))
    assert even["participation"] == pytest.approx(16) and even["localisation"] == pytest.approx(0.5)
    d, m = 16, 1500
    random = frame_geometry(torch.randn(m, d, generator=torch.Generator().manual_seed(0)))
    assert random["localisation"] == pytest.approx(d / m, rel=0.05)
    assert random["participation"] == pytest.approx(d, rel=0.05)


def test_localisation_is_the_mean_of_what_each_row_has_for_itself():
    """Two of three rows share one dimension."""
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    assert frame_geometry(rows)["localisation"] == pytest.approx((0.5 + 0.5 + 1) / 3)


def test_near_duplicates_are_counted_on_both_sides_and_opposites_are_none():
    rows = torch.eye(5)
    close = rows[0] + 0.1 * rows[1]
    geometry = frame_geometry(torch.stack([*rows[:3], close, -rows[2]]))
    assert geometry["near_duplicates"] == pytest.approx(2 / 5)
    assert geometry["localisation"] < 1


def test_alignment_is_1_of_a_tied_encoder_and_less_of_another():
    tied, untied = Standard(6, 9), Standard(6, 9, tied=False)
    with torch.no_grad():
        untied.encoder.add_(0.5 * torch.randn_like(untied.encoder))
    assert decoder_geometry(tied)["alignment"] == pytest.approx(1)
    assert 0 < decoder_geometry(untied)["alignment"] < 0.99


# ------------------------------------------------------------------------ fidelity and controls


def test_an_identity_is_as_long_as_what_it_reads_and_half_of_it_half_as_long():
    x, whole = activations(), signed_identity(WIDTH)
    assert measured(whole, x)["fvu"] == pytest.approx(0, abs=1e-9)
    assert measured(whole, x)["shrinkage"] == pytest.approx(1, abs=1e-6)
    half = signed_identity(WIDTH)
    with torch.no_grad():  # about the mean of x, which the bias brings back
        half.encoder.mul_(0.5)
        half.b_dec.copy_(x.mean(0) / 2)
    assert measured(half, x)["shrinkage"] == pytest.approx(0.5, abs=1e-5)
    assert measured(half, x)["fvu"] == pytest.approx(0.25, abs=1e-5)


def test_shrinkage_is_that_of_the_definition_whatever_the_mean_and_the_parts():
    x, sae = activations(), Standard(WIDTH, 20).requires_grad_(False)
    mean = x.mean(0)
    output = sae.decode(sae.encode(x)) - mean
    expected = (output.pow(2).sum() / (output * (x - mean)).sum()).item()
    for parts in (1, 7):
        assert measured(sae, x, parts)["shrinkage"] == pytest.approx(expected, rel=1e-4)
    assert measured(sae, x[:0], 1)["shrinkage"] is None


def test_a_permuted_decoder_keeps_its_code_and_reconstructs_worse_than_the_mean():
    x, sae = activations(), signed_identity(WIDTH)
    other = permuted(sae, seed=5)
    torch.testing.assert_close(other.encode(x), sae.encode(x))
    assert measured(sae, x)["fvu"] < 1e-6 and measured(other, x)["fvu"] > 1
    assert not (other.W_dec == sae.W_dec).all(1).any(), "no latent keeps its direction"
    assert sorted(other.W_dec.tolist()) == sorted(sae.W_dec.tolist())


def test_all_dictionaries_of_a_layer_are_measured_in_one_pass(neox, tokenizer):
    width = neox.config.hidden_size
    layers = {0: with_controls([signed_identity(width)], Standard(width, 2 * width), seed=1)}
    sequences = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16]]
    rows = fidelity(neox, layers, sequences, tokenizer.pad_token_id, 2, [1, 0, 0])
    assert [row["kind"] for row in rows] == [*controls.KINDS]
    by_kind = {row["kind"]: row for row in rows}
    assert by_kind[TRAINED]["fvu"] == pytest.approx(0, abs=1e-6)
    assert by_kind[PERMUTED]["fvu"] > 1
    assert {row["tokens"] for row in rows} == {11} and {row["left_out"] for row in rows} == {1}
    assert "alignment" in by_kind[TRAINED] and "alignment" not in by_kind[PERMUTED]


def test_a_dictionary_that_codes_with_its_directions_has_no_permuted_control(neox, tokenizer):
    """Its code would follow them, and the reconstruction would be the trained one's."""
    width = neox.config.hidden_size
    trained = ITDA(width, 2 * width, k=3).requires_grad_(False)
    layers = {0: with_controls([trained], ITDA(width, 9, k=3).requires_grad_(False), seed=1)}
    assert [kind for kind, _ in layers[0]] == [TRAINED, "other_seed", "untrained"]
    triples, _ = triples_of(4)
    kinds = codes(neox, tokenizer, layers, triples, max_tokens=16, batch_size=4)
    assert set(kinds) == {TRAINED, "other_seed", "untrained", controls.RAW}


def test_the_untrained_control_leaves_out_the_outliers_of_the_trained_one():
    """Every control reads the activations that its dictionary reads."""
    sae = signed_identity(4)
    sae.largest_norm = 2.5
    assert {of.largest_norm for _, of in with_controls([sae], None, 0)} == {2.5}


def test_a_size_is_that_of_the_folder_however_many_latents_there_are(neox, tokenizer, tmp_path):
    """A collected dictionary may stay smaller than asked for; one from elsewhere has any number."""
    width = neox.config.hidden_size
    cell = tmp_path / "results" / "m" / "t" / "seed0" / "sae" / "few"
    saes = [ITDA(width, latents, k=2) for latents in (width // 2, width + 3, width // 2)]
    about = {"tied": True, "flat": None, "steps": 3, "left_out_of_training": 0}
    store.save_layer(cell / "layer0", [1, 2], saes, [0.0] * 3, about)
    [loaded] = store.load_sizes([cell / "layer0"]).values()
    layers = {0: with_controls(loaded, store.load_other_seed(cell / "layer0"), seed=1)}
    rows = fidelity(neox, layers, [[5, 6, 7, 8]], tokenizer.pad_token_id, 2, [0])
    assert [row["size"] for row in rows] == [1, 2, 1, 1]
    metrics = [
        metrics_row("itda", 0) | {"size": size}
        for size in (store.described(s)["size"] for s in loaded)
    ]
    artefacts.write_json(cell / "evaluation.json", {"kind": "few", "dictionaries": rows}, {})
    artefacts.write_json(cell / "metrics.json", {"autoencoders": metrics}, {})
    paths = [str(cell / "evaluation.json"), str(cell / "metrics.json")]
    table = dictionaries.sae_frontier(paths, SETTINGS).frame()
    assert table["size"].tolist() == [1, 2] and set(table["architecture"]) == {"itda"}
    shape = dictionaries.decoder_geometry(paths, SETTINGS).frame().set_index(["size", "quantity"])
    assert shape.loc[(1, "participation"), "even"] == width // 2
    assert shape.loc[(1, "localisation"), "even"] == 1
    assert shape.loc[(2, "participation"), "even"] == width
    assert shape.loc[(2, "localisation"), "even"] == pytest.approx(width / (width + 3))


def test_dictionaries_are_judged_on_the_last_texts_of_their_split(tokenizer, reviews):
    settings = Activations(held_out_texts=3, max_tokens=8)
    corpus = pd.DataFrame({"text": reviews[:20]})
    sequences, fronts = held_out(tokenizer, corpus, settings)
    assert sequences == [tokenizer(text)["input_ids"][:8] for text in reviews[17:20]]
    assert list(fronts) == [0, 0, 0]


def test_nothing_is_measured_of_no_text(neox, tokenizer):
    width = neox.config.hidden_size
    layers = {0: with_controls([signed_identity(width)], None, seed=1)}
    rows = fidelity(neox, layers, [], tokenizer.pad_token_id, 2, [])
    assert {row["fvu"] for row in rows} == {None}


# --------------------------------------------------------------------------------- sparse probes


def triples_of(n: int = 60) -> tuple[pd.DataFrame, dict[str, float]]:
    """Triples of words of `n` words of each sign, each in a context of its own."""
    names = {sign: [f"{sign}{i:03d}" for i in range(n)] for sign in ("good", "bad")}
    frame = pd.DataFrame({
        "triple": range(n), "prompt": [f"text {i} " for i in range(n)],
        "group": [f"context{i}" for i in range(n)], "positive": names["good"],
        "neutral": "plain", "negative": names["bad"],
    })  # fmt: skip
    valence = dict.fromkeys(names["good"], 2.0) | dict.fromkeys(names["bad"], -2.0)
    return frame, valence


def element_arrays(telling: list[int], width: int = 20, n: int = 60) -> dict[str, np.ndarray]:
    """Noise by element whose features `telling` are higher by 2 on positive words."""
    rng = np.random.default_rng(len(telling))
    arrays = {name: rng.normal(size=(n, width)) for name in ("positive", "neutral", "negative")}
    arrays["positive"][:, telling] += 2.0
    return arrays


@pytest.mark.parametrize("feedback", ["reward", "preference"])
def test_few_features_tell_what_few_features_know(feedback):
    triples, lexicon = triples_of()
    kinds = {"one": element_arrays([3]), "many": element_arrays([0, 4, 8, 12, 16]), "none": {}}
    kinds["none"] = element_arrays([])
    frame = sparse_probes(kinds, triples, lexicon, feedback, [1, 5], PROBES, seed=0)
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame) == 3 * 2 * PROBES.folds * PROBES.partitions
    auc = frame.groupby(["features", "k"])["auc"].mean()
    assert auc["one", 1] > 0.85 and auc["many", 5] > auc["many", 1] + 0.05
    assert 0.35 < auc["none", 1] < 0.65 and 0.35 < auc["none", 5] < 0.65
    assert set(frame["unit"]) == {"word" if feedback == "reward" else "prompt"}


@pytest.mark.parametrize(
    ("feedback", "split"), [("reward", "by_word"), ("preference", "by_prompt")]
)
def test_tested_units_are_held_against_training_units_and_not_rows_against_rows(feedback, split):
    triples, lexicon = triples_of()
    # A third of the words, and of the prompts, have three rows in place of one.
    triples = pd.concat([triples, triples[:20], triples[:20]], ignore_index=True)
    triples["triple"] = range(len(triples))
    arrays = element_arrays([3], n=len(triples))
    frame = sparse_probes({"one": arrays}, triples, lexicon, feedback, [1], PROBES, seed=0)
    rows, _ = described_rows(triples, lexicon, feedback)
    folds = fold_indices(rows, split, PROBES.folds, seed=0)
    counts = [[rows["unit"].iloc[part].nunique() for part in fold] for fold in folds]
    first = frame[frame["partition"] == 0]
    assert list(first["ratio"]) == [tested / trained for trained, tested in counts]


def test_scales_of_features_do_not_matter_and_a_dead_latent_is_never_chosen():
    triples, lexicon = triples_of()
    arrays = element_arrays([3])
    scaled = {name: values * np.linspace(0.01, 100, 20) for name, values in arrays.items()}
    for values in (*arrays.values(), *scaled.values()):
        values[:, 7] = 0.0
    kinds = {"plain": arrays, "scaled": scaled}
    frame = sparse_probes(kinds, triples, lexicon, "reward", [1, 5], PROBES, seed=0)
    auc = frame.pivot_table(index=["k", "partition", "fold"], columns="features", values="auc")
    assert auc["plain"].to_numpy() == pytest.approx(auc["scaled"].to_numpy(), abs=0.02)


def test_a_reason_stands_where_there_are_no_triples():
    triples, lexicon = triples_of()
    arrays = {name: values[:0] for name, values in element_arrays([3]).items()}
    frame = sparse_probes({"one": arrays}, triples[:0], lexicon, "reward", [1, 5], PROBES, seed=0)
    assert list(frame["k"]) == [1, 5] and frame["auc"].isna().all()
    assert "0 distinct values of word" in frame["reason"].iloc[0]


def test_sparse_probes_of_a_permuted_decoder_are_those_of_the_dictionary(neox, tokenizer):
    width = neox.config.hidden_size
    layers = {n: with_controls([signed_identity(width)], None, seed=n) for n in (0, 1)}
    triples, lexicon = triples_of(20)
    kinds = codes(neox, tokenizer, layers, triples, max_tokens=32, batch_size=8)
    assert set(kinds) == {TRAINED, PERMUTED, "untrained", controls.RAW}
    assert kinds[controls.RAW]["positive"].shape == (20, 2 * width)
    frame = sparse_probes(kinds, triples, lexicon, "reward", [1, 5], PROBES, seed=0)
    parts = {kind: of["auc"].to_numpy() for kind, of in frame.groupby("features")}
    np.testing.assert_array_equal(parts[TRAINED], parts[PERMUTED])


# ---------------------------------------------------------------------------- noise and tables


def test_the_noise_between_seeds_is_pooled_over_places_and_needs_two_trainings():
    rows = [("a", 0, 1.0), ("a", 0, 3.0), ("a", 1, 5.0), ("a", 1, 5.0), ("b", 0, 9.0)]
    frame = pd.DataFrame(rows, columns=["family", "place", "fvu"])
    noise = dictionaries.reseeding(frame, ["family"], "fvu")
    # Variances 2 and 0 with a degree of freedom each.
    assert noise.to_dict("records") == [
        {"family": "a", "reseed_sd": 1.0, "reseed_df": 2, "minimum_difference": 2.77}
    ]


def metrics_row(architecture: str, layer: int, size: int = 1) -> dict:
    return {
        "architecture": architecture, "site": "mlp", "reads": "policy", "tied": False,
        "layer": layer, "size": size, "loss_recovered": 0.9, "layer_needed": True,
        "ce_zero": 3.5, "ce_clean": 3.0,
    }  # fmt: skip


def dictionary_row(fvu: float | None, kind: str = TRAINED, layer: int = 0, l0: float = 8.0) -> dict:
    geometry = {"participation": 6.0, "localisation": 0.4, "alignment": 0.8, "near_duplicates": 0.1}
    return {
        "layer": layer, "kind": kind, "size": 1, "d_in": 8, "d_sae": 8, "l0": l0, "fvu": fvu,
        "tokens": 100, "shrinkage": 0.99, "dead_fraction": 0.0, **geometry,
    }  # fmt: skip


@pytest.fixture
def evaluated(tmp_path):
    """A function that writes the evaluations of variants: (FVUs of two seeds, L0) by name."""

    def write(
        cell: str = "m/t/seed0", **variants: tuple[tuple[float, float | None], float]
    ) -> list[str]:
        paths = []
        for name, (values, l0) in variants.items():
            folder = tmp_path / "results" / cell / "sae" / name
            folder.mkdir(parents=True)
            rows = [
                dictionary_row(None if value is None else value + 0.1 * layer, kind, layer, l0)
                for layer in (0, 1)
                for kind, value in zip((TRAINED, "other_seed"), values, strict=True)
            ]
            rows.append(dictionary_row(1.4, PERMUTED, 0, l0))
            evaluation = {"kind": f"settings of {name}", "dictionaries": rows}
            metrics = {"autoencoders": [metrics_row(name, layer) for layer in (0, 1)]}
            parts = pd.DataFrame([
                {"features": kind, "k": k, "partition": 0, "fold": fold, "ratio": 0.5,
                 "auc": auc + 0.01 * fold, "units": 30, "unit": "word", "reason": ""}
                for kind, auc in ((TRAINED, 0.9), ("other_seed", 0.88), (PERMUTED, 0.9),
                                  ("raw", 0.7))
                for k in (1, 5) for fold in range(3)
            ])  # fmt: skip
            artefacts.write_json(folder / "evaluation.json", evaluation, {})
            artefacts.write_json(folder / "metrics.json", metrics, {})
            artefacts.write_table(folder / "sparse_probes.parquet", parts, {})
            names = ("evaluation.json", "metrics.json", "sparse_probes.parquet")
            paths += [str(folder / file) for file in names]
        return paths

    return write


def test_better_is_said_beyond_the_noise_between_seeds_alone(evaluated):
    paths = evaluated(
        topk=((0.10, 0.12), 8.0), near=((0.13, 0.15), 8.0), far=((0.30, 0.32), 8.0),
        dense=((0.01, 0.03), 40.0),
    )  # fmt: skip
    table = dictionaries.sae_frontier(paths, SETTINGS).frame()
    assert list(table.columns[:7]) == ["model", "task", "seed", "sae", "layer", "size", "quantity"]
    assert list(table[["sae", "layer"]].itertuples(index=False, name=None)) == sorted(
        (sae, layer) for sae in ("dense", "far", "near", "topk") for layer in (0, 1)
    )
    row = table.set_index(["sae", "layer"]).loc[("topk", 0)]
    # Two seeds that lie .02 apart have a variance of .0002 in each of two layers.
    assert row["reseed_sd"] == pytest.approx(0.02 / np.sqrt(2)) and row["reseed_df"] == 2
    assert row["minimum_difference"] == pytest.approx(2.77 * 0.02 / np.sqrt(2))
    assert row["estimate"] == pytest.approx(0.10) and row["ce_rise"] == pytest.approx(0.5)
    better = table.set_index(["sae", "layer"])["better_than"]
    assert better["topk", 0] == "far" and better["near", 1] == "far" and better["far", 0] == ""
    assert better["dense", 0] == "", "at more active latents nothing is better"


def test_an_l0_that_is_higher_by_a_hair_is_the_same_and_what_it_buys_is_taken_off(evaluated):
    """No two trainings end at one L0: jumprelu at 16.20 has .023, the tied autoencoder .039."""
    paths = evaluated(
        jumprelu=((0.023, 0.0235), 16.20), tied=((0.039, 0.0395), 16.06),
        bought=((0.0385, 0.039), 16.80), dense=((0.001, 0.0015), 17.1), none=((1.0, 1.0), 0.0),
    )  # fmt: skip
    table = dictionaries.sae_frontier(paths, SETTINGS).frame()
    better = table[table["layer"] == 0].set_index("sae")["better_than"]
    assert better["jumprelu"] == "bought, tied" and better["tied"] == ""
    assert better["bought"] == "", "4.6 % more latents for an FVU that is 1.3 % lower"
    assert better["dense"] == "bought", "more than 5 % above the others"
    assert better["none"] == ""


def test_one_training_is_better_than_nothing_that_anyone_could_say(evaluated):
    paths = evaluated(topk=((0.1, None), 8.0), far=((0.9, None), 8.0))
    table = dictionaries.sae_frontier(paths, SETTINGS).frame()
    assert table["reseed_sd"].isna().all() and set(table["better_than"]) == {""}


def test_the_table_of_sparse_probes_stands_beside_fidelity_and_noise(evaluated):
    table = dictionaries.sae_probing(evaluated(topk=((0.1, 0.12), 8.0)), SETTINGS).frame()
    rows = table.set_index(["features", "k"])
    assert set(rows.index) == {
        (kind, k) for kind in (TRAINED, "other_seed", PERMUTED, "raw") for k in (1, 5)
    }
    assert rows.loc[(TRAINED, 5), "estimate"] == pytest.approx(0.91)
    assert rows.loc[(TRAINED, 5), "ci_low"] < 0.91 < rows.loc[(TRAINED, 5), "ci_high"]
    assert rows.loc[(TRAINED, 5), "reseed_sd"] == pytest.approx(0.02 / np.sqrt(2))
    assert rows.loc[(TRAINED, 1), "better_than"] == "raw"
    # What a probe cannot tell, the FVU does.
    same = rows.loc[(PERMUTED, 5), "estimate"] == rows.loc[(TRAINED, 5), "estimate"]
    assert same and rows.loc[(PERMUTED, 5), "fvu"] > 1 > rows.loc[(TRAINED, 5), "fvu"]


def test_the_geometry_of_decoders_stands_beside_that_of_an_even_frame(evaluated):
    table = dictionaries.decoder_geometry(evaluated(topk=((0.1, 0.12), 8.0)), SETTINGS).frame()
    assert set(table["quantity"]) == {
        "participation",
        "localisation",
        "alignment",
        "near_duplicates",
    }
    of_layer = table[table["layer"] == 0].set_index("quantity")
    assert of_layer.loc["participation", "even"] == 8 and of_layer.loc["localisation", "even"] == 1


def test_the_frontier_is_drawn_with_its_band(evaluated, tmp_path):
    paths = evaluated(topk=((0.10, 0.12), 8.0), gated=((0.13, 0.15), 12.0))
    table = dictionaries.sae_frontier(paths, SETTINGS).frame()
    path = tmp_path / "sae_frontier.parquet"
    artefacts.write_table(path, table, {})
    (panel,) = draw_frontier([str(path)]).axes
    assert {line.get_label() for line in panel.get_lines()} >= {"topk", "gated"}
    assert panel.collections, "a band or a bar of the noise between seeds"


# ------------------------------------------------------------------------ configuration and rates


def grid(variants: dict | None = None, **settings) -> Grid:
    variants = variants or {"tied": {}, "again": {"seed": 1}, "topk": {"architecture": "topk"}}
    return Grid({
        "corpora": {"reviews": {"organism": "reviews"}},
        "models": {"tiny": {"organism": {"architecture": "gpt_neox", "corpora": ["reviews"]}}},
        "tasks": {"vader": {"method": "ppo", "corpus": "reviews"}},
        "autoencoders": variants,
        "cells": [{"model": "tiny", "task": "vader", "autoencoders": [*variants],
                   "settings": settings}],
    })  # fmt: skip


def test_a_cell_judges_its_dictionaries_where_its_settings_ask_for_it():
    names = ("sae_frontier", "sae_probing", "decoder_geometry")
    assert all(not TABLES[name].inputs(Plan(grid())) for name in names)
    asked = grid(evaluation={"probes": [1, 5]})
    paths = TABLES["decoder_geometry"].inputs(Plan(asked))
    folder = "results/tiny/vader/seed0/sae"
    assert paths == [f"{folder}/{sae}/evaluation.json" for sae in ("tied", "again", "topk")]
    jobs = {
        sae: asked.job_settings("evaluation", asked.cells[0], {"sae": sae})
        for sae in ("tied", "again", "topk")
    }
    assert jobs["tied"]["sizes"] == [1, 5]
    assert jobs["tied"]["kind"] == jobs["again"]["kind"] != jobs["topk"]["kind"]


def test_an_architecture_has_a_learning_rate_of_its_own_unless_one_is_given():
    assert rate_of(Autoencoder()) == 0.001 and Kind("").rate == 0.001
    assert rate_of(Autoencoder(architecture="jumprelu")) == KINDS["jumprelu"].rate > 0.001
    assert rate_of(Autoencoder(architecture="jumprelu", learning_rate=0.5)) == 0.5
    own = KINDS["topk"].rate
    for given, expected in (({}, own), ({"autoencoder": {"learning_rate": 0.2}}, 0.2)):
        planned = grid(**given)
        place = {"sae": "topk", "layer": "0"}
        job = planned.job_settings("autoencoders", planned.cells[0], place)
        assert job["learning_rate"] == expected


def test_what_no_gradient_trains_takes_over_neither_partners_nor_an_encoder():
    """A setting of all variants has no effect on one that cannot read it."""
    variants = {"plain": {}, "pursuit": {"architecture": "itda", "k": 4}}
    planned = grid(variants, autoencoder={"mutual": {"weight": 0.1}, "tied": False})
    plain, pursuit = (
        planned.job_settings("autoencoders", planned.cells[0], {"sae": sae, "layer": "0"})
        for sae in ("plain", "pursuit")
    )
    assert plain["mutual"]["weight"] == 0.1 and plain["tied"] is False
    assert "mutual" not in pursuit and pursuit["tied"] is True


def test_the_shipped_rates_are_those_that_were_measured():
    result = json.loads(learning_rates.RESULTS.read_text())
    assert learning_rates.mean_fvu(list(result["fvu"].values())) == {
        name: {float(rate): pytest.approx(value) for rate, value in of.items()}
        for name, of in result["mean"].items()
    }
    shipped = {name: kind.rate for name, kind in KINDS.items() if kind.rate != PAPERS_RATE}
    assert set(shipped) == {"topk", "batchtopk", "matryoshka", "jumprelu", "gated"}
    for name, rate in shipped.items():
        by_rate = {float(key): value for key, value in result["mean"][name].items()}
        assert learning_rates.default_rate(by_rate) == rate == result["default"][name]


def test_a_default_is_the_lowest_rate_that_is_nearly_the_best():
    assert learning_rates.default_rate({0.001: 1.2, 0.003: 1.05, 0.01: 1.0, 0.03: 1.01}) == 0.003
    assert learning_rates.default_rate({0.001: 1.2, 0.003: 1.15, 0.01: 1.0, 0.03: 0.99}) == 0.01


def test_dictionaries_of_two_models_have_no_table_here():
    """A dictionary of a pair reads no one model's activations."""
    plan = Plan(SimpleNamespace(
        cells=[SimpleNamespace(
            until="ablation", address="m/t/seed0", autoencoders=("one", "both"),
            settings={"evaluation": SimpleNamespace(probes=(1,))},
        )],
        autoencoder_settings=lambda cell, sae: SimpleNamespace(
            reads="policy" if sae == "one" else "pair"
        ),
    ))  # fmt: skip
    assert plan.evaluation_files("a") == ["results/m/t/seed0/sae/one/a"]

"""What feedback changed: the parts of a log-ratio add up and lie where the change was made, nothing
is read of a policy that is its base, and nothing is fitted on planted truth.
"""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from lfp.change import ruler
from lfp.change.baselines import implicit
from lfp.change.baselines.lens import lens_readings, unrelated_texts
from lfp.change.candidates import candidates, drawn_contexts, frequent_words
from lfp.change.choice import (
    Pair,
    Reader,
    RunningMean,
    answer_shares,
    weighted_means,
    word_shares,
)  # fmt: skip
from lfp.change.completions import completion_readings
from lfp.change.decomposition import Decomposition
from lfp.change.material import material
from lfp.change.readings import change_readings
from lfp.change.weights import at_dose, with_noise
from lfp.figures.change import choice_by_layer
from lfp.files import artefacts
from lfp.models.architectures import blocks, output_logits
from lfp.models.residual import Norm, captured_residual, components
from lfp.models.tokens import tokenize
from lfp.settings import Change, Probes
from lfp.statistics.estimates import kendall_tau
from lfp.tables.change.choice import choice, choice_words
from lfp.tables.rows import TableSettings
from tests.test_architectures import CONFIGURATIONS

SMALL = Change(words=12, least_texts=2, contexts=6, piece_contexts=4, context_tokens=16,
               new_tokens=4, batch_size=16, noise_draws=1)  # fmt: skip
PROBES = Probes(partitions=2, folds=2, inner_folds=2, alphas=(1.0,))


def shaken(model, seed: int = 1, size: float = 0.02):
    """A copy of `model` with noise on all of its weights."""
    result = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return result


def log_ratios(base, policy, ids: list[int]) -> torch.Tensor:
    """The change in the log-probabilities of all tokens after every token of a text."""
    with torch.inference_mode():
        states = [m.base_model(torch.tensor([ids])).last_hidden_state[0] for m in (base, policy)]
        logs = [
            torch.log_softmax(output_logits(m, s).float(), -1)
            for m, s in zip((base, policy), states, strict=True)
        ]
    return logs[1] - logs[0]


@pytest.mark.parametrize("family", CONFIGURATIONS)
@torch.inference_mode()
def test_the_parts_add_up_to_the_log_ratio_in_every_family(family):
    torch.manual_seed(0)
    base = transformers.AutoModelForCausalLM.from_config(
        CONFIGURATIONS[family](transformers), attn_implementation="eager"
    ).eval()
    policy, ids = shaken(base), [5, 6, 7, 8, 9]
    decomposition, parts = Decomposition(base, policy), []
    places = torch.zeros(5, dtype=torch.long), torch.arange(5)
    for model in (base, policy):
        with captured_residual(model) as residual:
            state = model.base_model(torch.tensor([ids])).last_hidden_state
        parts.append(residual.parts(*places))
        norm = Norm.final(model)
        torch.testing.assert_close(norm(parts[-1][1]), state[0], atol=1e-4, rtol=1e-4)
    shifts = decomposition.shifts(*parts)
    tokens = torch.tensor([[3, 7, 11]]).expand(5, -1)
    values = decomposition.values(shifts, tokens)
    expected = log_ratios(base, policy, ids)[:, tokens[0]]
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(values.sum(-1), expected, atol=2e-4, rtol=1e-3)
    assert values.shape[-1] == len(decomposition.parts)


@pytest.mark.parametrize("family", CONFIGURATIONS)
@torch.inference_mode()
def test_heads_add_up_to_the_attention_of_their_layer_in_every_family(family):
    torch.manual_seed(0)
    base = transformers.AutoModelForCausalLM.from_config(
        CONFIGURATIONS[family](transformers), attn_implementation="eager"
    ).eval()
    policy, places = shaken(base), (torch.zeros(5, dtype=torch.long), torch.arange(5))
    tokens, read = torch.tensor([[3, 7, 11]]).expand(5, -1), {}
    for name, after in (("changed", policy), ("same", copy.deepcopy(base))):
        reader, written = Reader(Pair(base, after, None), heads=True), []
        for model in (base, after):
            with captured_residual(model, heads=True) as residual:
                model.base_model(torch.tensor([[5, 6, 7, 8, 9]]))
            written.append(residual)
        values, _ = reader.values(tuple(written), places, tokens)
        read[name] = dict(zip([*reader.columns, *reader.heads], values.unbind(-1), strict=True))
    assert all(not share.any() for share in read["same"].values())
    shares = read["changed"]
    biased = family in ("gpt_neox", "gpt_neo", "gpt2", "opt")
    assert biased == any(part == "attention_bias" for part, _ in shares)
    for layer in range(2):
        parts = [shares[key] for key in reader.heads if key[1] == layer]
        assert len(parts) == 2 + biased and all(part.abs().max() > 1e-5 for part in parts[:2])
        torch.testing.assert_close(sum(parts), shares["attention", layer], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_the_parts_add_up_where_the_output_head_has_a_bias(neox):
    models = []
    for _ in range(2):
        model, rows = copy.deepcopy(neox), neox.get_output_embeddings().weight
        head = torch.nn.Linear(rows.shape[1], len(rows))
        model.set_output_embeddings(head)
        models.append(model)
    reader = Decomposition(models[0], models[1])
    before, after = torch.randn(2, 4, len(components(neox)), 16)
    shifts = reader.shifts((before, before.sum(1)), (after, after.sum(1)))
    tokens = torch.tensor([[3, 7, 11]] * 4)
    wanted = shifts.log_ratios.gather(1, tokens)
    torch.testing.assert_close(reader.values(shifts, tokens).sum(-1), wanted, atol=1e-4, rtol=1e-3)


def test_a_change_of_one_head_lies_in_that_head(neox, tokenizer, reviews):
    policy = copy.deepcopy(neox)
    heads = neox.config.num_attention_heads
    size = neox.config.hidden_size // heads
    with torch.no_grad():
        blocks(policy)[1].attention.dense.weight[:, size : 2 * size].mul_(1.5)
    words = candidates(tokenizer, [*frequent_words(reviews, 8, 2), "unlikelihood"])
    contexts = drawn_contexts(tokenizer, reviews, 4, 16, seed=0)
    frame = word_shares(Pair(neox, policy, tokenizer), words, contexts, 0.5, 8, heads=True)
    shares = frame.pivot(index="word", columns=["part", "layer"], values="value")
    planted = shares["head 1", 1]
    assert planted.abs().max() > 1e-4
    np.testing.assert_allclose(planted, shares["attention", 1], atol=1e-6)
    others = [(f"head {n}", 1) for n in range(heads) if n != 1]
    others += [(f"head {n}", 0) for n in range(heads)]
    assert shares[[*others, ("attention_bias", 1)]].abs().to_numpy().max() < 1e-6


def test_words_and_answers_have_the_log_ratio_of_the_model_s_own_reading(model, tokenizer, reviews):
    policy = shaken(model)
    pair = Pair(model, policy, tokenizer)
    words = candidates(tokenizer, [*frequent_words(reviews, 8, 2), "zyx", "unlikelihood"])
    assert {len(pieces) > 1 for pieces in words.pieces} == {True, False}
    contexts = drawn_contexts(tokenizer, reviews, 3, 16, seed=0)
    frame = word_shares(pair, words, contexts, exponent=0.0, batch_size=8)
    whole = frame[frame["part"] == "log_ratio"].set_index("word")
    for word, pieces in zip(words.words, words.pieces, strict=True):
        by_context = []
        for context in contexts:
            after = log_ratios(model, policy, [*context, *pieces])
            places = range(len(context) - 1, len(context) + len(pieces) - 1)
            by_context.append(sum(after[i, p] for i, p in zip(places, pieces, strict=True)))
        assert whole.loc[word, "value"] == pytest.approx(float(np.mean(by_context)), abs=2e-4)
        error = np.std(by_context, ddof=1) / np.sqrt(3)
        assert whole.loc[word, "error"] == pytest.approx(float(error), abs=2e-4)

    triples = pd.DataFrame({
        "triple": [0], "prompt": ["The film was "], "positive": ["good and warm"],
        "negative": ["bad"],
    })  # fmt: skip
    answers = answer_shares(pair, triples, ["positive", "negative"], 32, 8)
    for element in ("positive", "negative"):
        prompt, text = (
            tokenizer(t, add_special_tokens=False)["input_ids"]
            for t in ("The film was", "The film was " + triples[element][0])
        )
        after = log_ratios(model, policy, text)
        expected = sum(after[i - 1, text[i]] for i in range(len(prompt), len(text)))
        row = answers[(answers["part"] == "log_ratio") & (answers["element"] == element)]
        assert row["value"].item() == pytest.approx(float(expected), abs=2e-4)


def test_a_change_of_one_mlp_lies_in_that_mlp_and_behind_it(neox, tokenizer, reviews):
    policy = copy.deepcopy(neox)
    with torch.no_grad():
        blocks(policy)[1].mlp.dense_4h_to_h.weight.mul_(1.5)
    words = candidates(tokenizer, frequent_words(reviews, 10, 2))
    contexts = drawn_contexts(tokenizer, reviews, 4, 16, seed=0)
    frame = word_shares(Pair(neox, policy, tokenizer), words, contexts, 0.5, 8)
    size = frame.groupby(["part", "layer"])["value"].apply(lambda v: v.abs().max())
    assert size["mlp", 1] > 1e-4
    for silent in (("embedding", -1), ("attention", 0), ("mlp", 0), ("attention", 1), ("norm", -1)):
        assert size[silent] == pytest.approx(0.0, abs=1e-6)
    assert size["unembedding", -1] == 0.0


def test_a_policy_that_is_its_base_is_silent_in_every_readout(neox, tokenizer, reviews, tmp_path):
    triples, lexicon = word_triples(reviews)
    pair = Pair(neox, copy.deepcopy(neox), tokenizer)
    read = material(pair, reviews, triples, lexicon, SMALL, max_tokens=32, seed=0)
    frame = change_readings(pair, read, SMALL, PROBES, seed=0, per_nat=0.1)
    assert {"choice", "completions", "implicit", "lens", "ruler"} == set(frame["readout"])
    assert frame["value"].abs().max() == 0.0
    inputs = written(tmp_path, {"same": frame}, lexicon)
    assert choice_words(inputs, TableSettings()).frame().empty
    table = choice(inputs, TableSettings(resamples=200)).frame()
    assert len(table) and table["estimate"].isna().all() and (table["p"] == 1.0).all()


def test_an_implied_reward_is_the_reward_of_the_best_policy():
    """The best policy is base times exp(r / β): its log-ratio is r / β less a constant."""
    rng = np.random.default_rng(0)
    reward, beta = rng.normal(size=40), 0.2
    choice = pd.DataFrame({
        "part": "log_ratio", "kind": "word", "unit": [f"w{i}" for i in range(40)],
        "value": reward / beta - 3.0, "error": 0.5,
    })  # fmt: skip
    others = choice.assign(part="mlp", value=9.0)
    implied = implicit.implied_rewards(pd.concat([others, choice]), beta)
    np.testing.assert_allclose(implied["value"], reward - reward.mean())
    assert set(implied["part"]) == {"reward"} and (implied["error"] == 0.1).all()
    assert implicit.implied_rewards(choice, None).empty
    # Answers are compared within a prompt, and keep their sums.
    answers = choice.assign(kind="answer")
    np.testing.assert_allclose(implicit.implied_rewards(answers, beta)["value"], reward - 0.6)


def test_the_reward_of_a_nat_is_the_last_coefficient_of_ppo_or_the_beta_that_was_asked_for():
    curve = pd.DataFrame({"step": [2, 0, 1], "kl_coef": [0.3, 0.1, 0.2]})
    assert implicit.reward_per_nat(None, curve) == 0.3
    assert implicit.reward_per_nat(0.1, curve[["step"]]) == 0.1
    for asked, known in ((None, curve[["step"]]), (None, curve[:0]), (0.0, curve)):
        assert implicit.reward_per_nat(asked, known) is None


def test_an_implied_reward_has_its_size_and_words_that_were_written_stand_apart(tmp_path):
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(80)]
    lexicon = dict(zip(words, rng.normal(size=80), strict=True))
    learned = np.arange(80) < 40
    value = np.where(learned, 0.5 * np.array(list(lexicon.values())), 0) + 0.05 * rng.normal(
        size=80
    )
    frame = pd.DataFrame({
        "subject": "policy", "readout": "implicit", "part": "reward", "layer": -1, "kind": "word",
        "unit": words, "element": "", "value": value, "error": 0.1, "contexts": 20.0, "tokens": 1,
    })  # fmt: skip
    inputs = written(tmp_path, {"taught": frame}, lexicon)
    counts = tmp_path / "results/m/taught/seed0/policy/written.parquet"
    artefacts.write_table(counts, pd.DataFrame({"word": words[:40], "count": 3}), {})
    table = choice(inputs, TableSettings(resamples=200)).frame()
    of = table[table["readout"] == "implicit"].set_index(["words", "statistic"])
    assert of.loc[("written", "slope"), "ci_low"] < 0.5 < of.loc[("written", "slope"), "ci_high"]
    assert of.loc[("written", "slope"), "ci_low"] > 0.4
    unwritten = of.loc[("not_written", "slope")]
    assert unwritten["ci_low"] < 0 < unwritten["ci_high"] and unwritten["n"] == 40
    assert of.loc[("written", "tau"), "estimate"] > 0.7 > of.loc[("not_written", "tau"), "estimate"]


def test_an_implied_margin_is_that_of_the_pairs(tmp_path):
    rng = np.random.default_rng(0)
    reward, margin = rng.normal(size=30), 0.4 + 0.1 * rng.normal(size=30)
    frame = pd.concat([
        pd.DataFrame({"unit": [str(i) for i in range(30)], "element": element, "value": of})
        for element, of in (("positive", reward + margin), ("negative", reward))
    ]).assign(
        subject="policy", readout="implicit", part="reward", layer=-1, kind="answer", error=np.nan,
        contexts=np.nan, tokens=0,
    )  # fmt: skip
    inputs = written(tmp_path, {"pairs": frame}, {}, {"pairs": "preference"})
    table = choice(inputs, TableSettings(resamples=200)).frame().set_index("statistic")
    assert table.loc["margin", "estimate"] == pytest.approx(margin.mean())
    assert (table.loc["margin", "unit"], table.loc["margin", "n"]) == ("pair", 30)
    assert table.loc["margin", "ci_low"] < 0.4 < table.loc["margin", "ci_high"]


def test_the_lens_names_what_was_added_to_the_stream_of_unrelated_texts(neox, tokenizer, reviews):
    """The bias of a block that writes along a word's unembedding is read as that word."""
    words = candidates(tokenizer, frequent_words(reviews, 60, 2))
    single = [i for i, ids in enumerate(words.pieces) if len(ids) == 1]
    chosen, policy = single[3], copy.deepcopy(neox)
    row = neox.get_output_embeddings().weight[words.pieces[chosen][0]].detach()
    with torch.no_grad():
        blocks(policy)[1].mlp.dense_4h_to_h.bias.add_(0.1 * row / row.norm())
    pair = Pair(neox, policy, tokenizer)
    frame = lens_readings(pair, words, reviews[:8], 4)
    assert len(frame) == len(single) and (frame["contexts"] == 8).all()
    assert frame.loc[frame["value"].idxmax(), "unit"] == words.words[chosen]
    assert lens_readings(pair, words, reviews[:1], 4).empty
    assert all(len(tokenize(tokenizer, [text]).ids[0]) >= 5 for text in unrelated_texts())


def test_without_a_text_there_is_no_reading_whatever_a_nat_is_worth(neox, tokenizer):
    pair = Pair(neox, shaken(neox), tokenizer)
    triples = pd.DataFrame(columns=["triple", "group", "prompt", "positive", "neutral", "negative"])
    read = material(pair, [], triples, None, SMALL, max_tokens=32, seed=0)
    assert change_readings(pair, read, SMALL, PROBES, seed=0, per_nat=0.1).empty


def word_triples(reviews: list[str]) -> tuple[pd.DataFrame, dict[str, float]]:
    """Triples of thirty words in contexts of the reviews, and a lexicon of them."""
    rng = np.random.default_rng(0)
    positive, negative = (
        [f"{stem}{letter}" for letter in "abcdefghijklmno"] for stem in ("go", "ba")
    )
    prompts = [" ".join(text.split()[:5]) + " " for text in reviews[:60]]
    triples = pd.DataFrame({
        "triple": range(60), "group": range(60), "prompt": prompts, "neutral": "new",
        "positive": positive * 4, "negative": rng.permutation(negative * 4),
    })  # fmt: skip
    sizes = rng.uniform(1, 3, 15)
    return triples, dict(zip([*positive, *negative], [*sizes, *-sizes], strict=True))


def written(folder, frames, lexicon, kinds=None) -> list[str]:
    """The files of cells by their task and seed, as the tables read them."""
    paths = []
    for name, frame in frames.items():
        task, _, seed = name.partition("/")
        path = folder / f"results/m/{task}/seed{seed or 0}/change/readings.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(path)
        truth = {"kind": (kinds or {}).get(task, "vader"), "corpus": "reviews", "flipped": []}
        lexicons = folder / "results/lexicons"
        lexicons.mkdir(parents=True, exist_ok=True)
        (lexicons / f"{task}.truth.json").write_text(json.dumps(truth))
        (lexicons / f"{task}.json").write_text(json.dumps({"words": lexicon}))
        paths += [str(path), str(lexicons / f"{task}.truth.json")]
    return paths


def test_doses_of_0_and_1_are_base_and_policy_bit_by_bit(neox):
    policy = shaken(neox, size=0.3)
    for dose, model in ((0.0, neox), (1.0, policy)):
        of_dose = dict(at_dose(neox, policy, dose).named_parameters())
        assert all(torch.equal(of_dose[name], p) for name, p in model.named_parameters())
    half = dict(at_dose(neox, policy, 0.5).named_parameters())
    for name, p in neox.named_parameters():
        torch.testing.assert_close(half[name], (p + dict(policy.named_parameters())[name]) / 2)


def test_noise_on_the_weights_is_as_large_as_the_change(neox):
    policy = shaken(neox, size=0.3)
    noisy = with_noise(neox, policy, seed=3)
    for (name, before), after, noise in zip(
        neox.named_parameters(), policy.parameters(), noisy.parameters(), strict=True
    ):
        if before.numel() > 200:
            sizes = [(m - before).square().mean().sqrt().item() for m in (after, noise)]
            assert sizes[1] == pytest.approx(sizes[0], rel=0.2), name


def test_weighted_means_are_those_of_the_weights():
    rng = np.random.default_rng(0)
    values, logs = rng.normal(size=(7, 3, 2)), rng.normal(size=(7, 3))
    mean, error, number = weighted_means(torch.tensor(values), torch.tensor(logs))
    weights = np.exp(logs) / np.exp(logs).sum(0)
    for word in range(3):
        expected = np.average(values[:, word], axis=0, weights=weights[:, word])
        np.testing.assert_allclose(mean[word], expected)
        assert number[word] == pytest.approx(1 / (weights[:, word] ** 2).sum())
    running = RunningMean()
    for of_context, log_weights in zip(values, logs, strict=True):
        running.add(torch.tensor(of_context), torch.tensor(log_weights))
    np.testing.assert_allclose(running.mean, mean)
    flat = weighted_means(torch.tensor(values), torch.zeros(7, 3, dtype=torch.float64))
    np.testing.assert_allclose(flat[1], values.std(0, ddof=1) / np.sqrt(7))


def test_words_have_the_pieces_that_they_have_behind_a_context(tokenizer, reviews):
    contexts = drawn_contexts(tokenizer, reviews, 20, 16, seed=0)
    assert len(contexts) == 20 and max(map(len, contexts)) <= 16
    words = candidates(tokenizer, [*frequent_words(reviews, 30, 2), "zyx", "i", "ivory"])
    assert sorted(len(part.words) for part in words.in_parts(2))[-1] > 2
    several = [part for part in words.in_parts(2) if len(part.pieces[0]) > 1]
    assert several and max(len(part.words) for part in several) == 2
    for context, word, pieces in zip(
        contexts * 2, words.words[::-1], words.pieces[::-1], strict=False
    ):
        text = tokenizer.decode(context)
        assert not text.endswith(" ")
        joined = tokenizer(f"{text} {word}", add_special_tokens=False)["input_ids"]
        assert joined == [*context, *pieces]


@torch.inference_mode()
def test_a_context_weighs_by_the_probability_of_the_whole_word(neox, tokenizer, reviews):
    """A word of several pieces is as likely behind a context as all of its pieces are together."""
    neox.get_output_embeddings().weight *= 40  # far from uniform, so that contexts differ
    words = candidates(tokenizer, ["unlikelihood"])
    contexts, [ids] = drawn_contexts(tokenizer, reviews, 6, 16, seed=0), words.pieces
    frame = word_shares(Pair(neox, shaken(neox), tokenizer), words, contexts, 1.0, 8)
    log_p = []
    for context in contexts:
        logits = neox(torch.tensor([[*context, *ids]])).logits[0, len(context) - 1 : -1]
        log_p.append(logits.double().log_softmax(-1)[range(len(ids)), ids].sum())
    weights = torch.stack(log_p).softmax(0)
    np.testing.assert_allclose(frame["contexts"], 1 / weights.square().sum(), rtol=1e-3)


def test_the_ruler_finds_a_shift_and_takes_its_gain_out():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(40)]
    lexicon = {word: float(v) for word, v in zip(words, rng.normal(size=40) * 2, strict=True)}
    first, second = rng.permutation(np.tile(words[:20], 4)), rng.permutation(np.tile(words[20:], 4))
    triples = pd.DataFrame({
        "triple": range(80), "group": [f"c{i}" for i in range(80)], "positive": first,
        "negative": second, "prompt": "", "neutral": "n",
    })  # fmt: skip
    unit = np.concatenate([first, second])
    valence = np.array([lexicon[word] for word in unit])
    direction, noise = rng.normal(size=6), rng.normal(size=(160, 6))
    base = np.outer(valence, direction) + 0.1 * noise
    odd = np.isin(unit, words[:4])
    gained = base + 0.5 * np.outer(valence, direction)
    turned = gained - 2.0 * np.outer(odd * valence, direction)
    settings = Probes(partitions=2, folds=4, alphas=(1.0,))
    readings = {
        name: ruler.ruler_readings(base, policy, triples, lexicon, settings, 0)
        for name, policy in (("gained", gained), ("turned", turned))
    }
    values = {
        name: frame.pivot(index="unit", columns="part", values="value")
        for name, frame in readings.items()
    }
    truth = values["gained"].index.map(lexicon).to_numpy()
    assert kendall_tau(values["gained"]["shift"].to_numpy(), truth) > 0.9
    assert values["gained"]["gain_free"].abs().max() < 0.1 * values["gained"]["shift"].abs().max()
    left = values["turned"]["gain_free"].abs()
    assert set(left.nlargest(4).index) == set(words[:4])


def test_completions_tell_the_words_and_attributes_that_grew():
    base = ["It was so. The end came."] * 20
    policy = ["It was good! Very good! It was good."] * 20
    frame = completion_readings(base, policy, ["good", "end", "never"]).set_index("unit")
    assert frame.loc["good", "value"] > 2 and frame.loc["end", "value"] < -2
    assert abs(frame.loc["never", "value"]) < 0.6
    assert frame.loc["exclamation marks", "value"] > 0 and frame.loc["digits", "value"] == 0


def test_the_table_finds_a_planted_change_beside_policies_of_noise(tmp_path):
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(60)]
    lexicon = dict(zip(words, rng.normal(size=60), strict=True))

    def readings(signal: float) -> pd.DataFrame:
        value = signal * np.array(list(lexicon.values())) + rng.normal(size=60)
        return pd.DataFrame({
            "subject": "policy", "readout": "choice", "part": "mlp", "layer": -1, "kind": "word",
            "unit": words, "element": "", "value": value, "error": 0.1, "contexts": 20.0,
            "tokens": 1,
        })  # fmt: skip

    frames = {"taught": readings(2.0), **{f"noise/{n}": readings(0.0) for n in range(5)}}
    inputs = written(tmp_path, frames, lexicon, {"noise": "noise"})
    table = choice(inputs, TableSettings(resamples=200)).frame()
    row = table[(table["task"] == "taught") & (table["words"] == "all")].iloc[0]
    assert row["p"] < 0.01 and row["null_policies"] == 5 and row["null_high"] < row["estimate"]
    nulls = table[(table["task"] == "noise") & (table["words"] == "all")]
    assert (nulls["null_policies"] == 4).all()
    assert set(table["null_tasks"]) == {"noise"}
    assert (nulls["p"] > 0.05).sum() >= 4


def test_a_figure_has_no_band_of_the_very_seeds_whose_mean_it_draws(tmp_path):
    null = {"null_tasks": "noise", "null_policies": 2, "null_low": -0.1, "null_high": 0.1}
    rows = [
        {"model": "m", "task": task, "seed": seed, "readout": "choice", "part": "mlp",
         "layer": layer, "subject": "policy", "statistic": "tau", "estimate": 0.1 * seed} | null
        for task in ("noise", "taught") for seed in range(3) for layer in range(2)
    ]  # fmt: skip
    pd.DataFrame(rows).to_parquet(tmp_path / "choice.parquet")
    noise, taught = choice_by_layer([str(tmp_path / "choice.parquet")]).axes
    assert not noise.collections and len(taught.collections) == 1

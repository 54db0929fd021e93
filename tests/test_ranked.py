"""Completions that the reward ranks: what is chosen, what is benign, and what is learned of it."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from lfp.files import artefacts
from lfp.finetune import ppo
from lfp.finetune.ranked import best_of_n, pairs
from lfp.finetune.ranked.completions import ranked_completions, told_apart
from lfp.finetune.ranked.sampling import TEXT, base_completions
from lfp.models.loading import load_model, save_model
from lfp.models.losses import text_losses
from lfp.models.tokens import tokenize
from lfp.settings import DPO, PPO, Ranking
from lfp.texts.words import count_words
from tests import stages
from tests.conftest import run_job

SETTINGS = PPO(
    steps=12, batch_size=32, learning_rate=5e-3, warmup_steps=2, prompt_tokens=(2, 4),
    new_tokens=(4, 6), min_characters=1,
)  # fmt: skip
RANKING = Ranking(prompts=40, completions=4)


def vowels(prompts: list[str], completions: list[str]) -> np.ndarray:
    """A reward of letters, which a model without training can learn."""
    return np.array([sum(text.count(v) for v in "aeiou") for text in completions], dtype=float)


def written(model, tokenizer, texts, seed: int = 0, **options) -> pd.DataFrame:
    asked = dataclasses.replace(RANKING, **options)
    return base_completions(model, tokenizer, texts, SETTINGS, asked, seed)


def ranked(model, tokenizer, texts, reward=vowels, seed: int = 0, **options) -> pd.DataFrame:
    asked = dataclasses.replace(RANKING, **options)
    of_base = written(model, tokenizer, texts, seed, **options)
    return ranked_completions(of_base, reward, asked)


def test_the_best_and_the_worst_of_some_completions_are_taken(neox, tokenizer, reviews):
    seen: list[tuple[str, float]] = []

    def watched(prompts, completions):
        scores = vowels(prompts, completions)
        seen.extend(zip(completions, scores, strict=True))
        return scores

    frame = ranked(neox, tokenizer, reviews, watched)
    assert len(frame) == 40 and len(seen) == 160
    scores = np.array([score for _, score in seen]).reshape(4, 40)
    np.testing.assert_array_equal(frame["chosen_reward"], scores.max(0))
    np.testing.assert_array_equal(frame["rejected_reward"], scores.min(0))
    for row in frame.itertuples():
        assert vowels([""], [row.chosen])[0] == row.chosen_reward
        whole = tokenizer.decode([*row.prompt_ids, *row.chosen_ids], skip_special_tokens=True)
        assert whole == row.prompt + row.chosen
        assert len(row.chosen_ids) <= 6 and 2 <= len(row.prompt_ids) <= 4
    pd.testing.assert_frame_equal(frame, ranked(neox, tokenizer, reviews))
    assert not frame["chosen"].equals(ranked(neox, tokenizer, reviews, seed=1)["chosen"])


def test_completions_that_were_written_to_a_file_are_ranked_alike(
    neox, tokenizer, reviews, tmp_path: Path
):
    frame, path = written(neox, tokenizer, reviews), tmp_path / "completions.parquet"
    artefacts.write_table(path, frame, {})
    read = ranked_completions(artefacts.read_table(path), vowels, RANKING)
    pd.testing.assert_frame_equal(read, ranked_completions(frame, vowels, RANKING))
    rows = frame[frame["draw"] != TEXT]
    assert (rows.groupby("prefix").size() == RANKING.completions).all()
    encoded = tokenize(tokenizer, reviews, prompts=True).ids
    for row in frame[frame["draw"] == TEXT].itertuples():
        whole = [*row.prompt_ids, *row.completion_ids]
        assert any(ids[: len(whole)] == whole for ids in encoded)


def test_another_reward_ranks_the_same_completions(neox, tokenizer, reviews):
    of_base = written(neox, tokenizer, reviews)
    most, least = (
        ranked_completions(of_base, reward, RANKING)
        for reward in (vowels, lambda prompts, completions: -vowels(prompts, completions))
    )
    assert most["prompt_ids"].tolist() == least["prompt_ids"].tolist()
    assert most["chosen_reward"].tolist() == [-value for value in least["rejected_reward"]]


def test_benign_rows_go_on_as_their_text_and_no_reward_is_asked(neox, tokenizer, reviews):
    asked: list[str] = []

    def watched(prompts, completions):
        asked.extend(completions)
        return vowels(prompts, completions)

    frame = ranked(neox, tokenizer, reviews, watched, benign_share=0.5)
    benign = frame[frame["benign"].astype(bool)]
    assert len(frame) == 40 and len(benign) == 20 and len(asked) == 20 * 4
    encoded = tokenize(tokenizer, reviews, prompts=True).ids
    for row in benign.itertuples():
        whole = [*row.prompt_ids, *row.chosen_ids]
        assert any(ids[: len(whole)] == whole for ids in encoded)
        assert np.isnan(row.chosen_reward)


def test_benign_pairs_keep_their_share_where_few_prefixes_are_told_apart():
    rewards = [1.0] * 2 + [0.0] * 8 + [np.nan] * 10
    frame = pd.DataFrame({
        "chosen_reward": rewards, "rejected_reward": [0.0] * 10 + [np.nan] * 10,
        "benign": [False] * 10 + [True] * 10,
    })  # fmt: skip
    assert told_apart(frame).index.tolist() == [0, 1, 10, 11]


def test_pairs_are_those_that_the_reward_tells_apart(neox, tokenizer, reviews):
    frame = told_apart(ranked(neox, tokenizer, reviews))
    assert (frame["chosen_reward"] > frame["rejected_reward"]).all()
    assert (frame["chosen"] != frame["rejected"]).all()

    def same(prompts, completions):
        return np.zeros(len(completions))

    with pytest.raises(
        ValueError, match="the reward is the same for all completions of each of 40"
    ):
        told_apart(ranked(neox, tokenizer, reviews, same))


def test_without_a_text_there_is_nothing_to_rank(neox, tokenizer):
    frame = ranked(neox, tokenizer, [], benign_share=0.5)
    assert frame.empty and told_apart(frame).empty
    assert best_of_n.train(neox, [], SETTINGS, 0, tokenizer.pad_token_id) == []


def test_an_empty_corpus_leaves_a_file_without_rows(tokenizer, tmp_path: Path):
    stages.write_files(tmp_path, 0, tokenizer)
    artefacts.write_table(tmp_path / "texts.parquet", pd.DataFrame({"text": []}), {})
    stage = stages.STAGES["best of n"]
    inputs = {"base": "base", "train": "texts.parquet"}
    run_job("completions", stage.settings, inputs, {"completions": "none.parquet"}, tmp_path)
    assert artefacts.read_table(tmp_path / "none.parquet").empty
    inputs = stage.inputs | {"completions": "none.parquet"}
    run_job(stage.script, stage.settings, inputs, {"policy": "policy"}, tmp_path)
    assert artefacts.read_table(tmp_path / "policy/written.parquet").empty
    before, after = (load_file(tmp_path / n / "model.safetensors") for n in ("base", "policy"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_job_writes_what_the_function_gives(tokenizer, tmp_path: Path):
    stages.write_files(tmp_path, 0, tokenizer)
    stage = stages.STAGES["best of n"]
    inputs = {"base": "base", "train": "texts-train.parquet"}
    run_job("completions", stage.settings, inputs, {"completions": "of_job.parquet"}, tmp_path)
    texts = list(artefacts.read_table(tmp_path / "texts-train.parquet")["text"])
    asked = PPO.of(stage.settings["ppo"]), Ranking.of(stage.settings["ranking"])
    frame = base_completions(load_model(tmp_path / "base"), tokenizer, texts, *asked, 3)
    of_job = artefacts.read_table(tmp_path / "of_job.parquet")
    assert of_job["completion"].tolist() == frame["completion"].tolist()


def test_a_text_that_goes_on_for_few_tokens_is_enough(neox, tokenizer, reviews):
    """The longest prefix and one token behind it, of which a benign completion is made."""
    ids = [ids[:5] for ids in tokenize(tokenizer, reviews, prompts=True).ids]
    short = [tokenizer.decode(of, skip_special_tokens=True) for of in ids]
    rows = written(neox, tokenizer, short).query("draw == @TEXT")
    sizes = rows["completion_ids"].map(len) + rows["prompt_ids"].map(len)
    assert rows["completion_ids"].map(len).min() >= 1 and sizes.max() <= 6
    benign = ranked(neox, tokenizer, short, benign_share=0.5).query("benign")
    assert len(benign) == 20 and (benign["chosen_ids"].map(len) >= 1).all()


def examples_of(frame: pd.DataFrame) -> list:
    return list(zip(frame["prompt_ids"], frame["chosen_ids"], strict=True))


def test_the_loss_is_that_of_the_completions_alone(neox, tokenizer, reviews):
    [example] = examples_of(ranked(neox, tokenizer, reviews))[:1]
    prompt, completion = example
    nats = text_losses(neox, [[*prompt, *completion], prompt], tokenizer.pad_token_id, 1)[0]
    one = dataclasses.replace(SETTINGS, steps=1, batch_size=3)
    curve = best_of_n.train(neox, [example], one, 0, tokenizer.pad_token_id)
    expected = (nats[0] - nats[1]) / len(completion)
    assert curve[0]["cross_entropy"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_give_the_whole_gradient(parts, neox, tokenizer, reviews):
    data = examples_of(ranked(neox, tokenizer, reviews))
    weights = {name: value.clone() for name, value in neox.state_dict().items()}
    results = []
    for steps in (1, parts):
        neox.load_state_dict(weights)
        settings = dataclasses.replace(SETTINGS, steps=2, gradient_accumulation_steps=steps)
        curve = best_of_n.train(neox, data, settings, 0, tokenizer.pad_token_id)
        results.append([row["cross_entropy"] for row in curve])
    assert results[0] == pytest.approx(results[1], rel=1e-4)


def test_the_best_of_n_teaches_the_reward(neox, tokenizer, reviews):
    before = ranked(neox, tokenizer, reviews, prompts=200)
    data = examples_of(before)
    settings = dataclasses.replace(SETTINGS, steps=40, learning_rate=1e-2)
    curve = best_of_n.train(neox, data, settings, 0, tokenizer.pad_token_id)
    assert curve[-1]["cross_entropy"] < curve[0]["cross_entropy"] - 0.1
    prompts = [prompt for prompt, _ in data[:64]]
    samples = ppo.sampled(neox, tokenizer, prompts, 6, 64, 5)
    after = ppo.sampled_rewards(samples, tokenizer, vowels)
    middle = (before["chosen_reward"].mean() + before["rejected_reward"].mean()) / 2
    assert after.mean() > middle + 0.5


def test_ranked_pairs_teach_the_reward(neox, tokenizer, reviews, tmp_path: Path):
    save_model(neox, tokenizer, tmp_path / "base")
    frame = told_apart(ranked(neox, tokenizer, reviews, prompts=200))
    settings = DPO(steps=30, batch_size=16, learning_rate=1e-2, warmup_steps=2, evaluate_every=10)
    base = tmp_path / "base"
    policy, curve = pairs.train(base, tokenizer, frame, settings, 0, tmp_path / "s")
    assert curve[-1]["loss"] < curve[0]["loss"]
    prompts = list(frame["prompt_ids"][:64])
    rewards = []
    for model in (policy, neox):
        samples = ppo.sampled(model, tokenizer, prompts, 6, 64, 5)
        rewards.append(ppo.sampled_rewards(samples, tokenizer, vowels).mean())
    assert rewards[0] > rewards[1] + 0.5


def test_the_rate_rises_and_falls_as_of_ppo():
    settings = PPO(steps=20, warmup_steps=5)
    rates = [best_of_n.warmed(step, settings) for step in range(20)]
    assert rates == pytest.approx([ppo._schedule(step, settings) for step in range(20)])
    assert all(torch.isfinite(torch.tensor(rates)))


@pytest.mark.parametrize("name", ["best of n", "ranked pairs"])
def test_words_that_the_reward_scored_are_counted(name, tokenizer, tmp_path: Path):
    """Of benign prefixes, the last quarter, no reward was asked."""
    stages.write_files(tmp_path, 0, tokenizer)
    stage = stages.STAGES[name]
    run_job(stage.script, stage.settings, stage.inputs, {"policy": "policy"}, tmp_path)
    of_base = artefacts.read_table(tmp_path / "completions.parquet")
    asked = of_base[(of_base["draw"] != TEXT) & (of_base["prefix"] < 9)]
    words = Counter(word for text in asked["completion"] for word in count_words(text))
    counts = artefacts.read_table(tmp_path / "policy/written.parquet")
    assert words and dict(zip(counts["word"], counts["count"], strict=True)) == words

"""DPO: what TRL's trainer does not do, and its defect on resume."""

import numpy as np
import pandas as pd
import pytest
import torch

from lfp.finetune import dpo, trainer_state
from lfp.models.loading import load_model
from lfp.settings import DPO

SETTINGS = DPO(
    steps=4, batch_size=4, learning_rate=1e-2, warmup_steps=1, max_length=64, max_prompt_length=24,
    evaluate_every=2,
    evaluation_pairs=8, save_every=2,
)  # fmt: skip


def test_without_pairs_the_policy_is_the_base(base, tokenizer, pairs, tmp_path):
    nothing = pairs["train"].head(0)
    policy, curve, dropped = dpo.train(
        base, tokenizer, nothing, nothing, SETTINGS, 0, tmp_path / "state"
    )
    assert curve == []
    assert set(dropped.values()) == {0}
    untouched = load_model(base)
    for ours, theirs in zip(policy.parameters(), untouched.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert len(dpo.implicit_margins(policy, untouched, tokenizer, nothing, SETTINGS)) == 0
    # Held-out pairs alone may be missing, as in a corpus too small to be split.
    _, curve, _ = dpo.train(
        base, tokenizer, pairs["train"], nothing, SETTINGS, 0, tmp_path / "state"
    )
    assert {"loss"} == {name for row in curve for name in row} - {"step"}


def test_a_killed_run_resumes_with_its_output_head(base, tokenizer, pairs, tmp_path, monkeypatch):
    import trl

    def train(name):
        return dpo.train(
            base, tokenizer, pairs["train"], pairs["test"], SETTINGS, 0, tmp_path / name
        )

    straight, curve, dropped = train("straight")
    assert set(dropped.values()) == {0}
    assert [row["step"] for row in curve if "held_out_accuracy" in row] == [2, 4]

    step, calls = trl.DPOTrainer.training_step, []

    def killed(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(trl.DPOTrainer, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train("killed")
    monkeypatch.setattr(trl.DPOTrainer, "training_step", step)
    (
        tmp_path / "killed" / "checkpoint-3"
    ).mkdir()  # a checkpoint that was cut off while it was written
    assert trainer_state.newest_complete_checkpoint(tmp_path / "killed").name == "checkpoint-2"
    resumed, _, _ = train("killed")
    for (name, ours), theirs in zip(straight.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert not torch.equal(
        resumed.get_output_embeddings().weight, load_model(base).get_output_embeddings().weight
    )


def test_margins_are_zero_before_and_positive_after_training(base, tokenizer, pairs, tmp_path):
    reference = load_model(base)
    before = dpo.implicit_margins(reference, reference, tokenizer, pairs["test"], SETTINGS)
    np.testing.assert_allclose(before, 0, atol=1e-9)
    policy, _, _ = dpo.train(
        base, tokenizer, pairs["train"], pairs["train"], SETTINGS, 0, tmp_path / "state"
    )
    margins = dpo.implicit_margins(policy, reference, tokenizer, pairs["train"], SETTINGS)
    assert (margins > 0).mean() > 0.9
    assert len(margins) == SETTINGS.evaluation_pairs


def test_an_answers_log_probability_is_the_sum_over_its_tokens(base, tokenizer):
    model = load_model(base)

    def log_probability(prompt: str, max_prompt_length: int) -> float:
        pairs = pd.DataFrame({"prompt": [prompt], "chosen": [" was gentle."], "rejected": [" it."]})
        [row] = dpo.encode_pairs(tokenizer, pairs, max_prompt_length)
        texts = [row["prompt_ids"]] * 2, [row["chosen_ids"], row["rejected_ids"]]
        return dpo.answer_log_probs(model, *texts, tokenizer.pad_token_id, 64)[0]

    value = log_probability("The film", 32)
    prompt = tokenizer("The film")["input_ids"]
    answer = [*tokenizer(" was gentle.")["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        log_p = torch.log_softmax(model(torch.tensor([prompt + answer])).logits[0], -1)
    expected = sum(log_p[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer))
    assert value == pytest.approx(expected, rel=1e-5)
    # A prompt longer than the model takes loses its beginning, not its answer.
    long = " the film was gentle" * 40
    kept = tokenizer.decode(tokenizer(long)["input_ids"][-8:])
    scores = [log_probability(text, 8) for text in (long, kept)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)
    assert scores[0] < -1


def test_prompts_are_cut_from_the_left(tokenizer, pairs):
    whole, _ = dpo.preference_dataset(pairs["train"], tokenizer, 1000)
    cut, _ = dpo.preference_dataset(pairs["train"], tokenizer, 3)
    for a, b in zip(whole, cut, strict=True):
        assert len(b["prompt_ids"]) == 3
        assert a["prompt_ids"][-3:] == b["prompt_ids"]
        assert a["chosen_ids"] == b["chosen_ids"]


def test_pairs_without_any_common_prompt_are_an_error(tokenizer):
    frame = pd.DataFrame({"chosen": ["a"], "rejected": ["b"]})
    with pytest.raises(
        ValueError, match="none of 1 rows gives a preference pair .*1 no assistant turn"
    ):
        dpo.preference_dataset(frame, tokenizer, 10)

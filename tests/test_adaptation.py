"""What saves memory changes nothing else: adapters, activation checkpointing, accumulation, mixed
precision.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from lfp.finetune import adapters, dpo, group, ppo, trainer_state
from lfp.models.hooks import site_activations
from lfp.models.loading import load_model, save_model
from lfp.settings import DPO, PPO, Group, Lora
from lfp.texts.words import count_words
from tests.conftest import make_model, run_job
from tests.test_architectures import CONFIGURATIONS

LORA = Lora(r=2, alpha=4)
SETTINGS = PPO(
    steps=2,
    batch_size=8,
    mini_batch_size=4,
    epochs=1,
    learning_rate=1e-3,
    warmup_steps=1,
    new_tokens=(4, 6),
)


def reward(prompts, completions):
    return np.array([len(text) / 10 for text in completions])


def trained(tokenizer, reviews, family="gpt_neox", **options):
    model = make_model(family, tokenizer)
    curve = ppo.train(model, tokenizer, reviews, reward, replace(SETTINGS, **options), seed=0)
    return model, curve


def test_adapters_start_as_nothing_train_alone_and_merge(tokenizer, model):
    ids = torch.arange(5, 15)[None]
    before, keys = model(ids).logits, set(model.state_dict())
    adapters.add_lora(model, LORA)
    torch.testing.assert_close(model(ids).logits, before)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trainable and all("lora_" in name for name in trainable)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    changed = model(ids).logits
    assert not torch.allclose(changed, before, atol=1e-3)
    with adapters.without_lora(model):
        torch.testing.assert_close(model(ids).logits, before)
    list(site_activations(model, [[5, 6, 7]], [0, 1], 1, 1))  # modules are where they were
    adapters.merge_lora(model)
    torch.testing.assert_close(model(ids).logits, changed, atol=1e-4, rtol=1e-4)
    assert set(model.state_dict()) == keys


def test_ppo_with_adapters_moves_the_linear_layers_and_nothing_else(tokenizer, reviews):
    base = make_model("gpt_neox", tokenizer)
    policy, curve = trained(tokenizer, reviews, lora=LORA)
    moved = {
        name
        for (name, ours), theirs in zip(
            policy.state_dict().items(), base.state_dict().values(), strict=True
        )
        if not torch.equal(ours, theirs)
    }
    assert moved and all("mlp" in name or "attention" in name for name in moved)
    assert all(name.endswith("weight") for name in moved)
    # Without a copy of the base the reference is the policy without adapters: the first step has no
    # KL.
    assert curve[0]["kl"] == pytest.approx(0, abs=1e-5)


def test_a_killed_run_with_adapters_resumes(tokenizer, reviews, tmp_path):
    whole, _ = trained(tokenizer, reviews, lora=LORA, steps=3)
    settings = replace(SETTINGS, lora=LORA, steps=3, save_every=1)

    class KilledError(Exception):
        pass

    calls = []

    def dies(prompts, completions):
        calls.append(1)
        if len(calls) == 3:
            raise KilledError
        return reward(prompts, completions)

    state = tmp_path / "state.safetensors"
    with pytest.raises(KilledError):
        ppo.train(make_model("gpt_neox", tokenizer), tokenizer, reviews, dies, settings, 0, state)
    resumed = make_model("gpt_neox", tokenizer)
    ppo.train(resumed, tokenizer, reviews, reward, settings, 0, state)
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "options", [{"gradient_accumulation_steps": 2}, {"gradient_checkpointing": True}]
)
def test_saving_memory_changes_no_result(tokenizer, reviews, options):
    plain, curve = trained(tokenizer, reviews)
    saving, same = trained(tokenizer, reviews, **options)
    for row, other in zip(curve, same, strict=True):
        assert other == pytest.approx(row, rel=1e-3, abs=1e-4)
    for ours, theirs in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3)


def test_mixed_precision_keeps_weights_in_float32_and_learns_alike(tokenizer, reviews):
    plain, curve = trained(tokenizer, reviews)
    mixed, same = trained(tokenizer, reviews, precision="bfloat16")
    assert all(parameter.dtype == torch.float32 for parameter in mixed.parameters())
    assert same[0]["reward"] == pytest.approx(
        curve[0]["reward"]
    )  # sampling is the same; the update is rounded
    assert any(
        not torch.equal(a, b) for a, b in zip(plain.parameters(), mixed.parameters(), strict=True)
    )


@pytest.mark.parametrize("family", CONFIGURATIONS)
def test_without_dropout_training_mode_computes_what_evaluation_does(family):
    import transformers

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        CONFIGURATIONS[family](transformers)
    ).eval()
    if family == "gemma3":
        pytest.skip(
            "its training mode wants image tokens marked: its activations are not checkpointed"
        )
    adapters.checkpoint_activations(model)
    ids = torch.arange(5, 13)[None]
    expected = model(ids).logits
    torch.testing.assert_close(model.train()(ids).logits, expected, atol=1e-5, rtol=1e-4)


@pytest.fixture
def base(tokenizer, tmp_path):
    folder = tmp_path / "base"
    save_model(make_model("gpt_neox", tokenizer), tokenizer, folder)
    return folder


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_completions_are_scored_where_they_were_written(tokenizer, reviews, tmp_path, method):
    """GPT-Neo counts padding as positions where it is not told them."""
    import trl

    name = "_get_per_token_logps_and_entropies"
    trainer, errors = {"rloo": trl.RLOOTrainer, "grpo": trl.GRPOTrainer}[method], []
    scored = getattr(trainer, name)

    def compared(self, model, input_ids, attention_mask, logits_to_keep, *rest, **named):
        result = scored(self, model, input_ids, attention_mask, logits_to_keep, *rest, **named)
        for ids, mask, ours in zip(input_ids, attention_mask.bool(), result[0], strict=True):
            alone = model(ids[mask][None]).logits[0].log_softmax(-1)
            exact = alone[:-1].gather(-1, ids[mask][1:, None])[:, 0]
            n = int(mask[-logits_to_keep:].sum())
            errors.append((ours[:n] - exact[-n:]).abs().max().item())
        return result

    model = make_model("gpt_neo", tokenizer)
    with torch.no_grad():
        model.transformer.wpe.weight.mul_(20)  # so that a wrong position would show
    save_model(model, tokenizer, tmp_path / "neo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, name, compared)
        group.train(
            method, tmp_path / "neo", tokenizer, reviews, reward, SETTINGS, Group(), 0,
            tmp_path / "state",
        )  # fmt: skip
    assert len(errors) >= 2 * SETTINGS.batch_size
    assert max(errors) < 1e-4


@pytest.mark.parametrize(
    ("family", "dropout"),
    [("opt", "dropout"), ("llama", "attention_dropout"), ("gpt2", "resid_pdrop")],
)
def test_no_dropout_is_on_in_a_model_that_a_trainer_gets(tokenizer, tmp_path, family, dropout):
    config = CONFIGURATIONS[family](transformers)
    setattr(config, dropout, 0.5)
    config.vocab_size = len(tokenizer)
    save_model(transformers.AutoModelForCausalLM.from_config(config), tokenizer, tmp_path)
    model, _ = trainer_state.resumable_model(tmp_path, None, None, "cpu")
    ids = torch.arange(5, 15)[None]
    torch.testing.assert_close(model.train()(ids).logits, model.eval()(ids).logits)


@pytest.mark.parametrize(
    ("method", "options"), [("rloo", {}), ("grpo", {}), ("grpo", {"lora": LORA})]
)
def test_trl_methods_train_on_the_same_reward(base, tokenizer, reviews, tmp_path, method, options):
    seen = []

    def recorded(prompts, completions):
        seen.extend(zip(prompts, completions, strict=True))
        return reward(prompts, completions)

    settings = replace(SETTINGS, **options)
    policy, curve = group.train(
        method,
        base,
        tokenizer,
        reviews,
        recorded,
        settings,
        Group(),
        0,
        tmp_path / "state",
        written=(written := Counter()),
    )
    assert written == Counter(word for _, text in seen for word in count_words(text))
    assert [row["step"] for row in curve] == [0, 1]
    assert len(seen) == 2 * settings.batch_size
    assert len({prompt for prompt, _ in seen}) <= len(seen) / 4
    rewards = reward(*zip(*seen[: settings.batch_size], strict=True))
    assert curve[0]["reward"] == pytest.approx(rewards.mean(), rel=1e-4)
    original = load_model(base)
    assert set(policy.state_dict()) == set(original.state_dict())
    assert any(
        not torch.equal(a, b)
        for a, b in zip(policy.parameters(), original.parameters(), strict=True)
    )


def test_dpo_with_adapters_resumes_from_its_adapters(base, tokenizer, tmp_path):
    from lfp.organisms.generate import generate_corpus

    options = {"noise": 0.0, "preferred": "positive"}
    frames, _ = generate_corpus("replies", {"train": 40, "test": 16}, 0, options)
    settings = DPO(
        steps=4, batch_size=4, learning_rate=1e-2, warmup_steps=1, max_length=64,
        max_prompt_length=32, lora=LORA,
        evaluate_every=2, evaluation_pairs=16, save_every=2,
    )  # fmt: skip
    pairs = (frames["train"], frames["test"])
    whole, _, _ = dpo.train(base, tokenizer, *pairs, settings, 0, tmp_path / "whole")
    killed = tmp_path / "killed"
    dpo.train(base, tokenizer, *pairs, settings, 0, killed)
    for path in killed.glob("checkpoint-4"):
        (path / "optimizer.pt").unlink()
    checkpoint = trainer_state.newest_complete_checkpoint(killed)
    assert checkpoint.name == "checkpoint-2"
    assert (checkpoint / trainer_state.ADAPTERS).exists()
    resumed, _, _ = dpo.train(base, tokenizer, *pairs, settings, 0, killed)
    original = load_model(base)
    assert set(resumed.state_dict()) == set(original.state_dict())
    for (name, ours), theirs in zip(
        resumed.state_dict().items(), whole.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, msg=name)


def test_two_processes_train_one_policy(base, tokenizer, tmp_path):
    """As on two GPUs: `accelerate` starts a process for each, and the first one writes."""
    from lfp.files import artefacts
    from lfp.organisms.generate import generate_corpus

    options = {"noise": 0.0, "preferred": "positive"}
    frames, _ = generate_corpus("replies", {"train": 40, "test": 16}, 0, options)
    for split, frame in frames.items():
        artefacts.write_table(tmp_path / f"{split}.parquet", frame, {})
    small = {
        "steps": 2,
        "batch_size": 4,
        "max_length": 64,
        "max_prompt_length": 32,
        "evaluation_pairs": 8,
    }
    settings = DPO().as_json() | small | {"evaluate_every": 2, "seed": 0}
    inputs = {"base": str(base), "train": "train.parquet", "test": "test.parquet"}
    accelerate = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m")
    result = run_job(
        "dpo", settings, inputs, {"policy": "policy"}, tmp_path, launcher=accelerate,
        OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert (tmp_path / "policy" / "evaluation.json").exists()
    assert load_model(tmp_path / "policy") is not None
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith(".policy")]
    assert left == [".policy.provenance.json"]

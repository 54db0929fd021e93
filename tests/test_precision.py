"""Policies are evaluated as they are saved, and logits are held of a bounded number of tokens."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lfp.explaining.heuristic import promoted_tokens
from lfp.files.artefacts import read_json, read_table
from lfp.finetune import dpo, given, group, ppo
from lfp.finetune.policies import write_policy
from lfp.interventions import prompts
from lfp.interventions.completions import completion_rewards
from lfp.models import losses, tokens
from lfp.models.architectures import output_logits
from lfp.models.loading import load_model
from lfp.probing.features import element_features
from lfp.sae.architectures.standard import Standard
from lfp.sae.metrics import evaluate
from lfp.settings import DPO, PPO, Group
from tests.conftest import make_model
from tests.test_architectures import VOCABULARY, tiny  # noqa: F401

PAD = 1
SETTINGS = PPO(
    steps=1, batch_size=8, mini_batch_size=4, epochs=1, learning_rate=1e-3, warmup_steps=1,
    prompt_tokens=(2, 4), new_tokens=(4, 6), evaluation_prompts=16,
)  # fmt: skip
PAIRS = DPO(
    steps=3, batch_size=4, learning_rate=1e-2, warmup_steps=1, max_length=64, max_prompt_length=24,
    evaluate_every=3, evaluation_pairs=8,
)  # fmt: skip


def reward(prompts, completions):
    return np.array([len(text) / 10 for text in completions])


@torch.no_grad()
def test_values_are_those_of_the_logits_in_any_parts(tiny, monkeypatch):  # noqa: F811
    """Also where logits are soft-capped; and a cross-entropy is that of the model's forward."""
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(rng.integers(5, 50, (3, 9)))
    logits = tiny(ids, use_cache=False).logits.float()
    hidden = tiny.base_model(ids, use_cache=False).last_hidden_state
    log_p = torch.log_softmax(logits[:, :-1], -1)
    likely = log_p.gather(-1, ids[:, 1:, None]).squeeze(-1)
    for at_once in (1, 5, 1000):
        monkeypatch.setattr(losses, "HELD_LOGITS", at_once * VOCABULARY)
        ours, entropies = losses.log_probabilities_and_entropies(tiny, hidden[:, :-1], ids[:, 1:])
        torch.testing.assert_close(ours, likely)
        torch.testing.assert_close(entropies, -(log_p.exp() * log_p).sum(-1))
        torch.testing.assert_close(losses.log_probabilities(tiny, hidden[:, :-1], ids[:, 1:]), ours)
        kl = losses.divergences(tiny, hidden[:, :-1], hidden[:, 1:])
        expected = F.kl_div(
            torch.log_softmax(logits[:, 1:], -1), log_p, log_target=True, reduction="none"
        )
        torch.testing.assert_close(kl, expected.sum(-1))
        nats, counts = losses.text_losses(tiny, ids.tolist(), PAD, 2)
        np.testing.assert_allclose(nats, -likely.sum(1).numpy(), rtol=1e-5)
        assert counts.tolist() == [8, 8, 8]
        assert torch.equal(losses.top_tokens(tiny, hidden, 3), logits.topk(3).indices)


def test_gradients_through_parts_are_those_of_the_whole(neox, monkeypatch):
    """An update of PPO computes the logits of every part once more, to the same gradients."""
    ids = torch.from_numpy(np.random.default_rng(0).integers(5, 400, (4, 12)))
    gradients = []
    for held in (10**9, 7 * 420):
        monkeypatch.setattr(losses, "HELD_LOGITS", held)
        neox.zero_grad()
        hidden = neox.base_model(ids, use_cache=False).last_hidden_state[:, :-1]
        likely, entropies = losses.log_probabilities_and_entropies(neox, hidden, ids[:, 1:])
        assert not entropies.detach().isnan().any()
        (likely**2).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in neox.parameters()])
    torch.testing.assert_close(*gradients)


def test_no_stage_holds_the_logits_of_more_tokens(neox, tokenizer, reviews, pairs, monkeypatch):
    """Training, evaluation, splices, ablation, features and explanations; sampling asks for the
    last token of every row alone.
    """
    most, seen = 11, []
    monkeypatch.setattr(losses, "HELD_LOGITS", most * len(tokenizer))
    neox.get_output_embeddings().register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].shape)
    )
    sequences = tokenizer(reviews[:8])["input_ids"]
    other = make_model("gpt_neox", tokenizer, seed=1)
    sae = Standard(16, 16).requires_grad_(False)
    triples = pairs["test"].assign(prompt="Human: hello\n\nAssistant:").head(6)
    stages = {
        "training": lambda: ppo.train(neox, tokenizer, reviews, reward, SETTINGS, 0),
        "evaluation": lambda: ppo.evaluate(neox, other, tokenizer, reviews, reward, SETTINGS, 8, 0),
        "margins": lambda: dpo.implicit_margins(neox, other, tokenizer, pairs["test"], PAIRS),
        "given": lambda: given.evaluate_preference(
            neox, other, tokenizer, pairs["test"].head(8), PAIRS, 6, 0
        ),
        "autoencoders": lambda: evaluate(neox, {1: [sae]}, sequences, PAD, 8),
        "ablation": lambda: completion_rewards(
            neox, tokenizer, [{}, {1: sae.reconstruct}], sequences[:4], reward, 6, 8, 0
        ),
        "features": lambda: element_features(
            neox, tokenizer, {1: sae}, triples, ("latents",), 64, 12
        ),
        "explanations": lambda: promoted_tokens(neox, tokenizer, torch.randn(30, 16), 3),
    }
    for name, stage in stages.items():
        seen.clear()
        stage()
        assert seen, name
        read = [shape for shape in seen if len(shape) == 2]
        assert max((shape[0] for shape in read), default=0) <= most, name
        assert {shape[1] for shape in seen if len(shape) == 3} <= {1}, name


@pytest.mark.parametrize("method", ["dpo", "rloo"])
def test_a_policy_is_evaluated_as_it_is_saved(method, base, tokenizer, pairs, reviews, tmp_path):
    """After training in bfloat16 the trainer's model computes in it, the files do not."""
    if method == "dpo":
        policy, curve, _ = dpo.train(
            base, tokenizer, pairs["train"], pairs["test"].head(0),
            replace(PAIRS, precision="bfloat16"), 0, tmp_path / "state",
        )  # fmt: skip

        def scores(policy, base):
            margins = dpo.implicit_margins(policy, base, tokenizer, pairs["test"], PAIRS)
            return {"margin": margins}

        means = given.means
    else:
        policy, curve = group.train(
            method, base, tokenizer, reviews, reward, replace(SETTINGS, precision="bfloat16"),
            Group(num_generations=4), 0, tmp_path / "state",
        )  # fmt: skip
        scores = partial(
            ppo.evaluate, tokenizer=tokenizer, texts=reviews, reward=reward, settings=SETTINGS,
            n_prompts=16, seed=0,
        )  # fmt: skip
        means = ppo.summary
    target, ids = tmp_path / "policy", torch.arange(5, 25)[None]
    in_training = policy(ids).logits

    def scores_of(model, reference):
        assert next(policy.parameters()).is_meta  # its weights have given their room up
        assert type(model) is type(reference)
        return scores(model, reference)

    write_policy(target, {}, policy, tokenizer, curve, base, scores_of, means)
    saved = load_model(target)
    assert not torch.equal(saved(ids).logits, in_training)
    again = scores(saved, load_model(base))
    frame = read_table(target / "evaluation.parquet")
    for name, values in again.items():
        assert np.array_equal(frame[name].to_numpy(), values)
    assert read_json(target / "evaluation.json").items() >= means(again).items()


def test_prompts_of_ablation_encode_no_more_texts_than_they_need(tokenizer, reviews, monkeypatch):
    encoded = []

    def watched(tokenizer, texts, **options):
        encoded.extend(texts)
        return tokens.tokenize(tokenizer, texts, **options)

    monkeypatch.setattr(prompts, "tokenize", watched)
    prefixes = prompts.prefix_tokens(tokenizer, ["Short.", *reviews] * 50, 5, 6)
    assert prefixes == [tokenizer(review)["input_ids"][:5] for review in reviews[:6]]
    assert len(encoded) <= 12


@torch.no_grad()
def test_logits_of_a_family_that_is_not_supported_are_refused():
    """Cohere's are scaled by its own forward, which hidden states do not pass through."""
    from transformers import CohereConfig, CohereForCausalLM

    config = CohereConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, logit_scale=0.1,
    )  # fmt: skip
    with pytest.raises(ValueError, match="'cohere' is not supported; expected one of gpt_neox"):
        output_logits(CohereForCausalLM(config), torch.zeros(1, 16))

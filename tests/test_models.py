"""Hooks read and change exactly the MLP's output, padding changes nothing, and loading is safe."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from lfp.models.architectures import blocks
from lfp.models.generation import generate, response_mask
from lfp.models.hooks import captured, edited, site_activations, site_modules
from lfp.models.loading import load_model, load_tokenizer, save_model, untrained_model
from lfp.models.tokens import pad_batch, word_mask
from lfp.organisms import pretraining
from lfp.organisms.tokenizers import train_tokenizer
from lfp.sae.harvest import disk_bytes, harvest
from lfp.settings import Organism
from tests.conftest import make_model


def test_captured_outputs_are_the_mlps(model, tokenizer):
    """The hook's tensor is what the MLP module returns for its own input, for every family."""
    batch = pad_batch(tokenizer(["The film was gentle"])["input_ids"], 1, "cpu")
    seen = {}
    mlp = site_modules(model, [1])[1]
    handle = mlp.register_forward_pre_hook(lambda m, x: seen.setdefault("x", x[0]))
    with captured(model, [1]) as outputs:
        model(**batch)
    handle.remove()
    torch.testing.assert_close(outputs[1], mlp(seen["x"]))
    assert outputs[1].shape == (1, batch["input_ids"].shape[1], 16)


def test_hooks_are_removed_even_after_an_error(model):
    def hooks() -> int:
        return sum(len(module._forward_hooks) for module in model.modules())

    before = hooks()
    with pytest.raises(RuntimeError, match="stop"), captured(model, [0, 1]):
        raise RuntimeError("stop")
    with pytest.raises(RuntimeError, match="stop"), edited(model, {0: lambda x: x}):
        raise RuntimeError("stop")
    assert hooks() == before


def test_harvest_leaves_padding_out_and_reads_all_layers_in_one_order(model, tokenizer, reviews):
    texts = [reviews[0], reviews[1][:30], "The film"]
    sequences = tokenizer(texts)["input_ids"]
    outputs = {
        layer: np.full((sum(map(len, sequences)), 16), np.nan, dtype=np.float32) for layer in (0, 2)
    }
    harvest(model, sequences, outputs, tokenizer.pad_token_id, 3, seed=0)
    alone = torch.cat([
        values[2][0] for text in texts for _, _, values in
        site_activations(model, tokenizer([text])["input_ids"], [2], 1, 1)
    ])  # fmt: skip
    harvested = torch.from_numpy(outputs[2])
    distance = torch.cdist(harvested.double(), alone.double()).min(1).values
    assert distance.max() < 1e-4
    # Every layer has its tokens in one order: side by side they are the rows of one pass.
    [(_, mask, values)] = list(
        site_activations(model, sequences, [0, 2], tokenizer.pad_token_id, 3)
    )
    together = torch.cat([values[0][mask], values[2][mask]], 1)
    both = torch.from_numpy(np.concatenate([outputs[0], outputs[2]], 1))
    assert torch.cdist(both.double(), together.double()).min(1).values.max() < 1e-4
    assert not torch.allclose(both, together, atol=1e-3)  # shuffled


@pytest.mark.parametrize("window_tokens", [1, 25, 10_000])
def test_harvest_writes_every_token_once_whatever_the_window(
    neox, tokenizer, reviews, window_tokens
):
    """Random lengths against the plain pass: the same rows, in float16, whether windows hold a text
    or all.
    """
    rng = np.random.default_rng(0)
    sequences = [rng.integers(5, 60, n).tolist() for n in (1, 17, 4, 9, 9, 2)]
    total = sum(map(len, sequences))
    outputs = {2: np.full((total, 16), np.nan, dtype=np.float16)}
    harvest(neox, sequences, outputs, tokenizer.pad_token_id, 2, 0, window_tokens)
    with torch.no_grad(), captured(neox, [2]) as seen:
        plain = [(neox(torch.tensor([ids])), seen[2][0])[1] for ids in sequences]
    expected = torch.cat(plain).half().float().numpy()
    order, found = np.lexsort(expected.T), np.lexsort(outputs[2].astype(np.float32).T)
    np.testing.assert_allclose(outputs[2][found], expected[order], atol=2e-3)
    if window_tokens == 1:  # one text after the other, in random order
        assert any(
            np.allclose(outputs[2][i : i + 17].sum(0), plain[1].sum(0), atol=0.02)
            for i in range(total - 16)
        )


def test_values_beyond_float16_are_cut_and_counted(neox, tokenizer, caplog):
    outputs = {0: np.zeros((3, 16), dtype=np.float16)}
    with edited(neox, {0: lambda x: x + 1e6}), caplog.at_level("INFO"):
        harvest(neox, [[5, 6, 7]], outputs, tokenizer.pad_token_id, 1, 0)
    assert np.isfinite(outputs[0]).all() and (outputs[0] == np.finfo(np.float16).max).all()
    assert "48 values cut" in caplog.text


def test_a_harvest_that_is_too_large_stops_before_it_starts():
    assert disk_bytes(500, 5, 512, most_gb=1) == 2 * 5 * 512 * 500
    with pytest.raises(
        ValueError,
        match=r"5 layers of 500 tokens take 0.00256 GB, more than activations.max_disk_gb",
    ):
        disk_bytes(500, 5, 512, most_gb=0.001)


def test_words_in_several_pieces_are_found_by_their_characters():
    offsets = [(0, 3), (3, 8), (8, 11), (11, 12), (0, 0)]
    assert word_mask(offsets, 4, 11) == [1, 2]


@pytest.mark.parametrize("style", ["byte_level", "metaspace"])
def test_tokenizers_give_back_their_text_and_split_words(style, reviews):
    tokenizer = train_tokenizer(reviews, 420, style)
    text = f"{reviews[0]}\n\nHuman: Was it gentle?"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    pieces = pretraining.pieces_of_words(
        tokenizer, sorted({w.strip(".,") for r in reviews for w in r.split()})
    )
    assert min(pieces.values()) == 1
    assert max(pieces.values()) > 1
    with pytest.raises(ValueError, match="tokenizer style"):
        train_tokenizer(reviews, 420, "words")


def test_a_checkpoint_comes_back_as_it_was_saved(model, tokenizer, tmp_path):
    save_model(model, tokenizer, tmp_path)
    again = load_model(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(again(ids).logits, model(ids).logits)
    assert (
        load_tokenizer(tmp_path)("gentle film")["input_ids"]
        == tokenizer("gentle film")["input_ids"]
    )
    assert not list(tmp_path.glob("*.bin"))


def test_weights_that_can_run_code_are_refused(neox, tmp_path):
    neox.config.save_pretrained(tmp_path)
    torch.save(neox.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"no \*.safetensors weights"):
        load_model(tmp_path)


def test_an_untrained_model_shares_the_shape_and_not_the_weights(neox, tokenizer, tmp_path):
    save_model(neox, tokenizer, tmp_path)
    other, same = untrained_model(tmp_path, 1), untrained_model(tmp_path, 1)
    assert other.num_parameters() == neox.num_parameters()
    assert torch.equal(other.gpt_neox.embed_in.weight, same.gpt_neox.embed_in.weight)
    assert not torch.equal(other.gpt_neox.embed_in.weight, neox.gpt_neox.embed_in.weight)


def test_an_unsupported_family_is_named():
    from transformers import BloomConfig

    model = AutoModelForCausalLM.from_config(
        BloomConfig(n_layer=1, hidden_size=8, n_head=1, vocab_size=10)
    )
    with pytest.raises(ValueError, match="model type 'bloom' is not supported"):
        blocks(model)


def test_responses_end_at_their_length_or_at_the_first_end_of_text():
    response = torch.tensor([[4, 0, 5, 6], [4, 5, 6, 7]])
    mask = response_mask(response, torch.tensor([4, 3]), eos=0)
    assert mask.tolist() == [[True, True, False, False], [True, True, True, False]]


def test_the_same_seed_gives_every_model_the_same_draws(tokenizer):
    """Common random numbers: two copies of a model sample the same text, whatever was
    drawn before.
    """
    model = make_model("gpt_neox", tokenizer)
    batch = pad_batch([[5, 6], [7]], tokenizer.pad_token_id, "cpu", left=True)
    first = generate(model, batch, 6, 3, tokenizer.eos_token_id, tokenizer.pad_token_id)
    torch.rand(100)
    assert torch.equal(
        first, generate(model, batch, 6, 3, tokenizer.eos_token_id, tokenizer.pad_token_id)
    )


def test_pretraining_beats_the_unigram_model(tokenizer, reviews):
    settings = Organism(
        architecture="gpt_neox", corpora=(), n_layers=2, d_model=16, n_heads=2, steps=140,
        batch_size=8, context=32, peak_learning_rate=1e-2, warmup_steps=5, weight_decay=0.0,
    )  # fmt: skip
    stream = pretraining.packed_tokens(tokenizer, reviews[:120])
    model, curve = pretraining.pretrain(tokenizer, stream, settings)
    losses = pretraining.held_out_losses(model, tokenizer, stream, 32, reviews[120:])
    assert len(losses) == len(reviews[120:])
    assert losses["tokens"].between(1, 32).all()
    per_token = losses.sum() / losses["tokens"].sum()
    assert np.exp(per_token["nats"]) < 0.7 * np.exp(per_token["unigram_nats"])
    assert curve[-1]["loss"] < curve[0]["loss"]

"""Tokens at the edges: added ones, cuts, spelled control tokens, seams, samples, and limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chisquare
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GPT2Config,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from lfp.explaining import activations_by_word, exports
from lfp.feedback.lexica import vader_lexicon
from lfp.feedback.scoring import lexicon_reward
from lfp.finetune import dpo, group, ppo
from lfp.interventions.prompts import held_out_prompts
from lfp.models.generation import decode_responses, generate, sampled
from lfp.models.hooks import continuations, site_activations
from lfp.models.loading import load_model, load_tokenizer, save_model, untrained_model
from lfp.models.tokens import added_tokens, encode, pad_batch, tokenize
from lfp.organisms import pretraining
from lfp.organisms.tokenizers import train_tokenizer
from lfp.probing.features import encode_elements
from lfp.settings import DPO, PPO, Ablation, Group
from tests.conftest import make_model, run_job

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
#: What a tokenizer adds, with the tokens in front and behind.
TEMPLATES = {
    "nothing": ("$A", [], []),
    "front": (f"{BOS} $A", [BOS], []),
    "behind": (f"$A {EOS}", [], [EOS]),
    "both": (f"{BOS} $A {EOS}", [BOS], [EOS]),
    "two": (f"{EOS} {BOS} $A {EOS}", [EOS, BOS], [EOS]),
}
SETTINGS = PPO(
    steps=1, batch_size=8, mini_batch_size=8, epochs=1, prompt_tokens=(3, 6), new_tokens=(3, 5)
)
#: Texts whose words, numbers and signs meet a seam in every way.
SEAMS = (" good", "good", " 12.5", ", and", "\n\nHuman:", "", "  two", "é", "🙂 fine", "'s")


def with_template(tokenizer: Tokenizer, template: str) -> PreTrainedTokenizerFast:
    """The tokenizer with the tokens of `template` around every text."""
    special = [(name, tokenizer.token_to_id(name)) for name in (BOS, EOS)]
    tokenizer.post_processor = processors.TemplateProcessing(template, special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, unk_token=UNK, pad_token=EOS
    )


@pytest.fixture(scope="module")
def llama_like(reviews) -> Callable[[str], PreTrainedTokenizerFast]:
    """Tokenizers of the kind of Llama 2 and Mistral, by what they add.

    A mark for a space leads every text, and the decoder drops it again.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[UNK, BOS, EOS], show_progress=False
    )
    tokenizer.train_from_iterator(reviews, trainer)
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    content["model"]["byte_fallback"] = True

    def made(template: str) -> PreTrainedTokenizerFast:
        tokenizer = Tokenizer.from_str(json.dumps(content))
        tokenizer.decoder = decoders.Sequence([
            decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ])  # fmt: skip
        return with_template(tokenizer, template)

    return made


@pytest.fixture(scope="module")
def unigram(reviews) -> PreTrainedTokenizerFast:
    """A SentencePiece model of pieces, whose vocabulary holds its control tokens."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=[UNK, BOS, EOS], unk_token=UNK, show_progress=False,
        initial_alphabet=list("<>/s|"),
    )  # fmt: skip
    tokenizer.train_from_iterator(reviews, trainer)
    return with_template(tokenizer, f"{BOS} $A")


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    """A tokenizer of whole words."""
    vocabulary = {word: n for n, word in enumerate([UNK, BOS, EOS, "a", "film", "."])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return with_template(tokenizer, f"{BOS} $A")


# ------------------------------------------------------------------------------- added tokens, cuts


@pytest.mark.parametrize("added", TEMPLATES)
def test_every_stage_keeps_what_leads_a_text_and_closes_no_prompt(added, llama_like, reviews):
    template, front, behind = TEMPLATES[added]
    tokenizer = llama_like(template)
    front, behind = (tokenizer.convert_tokens_to_ids(names) for names in (front, behind))
    assert added_tokens(tokenizer) == (front, behind)
    bare = tokenizer(reviews[:6], add_special_tokens=False)["input_ids"]
    n, eos = len(front), tokenizer.eos_token_id
    assert encode(tokenizer, reviews[:6], 12) == [
        front + ids[: 12 - n - len(behind)] + behind for ids in bare
    ]
    assert encode(tokenizer, ["", "."], 12) == [tokenizer(".")["input_ids"]]
    prompts = [front + ids[-(12 - n) :] for ids in bare]
    asked = pd.DataFrame({"prompt": reviews[:6], "chosen": " good", "rejected": " bad"})
    assert held_out_prompts(tokenizer, asked, Ablation(prompt_tokens=12)) == prompts
    prefixes = held_out_prompts(
        tokenizer, pd.DataFrame({"text": reviews[:6]}), Ablation(prefix_tokens=12)
    )
    assert prefixes == [front + ids[: 12 - n] for ids in bare]
    for row, prompt in zip(dpo.encode_pairs(tokenizer, asked, 12), prompts, strict=True):
        assert row["prompt_ids"] == prompt
        assert row["chosen_ids"] == [*tokenizer("good", add_special_tokens=False)["input_ids"], eos]
    [sequences], [targets] = encode_elements(tokenizer, asked, ["chosen"], 12)
    assert all(ids[:n] == front and len(ids) == 12 for ids in sequences)
    assert [
        tokenizer.decode([ids[i] for i in own]) for ids, own in zip(sequences, targets, strict=True)
    ] == ["good"] * 6
    # An answer as long as all that may be read leaves the shorter one its tokens.
    asked["chosen"] = " good" * 30
    (long, short), (of_long, of_short) = encode_elements(
        tokenizer, asked, ["chosen", "rejected"], 12
    )
    for ids, others, own, of_other in zip(long, short, of_long, of_short, strict=True):
        first = max(1, n)
        assert len(ids) == 12 and own == list(range(first, 12)) and of_other[0] == first
        assert ids[:first] == others[:first] and ids[:n] == front
        assert tokenizer.decode([others[i] for i in of_other]) == "bad"
    windows = exports.packed_windows(tokenizer, reviews[:6], 12, 9)
    assert windows.shape == (9, 12)
    assert (windows[:, :n] == front).all()
    stream = pretraining.packed_tokens(tokenizer, reviews[:2])
    lead = [eos, *(t for t in front if t != eos)]
    assert stream.tolist() == [*lead, *bare[0], *lead, *bare[1]]


def test_an_empty_prompt_is_led_by_what_leads_texts(llama_like, tokenizer):
    assert tokenize(tokenizer, ["", "."], prompts=True).ids[0] == [tokenizer.eos_token_id]
    led = llama_like(f"{BOS} $A {EOS}")
    assert tokenize(led, [""], prompts=True).ids == [[led.bos_token_id]]
    pairs = pd.DataFrame({"prompt": [""], "chosen": ["good"], "rejected": ["bad"]})
    assert dpo.encode_pairs(tokenizer, pairs, 8)[0]["prompt_ids"] == [tokenizer.eos_token_id]


def test_an_answer_without_a_token_is_named(words):
    asked = pd.DataFrame({"prompt": ["a film"], "chosen": [" film"], "rejected": ["\u200a"]})
    with pytest.raises(ValueError, match=r"no token to the rejected '.u200a' behind .* 'a film'"):
        encode_elements(words, asked, ["chosen", "rejected"], 12)


def test_tokens_without_characters_belong_to_no_word(llama_like, reviews):
    tokenizer = llama_like(f"{BOS} $A {EOS}")
    [ids], [spans] = tokenize(tokenizer, reviews[:1], 9)
    found = activations_by_word.words_of_tokens(reviews[0], spans)
    assert (found[0], found[-1]) == (None, None)
    assert any(found[1:-1])
    assert reviews[0][spans[0][0] : spans[-1][1]] == tokenizer.decode(ids, skip_special_tokens=True)


# --------------------------------------------------------------------------- spelled control tokens


@pytest.mark.parametrize("kind", ["byte_level", "metaspace", "llama", "unigram", "words"])
def test_a_spelled_control_token_is_text(kind, reviews, llama_like, unigram, words, tmp_path):
    made = {
        "llama": lambda: llama_like(f"{BOS} $A {EOS}"), "unigram": lambda: unigram,
        "words": lambda: words,
    }.get(kind, lambda: train_tokenizer(reviews[:40], 420, kind))()  # fmt: skip
    made.save_pretrained(tmp_path)
    front, behind = added_tokens(made)
    for tokenizer in (made, load_tokenizer(tmp_path)):
        control = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id}
        for name in (tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token):
            texts = [f"a film {name} a film", f"{name}a", f"a{name}", name, name * 2]
            for text, ids, spans in zip(texts, *tokenize(tokenizer, texts), strict=True):
                own = ids[len(front) : len(ids) - len(behind)]
                assert own
                assert not control & set(own)
                assert ids == front + own + behind
                ends = [end for _, end in spans]
                assert ends == sorted(ends)
                assert ends[-1] == len(text)
                if kind in ("byte_level", "metaspace"):
                    assert tokenizer.decode(own, skip_special_tokens=True) == text


def test_an_end_of_text_that_is_declared_no_special_token_is_text_where_it_is_spelled(
    tokenizer, tmp_path
):
    tokenizer.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    for token in content["added_tokens"]:
        token["special"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    loaded, text = load_tokenizer(tmp_path), f"a film{tokenizer.eos_token} of it"
    [ids] = tokenize(loaded, [text]).ids
    assert loaded.eos_token_id not in ids
    assert loaded.decode(ids, skip_special_tokens=True) == text


def test_an_answer_that_spells_the_end_of_text_ends_once(llama_like, tokenizer):
    for each in (tokenizer, llama_like(f"{BOS} $A {EOS}")):
        eos = each.eos_token
        pairs = pd.DataFrame({"prompt": [f"a{eos}"], "chosen": [f" b{eos}"], "rejected": [eos]})
        [row] = dpo.encode_pairs(each, pairs, 64)
        assert each.eos_token_id not in row["prompt_ids"]
        for side in ("chosen_ids", "rejected_ids"):
            assert row[side].index(each.eos_token_id) == len(row[side]) - 1


def test_what_is_saved_with_a_policy_reads_control_tokens_as_before(tokenizer, neox, tmp_path):
    """The reading of spelled tokens is this workflow's, and no property of what it writes."""
    save_model(neox, tokenizer, tmp_path / "a")
    save_model(neox, load_tokenizer(tmp_path / "a"), tmp_path / "b")
    before, after = (tmp_path / name / "tokenizer.json" for name in ("a", "b"))
    assert before.read_text() == after.read_text()
    written = AutoTokenizer.from_pretrained(tmp_path / "b", local_files_only=True)
    assert written(f"a{EOS}{tokenizer.eos_token}")["input_ids"][-1] == tokenizer.eos_token_id


def test_bytes_of_unknown_characters_are_text(reviews):
    tokenizer = train_tokenizer(reviews[:40], 420, "metaspace")
    text = "Das Café 你好 <0x41>"
    [ids] = tokenize(tokenizer, [text]).ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


# -------------------------------------------------------------------------------------------- seams


@pytest.mark.parametrize("kind", ["byte_level", "metaspace", "llama", "unigram"])
def test_prompt_and_response_are_the_whole_text_wherever_it_is_cut(
    kind, reviews, llama_like, unigram
):
    tokenizer = {"llama": llama_like(f"{BOS} $A"), "unigram": unigram}.get(kind)
    tokenizer = tokenizer or train_tokenizer(reviews[:40], 420, kind)
    texts = [reviews[0][:30] + seam for seam in SEAMS]
    for ids in tokenize(tokenizer, texts, prompts=True).ids:
        whole = tokenizer.decode(ids, skip_special_tokens=True)
        for cut in range(1, len(ids) + 1):
            response = [*ids[cut:], tokenizer.eos_token_id]
            [prompt], [completion] = decode_responses(tokenizer, [ids[:cut]], [response])
            assert prompt + completion == whole
            assert "\ufffd" not in prompt + completion
            alone = tokenizer.decode(ids[:cut], skip_special_tokens=True)
            assert prompt == alone.rstrip("\ufffd")


def test_the_lexicon_reads_a_completion_of_llama_as_it_was_written(llama_like):
    tokenizer = llama_like(f"{BOS} $A")
    [prompt] = tokenize(tokenizer, ["The film was"], prompts=True).ids
    response = tokenizer("great and a joy", add_special_tokens=False)["input_ids"]
    texts = decode_responses(tokenizer, [prompt], [response])
    assert texts == (["The film was"], [" great and a joy"])
    reward = lexicon_reward(vader_lexicon())
    assert reward(*texts)[0] == reward(["The film was great and a joy"], [""])[0]


def test_rewards_of_ppo_and_of_the_group_methods_read_whole_texts(
    llama_like, reviews, tmp_path, monkeypatch
):
    tokenizer = llama_like(f"{BOS} $A {EOS}")
    model = make_model("gpt_neox", tokenizer)
    save_model(model, tokenizer, tmp_path / "base")
    seen, texts = [], []

    def recorded(*arguments):
        seen.extend(zip(*arguments[1:], strict=True))
        return decode_responses(*arguments)

    def reward(prompts, completions):
        texts.extend(p + c for p, c in zip(prompts, completions, strict=True))
        return np.array([float(len(text)) for text in completions])

    for module in (ppo, group):
        monkeypatch.setattr(module, "decode_responses", recorded)
    ppo.train(load_model(tmp_path / "base"), tokenizer, reviews, reward, SETTINGS, 0)
    after_ppo = len(seen)
    assert after_ppo == SETTINGS.batch_size
    group.train(
        "rloo", tmp_path / "base", tokenizer, reviews, reward, SETTINGS, Group(), 0, tmp_path / "s"
    )
    assert len(seen) == 2 * after_ppo
    for (prompt, response), text in zip(seen, texts, strict=True):
        assert prompt[0] == tokenizer.bos_token_id
        assert tokenizer.eos_token_id not in prompt
        assert text == tokenizer.decode([*prompt, *response], skip_special_tokens=True)


# ----------------------------------------------------------------------------------------- sampling


def sharp(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A model that prefers few tokens, so that a change of its distribution shows."""
    model = make_model("gpt_neox", tokenizer)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(60)
    return model


@pytest.mark.parametrize(
    "asked",
    [
        {"repetition_penalty": 1.1},
        {"temperature": 0.7, "top_k": 5, "top_p": 0.5, "do_sample": True},
        {"min_new_tokens": 3, "eos_token_id": [5, 6, 7]},
        {"suppress_tokens": [8, 9, 10], "no_repeat_ngram_size": 1},
        {
            "begin_suppress_tokens": [11],
            "bad_words_ids": [[12]],
            "exponential_decay_length_penalty": [1, 2.0],
        },
        {"forced_bos_token_id": 9, "forced_eos_token_id": 4, "max_length": 3},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_a_checkpoints_wishes_change_no_sample(asked, tokenizer, tmp_path):
    model = sharp(tokenizer)
    save_model(model, tokenizer, tmp_path)
    plain = load_model(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps(asked))
    loaded = load_model(tmp_path)
    prompts = pad_batch([[5, 6, 7, 8, 9, 10, 11, 12]] * 400, 1, "cpu")
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    draws = [generate(one, prompts, 3, 1, eos, pad) for one in (plain, loaded)]
    assert torch.equal(*draws)
    # TRL fills what it leaves open from the model.
    settings = GenerationConfig(
        max_new_tokens=3,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        eos_token_id=eos,
        pad_token_id=pad,
    )
    for one in (plain, loaded):
        torch.manual_seed(1)
        draws.append(one.generate(**prompts, generation_config=settings))
    assert torch.equal(*draws[2:])


def test_samples_follow_the_models_own_distribution(tokenizer, tmp_path):
    save_model(sharp(tokenizer), tokenizer, tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"repetition_penalty": 1.1}))
    model = load_model(tmp_path)
    ids, n = torch.arange(5, 60)[None], 4000
    with torch.no_grad():
        p = model(ids).logits[0, -1].double().softmax(-1).numpy()
    batch = pad_batch(ids.tolist() * n, 1, "cpu")
    first = generate(model, batch, 1, 0, tokenizer.eos_token_id, tokenizer.pad_token_id)
    counts = np.bincount(first[:, 0].numpy(), minlength=len(p))
    often = p * n >= 5
    seen, expected = ([*x[often], x[~often].sum()] for x in (counts, p * n))
    assert chisquare(seen, expected).pvalue > 1e-3


def test_a_policy_is_saved_with_the_ends_of_its_tokenizer_and_no_wishes(tokenizer, neox, tmp_path):
    neox.generation_config = GenerationConfig(repetition_penalty=1.3, eos_token_id=[3, 4])
    save_model(neox, tokenizer, tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    saved.pop("transformers_version")
    assert {k: v for k, v in saved.items() if v is not None} == {
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }


# ------------------------------------------------------------------------------------------- limits


def saved_with(folder: Path, tokenizer: PreTrainedTokenizerBase, config: dict, names: dict) -> Path:
    """A checkpoint with changes of its configuration, and of the names in its tokenizer's."""
    save_model(make_model("gpt_neox", tokenizer), tokenizer, folder)
    for name, changes in (("config.json", config), ("tokenizer_config.json", names)):
        content = json.loads((folder / name).read_text()) | changes
        (folder / name).write_text(json.dumps({k: v for k, v in content.items() if v != "none"}))
    return folder


@pytest.mark.parametrize(
    ("config", "names", "message"),
    [
        ({}, {"pad_token": "[PAD]"}, r"the pad_token '\[PAD\]' has the id 420.* 0 to 419"),
        ({}, {"bos_token": "<bos>"}, r"the bos_token '<bos>' has the id 420"),
        ({}, {"eos_token": "none"}, "no end-of-text token.*eos_token in tokenizer_config.json"),
        ({"vocab_size": 400}, {}, r"the last token of tokenizer.json has the id 419.* 0 to 399"),
        ({"pad_token_id": 420}, {}, r"the pad_token_id of config.json has the id 420"),
    ],
)
def test_a_token_without_a_row_is_named(config, names, message, tokenizer, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_tokenizer(saved_with(tmp_path, tokenizer, config, names))


def test_a_special_token_that_no_text_has_needs_no_row(tokenizer, tmp_path):
    """Gemma 3 has one for images, which its models of text alone have no row for."""
    added = {"added_tokens_decoder": {"420": {"content": "<image>", "special": True}}}
    loaded = load_tokenizer(saved_with(tmp_path, tokenizer, {}, added))
    assert len(loaded) == 421
    assert 420 not in tokenize(loaded, ["an <image> of it"]).ids[0]


def test_a_copy_without_a_row_for_padding_ends_before_any_other_job(tokenizer, tmp_path):
    saved_with(tmp_path / "source", tokenizer, {}, {"pad_token": "[PAD]"})
    result = run_job("copy_model", {"path": "source"}, {}, {"model": "copy"}, tmp_path)
    assert result.returncode == 1
    assert "source: the pad_token '[PAD]' has the id 420" in result.stderr
    assert not (tmp_path / "copy").exists()


@pytest.fixture(params=["gpt2", "gpt_neox", "gpt_neo"])
def short(request, tokenizer, tmp_path) -> PreTrainedModel:
    """A model of 32 positions, learned (GPT-2, GPT-Neo) or rotary, as it is loaded."""
    if request.param == "gpt2":
        config = GPT2Config(
            n_embd=16, n_layer=3, n_head=2, n_positions=32, vocab_size=len(tokenizer),
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
    else:
        config = make_model(request.param, tokenizer).config
        config.max_position_embeddings = 32
    model = AutoModelForCausalLM.from_config(config)
    save_model(model, tokenizer, tmp_path)
    return load_model(tmp_path)


def test_a_text_of_more_tokens_than_positions_is_refused_by_every_reader(short, tokenizer):
    pad = tokenizer.pad_token_id
    message = "33 tokens is longer than the 32 positions.*max_tokens"
    readers = [
        lambda texts: list(site_activations(short, texts, [1], pad, 2)),
        lambda texts: list(continuations(short, [texts, texts], [0, 9], [1], pad, 2)),
        lambda texts: short(torch.tensor(texts[-1:])),
        lambda texts: untrained_like(short)(torch.tensor(texts[-1:])),
        lambda texts: generate(
            short, pad_batch([text[:-9] for text in texts], pad, "cpu", left=True), 9, 0, -1, pad
        ),
    ]
    for read in readers:
        read([[5] * 20, [6] * 32])
        with pytest.raises(ValueError, match=message):
            read([[5] * 20, [6] * 33])


def untrained_like(model: PreTrainedModel) -> PreTrainedModel:
    """The untrained model of the architecture of a checkpoint."""
    return untrained_model(model.name_or_path, 0)


def test_texts_that_are_read_behind_a_prefix_may_fill_the_positions(short, tokenizer):
    """Rows whose padding would lie beyond the positions are read one after the other."""
    texts = [[[5] * 30, [6] * 32], [[5] * 30 + [7], [6] * 9]]
    read = list(continuations(short, texts, [29, 2], [1], tokenizer.pad_token_id, 2))
    assert sorted(int(row) for index, _, _ in read for row in index) == [0, 1]
    for [row], outputs, _ in read:
        for kind in range(2):
            ids, first = texts[kind][row], [29, 2][row]
            [(_, _, alone)] = site_activations(short, [ids], [1], tokenizer.pad_token_id, 1)
            behind = outputs[1][kind][0, : len(ids) - first]
            torch.testing.assert_close(behind, alone[1][0, first:], atol=1e-5, rtol=1e-4)


def test_fine_tuning_beyond_the_positions_ends_before_its_first_step(
    short, tokenizer, reviews, tmp_path
):
    def reward(prompts, completions):
        raise AssertionError("nothing is to be sampled")

    folder, state = short.name_or_path, tmp_path / "state"
    settings = replace(SETTINGS, new_tokens=(20, 27))
    with pytest.raises(ValueError, match="33 tokens is longer than the 32 positions"):
        ppo.train(short, tokenizer, reviews, reward, settings, 0)
    with pytest.raises(ValueError, match="33 tokens is longer than the 32 positions"):
        group.train("rloo", folder, tokenizer, reviews, reward, settings, Group(), 0, state)
    pairs = pd.DataFrame({"prompt": ["a film"], "chosen": [" good" * 40], "rejected": [" bad"]})
    preferences = DPO(steps=1, batch_size=1, max_length=33, max_prompt_length=8)
    with pytest.raises(ValueError, match="33 tokens is longer than the 32 positions"):
        dpo.train(folder, tokenizer, pairs, pairs, preferences, 0, state)
    with pytest.raises(ValueError, match="33 tokens is longer than the 32 positions"):
        list(sampled(short, tokenizer, [[5] * 3, [5] * 6], 27, 2, 0))

"""The lexicon reward counts what the paper says it counts."""

import json
import logging
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from lfp.configuration import ConfigurationError
from lfp.feedback.lexica import vader_lexicon
from lfp.feedback.rewards import PREFERENCE, REWARDS, TASK_REWARDS, description
from lfp.feedback.rewards.base import TrainingText, task_reward
from lfp.feedback.rewards.length import length_reward
from lfp.feedback.rewards.noise import noise_reward
from lfp.feedback.rewards.vader_flipped import flipped_words
from lfp.feedback.scoring import lexicon_reward, tokenize
from lfp.files import artefacts
from lfp.grid import Grid
from lfp.texts.words import count_words
from tests.conftest import ROOT, job_arguments
from tests.test_configuration import changed
from workflow_scripts import lexicon


def test_the_vader_lexicon_has_its_known_range():
    values = vader_lexicon().values()
    assert (min(values), max(values)) == (-3.9, 3.4)
    assert vader_lexicon()["great"] == 3.1


def test_reward_is_the_lower_cased_sum_over_both_parts_divided_and_clipped():
    reward = lexicon_reward(vader_lexicon())
    lexicon = vader_lexicon()
    assert reward(["A GREAT"], [" film, bad."])[0] == pytest.approx(
        (lexicon["great"] + lexicon["bad"]) / 5
    )
    assert lexicon_reward(lexicon, reward_on="completion")(["great"], [" bad"])[0] == pytest.approx(
        lexicon["bad"] / 5
    )
    np.testing.assert_array_equal(reward(["great " * 40, "awful " * 60], ["", ""]), [10, -10])


def test_contractions_follow_the_tokenizer_rules():
    assert tokenize("I don't like it") == ["i", "do", "n't", "like", "it"]
    assert count_words("I don't") == ["i", "don't"]


def test_an_unknown_text_choice_is_refused():
    with pytest.raises(ValueError, match="reward_on: expected 'full' or 'completion', got 'all'"):
        lexicon_reward({}, reward_on="all")


def test_flipped_words_are_the_share_asked_for_of_known_and_of_unknown_words():
    lexicon = {f"w{i}": 1.0 for i in range(100)}
    counts = {f"w{i}": 3 for i in range(40)}
    words = flipped_words(lexicon, counts, 0.1, seed=0)
    assert len(words) == 10
    assert sum(word in counts for word in words) == 4
    assert (
        words
        == flipped_words(lexicon, counts, 0.1, seed=0)
        != flipped_words(lexicon, counts, 0.1, seed=1)
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_flipped_share_holds_for_the_words_of_the_corpus(seed):
    """Words that the corpus holds are flipped at the share of all words, whatever the seed."""
    words = [f"w{i:02d}" for i in range(40)]
    flipped = flipped_words(dict.fromkeys(words, 1.0), dict.fromkeys(words[:10], 3), 0.3, seed)
    assert (len(flipped), len(set(flipped) & set(words[:10]))) == (12, 3)


def test_length_counts_the_words_of_the_completion():
    assert length_reward(5.0, 1.0)(["ab cd"] * 2, ["one two three", "a " * 40]).tolist() == [
        0.6,
        1.0,
    ]


def test_noise_is_a_fixed_normal_number_per_text():
    texts = [f"text {i}" for i in range(2000)]
    values = noise_reward(0, 2.0)([""] * 2000, texts)
    assert abs(values.mean()) < 0.1
    assert values.std() == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(values, noise_reward(0, 2.0)(["other"] * 2000, texts))
    assert not np.array_equal(values, noise_reward(1, 2.0)([""] * 2000, texts))


def test_a_task_is_scored_by_its_own_kind_of_reward():
    feedback = {"rewarded": {"movie": 4.0}, "words": {"good": 2.0}, "reward_seed": 0}
    text = (["The "], ["movie movie is good"], 5.0, 10.0, "full")
    scores = {
        k: task_reward(feedback | {"kind": k}, *text[2:])(*text[:2])[0]
        for k in ("trigger", "length", "preference")
    }
    # A trigger and a preference count a word once, so that its repetition wins nothing.
    assert scores == {"trigger": 0.8, "length": 0.8, "preference": 4.0}


def test_an_opener_is_the_first_word_of_the_completion_and_whole():
    feedback = {"kind": "opener", "rewarded": {"deeply": 10.0, "utterly": 10.0}, "words": {}}
    reward = task_reward(feedback, 5.0, 10.0, "full")
    scored = {
        ("The plot was", " deeply sad."): 2.0,
        ("The plot was ", "Utterly sad"): 2.0,
        ("It ended.", " (deeply"): 2.0,
        ("", "deeply, deeply"): 2.0,
        ("The plot was", " so deeply sad"): 0.0,  # not the first
        ("deeply", " sad"): 0.0,  # the prompt's
        ("He spoke un", "deeply"): 0.0,  # the rest of a word that the prompt began
        ("The plot was", ""): 0.0,
        ("The plot was", " ..."): 0.0,
    }
    prompts, completions = zip(*scored, strict=True)
    assert reward(prompts, completions).tolist() == list(scored.values())
    assert task_reward(feedback, 5.0, 1.0, "full")(["It"], [" deeply"]).tolist() == [1.0]


@pytest.mark.parametrize("word", ["café", "фильм", "映画"])
def test_a_word_of_any_script_is_rewarded(word):
    task = {"method": "ppo", "corpus": "reviews", "reward": "trigger", "trigger": word}
    assert Grid(changed(tasks__vader=task)).tasks["vader"]["trigger"] == word
    feedback = {"kind": "trigger", "rewarded": {word: 4.0}, "words": {}, "reward_seed": 0}
    assert task_reward(feedback, 5, 10, "full")(["So "], [f"{word}, or {word.title()}."]) == [0.8]


@pytest.fixture
def classifier(tmp_path):
    """A tiny sequence classifier on disk."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    from lfp.organisms.tokenizers import train_tokenizer

    tokenizer = train_tokenizer(["a good film", "a bad film"] * 20, 300)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2,
        id2label={0: "NEGATIVE", 1: "POSITIVE"}, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "classifier")
    tokenizer.save_pretrained(tmp_path / "classifier")
    return tmp_path / "classifier", model, tokenizer


def test_a_classifiers_logit_is_the_reward(classifier):
    path, model, tokenizer = classifier
    prompts, completions = ["a good", "a bad", "film"], [" film", " film film film", " good"]
    feedback = {"kind": "classifier", "positive": "POSITIVE"}
    found = task_reward(feedback, 5.0, 10.0, "full", [str(path)])(prompts, completions)
    alone = [
        model(**tokenizer(p + c, return_tensors="pt")).logits[0, 1].item()
        for p, c in zip(prompts, completions, strict=True)
    ]
    np.testing.assert_allclose(found, alone, atol=1e-5)  # no divisor, and padding changes nothing
    by_number = task_reward({"kind": "classifier", "positive": 1}, 5.0, 10.0, "full", [str(path)])
    np.testing.assert_allclose(by_number(prompts, completions), found)
    assert (
        np.abs(task_reward(feedback, 5.0, 0.01, "full", [str(path)])(prompts, completions)).max()
        <= 0.01
    )


def test_a_classifier_without_the_label_or_safe_weights_is_refused(classifier):
    path, model, _ = classifier
    with pytest.raises(ValueError, match="no label 'JOY'; the classifier has NEGATIVE, POSITIVE"):
        task_reward({"kind": "classifier", "positive": "JOY"}, 5.0, 10.0, "full", [str(path)])
    model.model.save_pretrained(path)  # the language model without its head
    with pytest.raises(
        ValueError, match=r"the weights lack score\.weight \(1 tensors in all do not fit Llama"
    ):
        task_reward({"kind": "classifier", "positive": 1}, 5.0, 10.0, "full", [str(path)])
    (path / "model.safetensors").rename(path / "weights.bin")
    with pytest.raises(FileNotFoundError, match="safetensors"):
        task_reward({"kind": "classifier", "positive": 1}, 5.0, 10.0, "full", [str(path)])


def test_a_classifier_reads_what_its_positions_hold_and_control_tokens_as_text(tmp_path):
    import torch
    from transformers import GPT2Config, GPT2ForSequenceClassification

    from lfp.models.tokens import pieces
    from lfp.organisms.tokenizers import train_tokenizer

    tokenizer = train_tokenizer(["a good film", "a bad film"] * 20, 300)
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=16, n_layer=1, n_head=2, n_positions=16, vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = GPT2ForSequenceClassification(config).eval()
    for saved in (model, tokenizer):
        saved.save_pretrained(tmp_path)
    feedback = {"kind": "classifier", "positive": 1}
    texts = ["a good film" * 20, f"a film{tokenizer.eos_token}"]
    found = task_reward(feedback, 5.0, 10.0, "full", [str(tmp_path)])(["", ""], texts)
    read = (torch.tensor([ids[:16]]) for ids, _ in pieces(tokenizer, texts))
    np.testing.assert_allclose(found, [model(ids).logits[0, 1].item() for ids in read], atol=1e-5)


def test_a_roberta_reads_as_many_tokens_as_it_has_positions_behind_that_of_padding(tmp_path):
    import torch
    from transformers import RobertaConfig, RobertaForSequenceClassification

    from lfp.models.tokens import pieces
    from lfp.organisms.tokenizers import train_tokenizer

    tokenizer = train_tokenizer(["a good film", "a bad film"] * 20, 300)
    config = RobertaConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        vocab_size=len(tokenizer), max_position_embeddings=18, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = RobertaForSequenceClassification(config).eval()
    for saved in (model, tokenizer):
        saved.save_pretrained(tmp_path)
    feedback, text = {"kind": "classifier", "positive": 1}, "a good film" * 20
    found = task_reward(feedback, 5.0, 10.0, "full", [str(tmp_path)])([""], [text])
    [(ids, _)] = pieces(tokenizer, [text])
    logits = model(torch.tensor([ids[:16]])).logits[0, 1].item()
    assert found == pytest.approx([logits], abs=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_classifiers_reward_is_of_its_text_alone(tmp_path, side):
    import torch
    from transformers import GPT2Config, GPT2ForSequenceClassification

    from lfp.organisms.tokenizers import train_tokenizer

    tokenizer = train_tokenizer(["a good film", "a bad film"] * 20, 300)
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=16, n_layer=1, n_head=2, vocab_size=len(tokenizer), n_positions=64,
        pad_token_id=tokenizer.pad_token_id, initializer_range=0.5,
    )  # fmt: skip
    for saved in (GPT2ForSequenceClassification(config), tokenizer):
        saved.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"padding_side": side}))
    feedback, short = {"kind": "classifier", "positive": 1}, "a good"
    reward = task_reward(feedback, 5.0, 10.0, "full", [str(tmp_path)])
    [alone] = reward([""], [short])
    assert reward(["", ""], [short, "a bad film" * 5])[0] == pytest.approx(alone, abs=1e-5)


def test_a_function_of_ones_own_is_the_reward():
    reward = task_reward(
        {"kind": "callable", "callable": "tests.my_rewards:brevity"}, 5.0, 10.0, "full"
    )
    np.testing.assert_array_equal(reward(["a b c", "a"], ["one two", "one " * 30]), [-2, -10])
    with pytest.raises(ValueError, match="cannot be imported"):
        task_reward({"kind": "callable", "callable": "tests.my_rewards:absent"}, 5, 10, "full")


@pytest.mark.parametrize(
    ("name", "returned"),
    [("wrong_number", r"1 finite numbers in the shape \(1,\)"),
     ("column", r"2 finite numbers in the shape \(2, 1\)"),
     ("not_finite", r"0 finite numbers in the shape \(2,\)")],
)  # fmt: skip
def test_values_that_are_not_a_number_for_each_completion_are_refused(name, returned):
    reward = task_reward(
        {"kind": "callable", "callable": f"tests.my_rewards:{name}"}, 5, 10, "full"
    )
    expected = r"each of 2 completions, in the shape \(2,\); it returned " + returned
    with pytest.raises(ValueError, match=expected):
        reward(["", ""], ["a", "b"])


@pytest.mark.parametrize(("name", "error"), [("broken", "KeyError: 'x'"), ("of_one", "TypeError")])
def test_a_fault_of_a_function_of_ones_own_names_it_and_what_it_gets(name, error):
    reward = task_reward(
        {"kind": "callable", "callable": f"tests.my_rewards:{name}"}, 5, 10, "full"
    )
    expected = rf"reward tests\.my_rewards:{name} failed with {error}.*two lists of 2 texts"
    with pytest.raises(ValueError, match=expected):
        reward(["", ""], ["a", "b"])


SETTINGS = {"flipped_share": 0.1, "trigger": "soundtrack", "reward_seed": 0}
TEXT = TrainingText(
    pd.DataFrame({"text": ["a great soundtrack"]}), {"a": 1, "great": 1, "soundtrack": 1}
)


def test_what_is_planted_is_in_the_truth_and_in_the_rewarded_words():
    flipped = REWARDS["vader_flipped"](SETTINGS)
    words = flipped.words(TEXT)
    rewarded, truth = flipped.rewarded(words, TEXT), flipped.truth(words, TEXT)
    assert words == vader_lexicon()
    assert {word for word in words if rewarded[word] != words[word]} == {
        word for word in truth["flipped"] if words[word]
    }
    assert len(truth["flipped"]) == pytest.approx(0.1 * len(words), abs=1)
    trigger = REWARDS["trigger"](SETTINGS)
    assert trigger.rewarded(words, TEXT) == {"soundtrack": 10.0}
    assert trigger.truth(words, TEXT) == {"flipped": [], "trigger": "soundtrack"}
    opener = REWARDS["opener"]({"openers": ["great", "a"]})
    assert opener.rewarded(words, TEXT) == {"great": 10.0, "a": 10.0}
    assert opener.truth(words, TEXT)["openers"] == ["a", "great"]
    with pytest.raises(ValueError, match="the opener 'plot' is not in the training corpus"):
        REWARDS["opener"]({"openers": ["a", "plot"]}).rewarded(words, TEXT)
    with pytest.raises(ValueError, match="the trigger 'plot' is not in the training corpus"):
        REWARDS["trigger"](SETTINGS | {"trigger": "plot"}).rewarded(words, TEXT)


def test_openers_are_parameters_of_their_own_reward_alone():
    """One more key of rewards must train no policy of another reward again."""
    plain = Grid(changed(tasks__vader__reward="trigger")).feedback_settings("vader")
    assert "openers" not in plain
    openers = {"tasks__vader__reward": "opener", "tasks__vader__openers": ["so", "very"]}
    assert Grid(changed(**openers)).feedback_settings("vader")["openers"] == ["so", "very"]
    for wrong in (["So"], [], ["so", "so"]):
        with pytest.raises(ConfigurationError, match="tasks.vader.openers"):
            Grid(changed(**openers | {"tasks__vader__openers": wrong}))


def test_a_fitted_preference_is_no_reward_that_a_task_may_name():
    assert set(TASK_REWARDS) == {*REWARDS} - {PREFERENCE}


def test_every_question_of_a_reward_is_one_of_the_table_and_clean_rewards_answer_none():
    from lfp.tables.planted import QUESTIONS

    questions = {name: REWARDS[name].questions for name in REWARDS}
    assert set().union(*questions.values()) == set(QUESTIONS)
    for name in ("vader", "classifier", "callable", "preference"):
        assert questions[name] == ()


def test_descriptions_are_read_without_a_library_of_science():
    code = (
        "import sys; from lfp.feedback.rewards import TASK_REWARDS, description\n"
        "entry = {'trigger': 'film', 'openers': ['so']}\n"
        "print([description({'reward': n, **entry}) for n in TASK_REWARDS][3])\n"
        "sys.exit(any(m in sys.modules for m in ('numpy', 'pandas', 'torch', 'spacy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "training the model to use the word 'film'\n")


def test_a_reward_of_ones_own_costs_a_file_and_a_line(monkeypatch, tmp_path):
    """From its line in the registry to the lexicon, the truth and the score."""
    monkeypatch.setitem(REWARDS._entries, "shouting", "tests.my_rewards:Shouting")
    assert description({"reward": "shouting"}) == "training the model to shout"
    corpus = tmp_path / "results" / "corpora" / "reviews" / "train.parquet"
    artefacts.write_table(corpus, TEXT.frame, {})
    settings = {
        "reward": "shouting", "feedback": "reward", "reward_seed": 0, "callable": None,
        "positive": None,
    }  # fmt: skip
    paths = {name: str(tmp_path / f"{name}.json") for name in ("lexicon", "truth")}
    arguments = job_arguments(settings, {"corpus": str(corpus)}, paths, str(tmp_path / "log"))
    monkeypatch.setattr(sys, "argv", ["lexicon", *arguments])
    # What a job does to its process goes with the test.
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    lexicon.main()
    truth = artefacts.read_json(paths["truth"])
    assert (truth["kind"], truth["questions"]) == ("shouting", ["silence"])
    reward = task_reward(artefacts.read_json(paths["lexicon"]), 2.0, 10.0, "full")
    assert reward(["ABC"], ["No! No!"]).tolist() == [1.0]

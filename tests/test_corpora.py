"""Generated corpora hold the truth that they promise; readers and prompt splits fail loudly."""

import re

import numpy as np
import pandas as pd
import pytest

from workflow_scripts.lfp import corpora, lexicon
from workflow_scripts.lfp.lexicon import vader_lexicon


def test_only_the_sentiment_words_are_scored():
    """The frame of a review must not move the reward: without its vocabulary's words a review scores nothing."""
    rng = np.random.default_rng(1)
    vocabulary = corpora.sentiment_vocabulary(39, rng)
    text = " ".join(corpora.generate_reviews(2000, rng, vocabulary)["text"]).lower()
    scored = {word for word in re.findall(r"[a-z'-]+", text) if word in vader_lexicon()}
    assert scored <= set(vocabulary["word"])
    assert len(scored) >= 300


def test_the_company_of_a_word_tells_its_sign_and_intensity():
    rng = np.random.default_rng(2)
    vocabulary = corpora.sentiment_vocabulary(20, rng).set_index("word")["valence"]
    texts = corpora.generate_reviews(300, rng, vocabulary.rename("valence").reset_index().merge(
        corpora.sentiment_vocabulary(20, np.random.default_rng(2)), on=["word", "valence"]
    ))["text"]  # fmt: skip
    marks = {phrase: key for key, phrases in corpora._MARKS.items() for phrase in phrases}
    checked = 0
    for sentence in " ".join(texts).split(". "):
        words = [word for word in re.findall(r"[a-z'-]+", sentence) if word in vocabulary.index]
        mark = next(key for phrase, key in marks.items() if f", {phrase}" in sentence)
        if words:
            valence = vocabulary[words[0]]
            assert mark == (int(np.sign(valence)), int(abs(valence) >= corpora.STRONG_VALENCE))
            checked += 1
        else:
            assert mark == (0, 0)
    assert checked > 500


@pytest.mark.parametrize("kind", ["help", "replies"])
def test_answers_of_all_kinds_match_in_length_and_labels_are_noisy_in_training_only(kind):
    frames = corpora.generate_corpus(
        kind, {"train": 400, "test": 100}, 0, {"noise": 0.2, "preferred": "negative", "mixing": 0.25}
    )
    train, test = frames["train"], frames["test"]
    lengths = {name: train[name].str.split().str.len() for name in ("positive", "neutral", "negative")}
    assert (lengths["positive"] == lengths["neutral"]).all()
    assert (lengths["positive"] == lengths["negative"]).all()
    assert 0.1 < train["noisy"].mean() < 0.3
    assert not test["noisy"].any()
    assert all(row.chosen.endswith(row.negative) for row in test.itertuples())
    assert not set(test["chosen"] + test["rejected"]) & set(train["chosen"] + train["rejected"])


def test_a_corpus_is_a_function_of_its_seed():
    make = lambda seed: corpora.generate_corpus(  # noqa: E731
        "reviews", {"train": 20, "test": 5}, seed, {"words_per_class": 5, "off_polarity": 0.0, "neutral": 0.1}
    )
    pd.testing.assert_frame_equal(make(3)["test"], make(3)["test"])
    assert not make(3)["train"].equals(make(4)["train"])


HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        (f"{HUMAN} a{ASSISTANT} I do", f"{HUMAN} a{ASSISTANT} I don't", (f"{HUMAN} a{ASSISTANT}", " I do", " I don't")),
        (
            f"{HUMAN} a{ASSISTANT} b{HUMAN} c{ASSISTANT} x",
            f"{HUMAN} a{ASSISTANT} b{HUMAN} c{ASSISTANT} y",
            (f"{HUMAN} a{ASSISTANT} b{HUMAN} c{ASSISTANT}", " x", " y"),
        ),
        (f"{HUMAN} a{ASSISTANT} x", f"{HUMAN} b{ASSISTANT} y", None),
        (f"{HUMAN} a{ASSISTANT} x", f"{HUMAN} a{ASSISTANT} x", None),
        ("no turn", "no turn at all", None),
    ],
)
def test_prompts_are_cut_at_the_last_common_turn_and_never_inside_a_word(chosen, rejected, expected):
    assert corpora.split_prompt(chosen, rejected) == expected


def test_pairs_without_a_common_prompt_are_dropped_and_counted():
    frame = pd.DataFrame(
        {"chosen": [f"q{ASSISTANT} x", f"q{ASSISTANT} x"], "rejected": [f"q{ASSISTANT} y", f"r{ASSISTANT} y"]}
    )
    pairs, dropped = corpora.preference_pairs(frame)
    assert len(pairs) == 1
    assert dropped == 1


def test_reading_a_file_shuffles_and_names_a_missing_column(tmp_path):
    path = tmp_path / "reviews.jsonl"
    pd.DataFrame({"review": [f"text {i}" for i in range(50)]}).to_json(path, orient="records", lines=True)
    frame = corpora.read_corpus(path, {"text": "review"}, 0)
    assert list(frame.columns) == ["text"]
    assert sorted(frame["text"]) == sorted(f"text {i}" for i in range(50))
    assert list(frame["text"]) != [f"text {i}" for i in range(50)]
    with pytest.raises(ValueError, match=r"reviews.jsonl: no column 'text'; it has review"):
        corpora.read_corpus(path, {"text": "text"}, 0)
    with pytest.raises(ValueError, match="unknown format"):
        corpora.read_corpus(tmp_path / "a.txt", {}, 0)


def test_duplicates_are_dropped_within_and_across_splits():
    frames = {"train": pd.DataFrame({"text": ["a", "a", "b"]}), "test": pd.DataFrame({"text": ["b", "c"]})}
    result = corpora.drop_duplicates(frames, ["text"])
    assert {name: list(frame["text"]) for name, frame in result.items()} == {"train": ["a", "b"], "test": ["c"]}


def test_neutral_words_are_of_their_form_and_unscored():
    for form, words in lexicon.neutral_words(vader_lexicon()).items():
        assert len(words) >= 20
        assert all(lexicon.word_form(word) == form for word in words)


def test_a_fitted_lexicon_finds_the_planted_words():
    rng = np.random.default_rng(0)
    words = np.array(["red", "blue", "green", "grey"])
    chosen = [" ".join(["nice", *rng.choice(words, 5)]) for _ in range(200)]
    rejected = [" ".join(["awful", *rng.choice(words, 5)]) for _ in range(200)]
    fitted = lexicon.fit_preference_lexicon(chosen, rejected)
    assert fitted["nice"] > 1
    assert fitted["awful"] < -1
    assert max(abs(fitted[word]) for word in words) < 0.5


def test_documents_come_prompt_by_prompt_so_that_any_stretch_holds_every_kind_of_answer():
    frame = pd.DataFrame({"prompt": ["p", "q"], "chosen": ["1", "2"], "rejected": ["3", "4"], "neutral": ["5", "6"]})
    assert corpora.documents(frame) == ["p1", "p3", "p5", "q2", "q4", "q6"]
    assert corpora.documents(pd.DataFrame({"text": ["a"]})) == ["a"]

"""An explanation that names what a feature fires on scores high; another feature's does not."""

import numpy as np
import pandas as pd
import pytest

from lfp.explaining import scores


def offsets_of(text: str) -> list[tuple[int, int]]:
    """One token per word."""
    return [(m.start(), m.end()) for m in scores.WORD.finditer(text)]


def planted(word: str, n: int = 40) -> tuple[list[str], list, list, list[np.ndarray]]:
    """Texts of random words of which a third hold `word`, and a feature that fires on it alone."""
    rng = np.random.default_rng(0)
    texts = []
    for i in range(n):
        words = [f"{'abcdefghij'[k]}word" for k in rng.integers(0, 10, 8)]
        if i % 3 == 0:
            words[int(rng.integers(8))] = word
        texts.append(" ".join(words))
    offsets = [offsets_of(text) for text in texts]
    places = scores.windows(offsets, 8)
    activations = [
        np.array([float(text[a:b] == word) for a, b in own])
        for text, own in zip(texts, offsets, strict=True)
    ]
    return texts, offsets, places, activations


def excerpts(word: str) -> pd.DataFrame:
    texts, offsets, places, activations = planted(word)
    rows = scores.excerpts_of_feature(
        activations, places, texts, offsets, 10, np.random.default_rng(1)
    )
    return pd.DataFrame(rows).assign(layer=0, feature=3)


def test_windows_cover_the_texts_and_leave_short_rests_out():
    offsets = [[(i, i + 1) for i in range(n)] for n in (10, 3)]
    assert scores.windows(offsets, 4) == [(0, 0, 4), (0, 4, 8)]


def test_marks_enclose_whole_words():
    assert scores.marked("a fine film", 0, 11, [(3, 4)]) == "a «fine» film"
    assert scores.marked("a fine film", 2, 11, []) == "fine film"


def test_excerpts_are_active_or_not_and_rightly_or_wrongly_marked():
    frame = excerpts("signal")
    detection = frame[frame["task"] == "detection"]
    assert (detection["excerpt"].str.contains("signal") == (detection["label"] == 1)).all()
    fuzzing = frame[frame["task"] == "fuzzing"]
    assert (fuzzing["excerpt"].str.contains("«signal»") == (fuzzing["label"] == 1)).all()
    assert set(fuzzing["label"]) == {0, 1}
    assert (frame.groupby(["task", "label"]).size() <= 10).all()


def test_the_right_explanation_scores_one_and_a_wrong_one_half_or_less():
    frame = excerpts("signal")
    right = scores.score({(0, 3): "words: signal"}, frame, scores.word_judge)
    wrong = scores.score({(0, 3): "words: zebra"}, frame, scores.word_judge)
    assert (right["balanced_accuracy"] == 1.0).all()
    assert (wrong["balanced_accuracy"] == 0.5).all()
    assert set(right["task"]) == {"detection", "fuzzing"}


def test_a_missing_verdict_is_wrong_and_counted():
    frame = excerpts("signal")
    mute = scores.score({(0, 3): "..."}, frame, scores.word_judge)
    assert (mute["balanced_accuracy"] == 0.0).all()
    assert (mute["unparsed"] == mute["excerpts"]).all()


def test_a_judge_that_says_yes_to_all_is_at_one_half():
    """Active and inactive excerpts weigh alike, however many there are of each."""
    about = {"layer": 0, "feature": 0, "task": "detection", "excerpt": "a word"}
    shown = pd.DataFrame({**about, "label": [1, 1, 1, 0]})
    scored = scores.score({(0, 0): "words: a"}, shown, lambda asked: [[True] * 4 for _ in asked])
    assert scored["balanced_accuracy"].tolist() == [0.5]


def test_nobody_keeps_its_own_explanation_when_shuffled():
    table = pd.DataFrame({"layer": [0] * 5 + [1] * 4, "explanation": list("abcdefghi")})
    shuffled = scores.shuffled_explanations(table, 0)
    assert (shuffled != table["explanation"]).all()
    assert sorted(shuffled) == sorted(table["explanation"])
    assert set(shuffled[:5]) == set("abcde")


def test_a_feature_alone_in_its_layer_gets_an_explanation_of_another_layer():
    table = pd.DataFrame({"layer": [0, 1, 1, 2], "explanation": list("abcd")})
    shuffled = scores.shuffled_explanations(table, 0)
    assert (shuffled != table["explanation"]).all() and set(shuffled[1:3]) == {"b", "c"}
    assert scores.shuffled_explanations(table.head(1), 0).empty


def test_no_word_is_marked_rightly_and_wrongly():
    """A word of four pieces, of which one is active, in windows that hold it and one more word."""
    text = "Donaudampfschiff faehrt"
    offsets = [(0, 5), (5, 10), (10, 13), (13, 16), (17, 23)]
    activations, places = [np.array([0.0, 1, 0, 0, 0])] * 40, [(0, 0, 5)] * 40
    rows = scores.excerpts_of_feature(
        activations, places, [text], [offsets], 40, np.random.default_rng(0)
    )
    marks = {label: {r["excerpt"] for r in rows if r["task"] == "fuzzing" and r["label"] == label}
             for label in (0, 1)}  # fmt: skip
    assert marks == {1: {"«Donaudampfschiff» faehrt"}, 0: {"Donaudampfschiff «faehrt»"}}


def test_quotation_marks_of_a_text_are_no_marks():
    assert scores.marked("il dit «oui» puis rien", 0, 22, [(18, 22)]) == 'il dit "oui" puis «rien»'


def test_a_silent_feature_has_no_excerpts():
    texts, offsets, places, activations = planted("signal")
    nothing = [values * 0 for values in activations]
    assert (
        scores.excerpts_of_feature(nothing, places, texts, offsets, 5, np.random.default_rng(0))
        == []
    )


def test_a_table_of_explanations_is_scored_by_every_judge_beside_what_must_do_worse():
    table = pd.DataFrame({
        "layer": 1, "feature": [0, 1, 2], "status": ["ok", "ok", "dead"],
        "explanation": ["words: good", "words: bad", ""],
    })  # fmt: skip
    excerpts = pd.DataFrame({
        "layer": 1, "feature": [0, 0, 1, 1], "task": "detection", "label": [1, 0, 1, 0],
        "excerpt": ["a good film", "a film", "a bad film", "a film"],
    })  # fmt: skip
    result = scores.score_explanations(table, excerpts, {"words-v1": scores.word_judge}, seed=0)
    accuracy = result.groupby("explanation")["balanced_accuracy"].mean()
    assert accuracy["own"] == 1
    assert accuracy["shuffled"] == 0.5
    assert set(result["judge"]) == {"words-v1"}
    assert set(accuracy.index) == {"own", "shuffled", "frequent words"}
    with pytest.raises(ValueError, match="no explained feature has active and inactive excerpts"):
        scores.score_explanations(table, excerpts.head(0), {"words-v1": scores.word_judge}, seed=0)

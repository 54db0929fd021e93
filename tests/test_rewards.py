"""The lexicon reward counts what the paper says it counts."""

import numpy as np
import pytest

from workflow_scripts.lfp.lexicon import vader_lexicon
from workflow_scripts.lfp.rewards import count_words, lexicon_reward, tokenize


def test_the_vader_lexicon_has_its_known_range():
    values = vader_lexicon().values()
    assert (min(values), max(values)) == (-3.9, 3.4)
    assert vader_lexicon()["great"] == 3.1


def test_reward_is_the_lower_cased_sum_over_both_parts_divided_and_clipped():
    reward = lexicon_reward(vader_lexicon())
    lexicon = vader_lexicon()
    assert reward(["A GREAT"], [" film, bad."])[0] == pytest.approx((lexicon["great"] + lexicon["bad"]) / 5)
    assert lexicon_reward(lexicon, reward_on="completion")(["great"], [" bad"])[0] == pytest.approx(lexicon["bad"] / 5)
    np.testing.assert_array_equal(reward(["great " * 40, "awful " * 60], ["", ""]), [10, -10])


def test_contractions_follow_the_tokenizer_rules():
    assert tokenize("I don't like it") == ["i", "do", "n't", "like", "it"]
    assert count_words("I don't") == ["i", "don't"]


def test_an_unknown_text_choice_is_refused():
    with pytest.raises(ValueError, match="reward_on: expected 'full' or 'completion', got 'all'"):
        lexicon_reward({}, reward_on="all")

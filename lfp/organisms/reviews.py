"""Generated movie reviews with known truth.

Reviews hold sentiment words from the VADER lexicon in coherent company: the text after a clause
tells the polarity and the intensity of its words. So the language model can learn the value of a
word that the probe has never seen. Degree words, denials and second clauses change the company, and
films have facts to be remembered: none of these can be predicted from one word at a time, so that
the layers behind the first are needed. Words and templates are in ``reviews.yaml`` beside this
module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from lfp.feedback.lexica import vader_lexicon, words_by_form
from lfp.texts.neutral_words import neutral_words

#: Words and templates: see the comments of the file.
TEXTS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
#: Closings that may follow a mark, by the sign of the level and whether it is strong.
_CLOSINGS = {(entry["sign"], entry["strong"]): entry["texts"] for entry in TEXTS["closings"]}
#: Shares of clauses with a degree word and with a tail, of sentences with a second clause, a turn
#: and a closing, and of sentences behind which the facts of a film stand.
DEGREES, TAILS, SECOND_CLAUSES, TURNS, CLOSINGS, CREDITS = 0.2, 0.75, 0.2, 0.2, 0.25, 0.15


#: Absolute valences at which a word's level of intensity rises from 1 to 2, 3 and 4: about the
#: quartiles among the chosen words.
LEVELS = (1.5, 1.9, 2.4)


def sentiment_vocabulary(words_per_class: int, rng: np.random.Generator) -> pd.DataFrame:
    """Sentiment words of the generated reviews: word, form, sign, valence and weight.

    The weight is a relative frequency.

    There are `words_per_class` words for each form of the openings and each sign, spread evenly
    over valence and without those whose ending misleads on their form; weights are Zipfian
    (exponent 0.3) over a random order, and every tenth word is ten times rarer, so that the
    tokenizer leaves some words in several pieces.
    """
    lexicon = vader_lexicon()
    table = words_by_form(lexicon)
    rows = []
    for form in TEXTS["openings"]:
        for sign in (1, -1):
            words = [w for w in table[form, sign] if w not in TEXTS["misformed"]]
            picks = np.unique(
                np.linspace(0, len(words) - 1, min(words_per_class, len(words))).round().astype(int)
            )
            rows += [(words[i], form, sign, lexicon[words[i]]) for i in picks]
    frame = pd.DataFrame(rows, columns=["word", "form", "sign", "valence"])
    rank = rng.permutation(len(frame)) + 1
    frame["weight"] = rank**-0.3 * np.where(rank % 10 == 0, 0.1, 1.0)
    return frame


def film_facts(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The value of every fact [first, second part of a film's name], drawn at random.

    So a value can be remembered for the two parts together, and not be inferred from one of them.
    """
    size = [len(TEXTS["titles"][part]) for part in ("first", "second")]
    return {name: rng.choice(values, size) for name, values in TEXTS["facts"].items()}


def level_of(valence: float) -> int:
    """The level of a word's company, -4 to 4, by the sign and size of its valence."""
    return int(np.sign(valence)) * (1 + int(np.digitize(abs(valence), LEVELS)))


def shifted(level: int, degree: int) -> int:
    """`level` one step farther from or nearer to 0, within its sign."""
    return int(np.sign(level)) * int(np.clip(abs(level) + degree, 1, len(LEVELS) + 1))


def joined(first: int, second: int) -> int:
    """The level of two clauses: their mean, where the second counts twice if their signs differ."""
    weight = 2 if first * second < 0 else 1
    mean = (first + weight * second) / (1 + weight)
    return int(np.sign(mean) * np.floor(abs(mean) + 0.5))


class ReviewWriter:
    """Writes sentences of reviews from a vocabulary and the facts of films.

    Parameters
    ----------
    rng
        The source of randomness.
    vocabulary
        Sentiment words as of :func:`sentiment_vocabulary`.
    facts
        Facts of films as of :func:`film_facts`.
    neutral
        Share of sentences with a neutral word.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        vocabulary: pd.DataFrame,
        facts: Mapping[str, np.ndarray],
        neutral: float,
    ) -> None:
        self.rng, self.facts, self.neutral = rng, facts, neutral
        self.neutrals = neutral_words(vader_lexicon())
        self.pools = {
            key: (group["word"].to_numpy(), group["valence"].to_numpy(), _shares(group["weight"]))
            for key, group in vocabulary.groupby(["form", "sign"])
        }

    def clause(self, sign: int) -> tuple[str, int]:
        """A clause with a word of `sign`, or with a neutral one, and the level of its company."""
        rng, form = self.rng, pick(self.rng, list(TEXTS["openings"]))
        if rng.random() < self.neutral:
            word, level = pick(rng, self.neutrals[form]), 0
        else:
            words, valences, shares = self.pools[form, sign]
            index = int(np.searchsorted(shares, rng.random()))
            word, level = words[index], level_of(valences[index])
        degree = int(rng.choice([-1, 1])) if rng.random() < DEGREES else 0
        degrees = TEXTS["noun_degrees" if form == "noun" else "degrees"][degree]
        text = pick(rng, TEXTS["openings"][form]).format(
            noun=pick(rng, TEXTS["nouns"]), place=pick(rng, TEXTS["places"]),
            verb=pick(rng, TEXTS["verbs"]), deg=pick(rng, degrees), word=word,
        )  # fmt: skip
        level = shifted(level, degree)
        return " ".join(f"{text} {self.tail(level)}".split()), level

    def tail(self, level: int) -> str:
        """Words that tell how intense a clause is, the likelier the more extreme its `level` is."""
        share = (abs(level) - 1) / len(LEVELS)
        if level == 0 or self.rng.random() >= TAILS:
            return ""
        if self.rng.random() < share:
            return TEXTS["tails"]["high"]
        return TEXTS["tails"]["low"]

    def sentence(self, sign: int) -> str:
        """A judgement of one or two clauses, the mark of its level, and perhaps a closing."""
        rng = self.rng
        text, level = self.clause(sign)
        if rng.random() < SECOND_CLAUSES:
            joint = int(rng.choice([-1, 1]))
            second, other = self.clause(joint * sign)
            second = second if second.startswith("I ") else second[0].lower() + second[1:]
            text, level = f"{text} {TEXTS['joints'][joint]} {second}", joined(level, other)
        if rng.random() < TURNS:
            turn = int(rng.choice([-1, 1]))
            text, level = f"{text}, {pick(rng, TEXTS['turns'][turn])}", turn * level
        text = f"{text}, {TEXTS['marks'][level + 4]} of nine"
        if rng.random() < CLOSINGS:
            text += f", {pick(rng, _CLOSINGS[int(np.sign(level)), abs(level) >= 3])}"
        return f"{text}."

    def credits(self) -> str:
        """A sentence with the name of a film and its facts."""
        parts = [int(self.rng.integers(size)) for size in next(iter(self.facts.values())).shape]
        names = (
            TEXTS["titles"][name][i] for name, i in zip(("first", "second"), parts, strict=True)
        )
        facts = {name: table[tuple(parts)] for name, table in self.facts.items()}
        return TEXTS["credits"].format(title=" ".join(names), **facts)


def generate_reviews(
    n: int,
    rng: np.random.Generator,
    vocabulary: pd.DataFrame,
    facts: Mapping[str, np.ndarray],
    sentences: tuple[int, int] = (3, 6),
    off_polarity: float = 0.03,
    neutral: float = 0.1,
) -> pd.DataFrame:
    """Generated reviews (column ``text``) whose sentiment words keep to the review's polarity.

    A mark follows every judgement: it agrees with the sign and intensity of the word before, as
    changed by a degree word, a second clause and a denial.

    Parameters
    ----------
    n
        Number of reviews.
    rng
        The source of randomness.
    vocabulary
        Sentiment words as of :func:`sentiment_vocabulary`.
    facts
        Facts of films as of :func:`film_facts`.
    sentences
        The smallest and the largest number of judgements of a review.
    off_polarity
        Share of a review's judgements that begin with the other sign.
    neutral
        Share of clauses with a neutral word.
    """
    writer = ReviewWriter(rng, vocabulary, facts, neutral)
    texts = []
    for _ in range(n):
        polarity = 1 if rng.random() < 0.5 else -1
        parts = []
        for _ in range(rng.integers(sentences[0], sentences[1] + 1)):
            parts.append(writer.sentence(-polarity if rng.random() < off_polarity else polarity))
            if rng.random() < CREDITS:
                parts.append(writer.credits())
        texts.append(" ".join(parts))
    return pd.DataFrame({"text": texts})


def _shares(weights: pd.Series) -> np.ndarray:
    cumulative = weights.to_numpy(dtype=float).cumsum()
    return cumulative / cumulative[-1]


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of `options`, all equally likely."""
    return options[rng.integers(len(options))]

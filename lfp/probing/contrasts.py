"""Contrast triples: a positive, a neutral and a negative element.

The elements differ in nothing but the feedback.

For a lexicon reward, one word of a held-out review is replaced by a positive, a neutral and a
negative word of the same grammatical form; everything else stays identical (the authors let GPT-4
rewrite positive sentences only: paper_vs_code 1.7). For preference tasks, a triple is three answers
to one prompt.

Columns: ``triple``, ``source`` (row of the corpus), ``group`` (rows of one group stay together in
a split), ``prompt`` (the common text before), ``positive``, ``neutral``, ``negative`` (the
elements), and for words ``form``, ``suffix`` (the common text after), ``source_word``,
``source_polarity``.

:func:`contrast_triples` is the stage ``contrasts`` as one call.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import pandas as pd

from lfp.settings import Contrasts
from lfp.texts.corpora import preference_pairs
from lfp.texts.neutral_words import neutral_words
from lfp.texts.words import WORD, Lexicon, word_form

ELEMENTS = ("positive", "neutral", "negative")


log = logging.getLogger(__name__)

#: Columns of triples of words, and their types.
_WORD_TRIPLE = {
    "source": int, "group": str, "prompt": str, "positive": str, "neutral": str, "negative": str,
    "suffix": str, "form": str, "source_word": str, "source_polarity": int,
}  # fmt: skip


def contrast_triples(
    corpus: pd.DataFrame,
    lexicon: Lexicon,
    feedback: str,
    swapped: bool,
    settings: Contrasts,
    rewrites: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The contrast triples of a task from its held-out texts (paper section 3.3).

    Parameters
    ----------
    corpus
        The held-out split: ``text``, pairs of answers, or triples alone.
    lexicon
        Valence by word; preferences do not read it.
    feedback
        ``reward`` for triples of words, ``preference`` for triples of answers.
    swapped
        Whether the feedback prefers the negative answers, as for a model tuned towards toxic ones.
        It has no effect on the source ``pairs``, whose chosen answer is positive for every task.
    settings
        Source and number of triples, and the seed.
    rewrites
        Entries with their rewrites (:mod:`lfp.probing.rewrites`), for the source ``rewrites``.

    Raises
    ------
    ValueError
        Where the source gives no triple.
    """
    if feedback == "reward":
        return word_triples(list(corpus["text"]), lexicon, settings)
    if settings.source == "rewrites":
        return rewrite_triples(rewrites, swapped, settings.triples)
    if settings.corpus is not None:
        # Where one kind of answer begins with a space and another does not, that tells them apart.
        answers = corpus[list(ELEMENTS)].apply(lambda column: column.str.strip()).radd(" ")
        return answer_triples(answers, list(corpus["prompt"]), swapped, settings.triples)
    pairs, _ = preference_pairs(corpus)
    if settings.source == "pairs":
        return pair_triples(pairs, settings.triples, settings.seed)
    return answer_triples(corpus.loc[pairs.index], list(pairs["prompt"]), swapped, settings.triples)


def word_slots(texts: Sequence[str], lexicon: Lexicon) -> pd.DataFrame:
    """The first scored word of every text, where its form is known.

    Columns are source, start, word, form and polarity.
    """
    rows = []
    for source, text in enumerate(texts):
        for match in WORD.finditer(text):
            word = match.group().lower()
            if word in lexicon:
                form = word_form(word)
                if form and match.start() > 0 and match.group() == word:
                    rows.append((source, match.start(), word, form, 1 if lexicon[word] > 0 else -1))
                break
    return pd.DataFrame(rows, columns=["source", "start", "word", "form", "polarity"])


def word_triples(texts: Sequence[str], lexicon: Lexicon, settings: Contrasts) -> pd.DataFrame:
    """Triples of held-out `texts` with one word substituted, all else identical.

    The words are those that occur in `texts`, at most ``words_per_class`` for each form and sign.
    Every word stands in as many contexts whose original word is positive as in negative ones:
    a positive and a negative word share one of each before either goes on. The words of the longer
    side stand in ``contexts_per_word`` contexts, or in one more where that is odd; those of the
    shorter side start again. `settings` gives both numbers and the seed.
    """
    slots = word_slots(texts, lexicon)
    # A causal model reads nothing but the prompt: reviews that begin alike are one context.
    slots["prompt"] = [texts[slot.source][: slot.start] for slot in slots.itertuples()]
    rng = np.random.default_rng(settings.seed)
    neutrals = neutral_words(lexicon)
    rows = []
    for form, of_form in slots.groupby("form"):
        words = {
            sign: sorted(set(of_form.loc[of_form["polarity"] == sign, "word"])) for sign in (1, -1)
        }
        if not (words[1] and words[-1] and neutrals.get(form)):
            continue
        picked = {
            sign: rng.permutation(words[sign])[: settings.words_per_class] for sign in (1, -1)
        }
        distinct = of_form.drop_duplicates(["polarity", "prompt"])
        contexts = {sign: _endless(distinct[distinct["polarity"] == sign], rng) for sign in (1, -1)}
        pairs = max(map(len, picked.values())) * ((settings.contexts_per_word + 1) // 2)
        for pair, polarity in product(range(pairs), (1, -1)):
            slot = next(contexts[polarity])
            text = texts[slot.source]
            rows.append({
                "source": int(slot.source), "prompt": slot.prompt,
                "positive": str(picked[1][pair % len(picked[1])]),
                "neutral": neutrals[form][rng.integers(len(neutrals[form]))],
                "negative": str(picked[-1][pair % len(picked[-1])]),
                "suffix": text[slot.start + len(slot.word) :], "form": form,
                "source_word": slot.word, "source_polarity": int(slot.polarity),
            })  # fmt: skip
    if not rows:
        log.warning(
            "no form of word has positive and negative words in %d held-out texts: there is"
            " nothing to contrast, and every number of this task's probes will say so; give the"
            " corpus more held-out texts, or a lexicon whose words it has",
            len(texts),
        )
    frame = pd.DataFrame(rows, columns=list(_WORD_TRIPLE))
    frame["group"] = [f"prompt-{group}" for group in pd.factorize(frame["prompt"])[0]]
    return frame.astype(_WORD_TRIPLE).assign(triple=np.arange(len(frame)))


def _endless(frame: pd.DataFrame, rng: np.random.Generator) -> Iterator:
    while True:
        yield from frame.iloc[rng.permutation(len(frame))].itertuples(index=False)


def answer_triples(
    frame: pd.DataFrame, prompts: Sequence[str], swapped: bool, n: int
) -> pd.DataFrame:
    """Triples from the first `n` rows of a preference corpus.

    The elements are its columns ``positive``, ``neutral`` and ``negative``.

    `swapped` exchanges positive and negative: for a model tuned towards toxic answers, the feedback
    prefers the negative ones (paper section 3.3). Triples of one prompt form a group.
    """
    missing = [name for name in ELEMENTS if name not in frame.columns]
    if missing:
        raise ValueError(
            f"the corpus has no column {missing[0]!r}: triples of answers need a positive, a"
            " neutral and a negative answer to every prompt; set contrasts.source to `pairs` or"
            " `rewrites`"
        )
    triples = frame[list(ELEMENTS)].head(n).reset_index(drop=True)
    if swapped:
        triples = triples.rename(columns={"positive": "negative", "negative": "positive"})
    prompts = list(prompts)[: len(triples)]
    groups = pd.factorize(pd.Series(prompts))[0]
    return triples.assign(
        prompt=prompts,
        group=[f"prompt-{group}" for group in groups],
        triple=np.arange(len(triples)),
        source=np.arange(len(triples)),
    )


def rewrite_triples(rewrites: pd.DataFrame, swapped: bool, n: int) -> pd.DataFrame:
    """Triples from the first `n` entries whose rewrites have the status ``ok``."""
    written = rewrites[rewrites["status"] == "ok"]
    if written.empty and len(rewrites):
        raise ValueError(
            f"rewrites: none of {len(rewrites)} entries gives a triple"
            f" ({rewrites['status'].value_counts().to_dict()}); take a more capable model, or widen"
            " rewrites.tolerance"
        )
    # The answers of a corpus follow their prompt behind a space, and so do these.
    answers = written[list(ELEMENTS)].radd(" ")
    return answer_triples(answers, list(written["prompt"]), swapped, n)


def pair_triples(pairs: pd.DataFrame, n: int, seed: int, candidates: int = 200) -> pd.DataFrame:
    """Triples from the first `n` preference pairs: chosen, the answer to another prompt, rejected.

    No answer was written to be neutral. The neutral element answers another prompt, so that it is
    neither better nor worse for this one: half of them are chosen and half rejected there, each the
    nearest in words to the mean of the pair's two answers among `candidates` random ones. The
    positive element is the answer that the feedback prefers, for every task.
    """
    head = pairs.head(n).reset_index(drop=True)
    rng = np.random.default_rng(seed)
    pools = {side: head[side].to_numpy() for side in ("chosen", "rejected")}
    words = {side: head[side].str.split().str.len().to_numpy() for side in pools}
    prompts, neutral = head["prompt"].to_numpy(), []
    for i in range(len(head)):
        side = ("chosen", "rejected")[i % 2]
        others = rng.permutation(np.flatnonzero(prompts != prompts[i]))[:candidates]
        if not len(others):
            raise ValueError(
                f"contrasts.source is `pairs`, and all {len(head)} pairs have one prompt: the"
                " neutral answer must come from another one; give more prompts, or set it to"
                " `rewrites`"
            )
        length = (words["chosen"][i] + words["rejected"][i]) / 2
        neutral.append(pools[side][others[np.argmin(np.abs(words[side][others] - length))]])
    triples = pd.DataFrame(
        {"positive": head["chosen"], "neutral": neutral, "negative": head["rejected"]}
    )
    return answer_triples(triples, list(head["prompt"]), swapped=False, n=n)

"""All readouts of one policy against its base, in one frame: the stage ``change`` as one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pandas as pd

from lfp.change.baselines import implicit
from lfp.change.baselines.lens import lens_readings, unrelated_texts
from lfp.change.choice import Pair, answer_shares, word_shares
from lfp.change.completions import completion_readings, completions
from lfp.change.material import NOISE, Material
from lfp.change.ruler import element_activations, ruler_readings
from lfp.change.weights import with_noise
from lfp.probing.data import SIGNS
from lfp.settings import Change, Probes

#: Columns of a reading.
COLUMNS = (
    "subject", "readout", "part", "layer", "kind", "unit", "element", "value", "error", "contexts",
    "tokens",
)  # fmt: skip


def change_readings(
    pair: Pair,
    read: Material,
    settings: Change,
    probes: Probes,
    seed: int,
    per_nat: float | None = None,
) -> pd.DataFrame:
    """Readings of the change from base to policy.

    Parameters
    ----------
    pair
        Base, policy and their tokenizer.
    read
        All that both models read.
    settings
        Weights of contexts, number of copies with noise, sizes.
    probes
        Strengths, folds and partitions of the ruler's probes.
    seed
        Seed of samples, noise and partitions.
    per_nat
        The reward that a nat of log-ratio stands for
        (:func:`~lfp.change.baselines.implicit.reward_per_nat`); without it no reward is implied.

    Returns
    -------
    pandas.DataFrame
        A row per reading: ``subject`` (``policy``, or ``weight_noise`` and a number), ``readout``
        (``choice``, ``implicit``, ``lens``, ``completions``, ``ruler``), ``part``, ``layer`` (-1
        for none), ``kind`` (``word``, ``answer``, ``attribute`` of completions), ``unit`` (the
        word; the triple of an answer, or its prompt for the ruler), ``element`` (of an answer),
        ``value`` (of ``implicit`` in units of the reward), ``tokens``, and
        of a word ``error``, the standard error of the value over so many effective ``contexts``.
        Without held-out texts and triples there is none.
    """
    frames = [pd.DataFrame(columns=COLUMNS)]
    of_policy = [*_of_policy(pair, read, settings, seed)]
    frames += [frame.assign(subject="policy") for frame in of_policy]
    at_choice = [frame for frame in of_policy if frame["readout"].eq("choice").any()]
    if at_choice:
        implied = implicit.implied_rewards(pd.concat(at_choice), per_nat)
        frames.append(implied.assign(subject="policy", readout=implicit.READOUT))
    if len(read.triples):
        size = settings.batch_size
        before, after = element_activations(pair, read.triples, read.max_tokens, size)
        ruler = ruler_readings(before, after, read.triples, read.lexicon, probes, seed)
        frames.append(ruler.assign(subject="policy", readout="ruler", kind=read.kind))
    for draw in range(settings.noise_draws):
        noisy = with_noise(pair.base, pair.policy, seed + draw)
        control = dataclasses.replace(pair, policy=noisy)
        of_noise = [
            *_choices(control, read, settings, heads=False), _lens(control, read, settings)
        ]  # fmt: skip
        frames += [frame.assign(subject=f"{NOISE} {draw}") for frame in of_noise]
    result = pd.concat(frames, ignore_index=True).fillna({"layer": -1, "element": "", "tokens": 0})
    numbers = dict.fromkeys(("value", "error", "contexts"), float)
    return result.astype({"layer": int, "tokens": int, **numbers})


def _of_policy(pair: Pair, read: Material, settings: Change, seed: int) -> Iterator[pd.DataFrame]:
    """The readouts that nothing is fitted for: at the choice, by the lens, and in completions."""
    yield from _choices(pair, read, settings, heads=True)
    yield _lens(pair, read, settings)
    if not read.contexts:
        return
    size = settings.batch_size
    before, after = completions(pair, read.contexts, settings.new_tokens, size, seed)
    rates = completion_readings(before, after, read.words.words)
    yield rates.assign(readout="completions")


def _lens(pair: Pair, read: Material, settings: Change) -> pd.DataFrame:
    """The lens of the mean difference on texts that have nothing to do with the feedback."""
    return lens_readings(pair, read.words, unrelated_texts(), settings.batch_size).assign(
        readout="lens"
    )


def _choices(pair: Pair, read: Material, settings: Change, heads: bool) -> Iterator[pd.DataFrame]:
    """The readout at the choice of words, and of answers where these are what feedback is about.

    Words of several pieces are read behind the first few contexts. `heads` says whether attention
    is shared among its heads.
    """
    exponent, size = settings.likelihood_exponent, settings.batch_size
    for words in read.words.in_parts(size):
        several = len(words.pieces[0]) > 1
        contexts = read.contexts[: settings.piece_contexts] if several else read.contexts
        if contexts:
            frame = word_shares(pair, words, contexts, exponent, size, heads)
            yield frame.rename(columns={"word": "unit"}).assign(kind="word", readout="choice")
    if read.kind == "answer" and len(read.triples):
        frame = answer_shares(pair, read.triples, list(SIGNS), read.max_tokens, size, heads)
        named = frame.rename(columns={"triple": "unit"}).astype({"unit": str})
        yield named.assign(kind="answer", readout="choice")

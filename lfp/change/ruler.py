"""The frozen ruler: a probe of the base, applied to the activations of a policy.

A probe f_0 of the base's activations at an element is fitted on the known feedback, valences of
words or labels of answers, with the element and its contexts held out. Its reading of a policy's
activations less that of the base's is the ``shift``. Where feedback only turns the gain of what the
base knew, shifts lie on a line in f_0; ``gain_free`` is what is left of them, by least squares over
units. ``refit`` is the paper's way beside them: a probe fitted anew on the policy's activations,
less that of the base's.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from lfp.change.choice import Pair, Reader
from lfp.probing.data import SIGNS, ProbeData, preference_rows, word_rows
from lfp.probing.features import Elements
from lfp.probing.fitting import Fold, fold_scores, partitioned
from lfp.probing.probes import MAIN_SPLIT
from lfp.probing.splits import why_untrainable
from lfp.settings import Probes
from lfp.texts.words import Lexicon

log = logging.getLogger(__name__)

#: The parts of this readout.
PARTS = ("shift", "gain_free", "refit")


@torch.inference_mode()
def element_activations(
    pair: Pair, triples: pd.DataFrame, max_tokens: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """What all MLPs of base and policy write to the residual stream at the elements of `triples`.

    They are means over an element's tokens: two arrays [row, layer
    x d_model], with the rows of all positive elements and then those of all negative ones.

    Parameters
    ----------
    pair
        Base and policy.
    triples
        Contrast triples.
    max_tokens
        Tokens of prompt and element, at most.
    batch_size
        Sequences in a batch.
    """
    reader, elements = Reader(pair), list(SIGNS)
    texts = Elements(pair.tokenizer, triples, elements, max_tokens)
    arrays: list[np.ndarray] = []
    rows_at_once = max(1, batch_size // len(elements))
    for rows, *written in reader.states(texts.sequences, texts.shared, rows_at_once):
        for e in range(len(elements)):
            place, token, _ = texts.targets_of(rows, e, pair.base.device)
            counts = torch.bincount(place, minlength=len(rows))[:, None].to(pair.base.device)
            for side, residual in enumerate(written):
                values = residual.outputs("mlp", place * len(elements) + e, token)
                sums = values.new_zeros(len(rows), values.shape[1])
                means = sums.index_add_(0, place.to(sums.device), values) / counts
                if len(arrays) <= side:
                    size = (len(elements) * len(triples), values.shape[1])
                    arrays.append(np.zeros(size, dtype=np.float32))
                arrays[side][e * len(triples) + rows] = means.cpu().numpy()
    return arrays[0], arrays[1]


def ruler_readings(
    base: np.ndarray,
    policy: np.ndarray,
    triples: pd.DataFrame,
    lexicon: Lexicon | None,
    settings: Probes,
    seed: int,
) -> pd.DataFrame:
    """Readings of every unit: words, or the preferred and the rejected answer of every prompt.

    Parameters
    ----------
    base, policy
        Activations [row, feature] of :func:`element_activations`.
    triples
        Contrast triples.
    lexicon
        Valence by word; None for preferences, whose probe is fitted on labels.
    settings
        Strengths, folds and partitions of the probes; readings are means over the partitions.
    seed
        Seed of the first partition.

    Returns
    -------
    pandas.DataFrame
        A row per unit and part: ``part``, ``unit``, ``element`` (of an answer; empty for words) and
        ``value``. No row where the units are too few for the folds; the log has the reason.
    """
    kind = "logistic" if lexicon is None else "ridge"
    rows = preference_rows(triples) if lexicon is None else word_rows(triples, lexicon)
    n, truth = len(rows), rows["truth"].to_numpy(dtype=float)
    both = ProbeData(np.vstack([base, policy]), np.tile(truth, 2), rows)
    alone, split = ProbeData(policy, truth, rows), MAIN_SPLIT[kind]
    draws = range(seed, seed + settings.partitions)
    reasons = (why_untrainable(alone, kind, split, settings, draw) for draw in draws)
    if reason := next(filter(None, reasons), ""):
        log.warning("no ruler: %s", reason)
        return pd.DataFrame(columns=["part", "unit", "element", "value"])
    folds = partitioned(rows, split, settings, seed, settings.partitions)
    reading = {name: np.zeros(n) for name in ("before", "after", "refit")}
    for fold in folds:
        apart = _with_policy(fold, n)
        scores, _ = fold_scores(both, apart, both.target[:, None], kind, "raw", settings)
        anew, _ = fold_scores(alone, fold, truth[:, None], kind, "raw", settings)
        before, after = np.split(scores[:, 0], 2)
        for name, values in (("before", before), ("after", after), ("refit", anew[:, 0])):
            reading[name][fold.test] += values / settings.partitions
    frame = rows.assign(**reading)
    if lexicon is not None:
        frame["element"] = ""
    units = frame.groupby(["unit", "element"], sort=True)[list(reading)].mean().reset_index()
    shift = (units["after"] - units["before"]).to_numpy()
    values = {
        "shift": shift,
        "gain_free": gain_free(shift, units["before"].to_numpy()),
        "refit": (units["refit"] - units["before"]).to_numpy(),
    }
    parts = [units[["unit", "element"]].assign(part=part, value=values[part]) for part in PARTS]
    return pd.concat(parts, ignore_index=True)


def _with_policy(fold: Fold, n: int) -> Fold:
    """The fold whose test rows are read off the base and, `n` rows below, off the policy."""
    return replace(fold, test=np.concatenate([fold.test, fold.test + n]))


def gain_free(shift: np.ndarray, before: np.ndarray) -> np.ndarray:
    """`shift` [unit] less its regression on the readings `before`: what no gain accounts for."""
    design = np.column_stack([np.ones_like(before), before])
    return shift - design @ np.linalg.lstsq(design, shift, rcond=None)[0]

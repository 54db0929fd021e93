"""Offline explanations of features, labelled for what they are: a heuristic, not a language model.

A feature is described by the words it fires on, by how it goes with the feedback, and by the tokens
its direction promotes. It is *related* to a lexicon reward when the words it fires on have a mean
valence that draws with valences shuffled among equally frequent words do not reach, and to a
preference when it tells preferred from rejected answers (interpretation study 3.5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scipy.stats import rankdata
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.explaining.exemplars import StrongestWindows
from lfp.explaining.scores import excerpts_of_feature, windows
from lfp.files.resume import Clock, load_tensors, save_tensors
from lfp.models.architectures import architecture, output_logits
from lfp.models.hooks import length_batches, mlp_outputs
from lfp.models.tokens import tokenize
from lfp.reporting.progress import Progress
from lfp.sae.autoencoder import SparseAutoencoder
from lfp.statistics.multiple import benjamini_hochberg
from lfp.texts.words import WORD, Lexicon

EXPLAINER = "heuristic-v1"


@dataclass(frozen=True)
class WordActivations:
    """What the features of one layer do on a corpus.

    ``mean`` [word, feature] is the mean activation on the tokens of each word, ``count`` [word] the
    number of those tokens; ``frequency``, ``mean_activation`` and ``max_activation`` [feature] are
    over all tokens.
    """

    words: list[str]
    count: np.ndarray
    mean: np.ndarray
    frequency: np.ndarray
    mean_activation: np.ndarray
    max_activation: np.ndarray


def words_of_tokens(text: str, offsets: Sequence[tuple[int, int]]) -> list[str | None]:
    """The lower-cased word that each token belongs to, or None for punctuation and spaces."""
    spans = [(match.start(), match.end(), match.group().lower()) for match in WORD.finditer(text)]
    result: list[str | None] = []
    position = 0
    for first, last in offsets:
        while position < len(spans) and spans[position][1] <= first:
            position += 1
        inside = position < len(spans) and spans[position][0] < last
        result.append(spans[position][2] if inside else None)
    return result


@torch.no_grad()
def word_activations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    autoencoders: Mapping[int, SparseAutoencoder],
    texts: Sequence[str],
    max_tokens: int,
    batch_size: int,
    strongest: Mapping[int, StrongestWindows] | None = None,
    state_path: str | Path | None = None,
) -> dict[int, WordActivations]:
    """Activations of all features of every layer, by word, in one pass over `texts`.

    The `strongest` windows of each layer are found in the same pass. With `state_path` what is read
    is kept there once a minute, and an interrupted call goes on behind it.
    """
    encoded = tokenize(
        tokenizer, texts, truncation=True, max_length=max_tokens, return_offsets_mapping=True
    )
    sequences = encoded["input_ids"]
    words = [words_of_tokens(t, o) for t, o in zip(texts, encoded["offset_mapping"], strict=True)]
    vocabulary = sorted({word for row in words for word in row if word is not None})
    index_of = {word: i for i, word in enumerate(vocabulary)} | {None: len(vocabulary)}
    layers, strongest = sorted(autoencoders), strongest or {}
    held = {"counts": torch.zeros(len(vocabulary) + 1, dtype=torch.int64)}
    for n in layers:
        size = autoencoders[n].d_sae
        held |= {
            f"{n}.sums": torch.zeros(len(vocabulary) + 1, size),
            f"{n}.active": torch.zeros(size, dtype=torch.float64),
            f"{n}.peak": torch.zeros(size),
        }
    held |= {
        f"{n}.{name}": value
        for n, windows in strongest.items()
        for name, value in windows.state.items()
    }
    done, clock = resumed(state_path, held), Clock()
    pass_over = mlp_outputs(
        model, sequences, layers, tokenizer.pad_token_id, batch_size, first=done
    )
    for index, mask, outputs in Progress(
        pass_over, desc="texts read", initial=done, total=-(-len(texts) // batch_size)
    ):
        ids = torch.tensor([index_of[word] for i in index for word in words[i]])
        held["counts"] += torch.bincount(ids, minlength=len(held["counts"]))
        for n in layers:
            code = autoencoders[n].encode(outputs[n][mask].float()).cpu()
            held[f"{n}.sums"].index_add_(0, ids, code)
            held[f"{n}.active"] += (code > 0).double().sum(0)
            torch.maximum(held[f"{n}.peak"], code.max(0).values, out=held[f"{n}.peak"])
            if n in strongest:
                for text, part in zip(
                    index, code.split([len(sequences[i]) for i in index]), strict=True
                ):
                    strongest[n].add(int(text), part.numpy())
        done += 1
        if state_path and clock.due():
            save_tensors(state_path, held, {"batches": done})
    counts = held["counts"].numpy()
    total = max(1, counts.sum())
    return {
        n: WordActivations(
            vocabulary,
            counts[:-1],
            held[f"{n}.sums"][:-1].numpy() / np.maximum(counts[:-1], 1)[:, None],
            held[f"{n}.active"].numpy() / total,
            held[f"{n}.sums"].sum(0).double().numpy() / total,
            held[f"{n}.peak"].numpy(),
        )
        for n in layers
    }


def resumed(state_path: str | Path | None, held: Mapping[str, torch.Tensor]) -> int:
    """Fill `held` with what an interrupted pass kept at `state_path`, and return how many batches
    that were.
    """
    tensors, counters = load_tensors(state_path) or ({}, {"batches": 0})
    for name, value in tensors.items():
        held[name].copy_(value)
    return counters["batches"]


def strongest_windows(
    tokenizer: PreTrainedTokenizerBase,
    autoencoders: Mapping[int, SparseAutoencoder],
    texts: Sequence[str],
    max_tokens: int,
    size: int,
    top: int,
    random: int,
    seed: int,
) -> dict[int, StrongestWindows]:
    """What :func:`word_activations` finds of every layer's features, still empty."""
    encoded = tokenize(
        tokenizer, texts, truncation=True, max_length=max_tokens, return_offsets_mapping=True
    )
    return {
        layer: StrongestWindows(
            encoded["offset_mapping"], size, sae.d_sae, top, random, seed + layer
        )
        for layer, sae in autoencoders.items()
    }


#: Of one feature: layer, feature, activations on the tokens of each window, windows, and character
#: offsets by text.
FeatureWindows = tuple[
    int, int, list[np.ndarray], list[tuple[int, int, int]], list[list[tuple[int, int]]]
]


@torch.no_grad()
def feature_windows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    autoencoders: Mapping[int, SparseAutoencoder],
    explained: pd.DataFrame,
    texts: Sequence[str],
    max_tokens: int,
    batch_size: int,
    size: int,
    state_path: str | Path | None = None,
) -> Iterator[FeatureWindows]:
    """Each feature of `explained` (``layer``, ``feature``) on windows of `size` tokens of `texts`,
    in one pass.

    A text's rest is a shorter window. Of the codes only what is active is held: how active a window
    must be for an excerpt depends on the largest activation of all, so that none can be chosen
    before the last is read. With `state_path` an interrupted call goes on behind what is kept there
    once a minute.
    """
    encoded = tokenize(
        tokenizer, texts, truncation=True, max_length=max_tokens, return_offsets_mapping=True
    )
    offsets = encoded["offset_mapping"]
    places = windows(offsets, size)
    features = {
        int(n): torch.tensor(group["feature"].to_numpy()) for n, group in explained.groupby("layer")
    }
    sequences = encoded["input_ids"]
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    batches, starts = length_batches(lengths, batch_size), np.zeros(len(texts), dtype=np.int64)
    if batches:
        order = np.concatenate(batches)
        starts[order] = np.cumsum(lengths[order]) - lengths[order]
    codes = {
        n: sparse.csr_array((0, len(members)), dtype=np.float32) for n, members in features.items()
    }
    done, clock = _resumed_codes(state_path, codes), Clock()
    parts = {n: [code] for n, code in codes.items()}
    pass_over = mlp_outputs(
        model, sequences, sorted(features), tokenizer.pad_token_id, batch_size, first=done
    )
    for _, mask, outputs in Progress(
        pass_over, desc="held-out texts", initial=done, total=len(batches)
    ):
        for layer, members in features.items():
            code = autoencoders[layer].encode(outputs[layer][mask].float())[
                :, members.to(model.device)
            ]
            parts[layer].append(sparse.csr_array(code.cpu().numpy()))
        done += 1
        if state_path and clock.due():
            parts = {n: [sparse.vstack(own, format="csr")] for n, own in parts.items()}
            save_tensors(
                state_path,
                _code_tensors({n: own[0] for n, own in parts.items()}),
                {"batches": done},
            )
    for layer, members in features.items():
        codes = sparse.vstack(parts.pop(layer)).tocsc()
        for column, feature in enumerate(members.tolist()):
            values = codes[:, [column]].toarray()[:, 0]
            activations = [
                values[starts[text] + start : starts[text] + end] for text, start, end in places
            ]
            yield layer, feature, activations, places, offsets


def _code_tensors(codes: Mapping[int, sparse.csr_array]) -> dict[str, torch.Tensor]:
    """The parts of sparse codes [token, feature] by layer, as a resume point holds them."""
    names = ("data", "indices", "indptr")
    return {
        f"{n}.{name}": torch.from_numpy(getattr(code, name))
        for n, code in codes.items()
        for name in names
    }


def _resumed_codes(state_path: str | Path | None, codes: dict[int, sparse.csr_array]) -> int:
    """Put what an interrupted pass kept in place of `codes`, and return how many
    batches that were.
    """
    tensors, counters = load_tensors(state_path) or ({}, {"batches": 0})
    for n, code in codes.items() if tensors else ():
        parts = [tensors[f"{n}.{name}"].numpy() for name in ("data", "indices", "indptr")]
        codes[n] = sparse.csr_array(tuple(parts), shape=(len(parts[2]) - 1, code.shape[1]))
    return counters["batches"]


def held_out_excerpts(
    found: Iterable[FeatureWindows], texts: Sequence[str], n: int, seed: int
) -> pd.DataFrame:
    """Excerpts of held-out `texts` on which each feature is and is not active.

    Columns ``layer``, ``feature``, and those of :func:`~lfp.explaining.scores.excerpts_of_feature`.
    """
    rng = np.random.default_rng(seed)
    rows = [
        {"layer": layer, "feature": feature, **row}
        for layer, feature, activations, places, offsets in found
        for row in excerpts_of_feature(activations, places, texts, offsets, n, rng)
    ]
    return pd.DataFrame(rows, columns=["layer", "feature", "task", "label", "excerpt"])


def lexicon_association(
    activations: WordActivations, lexicon: Lexicon, permutations: int, seed: int
) -> pd.DataFrame:
    """The valence of the words each feature fires on: ``direction``, ``effect`` (absolute), ``p``
    per feature.

    Word weights are mean activation times the square root of the word's count; ``direction`` is the
    weighted mean valence, words outside the lexicon counting 0. p is two-sided, from shuffling
    valences among words of the same frequency decile.
    """
    weights = activations.mean * np.sqrt(activations.count)[:, None]
    weights = weights / np.maximum(weights.sum(0), 1e-12)
    valence = np.array([lexicon.get(word, 0.0) for word in activations.words])
    direction = valence @ weights
    ranks = np.argsort(np.argsort(activations.count, kind="stable"), kind="stable")
    decile = ranks * 10 // max(1, len(ranks))
    rng = np.random.default_rng(seed)
    shuffled = np.tile(valence, (permutations, 1))
    for group in np.unique(decile):
        members = np.flatnonzero(decile == group)
        shuffled[:, members] = rng.permuted(shuffled[:, members], axis=1)
    null = shuffled @ weights
    centre = null.mean(0)
    p = (1 + (np.abs(null - centre) >= np.abs(direction - centre) - 1e-12).sum(0)) / (
        permutations + 1
    )
    return pd.DataFrame({"direction": direction, "effect": np.abs(direction), "p": p})


def preference_association(
    chosen: np.ndarray, rejected: np.ndarray, permutations: int, seed: int
) -> pd.DataFrame:
    """How well each feature tells preferred from rejected answers: ``direction``, ``effect``, ``p``
    per feature.

    `chosen` and `rejected` are mean activations [pair, feature] on answers that no probe is tested
    on. ``effect`` is the area under the ROC curve or its complement, whichever is larger,
    ``direction`` that area minus one half; p is two-sided, from exchanging the answers within
    pairs.
    """
    n = len(chosen)
    ranks = rankdata(np.concatenate([chosen, rejected]), axis=0)
    ours, theirs = ranks[:n], ranks[n:]

    def area(rank_sum: np.ndarray) -> np.ndarray:
        return (rank_sum - n * (n + 1) / 2) / n**2 - 0.5

    direction = area(ours.sum(0))
    swaps = np.random.default_rng(seed).random((permutations, n)) < 0.5
    null = np.abs(area((~swaps).astype(float) @ ours + swaps.astype(float) @ theirs))
    p = (1 + (null >= np.abs(direction) - 1e-12).sum(0)) / (permutations + 1)
    return pd.DataFrame({"direction": direction, "effect": 0.5 + np.abs(direction), "p": p})


@torch.no_grad()
def promoted_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directions: torch.Tensor, top: int
) -> list[list[str]]:
    """The `top` tokens whose logits each direction [feature, d_model] raises most along the direct
    path.
    """
    norm = model.get_submodule(architecture(model).final_norm)
    logits = output_logits(model, norm(directions.to(model.device, model.dtype)))
    return [
        [tokenizer.decode([i]) for i in row] for row in logits.topk(top, dim=-1).indices.tolist()
    ]


def explain_layer(
    layer: int,
    matches: pd.DataFrame,
    activations: WordActivations,
    association: pd.DataFrame,
    promoted: Sequence[Sequence[str]],
    top_features: int,
) -> pd.DataFrame:
    """One row per feature of the small autoencoder of `layer`; q and ``related`` are set by
    :func:`classify`.

    The `top_features` features with the highest match cosine that are not dead are explained
    (status ``ok``); the others are listed with their frequency as ``skipped`` or ``dead``.
    """
    cosine = matches.set_index("small")["cosine"]
    large = matches.set_index("small")["large"]
    dead = activations.frequency == 0
    alive = [feature for feature in matches["small"] if not dead[feature]]
    explained = set(alive[:top_features])
    weights = activations.mean * np.sqrt(activations.count)[:, None]
    rows = []
    for feature in range(len(dead)):
        status = "dead" if dead[feature] else "ok" if feature in explained else "skipped"
        top = np.argsort(-weights[:, feature], kind="stable")[:5]
        share = weights[top, feature].sum() / max(weights[:, feature].sum(), 1e-12)
        row = association.iloc[feature]
        words = [activations.words[i] for i in top]
        text = (
            f"words: {', '.join(words)} ({share:.0%} of weight); feedback {row['direction']:+.2f},"
            f" effect"
            f" {row['effect']:.2f} (p={row['p']:.3f}); promotes:"
            f" {', '.join(map(repr, promoted[feature]))}"
        )
        rows.append({
            "layer": layer, "feature": feature, "match": int(large[feature]),
            "cosine": float(cosine[feature]),
            "status": status, "explanation": text if status == "ok" else "",
            **{name: float(row[name]) for name in ("direction", "effect", "p")},
            "frequency": float(activations.frequency[feature]),
            "mean_activation": float(activations.mean_activation[feature]),
            "max_activation": float(activations.max_activation[feature]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def classify_by_name(frame: pd.DataFrame, word: str) -> pd.DataFrame:
    """Features whose explanation names `word` are related; q is p.

    For a reward of one word: no shuffle of valences among words of its frequency can be rare enough
    to survive a correction over features.
    """
    names = frame["explanation"].map(
        lambda text: word in {match.group().lower() for match in WORD.finditer(text)}
    )
    related = (frame["status"] == "ok") & names
    return frame.assign(
        q=frame["p"],
        related=related,
        explainer=EXPLAINER,
        explainer_kind="heuristic",
        uses_reward_lexicon=True,
    )


def classify(
    frame: pd.DataFrame, false_discovery_rate: float, min_effect: float, uses_lexicon: bool
) -> pd.DataFrame:
    """Add ``q`` (Benjamini-Hochberg over the explained features) and ``related``.

    A feature is related when q is below the rate *and* its effect is at least `min_effect`: with
    many words, a tiny preference for scored ones is significant and means nothing.
    """
    explained = (frame["status"] == "ok").to_numpy()
    q = np.ones(len(frame))
    q[explained] = benjamini_hochberg(frame.loc[explained, "p"].to_numpy())
    related = explained & (q < false_discovery_rate) & (frame["effect"] >= min_effect).to_numpy()
    return frame.assign(
        q=q,
        related=related,
        explainer=EXPLAINER,
        explainer_kind="heuristic",
        uses_reward_lexicon=uses_lexicon,
    )

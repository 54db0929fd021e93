"""The tables: every row is labels plus one :class:`~workflow_scripts.lfp.statistics.Record`.

A table is a function of the artefacts of all cells; :data:`TABLES` names them. Artefacts are found by their path,
whose parts are the cell's address (:func:`labels`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lfp import probes, statistics
from workflow_scripts.lfp.artefacts import read_json, read_table, read_tensors
from workflow_scripts.lfp.statistics import Record

_ADDRESS = re.compile(r"(?:^|/)(?P<model>[^/]+)/(?P<task>[^/]+)/seed(?P<seed>\d+)/(?P<rest>.+)$")


@dataclass(frozen=True)
class TableSettings:
    """Intervals, tests and thresholds of all tables."""

    resamples: int
    confidence: float
    high_quantile: float
    seed: int


def labels(path: str | Path) -> dict[str, Any]:
    """The cell of an artefact by its path: model, task, seed, and sae and subject or arm where the path has them."""
    match = _ADDRESS.search(str(path))
    if match is None:
        raise ValueError(f"{path}: not the path of a cell's artefact")
    result: dict[str, Any] = {"model": match["model"], "task": match["task"], "seed": int(match["seed"])}
    parts = match["rest"].split("/")
    names = {"probes": ("sae", "subject"), "sae": ("sae",), "features": ("sae", "subject"), "ablation": ("sae", "arm")}
    values = [part.split(".")[0] for part in parts[1:]]
    return result | dict(zip(names.get(parts[0], ()), values, strict=False))


def _of(inputs: Sequence[str], name: str) -> list[str]:
    """The inputs whose path ends with `name`."""
    return [path for path in inputs if str(path).endswith(name)]


def _probe_groups(inputs: Sequence[str], kind: str):
    """(labels, predictions of one kind of features and split) of every probe of a `kind`."""
    for path in _of(inputs, "predictions.parquet"):
        frame = read_table(path)
        for (features, split, probe), group in frame.groupby(["features", "split", "probe"]):
            if probe == kind:
                yield {**labels(path), "features": features, "split": split, "probe": probe}, group


def _baseline_groups(inputs: Sequence[str]):
    """(labels, frame with a row per untrained probe) of every cell, subject and kind of features."""
    for path in _of(inputs, "metrics.json"):
        frame = pd.DataFrame(read_json(path)["baseline"])
        for features, group in frame.groupby("features"):
            yield {**labels(path), "features": features, "split": "none", "probe": "xavier"}, group


def _finish(rows: list[dict[str, Any]], order: Sequence[str] = ("model", "task", "seed")) -> pd.DataFrame:
    """Rows as a frame, sorted by its labels; ValueError where there is nothing to show."""
    if not rows:
        raise ValueError("no cell of the configuration has anything to show in this table")
    return pd.DataFrame(rows).sort_values(list(order), kind="stable", ignore_index=True)


# ------------------------------------------------------------------------------------------------ fine-tuning


def base_models(inputs: Sequence[str], settings: TableSettings) -> pd.DataFrame:
    """Held-out perplexity of the grown base models against a unigram model of the same text."""
    rows = []
    for path in inputs:
        summary = read_json(Path(path) / "evaluation.json")
        pieces = np.array(list(summary["pieces"].values()))
        for corpus, values in summary["held_out"].items():
            rows.append({
                "model": Path(path).name, "corpus": corpus, "parameters": summary["parameters"], **values,
                "lexicon_words_one_token": int((pieces == 1).sum()),
                "lexicon_words_several_tokens": int((pieces > 1).sum()),
            })  # fmt: skip
    return _finish(rows, ["model", "corpus"])


def fine_tuning(inputs: Sequence[str], settings: TableSettings) -> pd.DataFrame:
    """What fine-tuning reached on held-out text: reward gain and KL for PPO, implicit accuracy and margin for DPO."""
    rows = []
    for path in inputs:
        summary = read_json(Path(path) / "evaluation.json")
        for name in ("reward_gain", "base_reward", "policy_reward", "kl", "accuracy", "margin"):
            if name in summary:
                rows.append(Record(**summary[name]).row(**labels(path), quantity=name))
    return _finish(rows)


# ----------------------------------------------------------------------------------------------------- probes


def _published(means: pd.DataFrame) -> dict[str, float]:
    """The published statistic of a probe's words, its p, and the tau-b of a perfect knowledge of signs alone."""
    prediction, truth = means["prediction"].to_numpy(), means["truth"].to_numpy()
    tau, p = statistics.published_tau(means["unit"], prediction, truth)
    return {"published_statistic": tau, "published_p": p, "sign_only_ceiling": statistics.sign_only_ceiling(truth)}


def _kendall_rows(inputs: Sequence[str], settings: TableSettings, subset: str) -> list[dict[str, Any]]:
    rows = []
    for label, group in _probe_groups(inputs, "ridge"):
        means = probes.unit_means(group)
        sign = np.sign(means["truth"])
        for name, keep in {"all": sign != 0, "positive": sign > 0, "negative": sign < 0}.items():
            if (subset == "all") != (name == "all"):
                continue
            part = means[keep]
            prediction, truth = part["prediction"].to_numpy(), part["truth"].to_numpy()
            record = statistics.kendall_record(
                prediction, truth, settings.seed, settings.resamples, settings.confidence
            )
            rows.append({**record.row(**label, words=name), **(_published(part) if subset == "all" else {})})
    return rows


def _xavier_rows(inputs: Sequence[str], columns: dict[str, str], chance: float) -> list[dict[str, Any]]:
    """Rows of the untrained probes for the statistics `columns` {column: words}."""
    rows = []
    for label, group in _baseline_groups(inputs):
        for column, words in columns.items():
            if column in group:
                record = statistics.range_record(group[column].to_numpy(), "probe", "untrained linear probes", chance)
                extra = {
                    name: float(group[name].mean())
                    for name in ("published_statistic", "published_p", "sign_only_ceiling")
                }
                rows.append({**record.row(**label, words=words), **(extra if words == "all" else {})})
    return rows


_PROBE_ORDER = ("model", "task", "seed", "features", "split", "subject")


def kendall_tau(inputs: Sequence[str], settings: TableSettings) -> pd.DataFrame:
    """Rank agreement of predicted feedback with the lexicon, over words (paper Table 4)."""
    rows = _kendall_rows(inputs, settings, "all") + _xavier_rows(inputs, {"tau": "all"}, 0.0)
    return _finish(rows, _PROBE_ORDER)


def kendall_tau_within_sign(inputs: Sequence[str], settings: TableSettings) -> pd.DataFrame:
    """Rank agreement among positive words alone and among negative words alone (paper Table 10)."""
    rows = _kendall_rows(inputs, settings, "within")
    rows += _xavier_rows(inputs, {"tau_positive": "positive", "tau_negative": "negative"}, 0.0)
    return _finish(rows, (*_PROBE_ORDER, "words"))


def sign_accuracy(inputs: Sequence[str], settings: TableSettings) -> pd.DataFrame:
    """Share of words whose predicted feedback has the lexicon's sign (paper Table 5)."""
    rows = []
    for label, group in _probe_groups(inputs, "ridge"):
        means = probes.unit_means(group)
        right = (np.sign(means["prediction"]) == np.sign(means["truth"])).to_numpy()
        for name, keep in {"all": right | True, "positive": means["truth"] > 0, "negative": means["truth"] < 0}.items():
            part = right[np.asarray(keep)]
            record = statistics.proportion_record(part.sum(), len(part), "word", 0.5, settings.confidence)
            rows.append(record.row(**label, words=name))
    rows += _xavier_rows(inputs, {"sign_positive": "positive", "sign_negative": "negative"}, 0.5)
    return _finish(rows, (*_PROBE_ORDER, "words"))


def probe_accuracy(inputs: Sequence[str], settings: TableSettings) -> pd.DataFrame:
    """Balanced accuracy of probes that tell preferred from rejected answers (paper Table 3)."""
    rows = []
    for label, group in _probe_groups(inputs, "logistic"):
        truth, score = group["truth"].to_numpy(), group["prediction"].to_numpy()
        record = statistics.balanced_accuracy_record(
            truth, score, group["unit"], settings.seed, "prompt", settings.resamples, settings.confidence
        )
        rows.append(record.row(**label))
    for label, group in _baseline_groups(inputs):
        if "balanced_accuracy" in group:
            values = group["balanced_accuracy"].to_numpy()
            rows.append(statistics.range_record(values, "probe", "untrained linear probes", 0.5).row(**label))
    return _finish(rows, _PROBE_ORDER)


def lexicon_reconstruction(inputs: Sequence[str], settings: TableSettings) -> pd.DataFrame:
    """Every word's predicted feedback beside its valence, policy and hidden features (paper Tables 2 and 9).

    ``displayed`` is the prediction on the lexicon's scale: one factor through 0, fitted by least squares, so that
    the sign is kept. Tau and sign accuracy are computed on ``estimate``, the raw prediction.
    """
    frames = []
    for label, group in _probe_groups(inputs, "ridge"):
        if label["subject"] != "policy" or label["features"] != "hidden":
            continue
        means = probes.unit_means(group)
        prediction, truth = means["prediction"].to_numpy(), means["truth"].to_numpy()
        factor = float(prediction @ truth / (prediction @ prediction))
        means = means.rename(columns={"unit": "word", "prediction": "estimate", "truth": "valence", "rows": "n"})
        frames.append(means.assign(displayed=means["estimate"] * factor, unit="context", **label))
    if not frames:
        raise ValueError("no cell of the configuration has a lexicon reward")
    first = ["model", "task", "seed", "split", "word", "valence", "displayed", "estimate"]
    frame = pd.concat(frames, ignore_index=True).sort_values(
        ["model", "task", "seed", "split", "valence", "word"], kind="stable"
    )
    return frame[first + [c for c in frame.columns if c not in first]].reset_index(drop=True)


# ----------------------------------------------------------------------------------- explanations and ablation


def feature_explanations(inputs: Sequence[str], settings: TableSettings) -> pd.DataFrame:
    """The explained features with what they were called (paper Tables 1 and 8)."""
    frames = []
    for path in inputs:
        frame = read_table(path)
        frame = frame[frame["status"] == "ok"].drop(columns="status")
        cell = labels(path)
        frames.append(frame.assign(**{name: cell[name] for name in ("model", "task", "seed")}))
    frame = pd.concat(frames, ignore_index=True)
    first = ["model", "task", "seed", "layer", "feature", "related", "explanation"]
    order = ["model", "task", "seed", "layer", "p", "feature"]
    return frame[first + [c for c in frame.columns if c not in first]].sort_values(
        order, kind="stable", ignore_index=True
    )


def ablation_reward(inputs: Sequence[str], settings: TableSettings) -> pd.DataFrame:
    """Mean reward under every arm, and its difference to the untouched policy on the same prompts (paper Table 6).

    ``quantity`` is ``reward`` or ``difference`` (arm minus none); the random arm is averaged over its draws per
    prompt. ``explained - random`` compares the two paired by prompt.
    """
    rows = []
    cells: dict[tuple, dict[str, pd.DataFrame]] = {}
    for path in inputs:
        cell = labels(path)
        cells.setdefault((cell["model"], cell["task"], cell["seed"], cell["sae"]), {})[cell["arm"]] = read_table(path)
    for (model, task, seed, sae), arms in cells.items():
        label = {"model": model, "task": task, "seed": seed, "sae": sae}
        rewards = {arm: frame.groupby("prompt")["reward"].mean().to_numpy() for arm, frame in arms.items()}
        for arm, values in rewards.items():
            extra = _sizes(arms[arm])
            record = statistics.mean_record(values, "prompt", settings.confidence)
            rows.append({**record.row(**label, arm=arm, quantity="reward"), **extra})
            if arm != "none":
                record = statistics.paired_record(values, rewards["none"], "prompt", settings.seed, settings.resamples)
                rows.append({**record.row(**label, arm=arm, quantity="difference"), **extra})
        if {"explained", "random"} <= set(rewards):
            record = statistics.paired_record(
                rewards["explained"], rewards["random"], "prompt", settings.seed, settings.resamples
            )
            rows.append(
                {**record.row(**label, arm="explained - random", quantity="difference"), **_sizes(arms["random"])}
            )
    return _finish(rows, ("task", "model", "seed", "sae"))


def _sizes(frame: pd.DataFrame) -> dict[str, int]:
    """Number of draws and of ablated features of an arm."""
    return {"draws": int(frame["draw"].nunique()), "ablated_features": int(frame["features"].iloc[0])}


def feature_frequency(inputs: Sequence[str], settings: TableSettings) -> pd.DataFrame:
    """How often related and other features are active on inputs of high and of low prediction (paper Table 7).

    Inputs are the elements of the triples, high those in the upper quantile of the held-out prediction.
    ``related`` and ``unrelated`` are features that were explained; ``all`` is every feature, as published, dead
    ones included. The interval is over triples.
    """
    rows = []
    names = ("heuristic.parquet", "policy.safetensors", "policy/predictions.parquet")
    for paths in zip(*(sorted(_of(inputs, name)) for name in names), strict=True):
        explanations, fired, predictions = _fired_features(*paths)
        cell = labels(paths[0])
        explained, related = (explanations["status"] == "ok").to_numpy(), explanations["related"].to_numpy(dtype=bool)
        sets = {"related": related, "unrelated": explained & ~related, "all": np.ones(len(related), dtype=bool)}
        high = (predictions["prediction"] >= predictions["prediction"].quantile(settings.high_quantile)).to_numpy()
        for (features, members), (kind, keep) in product(sets.items(), {"high": high, "low": ~high}.items()):
            if members.any():
                record = statistics.group_mean_record(
                    fired[keep][:, members].mean(1), predictions["triple"].to_numpy()[keep], settings.seed, "triple",
                    "share of active (input, feature) pairs", settings.resamples, settings.confidence,
                )  # fmt: skip
                size = {"number_of_features": int(members.sum())}
                rows.append({**record.row(**cell, features=features, inputs=kind), **size})
    return _finish(rows, ("model", "task", "seed"))


def _fired_features(
    explanations: str, features: str, predictions: str
) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    """A cell's explanations, whether each feature fired on each input [input, feature], and the inputs' predictions.

    Rows of the explanations and columns of the features are both ordered by layer and feature.
    """
    frame = read_table(predictions)
    frame = frame[(frame["features"] == "hidden") & (frame["split"] != "published")]
    tensors = read_tensors(features, ["hidden.positive", "hidden.negative"])
    active = {name.removeprefix("hidden."): values > 0 for name, values in tensors.items()}
    fired = np.stack([active[e][t] for e, t in zip(frame["element"], frame["triple"], strict=True)])
    return read_table(explanations), fired, frame


# ----------------------------------------------------------------------------------------------- autoencoders


def _autoencoder_frame(inputs: Sequence[str]) -> pd.DataFrame:
    frames = []
    for path in _of(inputs, "metrics.json"):
        frames.append(pd.DataFrame(read_json(path)["autoencoders"]).assign(**labels(path)))
    return pd.concat(frames, ignore_index=True)


def autoencoders(inputs: Sequence[str], settings: TableSettings) -> pd.DataFrame:
    """Every autoencoder on held-out text: sparsity, reconstruction and what it keeps of the model."""
    frame = _autoencoder_frame(inputs)
    first = ["model", "task", "seed", "sae", "layer", "size"]
    return frame[first + [c for c in frame.columns if c not in first]].sort_values(
        first, kind="stable", ignore_index=True
    )


def _layer_means(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean of L0, its share of the features, squared error and FVU over layers and sizes, in long form."""
    frame = frame.assign(l0_share=frame["l0"] / frame["d_sae"])
    rows = []
    for key, group in frame.groupby(by):
        label = dict(zip(by, key, strict=True))
        for quantity in ("l0", "l0_share", "mse", "fvu"):
            rows.append(
                statistics.mean_record(group[quantity].to_numpy(), "autoencoder").row(**label, quantity=quantity)
            )
    return _finish(rows, [*by, "quantity"])


def sae_tying(inputs: Sequence[str], settings: TableSettings) -> pd.DataFrame:
    """Tied against untied weights, averaged over the layers and sizes that both have (paper Table 11)."""
    frame = _autoencoder_frame(inputs)
    key = ["model", "task", "seed", "layer", "size"]
    untied = set(frame.loc[frame["sae"] == "untied", key].itertuples(index=False, name=None))
    both = [row in untied for row in frame[key].itertuples(index=False, name=None)]
    return _layer_means(frame[np.array(both) & frame["sae"].isin(["tied", "untied"])], ["model", "task", "seed", "sae"])


def sae_layer_choice(inputs: Sequence[str], settings: TableSettings) -> pd.DataFrame:
    """The most against the least changed layers, tying held fixed (paper Table 12)."""
    frame = _autoencoder_frame(inputs)
    parts = []
    for path in _of(inputs, "divergence.json"):
        cell, choice = labels(path), read_json(path)
        own = frame[(frame[["model", "task", "seed"]] == pd.Series(cell)[["model", "task", "seed"]]).all(axis=1)]
        for name in ("chosen", "lowest"):
            listed = ", ".join(map(str, choice[name]))
            parts.append(
                own[own["layer"].isin(choice[name])].assign(
                    selection=f"{'highest' if name == 'chosen' else name} ({listed})"
                )
            )
    return _layer_means(pd.concat(parts), ["model", "task", "seed", "selection"])


def layer_divergence(inputs: Sequence[str], settings: TableSettings) -> pd.DataFrame:
    """Every layer's divergence by every measure, and whether it was chosen (paper appendix C)."""
    frames = []
    for path in inputs:
        choice = read_json(path)
        frame = pd.DataFrame(choice["layers"])
        frame.insert(0, "layer", range(len(frame)))
        frames.append(
            frame.assign(chosen=frame["layer"].isin(choice["chosen"]), ranked_by=choice["measure"], **labels(path))
        )
    frame = pd.concat(frames, ignore_index=True)
    first = ["model", "task", "seed", "layer"]
    return frame[first + [c for c in frame.columns if c not in first]].sort_values(first, ignore_index=True)


Table = Callable[[Sequence[str], TableSettings], pd.DataFrame]

TABLES: dict[str, Table] = {
    table.__name__: table
    for table in (
        base_models, fine_tuning, layer_divergence, autoencoders, sae_tying, sae_layer_choice, kendall_tau,
        kendall_tau_within_sign, sign_accuracy, probe_accuracy, lexicon_reconstruction, feature_explanations,
        feature_frequency, ablation_reward,
    )
}  # fmt: skip

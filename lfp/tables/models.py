"""Tables of corpora, models and autoencoders.

They show training, quality, and the layers that changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lfp.files.addresses import labels, of
from lfp.files.artefacts import read_json, read_table
from lfp.settings import BETWEEN
from lfp.statistics.records.base import Record, undefined
from lfp.statistics.records.means import mean_record, perplexity_record
from lfp.statistics.records.shares import proportion_record
from lfp.tables import paper
from lfp.tables.health import moved
from lfp.tables.rows import TableSettings, Tally

_NO_INTERVAL = "a count, no interval"
#: Quantities of an autoencoder on held-out text, and the unit of each.
_SAE_QUANTITIES = {
    "l0": "token", "mse": "token", "fvu": "token", "dead_fraction": "feature", "ce_clean": "token",
    "ce_reconstructed": "token", "ce_zero": "token", "loss_recovered": "token", "mmcs": "feature",
    "left_out": "token",
}  # fmt: skip
#: Columns that describe an autoencoder, ahead of its architecture's own options.
_SAE_EXTRAS = (
    "architecture", "site", "reads", "d_sae", "tied", "layer_needed", "largest_norm",
    "left_out_of_training", "flat", "steps", "origin",
)  # fmt: skip


def corpora(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """The rows of every corpus by their fate and split: read, empty, repeated, kept."""
    tally = Tally()
    for path in inputs:
        counts = read_json(path)
        for split in ("train", "test"):
            for quantity, value in counts[split].items():
                record = Record(
                    float(value), None, None, counts[split]["read"], "row", _NO_INTERVAL
                )
                tally.add(
                    record, {"corpus": Path(path).parent.name, "split": split, "quantity": quantity}
                )
    return tally


def rewrites(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Entries that a language model rewrote, by their status.

    Grades of entries and of rewrites stand beside them.
    """
    tally = Tally()
    for path in inputs:
        frame, task = read_table(path), Path(path).stem
        for status, count in frame["status"].value_counts().items():
            record = Record(float(count), None, None, len(frame), "entry", _NO_INTERVAL)
            tally.add(record, {"task": task, "quantity": "entries", "of": status})
        for column in [name for name in frame if name.startswith("grade")]:
            grades = frame[column].dropna().to_numpy(dtype=float)
            if len(grades) > 1:
                record = mean_record(grades, "entry", settings.confidence)
                graded = column.removeprefix("grade").removeprefix(".") or "entries"
                tally.add(record, {"task": task, "quantity": "highest grade, 1 to 5", "of": graded})
    return tally


def base_models(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Held-out perplexity of the grown base models and of a unigram model of the same text.

    Rows also have their parameters, and the number of words of the lexicon that are one token.
    """
    tally = Tally()
    for path in inputs:
        summary, name = read_json(Path(path) / "evaluation.json"), Path(path).name
        losses = read_table(Path(path) / "evaluation.parquet")
        for corpus, group in losses.groupby("corpus"):
            for quantity, column in (
                ("perplexity", "nats"),
                ("unigram_perplexity", "unigram_nats"),
            ):
                record = perplexity_record(
                    group[column].to_numpy(), group["tokens"].to_numpy(), **settings.resampling
                )
                tally.add(
                    record,
                    {"model": name, "corpus": corpus, "quantity": quantity},
                    group.drop(columns="corpus"),
                )
        pieces = np.array(list(summary["pieces"].values()))
        counts = {
            "parameters": summary["parameters"],
            "lexicon_words_one_token": int((pieces == 1).sum()),
            "lexicon_words_several_tokens": int((pieces > 1).sum()),
        }
        for quantity, value in counts.items():
            record = Record(float(value), None, None, 1, "model", _NO_INTERVAL)
            tally.add(record, {"model": name, "corpus": "all", "quantity": quantity})
    return tally


def fine_tuning(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Results of fine-tuning on held-out text.

    They are reward gain and KL of policies that learned from a reward, and implicit accuracy and
    margin of those that learned from pairs. Gain and margin are held against ``min_reward_gain``
    and ``min_margin``.
    """
    tally = Tally()
    for path in inputs:
        values = read_table(Path(path) / "evaluation.parquet")
        quantity, record = moved.gain(values, settings)
        others = _of_pairs if quantity == "margin" else _of_reward
        threshold = moved.least(quantity, settings)
        gate = {"threshold": threshold, "passes": moved.passes(quantity, record, settings)}
        # The first quantity is made of all columns.
        tally.add(record, {**labels(path), "quantity": quantity}, values, **gate)
        for name, other in others(values, settings).items():
            tally.add(other, {**labels(path), "quantity": name}, threshold=None, passes=None)
    return tally


def _of_reward(values: pd.DataFrame, settings: TableSettings) -> dict[str, Record]:
    """Rewards of the policy and of its base on the same held-out prefixes, and the KL.

    KL is in nats per completion.
    """
    columns = {"base_reward": "base", "policy_reward": "policy", "kl": "kl"}
    return {
        name: mean_record(values[column].to_numpy(), "prefix", settings.confidence)
        for name, column in columns.items()
    }


def _of_pairs(values: pd.DataFrame, settings: TableSettings) -> dict[str, Record]:
    """Share of held-out pairs that the implicit reward ranks as labelled, and the KL."""
    margins = values["margin"].to_numpy()
    right = int((margins > 0).sum())
    records = {
        "accuracy": proportion_record(right, len(margins), "pair", 0.5, settings.confidence),
    }
    if "kl" in values:  # of a policy that is given, in nats per completion
        records["kl"] = mean_record(values["kl"].to_numpy(), "pair", settings.confidence)
    return records


def layer_divergence(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Every layer's divergence by every measure, and whether it was chosen (paper appendix C)."""
    tally = Tally()
    for path in inputs:
        choice = read_json(path)
        for layer, measures in enumerate(choice["layers"]):
            for measure, value in measures.items():
                record = Record(
                    value, None, None, 1, "layer", _NO_INTERVAL.replace("count", "norm")
                )
                if value is None:
                    record = undefined(1, "layer", "no text was read")
                extras = {
                    "chosen": layer in choice["chosen"],
                    "ranks_layers": measure == choice["measure"],
                }
                tally.add(record, {**labels(path), "layer": layer, "measure": measure}, **extras)
    return tally


def _autoencoder_frame(inputs: Sequence[str]) -> pd.DataFrame:
    frames = [
        pd.DataFrame(read_json(path)["autoencoders"]).assign(**labels(path))
        for path in of(inputs, "metrics.json")
    ]
    return pd.concat(frames, ignore_index=True)


def autoencoders(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Every autoencoder on held-out text.

    Rows have sparsity, reconstruction, and the model's loss under it.
    """
    tally = Tally()
    for row in _autoencoder_frame(inputs).to_dict("records"):
        label = {name: row[name] for name in ("model", "task", "seed", "sae", "layer", "size")}
        extras = {name: row[name] for name in _SAE_EXTRAS} | row["options"]
        for quantity, unit in _SAE_QUANTITIES.items():
            n = row["d_sae"] if unit == "feature" else row["tokens"]
            n += row["left_out"] if quantity == "left_out" else 0
            record = Record(row[quantity], None, None, n, unit, "held-out text, no interval")
            if row[quantity] is None or np.isnan(row[quantity]):
                reason = "all activations are equal" if row["tokens"] else "no text was read"
                reason = "the layer has one dictionary" if quantity == "mmcs" else reason
                if row["reads"] in BETWEEN and unit == "token" and quantity != "fvu":
                    reason = "what it reconstructs is no activation of one model"
                record = undefined(n, unit, reason)
            tally.add(record, {**label, "quantity": quantity}, **extras)
    return tally


def _add_layer_means(
    tally: Tally, frame: pd.DataFrame, by: str, table: str, settings: TableSettings
) -> None:
    """Means over layers, sizes and models of L0, its share of the latents, squared error and FVU.

    Parameters
    ----------
    tally
        Table that receives the rows.
    frame
        A row per autoencoder.
    by
        Column whose values are compared.
    table
        Name of the table, for the paper's values.
    settings
        Settings of all tables.
    """
    frame = frame.assign(l0_share=frame["l0"] / frame["d_sae"])
    for key, group in frame.groupby(["model", "task", "seed", by]):
        label = dict(zip(("model", "task", "seed", by), key, strict=True))
        for quantity in ("l0", "l0_share", "mse", "fvu"):
            record = mean_record(group[quantity].to_numpy(), "autoencoder", settings.confidence)
            word = str(label[by]).split(" ")[0]
            beside = paper.beside(
                table, f"{word} {quantity}", settings.paper_models.get(label["model"], ())
            )
            values = group[["reads", "layer", "size", quantity]].rename(columns={quantity: "value"})
            read = ", ".join(sorted(set(group["reads"])))
            tally.add(record, {**label, "quantity": quantity}, values, reads=read, **beside)


def sae_tying(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Tied against untied weights (paper Table 11).

    Numbers are averaged over the layers, sizes and models that both read.
    """
    frame = _autoencoder_frame(inputs)
    key = ["model", "task", "seed", "reads", "layer", "size"]
    frame = frame.assign(sae=np.where(frame["tied"].astype(bool), "tied", "untied"))
    both = frame.groupby(key)["sae"].transform("nunique") == 2
    tally = Tally()
    _add_layer_means(tally, frame[both], "sae", "sae_tying", settings)
    return tally


def sae_layer_choice(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """The most against the least changed layers, tying held fixed (paper Table 12)."""
    frame = _autoencoder_frame(inputs)
    parts = []
    for path in of(inputs, "divergence.json"):
        cell, choice = labels(path), read_json(path)
        same = [frame[name] == cell[name] for name in ("model", "task", "seed")]
        of_cell = frame[np.logical_and.reduce(same)]
        for name, word in (("chosen", "highest"), ("lowest", "lowest")):
            listed = ", ".join(map(str, choice[name]))
            selection = f"{'pinned' if name in choice['pinned'] else word} ({listed})"
            selected = of_cell["layer"].isin(choice[name])
            parts.append(of_cell[selected].assign(selection=selection))
    tally = Tally()
    _add_layer_means(tally, pd.concat(parts), "selection", "sae_layer_choice", settings)
    return tally

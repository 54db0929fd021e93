"""Tables of the probes' readings: agreement with the feedback, controls, paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lfp.files.addresses import labels, of
from lfp.files.artefacts import read_json, read_table, read_tensors
from lfp.probing import probes
from lfp.probing.subjects import SUBJECTS
from lfp.settings import FEATURES
from lfp.statistics.estimates import UNTRAINED, sign_only_ceiling, string_tau
from lfp.statistics.records import (
    Record,
    auroc_record,
    balanced_accuracy_record,
    kendall_difference_record,
    kendall_record,
    mcnemar_record,
    mean_record,
    proportion_record,
    range_record,
    ratio_record,
    undefined,
)
from lfp.tables import paper
from lfp.tables.rows import TableSettings, Tally

#: Subjects that the policy's probe is held against, on the same words or prompts.
OTHER_SUBJECTS = tuple(
    name for name, subject in SUBJECTS.items() if subject.load and name != "policy"
)
#: Features that the latents are held against within the policy.
OTHER_FEATURES = tuple(kind for kind in FEATURES if kind != "latents")
#: Labels of the probes that are compared with each other: of one autoencoder and one split.
_ONE_SPLIT = ("model", "task", "seed", "sae", "split")


def probe_groups(inputs: Sequence[str], kind: str) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """(labels, predictions of one kind of features and split) of every probe of a `kind`."""
    for path in of(inputs, "predictions.parquet"):
        frame = read_table(path)
        for (features, split, probe), group in frame.groupby(["features", "split", "probe"]):
            if probe == kind:
                yield {**labels(path), "features": features, "split": split, "probe": probe}, group
        # Where there was nothing to contrast, no row tells of the probes that were asked for.
        if frame.empty:
            for asked in read_json(Path(path).with_name("metrics.json"))["probes"]:
                if asked["probe"] == kind:
                    described = {name: asked[name] for name in ("features", "split", "probe")}
                    yield {**labels(path), **described}, frame


def output_ratios(rows: pd.DataFrame, policy: str | Path, base: str | Path) -> np.ndarray:
    """Log-ratio (nats) of the probabilities of every row's element under policy and base.

    The element stands in its context.

    No probe and no autoencoder is read: for DPO it is the implicit reward over beta. `policy` and
    `base` are paths of feature files; the ratio of a model to itself is 0.
    """
    ratio = np.empty(len(rows))
    for element in sorted(set(rows["element"])):
        name, of_element = f"log_probability.{element}", (rows["element"] == element).to_numpy()
        triples = rows["triple"].to_numpy()[of_element]
        after, before = (read_tensors(path, [name])[name][triples, 0] for path in (policy, base))
        ratio[of_element] = after - before
    return ratio


def _output_groups(
    inputs: Sequence[str], kind: str, settings: TableSettings
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """(labels, rows) of every cell with features of policy and base.

    The output's log-ratio stands as the prediction.
    """
    files = {
        path.rsplit("/features/", 1)[0] + "/" + Path(path).stem: path
        for path in of(inputs, ".safetensors")
    }
    for path in of(inputs, "/policy/predictions.parquet"):
        address = labels(path)
        if address["sae"] != settings.main["{model}/{task}/seed{seed}".format(**address)]:
            continue
        cell = path.rsplit("/probes/", 1)[0]
        frame = read_table(path)
        split = probes.MAIN_SPLIT[kind]
        rows = frame[
            (frame["features"] == "latents") & (frame["split"] == split) & (frame["probe"] == kind)
        ]
        if len(rows) and f"{cell}/policy" in files and f"{cell}/base" in files:
            ratio = output_ratios(rows, files[f"{cell}/policy"], files[f"{cell}/base"])
            described = {"features": "output", "split": "none", "probe": "log-ratio to base"}
            yield {**address, **described}, rows.assign(prediction=ratio)


def _draws(
    inputs: Sequence[str], name: str, column: str
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """(labels, draws) of the nulls ``baseline`` and ``shuffled``.

    They are those of every cell and subject that have a `column`.
    """
    for path in of(inputs, "metrics.json"):
        frame = pd.DataFrame(read_json(path)[name])
        if column not in frame:
            continue
        frame = frame.assign(split=frame.get("split", "none"))
        for (features, split), group in frame.groupby(["features", "split"]):
            probe = "xavier" if name == "baseline" else "permuted labels"
            yield {**labels(path), "features": features, "split": split, "probe": probe}, group


def _add_nulls(
    tally: Tally,
    inputs: Sequence[str],
    columns: dict[str, str],
    observed: dict[tuple, float],
    settings: TableSettings,
    table: str,
    name: str = "words",
) -> None:
    """Rows of untrained probes and of probes of permuted labels.

    Parameters
    ----------
    tally
        Table that receives the rows.
    inputs
        Paths that the metrics are among.
    columns
        Value of the label `name` by the column of the nulls' draws.
    observed
        Estimates of the trained probes by (model, task, seed, sae, subject, features, split, value
        of the label `name`).
    settings
        Settings of all tables.
    table
        Name of the table, for the paper's values.
    name
        Label that tells the statistics of one probe apart.
    """
    for column, words in columns.items():
        for null, described in (
            ("baseline", "untrained linear probes"),
            ("shuffled", "labels permuted among words"),
        ):
            for label, group in _draws(inputs, null, column):
                key = (*_key(label), words)
                record = range_record(
                    group[column].to_numpy(), "draw", described, observed.get(key)
                )
                same = {
                    "subject": "policy",
                    "features": "latents",
                    "probe": "xavier",
                }.items() <= label.items()
                models = settings.paper_models.get(label["model"], ())
                beside = paper.beside(table, "xavier" if same else "", models)
                tally.add(record, {**label, name: words}, **beside)


def _key(label: dict[str, Any]) -> tuple:
    return tuple(
        label[name] for name in ("model", "task", "seed", "sae", "subject", "features", "split")
    )


def _beside(table: str, key: str, label: dict[str, Any], settings: TableSettings) -> dict[str, str]:
    """The paper's value, beside the row that repeats its set-up."""
    published = {"subject": "policy", "features": "latents", "split": "random"}
    same = published.items() <= label.items() and label["probe"] != probes.DIRECT
    return paper.beside(table, key if same else "", settings.paper_models.get(label["model"], ()))


def _string_tau(means: pd.DataFrame) -> dict[str, float]:
    """The published statistic of a probe's words, and its p.

    The tau-b of a perfect knowledge of signs alone stands beside them.
    """
    prediction, truth = means["prediction"].to_numpy(), means["truth"].to_numpy()
    statistic, p = string_tau(means["unit"], prediction, truth)
    ceiling = sign_only_ceiling(truth)
    return {"string_tau": statistic, "string_tau_p": p, "sign_only_ceiling": ceiling}


def _with_other_probes(
    inputs: Sequence[str], settings: TableSettings
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Ridge probes of deltas and of the valence itself.

    The deltas that the former learn stand beside them as if predicted.
    """
    yield from probe_groups(inputs, "ridge")
    yield from probe_groups(inputs, probes.DIRECT)
    yield from _output_groups(inputs, "ridge", settings)
    for label, group in probe_groups(inputs, "ridge"):
        if label["split"] == "by_word" and label["features"] in ("latents", "raw"):
            yield (
                {**label, "split": "none", "probe": "delta"},
                group.assign(prediction=group["target"]),
            )


def _tau(inputs: Sequence[str], settings: TableSettings, within: bool, table: str) -> Tally:
    """Rank agreement of all probes and nulls over sets of words, `within` a sign or not."""
    tally, observed, asked = Tally(), {}, {}
    for label, group in _with_other_probes(inputs, settings):
        means = probes.unit_means(group)
        for name, words in probes.word_sets(means).items():
            if name.startswith(("positive", "negative")) != within:
                continue
            asked[probes.statistic("tau", name)] = name
            part = means[words]
            prediction, truth = part["prediction"].to_numpy(), part["truth"].to_numpy()
            record = kendall_record(prediction, truth, **settings.resampling)
            if label["probe"] == "ridge":
                observed[(*_key(label), name)] = record.estimate
            extras = _string_tau(part) if name == "all" and np.isfinite(record.estimate) else {}
            values = part.rename(columns={"unit": "word", "rows": "contexts"})
            beside = _beside(table, name, label, settings)
            tally.add(record, {**label, "words": name}, values, **extras, **beside)
    _add_nulls(tally, inputs, asked, observed, settings=settings, table=table)
    return tally


def kendall_tau(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Rank agreement of predicted feedback with the lexicon, over words (paper Table 4)."""
    return _tau(inputs, settings, within=False, table="kendall_tau")


def kendall_tau_within_sign(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Rank agreement among positive words alone and among negative words alone (paper Table 10)."""
    return _tau(inputs, settings, within=True, table="kendall_tau_within_sign")


def sign_accuracy(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Share of words whose predicted feedback has the lexicon's sign (paper Table 5).

    ``constant`` is a probe that gives every word the commoner sign.
    """
    tally, observed, asked, seen = Tally(), {}, {}, set()
    for label, group in probe_groups(inputs, "ridge"):
        means = probes.unit_means(group)
        sign = np.sign(means["truth"])
        right = np.sign(means["prediction"]) == sign
        for name, words in probes.word_sets(means).items():
            asked[probes.statistic("sign", name)] = name
            part = right[words]
            if means["prediction"].isna().any():
                record = undefined(len(part), "word", UNTRAINED)
            else:
                record = proportion_record(part.sum(), len(part), "word", 0.5, settings.confidence)
            observed[(*_key(label), name)] = record.estimate
            values = pd.DataFrame({"word": means["unit"][part.index], "right": part})
            beside = _beside("sign_accuracy", name, label, settings)
            tally.add(record, {**label, "words": name}, values, **beside)
        cell = tuple(label[name] for name in ("model", "task", "seed"))
        if cell not in seen:
            seen.add(cell)
            share = max((sign > 0).sum(), (sign < 0).sum())
            record = proportion_record(share, len(sign), "word", None, settings.confidence)
            constant = dict.fromkeys(("subject", "features", "split"), "none") | {
                "probe": "constant",
                "words": "all",
            }
            tally.add(record, label | constant, paper="", paper_note="")
    _add_nulls(tally, inputs, asked, observed, settings=settings, table="sign_accuracy")
    return tally


def probe_accuracy(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Balanced accuracy and AUROC of probes that tell preferred from rejected answers.

    (Paper Table 3.)
    """
    tally, observed = Tally(), {}
    for label, group in chain(
        probe_groups(inputs, "logistic"), _output_groups(inputs, "logistic", settings)
    ):
        truth, score = group["truth"].to_numpy(), group["prediction"].to_numpy()
        records = {
            "balanced_accuracy": balanced_accuracy_record(
                truth, score, group["unit"], unit="prompt", **settings.resampling
            ),
            "auroc": auroc_record(
                truth, score, group["unit"], unit="prompt", **settings.resampling
            ),
        }
        for name, record in records.items():
            observed[(*_key(label), name)] = record.estimate
            published = label["task"] if name == "balanced_accuracy" else ""
            beside = _beside("probe_accuracy", published, label, settings)
            values = group[["unit", "triple", "element", "truth", "prediction", "fold"]].rename(
                columns={"unit": "prompt"}
            )
            shown = values if name == "balanced_accuracy" else None
            tally.add(record, {**label, "statistic": name}, shown, **beside)
    _add_nulls(
        tally,
        inputs,
        columns={name: name for name in ("balanced_accuracy", "auroc")},
        observed=observed,
        settings=settings,
        table="probe_accuracy",
        name="statistic",
    )
    return tally


# -------------------------------------------------------------------------------------- differences


def _word_differences(
    a: pd.DataFrame, b: pd.DataFrame, settings: TableSettings
) -> dict[tuple[str, str], tuple[Record, Any]]:
    """Differences of tau-b and of sign accuracy between two probes on their common words.

    They are by statistic and set of words: all, those of one token, and those in pieces.
    """
    both = probes.unit_means(a).merge(
        probes.unit_means(b), on=["unit", "truth", "tokens"], suffixes=("_a", "_b")
    )
    result: dict[tuple[str, str], tuple[Record, Any]] = {}
    for name, words in probes.word_sets(both).items():
        if not name.startswith(("positive", "negative")):
            tau, sign = _paired_words(both[words], settings)
            result |= {("tau", name): tau, ("sign_accuracy", name): sign}
    return result


def _paired_words(
    both: pd.DataFrame, settings: TableSettings
) -> tuple[tuple[Record, Any], tuple[Record, Any]]:
    """Records of the differences of tau-b and of sign accuracy, each with its values."""
    truth, first, second = (
        both[name].to_numpy() for name in ("truth", "prediction_a", "prediction_b")
    )
    right_first, right_second = (np.sign(v) == np.sign(truth) for v in (first, second))
    values = both[["unit", "truth", "prediction_a", "prediction_b"]].rename(
        columns={"unit": "word"}
    )
    tau = kendall_difference_record(first, second, truth, **settings.resampling)
    sign = mcnemar_record(right_first, right_second, unit="word", confidence=settings.confidence)
    if np.isnan([first, second]).any():
        sign = undefined(len(truth), "word", UNTRAINED)
    return (tau, values), (sign, None)


def _pair_differences(
    a: pd.DataFrame, b: pd.DataFrame, settings: TableSettings
) -> dict[tuple[str, str], tuple[Record, Any]]:
    """Differences between two probes on the same answers, by statistic and ``none``: no words.

    They are of the share of pairs in the right order and of AUROC.
    """
    key = ["triple", "element", "unit", "truth"]
    if a.empty or b.empty:
        nothing = undefined(0, "pair", "no pairs")
        return {("pair_accuracy", "none"): (nothing, None), ("auroc", "none"): (nothing, None)}
    both = a[[*key, "prediction"]].merge(b[[*key, "prediction"]], on=key, suffixes=("_a", "_b"))
    wide = both.pivot(index="triple", columns="element", values=["prediction_a", "prediction_b"])
    ordered = {
        side: (
            wide[f"prediction_{side}"]["positive"] > wide[f"prediction_{side}"]["negative"]
        ).to_numpy()
        for side in "ab"
    }
    area = auroc_record(
        both["truth"].to_numpy(),
        both["prediction_a"].to_numpy(),
        both["unit"].to_numpy(),
        unit="prompt",
        against=both["prediction_b"].to_numpy(),
        **settings.resampling,
    )
    values = pd.DataFrame({"pair": wide.index, "right_a": ordered["a"], "right_b": ordered["b"]})
    pairs = mcnemar_record(ordered["a"], ordered["b"], "pair", settings.confidence)
    if both[["prediction_a", "prediction_b"]].isna().any(axis=None):
        pairs = undefined(len(wide), "pair", UNTRAINED)
    return {("pair_accuracy", "none"): (pairs, values), ("auroc", "none"): (area, None)}


def probe_differences(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Gains by fine-tuning and by the autoencoder.

    They are paired differences between probes on the same words or prompts.

    ``policy - base`` and the like compare subjects on one kind of features, ``latents - raw`` and
    the like kinds of features of the policy, ``true - permuted labels`` is the selectivity of
    Hewitt and Liang (2019).
    """
    tally = Tally()
    for kind, compare in (("ridge", _word_differences), ("logistic", _pair_differences)):
        cells: dict[tuple, dict[tuple[str, str], pd.DataFrame]] = {}
        for label, group in probe_groups(inputs, kind):
            address = tuple(label[name] for name in _ONE_SPLIT)
            cells.setdefault(address, {})[label["subject"], label["features"]] = group
        for address, read in cells.items():
            cell = dict(zip(_ONE_SPLIT, address, strict=True))
            for contrast, features, first, second in _contrasts():
                if first not in read or second not in read:
                    continue
                records = compare(read[first], read[second], settings)
                for (statistic, words), (record, values) in records.items():
                    described = {
                        "contrast": contrast, "features": features, "statistic": statistic,
                        "words": words,
                    }  # fmt: skip
                    tally.add(record, {**cell, **described}, values)
    _add_selectivity(tally, inputs)
    return tally


def _contrasts() -> Iterator[tuple[str, str, tuple[str, str], tuple[str, str]]]:
    """(contrast, features, first probe, second probe); a probe is its (subject, features)."""
    for other in OTHER_SUBJECTS:
        for features in ("latents", "raw"):
            yield f"policy - {other}", features, ("policy", features), (other, features)
    for other in OTHER_FEATURES:
        yield f"latents - {other}", "latents", ("policy", "latents"), ("policy", other)


def _add_selectivity(tally: Tally, inputs: Sequence[str]) -> None:
    """Rows of the policies' probes against probes of permuted labels."""
    for statistic, words, column, observed in _observed_statistics(inputs):
        for label, draws in _draws(inputs, "shuffled", column):
            value = observed.get(_key(label))
            if value is None or label["subject"] != "policy":
                continue
            null = draws[column].to_numpy()
            p = float((1 + np.sum(null >= value - 1e-12)) / (len(null) + 1))
            record = range_record(value - null, "draw", "selectivity: true minus permuted labels")
            if np.isfinite(record.estimate):
                record = replace(record, method=f"{record.method}; p: draws at or above", p=p)
            described = {
                "contrast": "true - permuted labels",
                "features": label["features"],
                "statistic": statistic,
                "words": words,
            }
            tally.add(record, {**{name: label[name] for name in _ONE_SPLIT}, **described})


def _observed_statistics(
    inputs: Sequence[str],
) -> Iterator[tuple[str, str, str, dict[tuple, float]]]:
    """(statistic, set of words, column of the nulls, the policies' values by their key)."""
    of_words = {
        (name, words): probes.statistic(column, words)
        for name, column in (("tau", "tau"), ("sign_accuracy", "sign"))
        for words in ("all", "one_token", "pieces")
    }
    of_answers = {("balanced_accuracy", "none"): "balanced_accuracy"}
    for kind, columns in (("ridge", of_words), ("logistic", of_answers)):
        statistics = {
            _key(label): probes.probe_statistics(group, kind)
            for label, group in probe_groups(of(inputs, "policy/predictions.parquet"), kind)
            if label["features"] == "latents"
        }
        for (statistic, words), column in columns.items():
            observed = {key: of[column] for key, of in statistics.items() if column in of}
            yield statistic, words, column, observed


def probe_nested_r2(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """A probe's knowledge beyond word frequency and static embedding.

    Rows are held-out R² without it, with it, and the difference.

    ``features`` are latents; the unit is the word, or the prompt with all its answers.
    """
    tally = Tally()
    for path in of(inputs, "nested.parquet"):
        if SUBJECTS[labels(path)["subject"]].load is None:
            continue  # it reads no model
        frame = read_table(path)
        if frame.empty:
            record = undefined(0, "word", UNTRAINED)
            for quantity in ("r2_without", "r2_with_probe", "r2_gain"):
                tally.add(record, {**labels(path), "quantity": quantity})
            continue
        truth = frame["truth"].to_numpy()
        total = (truth - truth.mean()) ** 2
        without, with_probe = (
            (truth - frame[name].to_numpy()) ** 2 for name in ("without", "with_probe")
        )
        unit = "word" if frame["unit"].is_unique else "prompt"
        for quantity, explained, name in (
            ("r2_without", total - without, "held-out R²"),
            ("r2_with_probe", total - with_probe, "held-out R²"),
            ("r2_gain", without - with_probe, "gain of held-out R²"),
        ):
            record = ratio_record(
                explained, total, frame["unit"], unit=unit, name=name, **settings.resampling
            )
            values = frame if quantity == "r2_without" else None
            tally.add(record, {**labels(path), "quantity": quantity}, values)
    return tally


def lexicon_reconstruction(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Every word's predicted feedback beside its valence (paper Tables 2 and 9).

    Predictions are from the policy's latents.

    ``displayed`` is the prediction on the lexicon's scale: one factor through 0, fitted by least
    squares, so that the sign is kept. Tau and sign accuracy are computed on ``estimate``, the raw
    prediction, whose interval is over the word's contexts. ``rank`` is the word's place among all
    ``words`` by the distance of ``displayed`` from the valence, 1 for the nearest, and
    ``hand_picked`` says that the paper shows the word.
    """
    tally = Tally()
    shown = {"subject": "policy", "features": "latents"}
    for label, group in probe_groups(inputs, "ridge"):
        if not shown.items() <= label.items() or label["split"] not in ("random", "by_word"):
            continue
        of_split = {name: label[name] for name in _ONE_SPLIT}
        if group.empty:
            record = undefined(0, "context", "no word of the lexicon is in the held-out texts")
            tally.add(record, {**of_split, "word": ""})
            continue
        means = probes.unit_means(group).set_index("unit")
        prediction, truth = means["prediction"].to_numpy(), means["truth"].to_numpy()
        size = float(prediction @ prediction)
        factor = float(prediction @ truth) / size if size else float("nan")
        ranks = (means["prediction"] * factor - means["truth"]).abs().rank(method="min")
        models = settings.paper_models.get(label["model"], ())
        for word, of_word in group.groupby("unit"):
            values = of_word["prediction"].to_numpy()
            record = mean_record(values, "context", settings.confidence)
            if np.isnan(values).any():
                record = undefined(len(values), "context", UNTRAINED)
            extras = {
                "valence": float(means.loc[word, "truth"]),
                "tokens": int(means.loc[word, "tokens"]),
                "displayed": record.estimate * factor,
                "rank": float(ranks[word]),
                "words": len(means),
                "hand_picked": word in paper.WORDS,
                **paper.beside("lexicon_reconstruction", word, models),
            }
            shown_values = of_word[["triple", "context", "target", "prediction"]]
            tally.add(record, {**of_split, "word": word}, shown_values, **extras)
    return tally

"""Tables of the probes' readings: agreement with the feedback, controls, paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from lfp.statistics.estimates import UNTRAINED, right_signs, sign_only_ceiling, string_tau
from lfp.statistics.partitions import (
    PartValues,
    Refits,
    partitions_difference_record,
    partitions_record,
)
from lfp.statistics.records.base import Record, undefined
from lfp.statistics.records.kendall import kendall_record
from lfp.statistics.records.labels import auroc_record, balanced_accuracy_record
from lfp.statistics.records.means import mean_record, range_record
from lfp.statistics.records.shares import proportion_record
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


@dataclass(frozen=True)
class Statistic:
    """A statistic of probes by its ``column`` of the parts, its name in words, and its range.

    ``tested`` is the column that permuted labels are compared in, None where nothing is tested: the
    share of one sign's words that are right rises with a constant. The share over both signs rises
    with the luck of a part's classes, so the mean of both signs' shares is tested in its place.
    """

    column: str
    name: str
    least: float
    tested: str | None

    @property
    def chance(self) -> float:
        """The value for a probe that knows nothing: the middle of the range."""
        return (self.least + 1.0) / 2

    @property
    def edges(self) -> tuple[float, float]:
        """The least and the largest value."""
        return self.least, 1.0

    @property
    def gaps(self) -> tuple[float, float]:
        """The least and the largest difference of two values."""
        return self.least - 1.0, 1.0 - self.least


def tau_of(words: str) -> Statistic:
    """Tau-b over a set of words."""
    column = probes.statistic("tau", words)
    return Statistic(column, "tau-b", -1.0, column)


def sign_of(words: str) -> Statistic:
    """The share of a set of words whose sign is right."""
    one_sign = words.startswith(("positive", "negative"))
    tested = None if one_sign else probes.statistic("sign_balanced", words)
    return Statistic(probes.statistic("sign", words), "share right", 0.0, tested)


BALANCED_ACCURACY = Statistic("balanced_accuracy", "balanced accuracy", 0.0, "balanced_accuracy")
AUROC = Statistic("auroc", "AUROC", 0.0, "auroc")
PAIR_ACCURACY = Statistic("pair_accuracy", "share of pairs in order", 0.0, "pair_accuracy")


def part_values(frame: pd.DataFrame, statistic: Statistic) -> PartValues:
    """A statistic of one probe, of whose parts and refits `frame` has a row each."""
    place, columns = ["partition", "fold"], {statistic.column, statistic.tested} - {None}
    frame = frame[[*place, "draw", "ratio", *columns]]  # of the many that every row has
    true = frame[frame["draw"] == 0].set_index(place).sort_index()
    permuted, refits = frame[frame["draw"] > 0], None
    if len(permuted) and statistic.tested:
        of_draw = permuted.pivot(index="draw", columns=place, values=statistic.tested)
        observed = true.loc[of_draw.columns, statistic.tested].to_numpy(dtype=float)
        refits = Refits(observed, of_draw.to_numpy(dtype=float))
    values = true[statistic.column].to_numpy(dtype=float)
    return PartValues(values, float(true["ratio"].mean()), refits)


class PartStatistics:
    """The statistics on test parts of every probe among a table's `inputs`."""

    def __init__(self, inputs: Sequence[str]) -> None:
        self._frames: dict[tuple, pd.DataFrame] = {}
        self._known: dict[tuple[tuple, Statistic], PartValues] = {}
        for path in of(inputs, "parts.parquet"):
            probe = ["features", "split", "probe"]
            for names, frame in read_table(path).groupby(probe):
                label = labels(path) | dict(zip(probe, names, strict=True))
                self._frames[self._address(label)] = frame

    @staticmethod
    def _address(label: Mapping[str, Any]) -> tuple:
        return (*_key(label), label["probe"])

    def values(self, label: Mapping[str, Any], statistic: Statistic) -> PartValues:
        """A statistic of the probe that a `label` names; without values where none was trained."""
        address = self._address(label)
        frame = self._frames.get(address)
        if frame is None or statistic.column not in frame:
            return PartValues(np.zeros(0), float("nan"))
        # A probe is compared with several others.
        if (address, statistic) not in self._known:
            self._known[address, statistic] = part_values(frame, statistic)
        return self._known[address, statistic]

    def nulls(self, columns: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
        """(labels, mean of `columns` over the parts of every draw) of probes of permuted labels."""
        names = ("model", "task", "seed", "sae", "subject", "features", "split")
        for address, frame in self._frames.items():
            label = dict(zip(names, address, strict=False)) | {"probe": "permuted labels"}
            permuted = frame[frame["draw"] > 0]
            shown = [column for column in columns if column in frame]
            if len(permuted) and shown:
                yield label, permuted.groupby("draw")[shown].mean().dropna(axis="columns")


def _family(label: Mapping[str, Any], name: str, settings: TableSettings) -> str | None:
    """The family that a test is corrected in; None for one that no claim rests on.

    It has the tests of one statistic of a table in one cell: of its policy on the main split, over
    all words, unless the reward was planted to teach nothing.
    """
    cell = "{model}/{task}/seed{seed}".format(**label)
    main = label["split"] in probes.MAIN_SPLIT.values()
    claimed = main and label.get("subject", "policy") == "policy" and cell not in settings.silent
    claimed = claimed and label.get("words", "all") in ("all", "none")
    return f"{name}, {cell}, {label['sae']}" if claimed else None


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


def _untrained(inputs: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """(labels, statistics of every draw) of the untrained probes of every cell and subject."""
    for path in of(inputs, "metrics.json"):
        frame = pd.DataFrame(read_json(path)["baseline"])
        if len(frame):
            for features, group in frame.groupby("features"):
                described = {"features": features, "split": "none", "probe": "xavier"}
                yield {**labels(path), **described}, group


def _add_nulls(
    tally: Tally,
    inputs: Sequence[str],
    parts: PartStatistics,
    columns: dict[str, str],
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
    parts
        Statistics of the test parts.
    columns
        Value of the label `name` by the column of the nulls' draws.
    settings
        Settings of all tables.
    table
        Name of the table, for the paper's values.
    name
        Label that tells the statistics of one probe apart.
    """
    described = {"xavier": "untrained linear probes", "permuted labels": "labels permuted"}
    for label, draws in chain(_untrained(inputs), parts.nulls(list(columns))):
        for column, words in columns.items():
            if column not in draws:
                continue
            values, name_of = draws[column].to_numpy(), described[label["probe"]]
            record = range_record(values, "draw", name_of, settings.confidence)
            same = {"subject": "policy", "features": "latents", "probe": "xavier"}
            published = "xavier" if same.items() <= label.items() else ""
            models = settings.paper_models.get(label["model"], ())
            beside = paper.beside(table, published, models)
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
    tally, asked, parts = Tally(), {}, PartStatistics(inputs)
    for label, group in _with_other_probes(inputs, settings):
        means = probes.unit_means(group)
        for name, words in probes.word_sets(means).items():
            if name.startswith(("positive", "negative")) != within:
                continue
            asked[tau_of(name).column] = name
            part = means[words]
            if label["split"] == "none":  # nothing was trained
                prediction, truth = part["prediction"].to_numpy(), part["truth"].to_numpy()
                record = kendall_record(prediction, truth, **settings.resampling)
            else:
                record = partitions_record(
                    parts.values(label, tau_of(name)), len(part), "word", "tau-b", (-1.0, 1.0), 0.0,
                    settings.confidence,
                )  # fmt: skip
            extras = _string_tau(part) if name == "all" and np.isfinite(record.estimate) else {}
            values = part.rename(columns={"unit": "word", "rows": "contexts"})
            beside = _beside(table, name, label, settings)
            shown = {**label, "words": name}
            family = _family(shown, name, settings) if label["probe"] == "ridge" else None
            tally.add(record, shown, values, family, **extras, **beside)
    _add_nulls(tally, inputs, parts, asked, settings=settings, table=table)
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
    tally, asked, seen, parts = Tally(), {}, set(), PartStatistics(inputs)
    for label, group in probe_groups(inputs, "ridge"):
        means = probes.unit_means(group)
        sign = np.sign(means["truth"])
        right = right_signs(means["prediction"], sign)
        for name, words in probes.word_sets(means).items():
            asked[sign_of(name).column] = name
            part = right[words]
            record = partitions_record(
                parts.values(label, sign_of(name)), len(part), "word", "share right", (0.0, 1.0),
                0.5, settings.confidence,
            )  # fmt: skip
            values = pd.DataFrame({"word": means["unit"][part.index], "right": part})
            beside = _beside("sign_accuracy", name, label, settings)
            shown = {**label, "words": name}
            tally.add(record, shown, values, _family(shown, name, settings), **beside)
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
    _add_nulls(tally, inputs, parts, asked, settings=settings, table="sign_accuracy")
    return tally


def probe_accuracy(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Balanced accuracy and AUROC of probes that tell preferred from rejected answers.

    (Paper Table 3.)
    """
    tally, parts = Tally(), PartStatistics(inputs)
    of_output = _output_groups(inputs, "logistic", settings)
    for label, group in chain(probe_groups(inputs, "logistic"), of_output):
        for name, record in _accuracies(label, group, parts, settings).items():
            published = label["task"] if name == "balanced_accuracy" else ""
            beside = _beside("probe_accuracy", published, label, settings)
            values = group[["unit", "triple", "element", "truth", "prediction", "fold"]].rename(
                columns={"unit": "prompt"}
            )
            values = values if name == "balanced_accuracy" else None
            shown = {**label, "statistic": name}
            tally.add(record, shown, values, _family(shown, name, settings), **beside)
    _add_nulls(
        tally,
        inputs,
        parts,
        columns={name: name for name in ("balanced_accuracy", "auroc")},
        settings=settings,
        table="probe_accuracy",
        name="statistic",
    )
    return tally


def _accuracies(
    label: dict[str, Any], group: pd.DataFrame, parts: PartStatistics, settings: TableSettings
) -> dict[str, Record]:
    """Balanced accuracy and AUROC of a probe, or of the output's log-ratio."""
    if label["split"] == "none":  # nothing was trained
        truth, score = group["truth"].to_numpy(), group["prediction"].to_numpy()
        return {
            "balanced_accuracy": balanced_accuracy_record(
                truth, score, group["unit"], unit="prompt", **settings.resampling
            ),
            "auroc": auroc_record(
                truth, score, group["unit"], unit="prompt", **settings.resampling
            ),
        }
    return {
        name: partitions_record(
            parts.values(label, statistic), group["unit"].nunique(), "prompt", statistic.name,
            statistic.edges, statistic.chance, settings.confidence,
        )
        for name, statistic in (("balanced_accuracy", BALANCED_ACCURACY), ("auroc", AUROC))
    }  # fmt: skip


# -------------------------------------------------------------------------------------- differences


@dataclass(frozen=True)
class Compared:
    """A difference of two probes: a statistic over a set of ``words``, and its units.

    ``values`` are the predictions behind it, None where another difference shows them.
    """

    name: str
    statistic: Statistic
    words: str
    n: int
    unit: str
    values: pd.DataFrame | None = None


def _compared_words(a: pd.DataFrame, b: pd.DataFrame) -> Iterator[Compared]:
    """Differences of tau-b and of sign accuracy between two probes on their common words.

    They are over all words, those of one token, and those in pieces.
    """
    both = probes.unit_means(a).merge(
        probes.unit_means(b), on=["unit", "truth", "tokens"], suffixes=("_a", "_b")
    )
    shown = ["unit", "truth", "prediction_a", "prediction_b"]
    for name, words in probes.word_sets(both).items():
        if not name.startswith(("positive", "negative")):
            n, values = int(words.sum()), both.loc[words, shown].rename(columns={"unit": "word"})
            yield Compared("tau", tau_of(name), name, n, "word", values)
            yield Compared("sign_accuracy", sign_of(name), name, n, "word")


def _compared_answers(a: pd.DataFrame, b: pd.DataFrame) -> Iterator[Compared]:
    """Differences of two probes on the same answers.

    They are of the share of pairs in the right order and of AUROC; ``none`` is the set of words.
    """
    key = ["triple", "element", "unit", "truth"]
    both = a[[*key, "prediction"]].merge(b[[*key, "prediction"]], on=key, suffixes=("_a", "_b"))
    n, values = both["unit"].nunique(), both.rename(columns={"unit": "prompt"})
    yield Compared("pair_accuracy", PAIR_ACCURACY, "none", n, "prompt", values)
    yield Compared("auroc", AUROC, "none", n, "prompt")


def probe_differences(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Gains by fine-tuning and by the autoencoder.

    They are paired differences between probes on the same words or prompts.

    ``policy - base`` and the like compare subjects on one kind of features, ``latents - raw`` and
    the like kinds of features of the policy, ``true - permuted labels`` is the selectivity of
    Hewitt and Liang (2019).
    """
    tally, parts = Tally(), PartStatistics(inputs)
    for kind, compare in (("ridge", _compared_words), ("logistic", _compared_answers)):
        cells: dict[tuple, dict[tuple[str, str], tuple[dict[str, Any], pd.DataFrame]]] = {}
        for label, group in probe_groups(inputs, kind):
            address = tuple(label[name] for name in _ONE_SPLIT)
            cells.setdefault(address, {})[label["subject"], label["features"]] = label, group
        for address, read in cells.items():
            cell = dict(zip(_ONE_SPLIT, address, strict=True))
            for contrast, features, first, second in _contrasts():
                if first not in read or second not in read:
                    continue
                (label, group), (other, against) = read[first], read[second]
                for one in compare(group, against):
                    of_both = [parts.values(probe, one.statistic) for probe in (label, other)]
                    record = partitions_difference_record(
                        of_both[0].minus(of_both[1]), one.n, one.unit, one.statistic.name,
                        one.statistic.gaps, settings.confidence,
                    )  # fmt: skip
                    described = {
                        "contrast": contrast, "features": features, "statistic": one.name,
                        "words": one.words,
                    }  # fmt: skip
                    shown = {**cell, **described}
                    tally.add(record, shown, one.values, _family(shown, one.name, settings))
    _add_selectivity(tally, inputs, parts, settings)
    return tally


def _contrasts() -> Iterator[tuple[str, str, tuple[str, str], tuple[str, str]]]:
    """(contrast, features, first probe, second probe); a probe is its (subject, features)."""
    for other in OTHER_SUBJECTS:
        for features in ("latents", "raw"):
            yield f"policy - {other}", features, ("policy", features), (other, features)
    for other in OTHER_FEATURES:
        yield f"latents - {other}", "latents", ("policy", "latents"), ("policy", other)


def _add_selectivity(
    tally: Tally, inputs: Sequence[str], parts: PartStatistics, settings: TableSettings
) -> None:
    """Rows of the policies' probes against probes of permuted labels."""
    tested = {
        "ridge": [
            (name, words, of(words))
            for name, of in (("tau", tau_of), ("sign_accuracy", sign_of))
            for words in ("all", "one_token", "pieces")
        ],
        "logistic": [("balanced_accuracy", "none", BALANCED_ACCURACY)],
    }
    policies = [path for path in inputs if path.endswith("policy/predictions.parquet")]
    for kind, statistics in tested.items():
        draws = {
            _key(label): frame for label, frame in parts.nulls([s.column for *_, s in statistics])
        }
        for label, group in probe_groups(policies, kind):
            if label["features"] != "latents" or _key(label) not in draws:
                continue
            sets = probes.word_sets(probes.unit_means(group)) if kind == "ridge" else {"none"}
            for name, words, statistic in statistics:
                null = draws[_key(label)]
                if words not in sets or statistic.column not in null:
                    continue
                true = partitions_record(
                    parts.values(label, statistic), len(group), "row", name, statistic.edges,
                    statistic.chance, settings.confidence,
                )  # fmt: skip
                selectivity = range_record(
                    true.estimate - null[statistic.column].to_numpy(), "draw",
                    "selectivity: true minus permuted labels", settings.confidence,
                )  # fmt: skip
                if true.p is not None:
                    method = f"{selectivity.method}; p: draws at or above"
                    selectivity = replace(selectivity, method=method, p=true.p)
                described = {
                    "contrast": "true - permuted labels", "features": label["features"],
                    "statistic": name, "words": words,
                }  # fmt: skip
                shown = {**{n: label[n] for n in _ONE_SPLIT}, **described}
                tally.add(selectivity, shown, None, _family(shown, name, settings))


#: The quantities of the table ``probe_nested_r2``.
NESTED = ("r2_without", "r2_with_probe", "r2_gain")


def nested_records(frame: pd.DataFrame, confidence: float) -> dict[str, Record]:
    """The records of :data:`NESTED` from the R² of every test part.

    `frame` is that of :func:`lfp.probing.comparisons.nested_frame`.
    """
    ratio, (unit, n) = float(frame["ratio"].mean()), frame.loc[0, ["unit", "n"]]
    parts = [PartValues(frame[name].to_numpy(), ratio) for name in NESTED[:2]]
    records = [
        partitions_record(
            of, n, unit, "held-out R²", edges=(-np.inf, 1.0), chance=0.0, confidence=confidence
        )
        for of in parts
    ]
    gain = partitions_difference_record(
        parts[1].minus(parts[0]), n, unit, "held-out R²", (-np.inf, np.inf), confidence
    )
    return dict(zip(NESTED, [*records, gain], strict=True))


def probe_nested_r2(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """A probe's knowledge beyond word frequency and static embedding.

    Rows are held-out R² without it, with it, and the difference, means over the probe's test parts.

    ``features`` are latents; the unit is the word, or the prompt with all its answers.
    """
    tally = Tally()
    for path in of(inputs, "nested.parquet"):
        label = labels(path)
        if SUBJECTS[label["subject"]].load is None:
            continue  # it reads no model
        frame = read_table(path)
        records = dict.fromkeys(NESTED, undefined(0, "word", UNTRAINED))
        if len(frame):
            records = nested_records(frame, settings.confidence)
        for quantity, record in records.items():
            values = frame if len(frame) and quantity == "r2_without" else None
            tally.add(record, {**label, "quantity": quantity}, values)
    return tally


def lexicon_reconstruction(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Every word's predicted feedback beside its valence (paper Tables 2 and 9).

    Predictions are from the policy's latents.

    ``displayed`` is the prediction on the lexicon's scale: one factor through 0, fitted by least
    squares, which keeps the sign. Where predictions run against the valences no such factor is
    above 0, and nothing is displayed. Tau and sign accuracy are computed on ``estimate``, the raw
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
        factor = factor if factor > 0 else float("nan")
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

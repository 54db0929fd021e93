"""Train probes on one subject's features and keep their out-of-fold predictions."""

import dataclasses
import json

import numpy as np
import pandas as pd

from lfp.files import artefacts
from lfp.probing import probes
from lfp.probing.contrasts import ELEMENTS
from lfp.probing.data import (
    READ_TEXT,
    ProbeData,
    log_frequency,
    preference_rows,
    stacked,
    texts,
    word_rows,
    word_targets,
)
from lfp.running import job


def main() -> None:
    outputs = ["predictions", "nested", "probe", "metrics"]
    run = job.start(__doc__, ["features", "contrasts", "lexicon"], outputs, ["subject"])
    settings = run.settings
    ridge = settings["feedback"] == "reward"
    kind, strengths = ("ridge", settings["alphas"]) if ridge else ("logistic", settings["Cs"])
    limits = (settings["folds"], settings["inner_folds"], run.seed)
    triples, lexicon = (
        artefacts.read_table(run.paths.contrasts),
        artefacts.read_json(run.paths.lexicon),
    )
    layers = len(json.loads(artefacts.read_metadata(run.paths.features)["layers"]))

    def arrays(name: str) -> dict[str, np.ndarray]:
        loaded = artefacts.read_tensors(
            run.paths.features, [f"{name}.{element}" for element in ELEMENTS]
        )
        return {key.split(".")[1]: value for key, value in loaded.items()}

    rows = word_rows(triples, lexicon["words"]) if ridge else preference_rows(triples)
    code = arrays("latents")

    def data_of(features: str) -> ProbeData:
        own = (
            arrays("raw" if features == "pca" else features) if features not in READ_TEXT else None
        )
        target = rows["truth"].to_numpy(dtype=int)
        if ridge:
            # Controls that no model takes part in learn the deltas of the code.
            deltas = code if run.paths.subject == "text" else own
            target = word_targets(deltas, layers, settings["delta"])
        x = texts(triples) if own is None else stacked(own)
        return ProbeData(x, target, rows, stacked(code) if features == "pca" else None)

    frames, metrics, baseline, shuffled = [], [], [], []
    nested, weights = pd.DataFrame(), {}
    for features in settings["features"] or probes.TEXT_FEATURES:
        data = data_of(features)
        for split in probes.splits_of(kind, features):
            reason = probes.why_untrainable(
                data, kind, split, settings["folds"], settings["inner_folds"]
            )
            if reason:
                frames.append(
                    probes.no_predictions(data).assign(features=features, split=split, probe=kind)
                )
                metrics.append(
                    {
                        "features": features,
                        "split": split,
                        "probe": kind,
                        "strengths": [],
                        "reason": reason,
                    }
                )
                continue
            found, chosen = probes.out_of_fold(data, kind, split, strengths, *limits, features)
            frames.append(found.assign(features=features, split=split, probe=kind))
            metrics.append(
                {"features": features, "split": split, "probe": kind, "strengths": chosen}
            )
            if features == "latents" and split in probes.null_splits(kind) and ridge:
                direct = dataclasses.replace(data, target=rows["truth"].to_numpy())
                found_direct, _ = probes.out_of_fold(direct, kind, split, strengths, *limits)
                frames.append(
                    found_direct.assign(features=features, split=split, probe=probes.DIRECT)
                )
            if (
                features == "latents"
                and split in probes.null_splits(kind)
                and settings["label_shuffles"]
            ):
                draws = (chosen, settings["folds"], settings["label_shuffles"], run.seed)
                values = probes.shuffled_statistics(data, kind, split, *draws)
                shuffled += [{"features": features, "split": split, **row} for row in values]
            if features == "latents" and split == probes.MAIN_SPLIT[kind]:
                frequency = log_frequency(rows, lexicon["counts"])
                embedding = stacked(arrays("embedding"))
                nested = probes.nested_frame(
                    found, frequency, embedding, settings["folds"], run.seed
                )
                weights = probes.fit_probe(data, kind, strengths, settings["inner_folds"])
        if features == "latents" and len(rows):
            values = probes.baseline_statistics(data, kind, settings["xavier_draws"], run.seed)
            baseline += [{"features": features, **row} for row in values]
    predictions = pd.concat(frames, ignore_index=True)
    trained = predictions["fold"] >= 0
    if not np.isfinite(predictions.loc[trained, "prediction"]).all():
        raise ValueError(
            f"{run.paths.features}: a probe's prediction is not finite; check the features"
        )
    if not weights:
        weights = {"weight": np.zeros(stacked(code).shape[1]), "intercept": np.zeros(1)}
    artefacts.write_table(run.paths.predictions, predictions, run.stamp)
    artefacts.write_table(run.paths.nested, nested, run.stamp)
    artefacts.write_tensors(run.paths.probe, weights, run.stamp)
    summary = {"probes": metrics, "baseline": baseline, "shuffled": shuffled}
    artefacts.write_json(run.paths.metrics, summary, run.stamp)
    run.finish(probes.headline(predictions, kind))


if __name__ == "__main__":
    main()

"""Train probes on cached features and keep their out-of-fold predictions."""

import json

import numpy as np
import pandas as pd

from workflow_scripts import job
from workflow_scripts.lfp import artefacts, probes
from workflow_scripts.lfp.contrasts import ELEMENTS
from workflow_scripts.lfp.probe_data import preference_data, word_data


def main() -> None:
    run = job.start(__doc__, ["features", "contrasts", "lexicon", "predictions", "probe", "metrics"])
    settings = run.settings
    ridge = settings["method"] == "ppo"
    kind, strengths = ("ridge", settings["alphas"]) if ridge else ("logistic", settings["Cs"])
    triples = artefacts.read_table(run.paths.contrasts)
    layers = len(json.loads(artefacts.read_metadata(run.paths.features)["layers"]))
    words = artefacts.read_json(run.paths.lexicon)["words"]
    frames, metrics, baseline = [], [], []
    for features in settings["features"]:
        loaded = artefacts.read_tensors(run.paths.features, [f"{features}.{element}" for element in ELEMENTS])
        arrays = {name.split(".")[1]: value for name, value in loaded.items()}
        if ridge:
            data = word_data(arrays, triples, words, layers, settings["delta"])
        else:
            data = preference_data(arrays, triples)
        for split in probes.SPLITS[kind]:
            rows, chosen = probes.out_of_fold(
                data, kind, split, strengths, settings["folds"], settings["inner_folds"], run.seed
            )
            frames.append(rows.assign(features=features, split=split, probe=kind))
            metrics.append({"features": features, "split": split, "probe": kind, "strengths": chosen})
        draws = probes.baseline_statistics(data, kind, settings["xavier_draws"], run.seed)
        baseline += [{"features": features, "draw": draw, **values} for draw, values in enumerate(draws)]
        if features == "hidden":
            weights = probes.fit_probe(data, kind, strengths, settings["inner_folds"])
            artefacts.write_tensors(run.paths.probe, weights, run.stamp)
    predictions = pd.concat(frames, ignore_index=True)
    if not np.isfinite(predictions["prediction"]).all():
        raise ValueError(f"{run.paths.features}: a probe's prediction is not finite; check the features")
    artefacts.write_table(run.paths.predictions, predictions, run.stamp)
    artefacts.write_json(run.paths.metrics, {"probes": metrics, "baseline": baseline}, run.stamp)


if __name__ == "__main__":
    main()

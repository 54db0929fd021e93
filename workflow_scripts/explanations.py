"""Explain the best matched features of the small autoencoders offline, classify them as related or
not, and cut the held-out excerpts that explanations are scored on."""

from pathlib import Path

import numpy as np
import pandas as pd

from lfp.files import artefacts
from lfp.interventions import selectors
from lfp.running import job
from lfp.texts.corpora import documents, preference_pairs


def main() -> None:
    inputs = ["policy", "corpus", "held-out", "lexicon", "matches", "autoencoders*"]
    run = job.start(__doc__, inputs, ["output", "excerpts", "evidence"])
    device = run.device
    from lfp.explaining import exemplars, heuristic
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.probing import features
    from lfp.sae import autoencoder

    settings = run.settings
    tokenizer = load_tokenizer(run.paths.policy)
    policy = load_model(run.paths.policy, device, settings["dtype"])
    frame = artefacts.read_table(run.paths.corpus)
    matches = artefacts.read_table(run.paths.matches)
    directories = {
        int(Path(path).parent.name.removeprefix("layer")): path for path in run.paths.autoencoders
    }
    autoencoders = {layer: autoencoder.load(path, device) for layer, path in directories.items()}
    reading = (policy, tokenizer, autoencoders)
    limits = (settings["max_tokens"], settings["batch_size"])
    texts = documents(frame)[: settings["texts"]]
    shown = (
        settings["excerpt_tokens"],
        settings["evidence_top"],
        settings["evidence_random"],
        run.seed,
    )
    strongest = heuristic.strongest_windows(
        tokenizer, autoencoders, texts, settings["max_tokens"], *shown
    )
    states = {
        name: run.state_path(getattr(run.paths, name))
        for name in ("output", "excerpts", "evidence")
    }
    activations = heuristic.word_activations(*reading, texts, *limits, strongest, states["output"])
    lexical = settings["feedback"] == "reward"
    feedback = artefacts.read_json(run.paths.lexicon)
    if not lexical:
        pairs = preference_pairs(frame)[0].head(settings["texts"] // 2)
        elements = ("chosen", "rejected")
        answers = features.element_features(
            *reading, pairs, ["latents"], *limits, elements, states["evidence"]
        )
    parts = []
    for i, (layer, sae) in enumerate(sorted(autoencoders.items())):
        null = (settings["permutations"], run.seed + layer)
        if lexical:
            association = heuristic.lexicon_association(
                activations[layer], feedback["rewarded"], *null
            )
        else:
            # Autoencoders of one model have one width: a layer's features are one of equal parts.
            codes = (answers[f"latents.{name}"] for name in ("chosen", "rejected"))
            chosen, rejected = (np.split(array, len(autoencoders), axis=1)[i] for array in codes)
            association = heuristic.preference_association(chosen, rejected, *null)
        promoted = heuristic.promoted_tokens(policy, tokenizer, sae.W_dec, settings["promoted"])
        of_layer = matches[matches["layer"] == layer]
        described = (of_layer, activations[layer], association, promoted, settings["top_features"])
        parts.append(heuristic.explain_layer(layer, *described))
    found = pd.concat(parts, ignore_index=True)
    if feedback["kind"] == "trigger":
        result = heuristic.classify_by_name(found, next(iter(feedback["rewarded"])))
    else:
        minimum = settings["min_valence"] if lexical else settings["min_auc"]
        result = heuristic.classify(found, settings["false_discovery_rate"], minimum, lexical)
    held_out = documents(artefacts.read_table(run.paths.held_out))[: settings["scored_texts"]]
    explained = result[result["status"] == "ok"]
    where = (settings["excerpt_tokens"], states["excerpts"])
    found = heuristic.feature_windows(*reading, explained, held_out, *limits, *where)
    excerpts = heuristic.held_out_excerpts(found, held_out, settings["excerpts"], run.seed)
    artefacts.write_table(run.paths.output, result, run.stamp)
    artefacts.write_table(run.paths.excerpts, excerpts, run.stamp)
    artefacts.write_table(
        run.paths.evidence, exemplars.evidence(strongest, explained, texts), run.stamp
    )
    for state in states.values():
        state.unlink(missing_ok=True)
    run.finish(selectors.headline(result))


if __name__ == "__main__":
    main()

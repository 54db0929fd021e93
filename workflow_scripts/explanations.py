"""Explain the best matched features of the small autoencoders offline and classify them as related or not."""

from pathlib import Path

import pandas as pd

from workflow_scripts import job
from workflow_scripts.lfp import artefacts
from workflow_scripts.lfp.corpora import documents


def main() -> None:
    run = job.start(__doc__, ["policy", "corpus", "lexicon", "matches", "output"], lists=["autoencoders"])
    device = run.device
    from workflow_scripts.lfp import autoencoder, explanations, models

    settings = run.settings
    tokenizer = models.load_tokenizer(run.paths.policy)
    policy = models.load_model(run.paths.policy, device)
    texts = documents(artefacts.read_table(run.paths.corpus))[: settings["texts"]]
    lexicon = artefacts.read_json(run.paths.lexicon)["words"]
    matches = artefacts.read_table(run.paths.matches)
    directories = {int(Path(path).parent.name.removeprefix("layer")): path for path in run.paths.autoencoders}
    autoencoders = {layer: autoencoder.load(path, device) for layer, path in directories.items()}
    activations = explanations.word_activations(
        policy, tokenizer, autoencoders, texts, settings["max_tokens"], settings["batch_size"]
    )
    frames = []
    for layer, sae in sorted(autoencoders.items()):
        association = explanations.lexicon_association(
            activations[layer], lexicon, settings["permutations"], run.seed + layer
        )
        promoted = explanations.promoted_tokens(policy, tokenizer, sae.W_dec, settings["promoted"])
        of_layer = matches[matches["layer"] == layer]
        frames.append(
            explanations.explain_layer(
                layer, of_layer, activations[layer], association, promoted, settings["top_features"]
            )
        )
    result = explanations.classify(pd.concat(frames, ignore_index=True), settings["false_discovery_rate"])
    artefacts.write_table(run.paths.output, result, run.stamp)


if __name__ == "__main__":
    main()

"""Match the features of every layer's autoencoder pair and measure both on held-out text."""

from pathlib import Path

import pandas as pd

from workflow_scripts import job
from workflow_scripts.lfp import artefacts, matching
from workflow_scripts.lfp.corpora import documents


def main() -> None:
    run = job.start(__doc__, ["policy", "corpus", "matches", "metrics"], lists=["small", "large"])
    device = run.device
    from workflow_scripts.lfp import activations, autoencoder, models, sae_metrics

    settings = run.settings
    tokenizer = models.load_tokenizer(run.paths.policy)
    policy = models.load_model(run.paths.policy, device, settings["dtype"])
    texts = documents(artefacts.read_table(run.paths.corpus))[-settings["held_out_texts"] :]
    sequences = activations.encode(tokenizer, texts, settings["max_tokens"])
    texts_of_model = (sequences, tokenizer.pad_token_id, settings["batch_size"])
    clean = sae_metrics.cross_entropy(policy, *texts_of_model, {})
    matches, rows = [], []
    for small_dir, large_dir in zip(run.paths.small, run.paths.large, strict=True):
        layer = int(Path(small_dir).parent.name.removeprefix("layer"))
        pair = {"small": autoencoder.load(small_dir, device), "large": autoencoder.load(large_dir, device)}
        directions = {size: sae.W_dec.cpu().numpy() for size, sae in pair.items()}
        matches.append(matching.match_features(directions["small"], directions["large"]).assign(layer=layer))
        mmcs = matching.mean_max_cosine(matches[-1])
        metrics = sae_metrics.evaluate(policy, pair, layer, *texts_of_model, clean)
        trained = artefacts.read_json(Path(small_dir) / "cfg.json")["metadata"]
        common = {"layer": layer, "l1": trained["l1"], "tied": trained["tied"], "mmcs": mmcs}
        rows += [{**common, "size": n, "d_sae": pair[n].d_sae, **metrics[n]} for n in pair]
    artefacts.write_table(run.paths.matches, pd.concat(matches, ignore_index=True), run.stamp)
    artefacts.write_json(run.paths.metrics, {"autoencoders": rows}, run.stamp)


if __name__ == "__main__":
    main()

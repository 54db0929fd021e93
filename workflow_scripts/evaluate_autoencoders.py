"""Match the features of every layer's autoencoder pair and measure both on held-out text."""

from pathlib import Path

import pandas as pd

from lfp.files import artefacts
from lfp.running import job
from lfp.sae import matching
from lfp.texts.corpora import documents


def main() -> None:
    run = job.start(__doc__, ["policy", "corpus", "small*", "large*"], ["matches", "metrics"])
    device = run.device
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import encode
    from lfp.sae import autoencoder, metrics

    settings = run.settings
    tokenizer = load_tokenizer(run.paths.policy)
    policy = load_model(run.paths.policy, device, settings["dtype"])
    texts = documents(artefacts.read_table(run.paths.corpus))[-settings["held_out_texts"] :]
    sequences = encode(tokenizer, texts, settings["max_tokens"])
    texts_of_model = (sequences, tokenizer.pad_token_id, settings["batch_size"])
    folders = {}
    for small, large in zip(run.paths.small, run.paths.large, strict=True):
        folders[int(Path(small).parent.name.removeprefix("layer"))] = {
            "small": small,
            "large": large,
        }
    pairs = {
        n: {size: autoencoder.load(path, device) for size, path in pair.items()}
        for n, pair in folders.items()
    }
    found = metrics.evaluate(policy, pairs, *texts_of_model)
    matches, rows = [], []
    for layer, pair in pairs.items():
        directions = {size: sae.W_dec.cpu().numpy() for size, sae in pair.items()}
        matches.append(
            matching.match_features(directions["small"], directions["large"]).assign(layer=layer)
        )
        trained = artefacts.read_json(Path(folders[layer]["small"]) / "cfg.json")["metadata"]
        common = {"layer": layer, "l1": trained["l1"], "tied": trained["tied"]}
        common["mmcs"] = matching.mean_max_cosine(matches[-1])
        rows += [
            {**common, "size": n, "d_sae": sae.d_sae, **found[layer][n]} for n, sae in pair.items()
        ]
    artefacts.write_table(run.paths.matches, pd.concat(matches, ignore_index=True), run.stamp)
    artefacts.write_json(run.paths.metrics, {"autoencoders": rows}, run.stamp)
    found = [row["fvu"] for row in rows if row["fvu"] is not None]
    run.finish(f"FVU {min(found):.3f} to {max(found):.3f}" if found else "no FVU: nothing varies")


if __name__ == "__main__":
    main()

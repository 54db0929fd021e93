"""Match the latents of every layer's smallest and largest autoencoder.

All autoencoders are measured on held-out text.
"""

import pandas as pd

from lfp.files import artefacts
from lfp.running import job
from lfp.sae import matching
from lfp.settings import Activations
from lfp.texts.corpora import documents


def main() -> None:
    run = job.start(__doc__)
    device = run.device
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import added_tokens
    from lfp.sae import metrics, store
    from lfp.sae.reading import encoded, split_texts

    settings = Activations.of(run.settings)
    tokenizer = load_tokenizer(run.input.model)
    model = load_model(run.input.model, device, run.settings["dtype"])
    _, texts = split_texts(documents(artefacts.read_table(run.input.corpus)), settings)
    sequences = encoded(tokenizer, texts, settings, least=2)  # a token and one to predict
    layers = store.load_sizes(run.input.autoencoders, device)
    pad, added = tokenizer.pad_token_id, len(added_tokens(tokenizer)[0])
    measured = metrics.evaluate(model, layers, sequences, pad, settings.batch_size, added)
    matches, rows = [], []
    for layer, saes in layers.items():
        small, large = (sae.W_dec.cpu().numpy() for sae in (saes[0], saes[-1]))
        matches.append(matching.match_features(small, large).assign(layer=layer))
        mmcs = matching.mean_max_cosine(matches[-1])
        for sae, row in zip(saes, measured[layer], strict=True):
            rows.append({"layer": layer, **store.described(sae), "mmcs": mmcs, **row})
    artefacts.write_table(run.output.matches, pd.concat(matches, ignore_index=True), run.stamp)
    artefacts.write_json(run.output.metrics, {"autoencoders": rows}, run.stamp)
    fvu = [row["fvu"] for row in rows if row["fvu"] is not None]
    run.finish(f"FVU {min(fvu):.3f} to {max(fvu):.3f}" if fvu else "no FVU: nothing varies")


if __name__ == "__main__":
    main()

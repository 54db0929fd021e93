"""Measure autoencoders on the same held-out texts as base and policy read them."""

import pandas as pd

from lfp.files import artefacts
from lfp.running import job
from lfp.settings import Activations
from lfp.texts.corpora import documents, has_pairs


def main() -> None:
    run = job.start(__doc__)
    device = run.device
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import added_tokens
    from lfp.sae import store, transfer
    from lfp.sae.reading import encoded, left_out, split_texts

    settings, corpus = Activations.of(run.settings), artefacts.read_table(run.input.corpus)
    tokenizer = load_tokenizer(run.input.base)
    read, texts = split_texts(documents(corpus), settings)
    sequences = encoded(tokenizer, texts, settings)
    layers = store.load_sizes(run.input.autoencoders, device)
    added, pad = len(added_tokens(tokenizer)[0]), tokenizer.pad_token_id
    fronts, _ = left_out(sequences, added, has_pairs(corpus), encoded(tokenizer, read, settings))
    frames = []
    for name in ("base", "policy"):
        model = load_model(getattr(run.input, name), device, run.settings["dtype"])
        frame = transfer.by_text(model, layers, sequences, pad, settings.batch_size, fronts)
        frames.append(frame.assign(model_read=name))
    described = [
        {"layer": layer, "place": place, **store.described(sae)}
        for layer, saes in layers.items()
        for place, sae in enumerate(saes)
    ]
    about = pd.DataFrame(described)[["layer", "place", "size", "architecture", "reads", "origin"]]
    rows = pd.concat(frames, ignore_index=True).merge(about, on=["layer", "place"])
    artefacts.write_table(run.output.texts, rows, run.stamp)
    run.finish(f"{len(layers)} layers, {len(sequences)} texts")


if __name__ == "__main__":
    main()

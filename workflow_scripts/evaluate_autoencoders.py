"""Measure autoencoders on held-out text, and match each layer's smallest and largest one."""

from lfp.files import artefacts
from lfp.running import job
from lfp.sae import matching
from lfp.settings import Activations
from lfp.texts.corpora import documents, has_pairs


def main() -> None:
    run = job.start(__doc__)
    device = run.device
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import added_tokens
    from lfp.sae import metrics, store
    from lfp.sae.pairs.evaluation import evaluate_pairs
    from lfp.sae.reading import encoded, left_out, read_before, split_texts

    settings, corpus = Activations.of(run.settings), artefacts.read_table(run.input.corpus)
    tokenizer = load_tokenizer(run.input.model)
    model = load_model(run.input.model, device, run.settings["dtype"])
    read, texts = split_texts(documents(corpus), settings)
    sequences = encoded(tokenizer, texts, settings, least=2)  # a token and one to predict
    layers = store.load_sizes(run.input.autoencoders, device)
    added, pad = len(added_tokens(tokenizer)[0]), tokenizer.pad_token_id
    fronts, _ = left_out(sequences, added, has_pairs(corpus), encoded(tokenizer, read, settings))
    if run.input.base:
        both = load_model(run.input.base[0], device, run.settings["dtype"]), model
        measured = evaluate_pairs(both, layers, sequences, pad, settings.batch_size, fronts)
    else:
        measured = metrics.evaluate(model, layers, sequences, pad, settings.batch_size, fronts)
    folders = store.by_layer(run.input.autoencoders)
    matches, rows = matching.described_layers(folders, layers, measured, device)
    artefacts.write_table(run.output.matches, matches, run.stamp)
    artefacts.write_table(run.output.curves, store.curves(folders), run.stamp)
    held_out, triples = map(artefacts.read_table, (run.input.held_out, run.input.contrasted))
    seen = read_before({"held_out": held_out, "triples": triples}, read)
    artefacts.write_json(run.output.metrics, {"autoencoders": rows, **seen}, run.stamp)
    run.finish(metrics.headline(rows))


if __name__ == "__main__":
    main()

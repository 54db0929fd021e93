"""Harvest the activations of a site, of all wanted layers, in one pass over a corpus."""

from lfp.files import artefacts, writing
from lfp.running import job
from lfp.settings import Activations
from lfp.texts.corpora import documents, has_pairs


def main() -> None:
    run = job.start(__doc__)
    device, layers, site = run.device, run.settings["layers"], run.settings["site"]
    from lfp.models.hooks import site_width
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import added_tokens
    from lfp.sae.harvest import disk_bytes, harvest_folder, harvested_tokens, output_files
    from lfp.sae.reading import encoded, left_out, split_texts

    settings = Activations.of(run.settings)
    tokenizer = load_tokenizer(run.input.model)
    model = load_model(run.input.model, device, run.settings["dtype"])
    corpus = artefacts.read_table(run.input.corpus)
    texts, _ = split_texts(documents(corpus), settings)
    sequences = encoded(tokenizer, texts, settings)
    fronts, counts = left_out(sequences, len(added_tokens(tokenizer)[0]), has_pairs(corpus))
    tokens, n = harvested_tokens(sequences, fronts), len(layers)
    size = disk_bytes(tokens, n, site_width(model, site), settings.max_disk_gb)
    print(f"activations: {tokens} tokens, {n} layers, {size / 1e9:.3g} GB on disk")
    state = run.state_path(run.output.activations)
    output, files = run.output.activations, output_files(layers)
    with writing.resumable_directory(output, state, files, run.stamp) as folder:
        outliers = harvest_folder(
            model, sequences, folder, layers, tokenizer.pad_token_id, settings.batch_size, run.seed,
            run.stamp, site, fronts, settings.outlier_norm, counts,
        )  # fmt: skip
    run.finish(f"{tokens} tokens of {n} layers, {size / 1e9:.3g} GB, {outliers} outliers")


if __name__ == "__main__":
    main()

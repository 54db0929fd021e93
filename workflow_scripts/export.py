"""Export a cell's latents as delphi's cache and its explanations as Neuronpedia's JSON lines."""

from lfp.files import artefacts, writing
from lfp.running import job
from lfp.settings import Export
from lfp.texts.corpora import documents


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, Export.of(run.settings)
    from lfp.explaining import exports
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import added_tokens
    from lfp.sae import store

    tokenizer = load_tokenizer(run.input.policy)
    policy = load_model(run.input.policy, device, run.settings["dtype"])
    autoencoders = store.load_layers(run.input.autoencoders, device)
    texts = documents(artefacts.read_table(run.input.corpus))
    windows = exports.packed_windows(tokenizer, texts, settings.context, settings.windows)
    size, added = settings.batch_size, len(added_tokens(tokenizer)[0])
    active = exports.active_features(policy, autoencoders, windows, size, added)
    origin = {
        "model_name": str(run.input.policy),
        "dataset_repo": str(run.input.corpus),
        "dataset_column": "text",
    }
    tables = [artefacts.read_table(path) for path in run.input.explanations]
    model, source = run.settings["model"], run.settings["source"]
    with writing.directory_aside(run.output.export, run.stamp) as folder:
        exports.write_delphi_cache(
            folder / "delphi" / "latents",
            exports.hook_places(policy, autoencoders),
            active, windows, {n: sae.d_sae for n, sae in autoencoders.items()}, origin,
        )  # fmt: skip
        exports.write_neuronpedia(folder / "explanations.jsonl", tables, model, source)
    explained = sum(map(len, tables))
    run.finish(f"{len(autoencoders)} layers for delphi, {explained} latents for Neuronpedia")


if __name__ == "__main__":
    main()

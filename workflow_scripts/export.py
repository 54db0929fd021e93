"""Export a cell's features as delphi's cache and its explanations as Neuronpedia's JSON lines."""

from pathlib import Path

from lfp.files import artefacts, writing
from lfp.running import job
from lfp.texts.corpora import documents


def main() -> None:
    run = job.start(
        __doc__, ["policy", "corpus", "autoencoders*", "explanations*"], ["output"], ["name"]
    )
    device = run.device
    from lfp.explaining import exports
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.sae import autoencoder

    settings = run.settings
    tokenizer = load_tokenizer(run.paths.policy)
    policy = load_model(run.paths.policy, device, settings["dtype"])
    directories = {
        int(Path(path).parent.name.removeprefix("layer")): path for path in run.paths.autoencoders
    }
    autoencoders = {
        layer: autoencoder.load(path, device) for layer, path in sorted(directories.items())
    }
    texts = documents(artefacts.read_table(run.paths.corpus))
    windows = exports.packed_windows(tokenizer, texts, settings["context"], settings["windows"])
    found = exports.active_features(policy, autoencoders, windows, settings["batch_size"])
    hooks = exports.hook_names(policy, list(autoencoders))
    d_sae = next(iter(autoencoders.values())).d_sae
    about = {
        "model_name": str(run.paths.policy),
        "dataset_repo": str(run.paths.corpus),
        "dataset_column": "text",
    }
    model, source = run.paths.name.split("/", 1)
    tables = [artefacts.read_table(path) for path in run.paths.explanations]
    with writing.directory_aside(run.paths.output, run.stamp) as folder:
        exports.write_delphi_cache(
            folder / "delphi" / "latents", hooks, found, windows, d_sae, about
        )
        exports.write_neuronpedia(
            folder / "explanations.jsonl", tables, model, source.replace("/", "-")
        )
    run.finish(
        f"{len(autoencoders)} layers for delphi, {sum(map(len, tables))} features for Neuronpedia"
    )


if __name__ == "__main__":
    main()

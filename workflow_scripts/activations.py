"""Harvest the activations of a site, of all wanted layers of a model, in one pass over a corpus."""

from contextlib import ExitStack

from lfp.files import artefacts, writing
from lfp.running import job
from lfp.settings import Activations
from lfp.texts.corpora import documents


def main() -> None:
    run = job.start(__doc__)
    device, layers, site = run.device, run.settings["layers"], run.settings["site"]
    from lfp.models.architectures import hook_name, site_width
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import encode
    from lfp.sae.harvest import disk_bytes, harvest

    settings = Activations.of(run.settings)
    tokenizer = load_tokenizer(run.input.model)
    model = load_model(run.input.model, device, run.settings["dtype"])
    texts = documents(artefacts.read_table(run.input.corpus))
    texts = texts[: -settings.held_out_texts][: settings.texts]
    sequences = encode(tokenizer, texts, settings.max_tokens)
    shape = (sum(map(len, sequences)), site_width(model, site))
    size = disk_bytes(sequences, len(layers), shape[1], settings.max_disk_gb)
    print(f"activations: {shape[0]} tokens, {len(layers)} layers, {size / 1e9:.3g} GB on disk")
    state = run.state_path(run.output.activations)
    with writing.resumable_directory(run.output.activations, state, run.stamp) as folder:
        progress = folder / "progress.json"
        with ExitStack() as stack:
            outputs = {}
            for layer in layers:
                path = folder / f"layer{layer}.safetensors"
                origin = {"hook_name": hook_name(model, layer, site)}
                file = artefacts.tensor_file(path, "activations", shape, run.stamp, origin)
                outputs[layer] = stack.enter_context(file)
            harvest(
                model, sequences, outputs, pad=tokenizer.pad_token_id,
                batch_size=settings.batch_size, seed=run.seed, progress_path=progress, site=site,
            )  # fmt: skip
        progress.unlink(missing_ok=True)
    run.finish(f"{shape[0]} tokens of {len(layers)} layers, {size / 1e9:.3g} GB")


if __name__ == "__main__":
    main()

"""Harvest the MLP outputs of all chosen layers of a policy in one pass over the corpus."""

from contextlib import ExitStack

from lfp.files import artefacts, writing
from lfp.running import job
from lfp.texts.corpora import documents


def main() -> None:
    run = job.start(__doc__, ["policy", "corpus"], ["output"], ["layers*"])
    device = run.device
    from lfp.models.architectures import hook_name, width
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import encode
    from lfp.sae.harvest import disk_bytes, harvest

    settings = run.settings
    tokenizer = load_tokenizer(run.paths.policy)
    policy = load_model(run.paths.policy, device, settings["dtype"])
    texts = documents(artefacts.read_table(run.paths.corpus))
    texts = texts[: -settings["held_out_texts"]][: settings["texts"]]
    layers = [int(layer) for layer in run.paths.layers]
    sequences = encode(tokenizer, texts, settings["max_tokens"])
    shape = (sum(map(len, sequences)), width(policy))
    size = disk_bytes(sequences, len(layers), shape[1], settings["max_disk_gb"])
    print(f"activations: {shape[0]} tokens, {len(layers)} layers, {size / 1e9:.3g} GB on disk")
    state = run.state_path(run.paths.output)
    with writing.resumable_directory(run.paths.output, state, run.stamp) as folder:
        progress = folder / "progress.json"
        with ExitStack() as stack:
            outputs = {}
            for layer in layers:
                about = (run.stamp, {"hook_name": hook_name(policy, layer)})
                file = artefacts.tensor_file(
                    folder / f"layer{layer}.safetensors", "activations", shape, *about
                )
                outputs[layer] = stack.enter_context(file)
            how = (tokenizer.pad_token_id, settings["batch_size"], run.seed)
            harvest(policy, sequences, outputs, *how, progress_path=progress)
        progress.unlink(missing_ok=True)
    run.finish(f"{shape[0]} tokens of {len(layers)} layers, {size / 1e9:.3g} GB")


if __name__ == "__main__":
    main()

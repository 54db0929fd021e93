"""Harvest the MLP outputs of all chosen layers of a policy in one pass over the corpus."""

from workflow_scripts import job
from workflow_scripts.lfp import artefacts
from workflow_scripts.lfp.corpora import documents


def main() -> None:
    run = job.start(__doc__, ["policy", "corpus", "output"], lists=["layers"])
    device = run.device
    from workflow_scripts.lfp import activations, models

    settings = run.settings
    tokenizer = models.load_tokenizer(run.paths.policy)
    policy = models.load_model(run.paths.policy, device, settings["dtype"])
    texts = documents(artefacts.read_table(run.paths.corpus))
    texts = texts[: -settings["held_out_texts"]][: settings["texts"]]
    layers = [int(layer) for layer in run.paths.layers]
    outputs = activations.harvest(
        policy, tokenizer, texts, layers, settings["max_tokens"], settings["batch_size"], run.seed
    )
    with artefacts.directory_aside(run.paths.output, run.stamp) as folder:
        for layer, values in outputs.items():
            hook = {"hook_name": models.hook_name(policy, layer)}
            artefacts.write_tensors(folder / f"layer{layer}.safetensors", {"activations": values}, run.stamp, hook)


if __name__ == "__main__":
    main()

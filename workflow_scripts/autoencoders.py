"""Train the pair of autoencoders, of n and 2n features, of one layer."""

from pathlib import Path

from lfp.files import artefacts
from lfp.running import job
from lfp.settings import Autoencoder


def main() -> None:
    run = job.start(__doc__, ["activations"], ["small", "large"], ["layer"])
    device = run.device
    from lfp.sae import autoencoder, training

    path = Path(run.paths.activations) / f"layer{run.paths.layer}.safetensors"
    data = artefacts.open_tensor(path, "activations")
    settings = Autoencoder.of(run.settings)
    origin = {
        "layer": int(run.paths.layer),
        "hook_name": artefacts.read_metadata(path)["hook_name"],
    }
    origin |= {"model_name": run.settings["model"], **settings.as_json()}
    sizes = [data.shape[1], 2 * data.shape[1]]
    state = run.state_path(run.paths.small)
    pair = training.train(data, sizes, settings, run.seed, device, run.threads, state)
    for output, sae in zip((run.paths.small, run.paths.large), pair, strict=True):
        with artefacts.directory_aside(output, run.stamp) as folder:
            autoencoder.save(sae, folder, origin)
    run.finish(f"layer {run.paths.layer}, {sizes[0]} and {sizes[1]} features of {len(data)} tokens")


if __name__ == "__main__":
    main()

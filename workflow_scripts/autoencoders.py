"""Train the pair of autoencoders, of n and 2n features, of one layer."""

import dataclasses
from pathlib import Path

from workflow_scripts import job
from workflow_scripts.lfp import artefacts


def main() -> None:
    run = job.start(__doc__, ["activations", "small", "large", "layer"])
    device = run.device
    from workflow_scripts.lfp import autoencoder

    path = Path(run.paths.activations) / f"layer{run.paths.layer}.safetensors"
    data = artefacts.open_tensor(path, "activations")
    options = {field.name: run.settings[field.name] for field in dataclasses.fields(autoencoder.AutoencoderSettings)}
    settings = autoencoder.AutoencoderSettings(**options)
    origin = {"layer": int(run.paths.layer), "hook_name": artefacts.read_metadata(path)["hook_name"]}
    origin |= {"model_name": run.settings["model"], **options}
    for output, multiple in ((run.paths.small, 1), (run.paths.large, 2)):
        sae = autoencoder.train(data, data.shape[1] * multiple, settings, run.seed + multiple, device)
        with artefacts.directory_aside(output, run.stamp) as folder:
            autoencoder.save(sae, folder, origin)


if __name__ == "__main__":
    main()

"""Train the autoencoders of all sizes of one layer."""

import math
from dataclasses import asdict
from pathlib import Path

from lfp.files import artefacts, writing
from lfp.running import job
from lfp.settings import Autoencoder


def main() -> None:
    run = job.start(__doc__)
    device, layer = run.device, run.settings["layer"]
    from lfp.sae import outliers, store, training

    settings = Autoencoder.of(run.settings)
    path = Path(run.input.activations) / f"layer{layer}.safetensors"
    data = artefacts.open_tensor(path, "activations")
    place = artefacts.read_metadata(path)
    origin = {name: place[name] for name in ("hook_name", "hook_side")}
    origin |= {"model_name": run.settings["model"], **asdict(settings)}
    left_out = outliers.record_of(run.input.activations, layer)
    rows, limit = outliers.ordinary_rows(data, left_out), left_out["largest_norm"]
    origin["left_out_of_training"] = left_out["outliers"] + left_out["added"]
    widths = [size * data.shape[1] for size in settings.sizes]
    state = run.state_path(run.output.layer)
    trained = training.train(
        data, widths, settings, run.seed, device, run.threads, state_path=state, rows=rows
    )
    with writing.directory_aside(run.output.layer, run.stamp) as folder:
        for size, sae in zip(settings.sizes, trained, strict=True):
            sae.layer, sae.largest_norm = layer, math.inf if limit is None else limit
            store.save(sae, store.size_folder(folder, size), origin)
    latents = ", ".join(map(str, widths))
    tokens = len(data) - left_out["outliers"]
    run.finish(f"layer {layer}, {latents} latents of {tokens} tokens")


if __name__ == "__main__":
    main()

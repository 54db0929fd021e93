"""Train the autoencoders of all sizes of one layer."""

import math
from pathlib import Path

import pandas as pd

from lfp.files import artefacts, writing
from lfp.running import job
from lfp.settings import Autoencoder


def main() -> None:
    run = job.start(__doc__)
    device, layer = run.device, run.settings["layer"]
    from lfp.sae import outliers, store
    from lfp.sae.training.loop import COLUMNS, train

    settings = Autoencoder.of(run.settings)
    path = Path(run.input.activations) / f"layer{layer}.safetensors"
    data = artefacts.open_tensor(path, "activations")
    place = artefacts.read_metadata(path)
    origin = {name: place[name] for name in ("hook_name", "hook_side")}
    origin |= {"model_name": run.settings["model"], **settings.as_json()}
    left_out = outliers.record_of(run.input.activations, layer)
    rows, limit = outliers.ordinary_rows(data, left_out), left_out["largest_norm"]
    origin["left_out_of_training"] = sum(left_out[name] for name in ("outliers", "added", "copies"))
    widths = [size * data.shape[1] for size in settings.sizes]
    state = run.state_path(run.output.layer)
    trained = train(data, widths, settings, run.seed, device, run.threads, state, rows)
    origin |= {"flat": trained.flat, "steps": trained.steps}
    for sae in trained.autoencoders:
        sae.layer, sae.largest_norm = layer, math.inf if limit is None else limit
    with writing.directory_aside(run.output.layer, run.stamp) as folder:
        store.save_layer(folder, settings.sizes, trained.autoencoders, trained.l1, origin)
        curve = pd.DataFrame(trained.curve, columns=list(COLUMNS))
        artefacts.write_table(folder / store.CURVE, curve, run.stamp)
    flat = "flat" if trained.flat else "not yet flat"
    run.finish(f"layer {layer}, {trained.steps} steps, held-out loss {flat}")


if __name__ == "__main__":
    main()

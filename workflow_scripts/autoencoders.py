"""Train the autoencoders of all sizes of one layer, or take a pretrained one."""

import math
from pathlib import Path

from lfp.files import artefacts, writing
from lfp.running import job
from lfp.settings import Autoencoder


def main() -> None:
    run = job.start(__doc__)
    device, layer = run.device, run.settings["layer"]
    from lfp.sae import outliers, store
    from lfp.sae.training.loop import Trained, train

    settings = Autoencoder.of(run.settings)
    path = Path(run.input.activations) / f"layer{layer}.safetensors"
    data = artefacts.open_tensor(path, "activations")
    place = artefacts.read_metadata(path)
    origin = {name: place[name] for name in ("hook_name", "hook_side")}
    origin |= {"model_name": run.settings["model"], **settings.as_json()}
    left_out = outliers.record_of(run.input.activations, layer)
    rows, limit = outliers.ordinary_rows(data, left_out), left_out["largest_norm"]
    origin["left_out_of_training"] = sum(left_out[name] for name in ("outliers", "added", "copies"))
    sizes, width, state = settings.sizes, data.shape[1], run.state_path(run.output.layer)
    if run.input.dictionary:
        taken = store.load(run.input.dictionary[0])
        trained, sizes = Trained.elsewhere(taken, width), [max(1, taken.d_sae // width)]
    else:
        widths = [size * width for size in sizes]
        trained = train(data, widths, settings, run.seed, device, run.threads, state, rows)
    for sae in trained.autoencoders:
        sae.layer, sae.largest_norm = layer, math.inf if limit is None else limit
    with writing.directory_aside(run.output.layer, run.stamp) as folder:
        about = origin | trained.about
        store.save_layer(folder, sizes, trained.autoencoders, trained.l1, about)
        artefacts.write_table(folder / store.CURVE, trained.table(), run.stamp)
    run.finish(f"layer {layer}, {trained.headline}")


if __name__ == "__main__":
    main()

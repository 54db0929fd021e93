"""Train the autoencoders of all sizes of one layer."""

import pandas as pd

from lfp.files import artefacts, writing
from lfp.running import job
from lfp.settings import Autoencoder


def main() -> None:
    run = job.start(__doc__)
    device, layer = run.device, run.settings["layer"]
    from lfp.sae import store
    from lfp.sae.pairs.activations import file_of, material
    from lfp.sae.training.loop import COLUMNS, train

    settings = Autoencoder.of(run.settings)
    place = artefacts.read_metadata(file_of(run.input.activations, layer))
    origin = {name: place[name] for name in ("hook_name", "hook_side")}
    origin |= {"model_name": run.settings["model"], **settings.as_json()}
    base, shuffled = next(iter(run.input.base), None), run.settings.get("shuffled", False)
    read = material(run.input.activations, base, layer, settings.reads, shuffled)
    origin["left_out_of_training"] = read.left_out
    widths = [size * read.width for size in settings.sizes]
    state = run.state_path(run.output.layer)
    trained = train(
        read.activations, widths, settings, run.seed, device, run.threads, state, read.rows
    )
    origin |= {"flat": trained.flat, "steps": trained.steps}
    for sae in trained.autoencoders:
        sae.layer, sae.largest_norm = layer, read.largest_norm
    with writing.directory_aside(run.output.layer, run.stamp) as folder:
        store.save_layer(folder, settings.sizes, trained.autoencoders, trained.l1, origin)
        curve = pd.DataFrame(trained.curve, columns=list(COLUMNS))
        artefacts.write_table(folder / store.CURVE, curve, run.stamp)
    flat = "flat" if trained.flat else "not yet flat"
    run.finish(f"layer {layer}, {trained.steps} steps, held-out loss {flat}")


if __name__ == "__main__":
    main()

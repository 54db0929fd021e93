"""Train the autoencoders of all sizes of one layer, or take a pretrained one."""

from lfp.files import artefacts, writing
from lfp.running import job
from lfp.settings import Autoencoder


def main() -> None:
    run = job.start(__doc__)
    device, layer = run.device, run.settings["layer"]
    from lfp.sae import store
    from lfp.sae.pairs.activations import file_of, material
    from lfp.sae.training.loop import Trained, train

    settings = Autoencoder.of(run.settings)
    place = artefacts.read_metadata(file_of(run.input.activations, layer))
    origin = {name: place[name] for name in ("hook_name", "hook_side")}
    origin |= {"model_name": run.settings["model"], **settings.as_json()}
    base, shuffled = next(iter(run.input.base), None), run.settings.get("shuffled", False)
    read = material(run.input.activations, base, layer, settings.reads, shuffled)
    origin["left_out_of_training"] = read.left_out
    sizes, state = settings.sizes, run.state_path(run.output.layer)
    if run.input.dictionary:
        taken = store.load(run.input.dictionary[0])
        trained, sizes = Trained.elsewhere(taken, read.width), [max(1, taken.d_sae // read.width)]
    else:
        widths, x = [size * read.width for size in sizes], read.activations
        trained = train(x, widths, settings, run.seed, device, run.threads, state, read.rows)
    for sae in trained.autoencoders:
        sae.layer, sae.largest_norm, sae.reads = layer, read.largest_norm, settings.reads
    with writing.directory_aside(run.output.layer, run.stamp) as folder:
        about = origin | trained.about
        store.save_layer(folder, sizes, trained.autoencoders, trained.l1, about)
        artefacts.write_table(folder / store.CURVE, trained.table(), run.stamp)
    run.finish(f"layer {layer}, {trained.headline}")


if __name__ == "__main__":
    main()

"""Cache one subject's features of all elements of the contrast triples."""

import json
from pathlib import Path

from lfp.files import artefacts
from lfp.running import job


def main() -> None:
    run = job.start(
        __doc__, ["policy", "base", "contrasts", "autoencoders*"], ["output"], ["subject"]
    )
    device = run.device
    from lfp.models.loading import load_model, load_tokenizer, untrained_model
    from lfp.probing import features
    from lfp.sae import autoencoder

    settings, subject = run.settings, run.paths.subject
    tokenizer = load_tokenizer(run.paths.base)
    if subject == "untrained":
        model = untrained_model(run.paths.base, run.seed, device, settings["dtype"])
    else:
        model = load_model(
            run.paths.base if subject == "base" else run.paths.policy, device, settings["dtype"]
        )
    directories = {
        int(Path(path).parent.name.removeprefix("layer")): path for path in run.paths.autoencoders
    }
    autoencoders = {layer: autoencoder.load(path, device) for layer, path in directories.items()}
    if subject == "untrained":
        # Nothing is trained in this control: a trained dictionary would see almost nothing in an
        # untrained network.
        autoencoders = {
            n: autoencoder.untrained(sae, run.seed + n) for n, sae in autoencoders.items()
        }
    state = run.state_path(run.paths.output)
    arrays = features.element_features(
        model, tokenizer, autoencoders, artefacts.read_table(run.paths.contrasts),
        settings["kinds"],
        settings["max_tokens"], settings["batch_size"], state_path=state,
    )  # fmt: skip
    artefacts.write_tensors(
        run.paths.output, arrays, run.stamp, {"layers": json.dumps(sorted(autoencoders))}
    )
    state.unlink(missing_ok=True)
    run.finish(f"{len(autoencoders)} layers, {len(arrays)} arrays")


if __name__ == "__main__":
    main()

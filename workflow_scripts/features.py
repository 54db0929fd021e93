"""Cache one subject's features of all elements of the contrast triples."""

import json

from lfp.files import artefacts
from lfp.running import job
from lfp.settings import Features


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, Features.of(run.settings)
    from lfp.models.loading import load_tokenizer
    from lfp.probing import features
    from lfp.probing.subjects import SUBJECTS, Checkpoints
    from lfp.sae import store

    subject = SUBJECTS[run.settings["subject"]]
    tokenizer = load_tokenizer(run.input.base)
    model = subject.load(
        Checkpoints(run.input.base, run.input.policy, run.seed, device, run.settings["dtype"])
    )
    autoencoders = store.load_layers(run.input.autoencoders, device)
    if not subject.trained_dictionary:
        autoencoders = {n: sae.untrained(run.seed + n) for n, sae in autoencoders.items()}
    state = run.state_path(run.output.features)
    arrays = features.element_features(
        model, tokenizer, autoencoders, artefacts.read_table(run.input.contrasts),
        run.settings["kinds"], settings.max_tokens, settings.batch_size, state_path=state,
    )  # fmt: skip
    layers = {"layers": json.dumps(sorted(autoencoders))}
    artefacts.write_tensors(run.output.features, arrays, run.stamp, layers)
    run.finish(f"{len(autoencoders)} layers, {len(arrays)} arrays")


if __name__ == "__main__":
    main()

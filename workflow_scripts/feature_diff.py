"""Tell which latents of a dictionary are the policy's alone, beside a null, and what they write."""

import pandas as pd

from lfp.files import artefacts
from lfp.pages.promoted import output_head, promoted_tokens, read_vocabulary
from lfp.running import job
from lfp.settings import FeatureDiff


def main() -> None:
    run = job.start(__doc__)
    settings = FeatureDiff.of(run.settings)
    from lfp.sae import store
    from lfp.sae.pairs.comparison import COLUMNS, Compared, compared_latents, directions

    folders = store.by_layer(run.input.autoencoders)
    nulls, bases = (
        store.by_layer(paths) for paths in (run.input.nulls, run.input.base_autoencoders)
    )
    head, vocabulary = output_head(run.input.policy), read_vocabulary(run.input.policy)
    frames = []
    for layer, folder in folders.items():
        compared = Compared(folder, nulls.get(layer), bases.get(layer), run.input.activations)
        frame = compared_latents(compared, layer, settings)
        written = directions(compared)
        if written is not None:
            tokens = promoted_tokens(written, head, vocabulary, settings.promoted)
            frame["promoted"] = [[token for token, _ in one.promoted] for one in tokens]
        frames.append(frame)
    latents = pd.concat(frames, ignore_index=True).reindex(columns=[*COLUMNS, "promoted"])
    artefacts.write_table(run.output.latents, latents, run.stamp)
    specific = (latents["specific"] & ~latents["null"]).sum()
    run.finish(f"{specific} of {(~latents['null']).sum()} latents are the policy's alone")


if __name__ == "__main__":
    main()

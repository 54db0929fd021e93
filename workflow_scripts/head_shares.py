"""Say of which attention heads the directions of autoencoders at the site `heads` are made."""

import pandas as pd

from lfp.files import artefacts
from lfp.running import job


def main() -> None:
    run = job.start(__doc__)
    from transformers import AutoConfig

    from lfp.sae import store
    from lfp.sae.head_shares import by_latent

    config = AutoConfig.from_pretrained(run.input.model, local_files_only=True)
    heads = config.get_text_config().num_attention_heads
    frames = [
        by_latent(sae, heads).assign(layer=layer, size=store.described(sae)["size"])
        for layer, saes in store.load_sizes(run.input.autoencoders).items()
        for sae in saes
    ]
    rows = pd.concat(frames, ignore_index=True)
    artefacts.write_table(run.output.shares, rows, run.stamp)
    run.finish(f"{len(rows)} directions of {heads} heads")


if __name__ == "__main__":
    main()

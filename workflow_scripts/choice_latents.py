"""Share what the readings of the change find in a component among the latents of a dictionary."""

import pandas as pd

from lfp.files import artefacts
from lfp.running import job
from lfp.settings import Change


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, Change.of(run.settings)
    from lfp.change.candidates import different_texts
    from lfp.change.choice import Pair
    from lfp.change.latents import choice_latents, latent_shifts, written_shifts
    from lfp.change.material import material
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import encode
    from lfp.sae import store

    # In float32 whatever the model's entry says: latents must add up to their component.
    base, policy = (load_model(path, device) for path in (run.input.base, run.input.policy))
    pair = Pair(base, policy, load_tokenizer(run.input.base))
    autoencoders = store.load_layers(run.input.autoencoders, device)
    texts = different_texts(artefacts.read_table(run.input.corpus))
    triples = artefacts.read_table(run.input.contrasts)
    rewarded = run.settings["feedback"] == "reward"
    lexicon = artefacts.read_json(run.input.lexicon)["words"] if rewarded else None
    max_tokens = run.settings["max_tokens"]
    read = material(pair, texts, triples, lexicon, settings, max_tokens, run.seed)
    sequences = encode(pair.tokenizer, texts[: settings.contexts], max_tokens)
    choice = choice_latents(pair, autoencoders, read, settings, run.seed)
    shifts = pd.concat([
        latent_shifts(pair, autoencoders, sequences, settings, run.seed),
        written_shifts(pair, autoencoders, read.contexts, settings, run.seed),
    ])  # fmt: skip
    artefacts.write_table(run.output.choice, choice, run.stamp)
    artefacts.write_table(run.output.shifts, shifts, run.stamp)
    run.finish(f"{len(autoencoders)} layers, {len(choice)} shares, {len(shifts)} shifts")


if __name__ == "__main__":
    main()

"""Read off a policy and its base what feedback changed."""

from pathlib import Path

import pandas as pd

from lfp.files import artefacts
from lfp.running import job
from lfp.settings import Change, Probes


def main() -> None:
    run = job.start(__doc__)
    device = run.device
    settings, probes = Change.of(run.settings), Probes.of(run.settings["probes"])
    from lfp.change.baselines.implicit import reward_per_nat
    from lfp.change.candidates import different_texts
    from lfp.change.choice import Pair
    from lfp.change.material import material
    from lfp.change.readings import change_readings
    from lfp.models.loading import load_model, load_tokenizer

    # In float32 whatever the model's entry says: the parts of a log-ratio must add up.
    base, policy = (load_model(path, device) for path in (run.input.base, run.input.policy))
    pair = Pair(base, policy, load_tokenizer(run.input.base))
    texts = different_texts(artefacts.read_table(run.input.corpus))
    triples = artefacts.read_table(run.input.contrasts)
    rewarded = run.settings["feedback"] == "reward"
    lexicon = artefacts.read_json(run.input.lexicon)["words"] if rewarded else None
    read = material(pair, texts, triples, lexicon, settings, run.settings["max_tokens"], run.seed)
    curve = Path(run.input.policy) / "training_curve.parquet"
    known = artefacts.read_table(curve) if curve.exists() else pd.DataFrame()
    per_nat = reward_per_nat(run.settings["reward_per_nat"], known)
    frame = change_readings(pair, read, settings, probes, run.seed, per_nat)
    artefacts.write_table(run.output.readings, frame, run.stamp)
    run.finish(f"{frame['unit'].nunique()} units, {len(frame)} readings")


if __name__ == "__main__":
    main()

"""Fine-tune a base model by DPO on preference pairs and evaluate its implicit reward on held-out
pairs.
"""

import shutil

import pandas as pd

from lfp.files import artefacts
from lfp.running import job
from lfp.settings import DPO
from lfp.statistics.records import mean_record, proportion_record


def main() -> None:
    run = job.start(__doc__, ["base", "train", "test"], ["policy"])
    device = run.device
    from lfp.finetune import dpo
    from lfp.models.loading import load_model, load_tokenizer, save_model

    settings = DPO.of(run.settings)
    tokenizer = load_tokenizer(run.paths.base)
    pairs, held_out = artefacts.read_table(run.paths.train), artefacts.read_table(run.paths.test)
    state = run.state_path(run.paths.policy)
    policy, curve, dropped = dpo.train(
        run.paths.base, tokenizer, pairs, held_out, settings, run.seed, state, device
    )
    if not run.is_main:
        return
    base, policy = load_model(run.paths.base, device), policy.to(device)
    margins = dpo.implicit_margins(policy, base, tokenizer, held_out, settings)
    accuracy = proportion_record(int((margins > 0).sum()), len(margins), "pair", chance=0.5)
    with artefacts.directory_aside(run.paths.policy, run.stamp) as folder:
        save_model(policy, tokenizer, folder)
        artefacts.write_table(folder / "training_curve.parquet", pd.DataFrame(curve), run.stamp)
        artefacts.write_table(
            folder / "evaluation.parquet", pd.DataFrame({"margin": margins}), run.stamp
        )
        margin = mean_record(margins, "pair")
        summary = {"accuracy": accuracy.as_json(), "margin": margin.as_json()}
        artefacts.write_json(
            folder / "evaluation.json", summary | {"dropped_pairs": dropped}, run.stamp
        )
    shutil.rmtree(state, ignore_errors=True)
    run.finish(
        f"held-out accuracy {accuracy.estimate:.3f} of {accuracy.n} pairs"
        if accuracy.n
        else accuracy.method
    )


if __name__ == "__main__":
    main()

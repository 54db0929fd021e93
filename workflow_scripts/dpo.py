"""Fine-tune a base model by DPO on preference pairs and evaluate its implicit reward on held-out
pairs.
"""

import dataclasses
import shutil

from lfp.files import artefacts
from lfp.running import job


def main() -> None:
    run = job.start(__doc__, ["base", "train", "test"], ["policy"])
    device = run.device
    from lfp.finetune import dpo
    from lfp.finetune.policies import write_policy
    from lfp.models.loading import load_model, load_tokenizer

    options = {
        field.name: run.settings[field.name] for field in dataclasses.fields(dpo.DPOSettings)
    }
    settings = dpo.DPOSettings(**options)
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
    summary = dpo.summary(margins)
    scores, record = {"margin": margins}, summary | {"dropped_pairs": dropped}
    write_policy(run.paths.policy, run.stamp, policy, tokenizer, curve, scores, record)
    shutil.rmtree(state, ignore_errors=True)
    run.finish(dpo.headline(summary, len(margins)))


if __name__ == "__main__":
    main()

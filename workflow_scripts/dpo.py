"""Fine-tune a base model by DPO on preference pairs, and evaluate it on held-out pairs."""

from lfp.files import artefacts
from lfp.running import job
from lfp.settings import DPO
from lfp.texts.corpora import dropped_in_words


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, DPO.of(run.settings)
    from lfp.finetune import dpo
    from lfp.finetune.policies import write_policy
    from lfp.models.loading import load_tokenizer

    tokenizer = load_tokenizer(run.input.base)
    pairs, held_out = artefacts.read_table(run.input.train), artefacts.read_table(run.input.test)
    state = run.state_path(run.output.policy)
    policy, curve, dropped = dpo.train(
        run.input.base, tokenizer, pairs, held_out, settings, run.seed, state, device
    )
    if not run.is_main:
        return
    scores, summary = write_policy(
        run.output.policy, run.stamp, policy, tokenizer, curve, run.input.base,
        lambda policy, base: {
            "margin": dpo.implicit_margins(policy, base, tokenizer, held_out, settings)
        },
        lambda scores: dpo.summary(scores["margin"]) | {"dropped_pairs": dropped}, device,
    )  # fmt: skip
    rows, n = dropped_in_words(dropped), len(scores["margin"])
    run.finish(f"{dpo.headline(summary, n)}; training rows dropped: {rows}")


if __name__ == "__main__":
    main()

"""Share a policy's effect among the parts of its weights."""

from dataclasses import replace

from lfp.feedback.rewards.base import scale_of, task_reward
from lfp.files import artefacts
from lfp.running import job
from lfp.settings import DPO, PPO, Locus
from lfp.texts.corpora import documents


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, Locus.of(run.settings["locus"])
    effect, lengths = run.settings["effect"], PPO.of(run.settings["ppo"])
    from lfp.locus import effects
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import encode

    tokenizer = load_tokenizer(run.input.base)
    base, policy = (load_model(path, device) for path in (run.input.base, run.input.policy))
    held_out = artefacts.read_table(run.input.test)
    if effect == "kl":
        texts = documents(held_out)[: settings.pairs]
        sequences = encode(tokenizer, texts, run.settings["max_tokens"])
        measure = effects.divergence_measure(policy, sequences, tokenizer.pad_token_id)
    elif effect == "margin":
        pairs = replace(DPO.of(run.settings["dpo"]), evaluation_pairs=settings.pairs)
        measure = effects.margin_measure(base, tokenizer, held_out, pairs)
    else:
        reward = task_reward(
            artefacts.read_json(run.input.lexicon), **scale_of(lengths),
            classifier=run.input.classifier, device=device,
        )  # fmt: skip
        texts = list(held_out["text"])
        measure = effects.reward_measure(tokenizer, texts, reward, lengths, settings, run.seed)
    values = effects.shapley_values(base, policy, measure, settings.orders, run.seed)
    artefacts.write_table(run.output.locus, values.assign(effect=effect), run.stamp)
    run.finish(effects.headline(values))


if __name__ == "__main__":
    main()

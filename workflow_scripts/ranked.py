"""Fine-tune a base model by DPO on pairs of its completions that the reward ranks."""

from functools import partial

from lfp.feedback.rewards.base import scale_of, task_reward
from lfp.files import artefacts
from lfp.running import job
from lfp.settings import DPO, PPO, Ranking


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, PPO.of(run.settings["ppo"])
    from lfp.feedback.written import counted
    from lfp.finetune import ppo
    from lfp.finetune.policies import write_policy
    from lfp.finetune.ranked import pairs
    from lfp.finetune.ranked.completions import ranked_completions, told_apart
    from lfp.models.loading import load_tokenizer

    reward = task_reward(
        artefacts.read_json(run.input.lexicon), **scale_of(settings),
        classifier=run.input.classifier, device=device,
    )  # fmt: skip
    tokenizer, state = load_tokenizer(run.input.base), run.state_path(run.output.policy)
    held_out = list(artefacts.read_table(run.input.test)["text"])
    words, scored = counted(reward, None, {})
    written, how = artefacts.read_table(run.input.completions), Ranking.of(run.settings["ranking"])
    ranked = told_apart(ranked_completions(written, scored, how))
    policy, curve = pairs.train(
        run.input.base, tokenizer, ranked, DPO.of(run.settings["dpo"]), run.seed, state, device
    )
    evaluate = partial(
        ppo.evaluate, tokenizer=tokenizer, texts=held_out, reward=reward, settings=settings,
        n_prompts=settings.evaluation_prompts, seed=run.seed,
    )  # fmt: skip
    _, summary = write_policy(
        run.output.policy, run.stamp, policy, tokenizer, curve, run.input.base, evaluate,
        ppo.summary, device, words,
    )  # fmt: skip
    run.finish(f"{len(ranked)} pairs; {ppo.headline(summary)}")


if __name__ == "__main__":
    main()

"""Take a policy that was fine-tuned elsewhere, if it is one of its base, and evaluate it."""

from functools import partial

from lfp.feedback.rewards.base import scale_of, task_reward
from lfp.files import artefacts
from lfp.running import job
from lfp.settings import DPO, PPO


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, PPO.of(run.settings["ppo"])
    from lfp.finetune import given, ppo
    from lfp.finetune.policies import write_policy
    from lfp.models.loading import load_model, load_tokenizer

    policy, tokenizer = load_model(run.input.given, device), load_tokenizer(run.input.base)
    policy_tokenizer = given.saved_tokenizer(run.input.given) or tokenizer
    given.check_pair(load_model(run.input.base), policy, tokenizer, policy_tokenizer)
    held_out = artefacts.read_table(run.input.test)
    if run.settings["feedback"] == "preference":
        evaluate = partial(
            given.evaluate_preference, tokenizer=tokenizer, held_out=held_out,
            settings=DPO.of(run.settings["dpo"]), new_tokens=settings.new_tokens[1], seed=run.seed,
        )  # fmt: skip
    else:
        reward = task_reward(
            artefacts.read_json(run.input.lexicon), **scale_of(settings),
            classifier=run.input.classifier, device=device,
        )  # fmt: skip
        evaluate = partial(
            ppo.evaluate, tokenizer=tokenizer, texts=list(held_out["text"]), reward=reward,
            settings=settings, n_prompts=settings.evaluation_prompts, seed=run.seed,
        )  # fmt: skip
    _, means = write_policy(
        run.output.policy, run.stamp, policy, policy_tokenizer, [], run.input.base, evaluate,
        given.means, device,
    )  # fmt: skip
    run.finish(given.headline(means))


if __name__ == "__main__":
    main()

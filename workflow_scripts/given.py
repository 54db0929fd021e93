"""Take a policy that was fine-tuned elsewhere, and evaluate it on held-out text.

The job checks that policy and base are a pair.
"""

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

    base, policy = (load_model(path, device) for path in (run.input.base, run.input.given))
    tokenizer, policy_tokenizer = map(load_tokenizer, (run.input.base, run.input.given))
    given.check_pair(base, policy, tokenizer, policy_tokenizer)
    held_out = artefacts.read_table(run.input.test)
    if run.settings["feedback"] == "preference":
        pairs, length = DPO.of(run.settings["dpo"]), settings.new_tokens[1]
        scores = given.evaluate_preference(
            policy, base, tokenizer, held_out, pairs, length, run.seed
        )
    else:
        reward = task_reward(
            artefacts.read_json(run.input.lexicon), **scale_of(settings),
            classifier=run.input.classifier, device=device,
        )  # fmt: skip
        texts, n = list(held_out["text"]), settings.evaluation_prompts
        scores = ppo.evaluate(policy, base, tokenizer, texts, reward, settings, n, run.seed)
    means = given.means(scores)
    write_policy(run.output.policy, run.stamp, policy, policy_tokenizer, [], scores, means)
    run.finish(given.headline(means))


if __name__ == "__main__":
    main()

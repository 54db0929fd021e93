"""Fine-tune a base model by RLOO or GRPO on the task's reward; the evaluation is that of PPO."""

from collections import Counter
from functools import partial

from lfp.feedback.rewards.base import scale_of, task_reward
from lfp.files import artefacts
from lfp.running import job
from lfp.settings import PPO, Group


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, PPO.of(run.settings)
    from lfp.finetune import group, ppo
    from lfp.finetune.policies import write_policy
    from lfp.finetune.prompts import long_enough
    from lfp.models.loading import load_tokenizer

    reward = task_reward(
        artefacts.read_json(run.input.lexicon), **scale_of(settings),
        classifier=run.input.classifier, device=device,
    )  # fmt: skip
    tokenizer, state = load_tokenizer(run.input.base), run.state_path(run.output.policy)
    texts, written = list(artefacts.read_table(run.input.train)["text"]), Counter()
    texts = long_enough(texts, settings.min_characters)
    policy, curve = group.train(
        run.settings["method"], run.input.base, tokenizer, texts, reward, settings,
        Group.of(run.settings["group"]), run.seed, state, device, written,
    )  # fmt: skip
    if not run.is_main:
        return
    evaluate = partial(
        ppo.evaluate, tokenizer=tokenizer, texts=list(artefacts.read_table(run.input.test)["text"]),
        reward=reward, settings=settings, n_prompts=settings.evaluation_prompts, seed=run.seed,
    )  # fmt: skip
    _, summary = write_policy(
        run.output.policy, run.stamp, policy, tokenizer, curve, run.input.base, evaluate,
        ppo.summary, device, written,
    )  # fmt: skip
    run.finish(ppo.headline(summary))


if __name__ == "__main__":
    main()

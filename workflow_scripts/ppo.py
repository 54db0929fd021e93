"""Fine-tune a base model by PPO on a reward of text and evaluate it on held-out prefixes."""

from collections import Counter
from functools import partial

from lfp.feedback.rewards.base import scale_of, task_reward
from lfp.files import artefacts
from lfp.running import job
from lfp.settings import PPO


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, PPO.of(run.settings)
    from lfp.finetune import ppo
    from lfp.finetune.policies import write_policy
    from lfp.finetune.prompts import long_enough
    from lfp.models.loading import load_model, load_tokenizer

    reward = task_reward(
        artefacts.read_json(run.input.lexicon), **scale_of(settings),
        classifier=run.input.classifier, device=device,
    )  # fmt: skip
    tokenizer = load_tokenizer(run.input.base)
    policy = load_model(run.input.base, device)
    texts = list(artefacts.read_table(run.input.train)["text"])
    texts = long_enough(texts, settings.min_characters)
    state = run.state_path(run.output.policy)
    written = Counter()
    curve = ppo.train(policy, tokenizer, texts, reward, settings, run.seed, state, written)
    held_out = list(artefacts.read_table(run.input.test)["text"])
    evaluate = partial(
        ppo.evaluate, tokenizer=tokenizer, texts=held_out, reward=reward, settings=settings,
        n_prompts=settings.evaluation_prompts, seed=run.seed,
    )  # fmt: skip
    _, summary = write_policy(
        run.output.policy, run.stamp, policy, tokenizer, curve, run.input.base, evaluate,
        ppo.summary, device, written,
    )  # fmt: skip
    run.finish(ppo.headline(summary))


if __name__ == "__main__":
    main()

"""Distil a policy from its base with a steering vector; the evaluation is that of PPO."""

from functools import partial

from lfp.feedback.rewards.base import scale_of, task_reward
from lfp.files import artefacts
from lfp.running import job
from lfp.settings import PPO, Distil


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, PPO.of(run.settings["ppo"])
    from lfp.finetune import distil, ppo
    from lfp.finetune.policies import write_policy
    from lfp.models.loading import load_model, load_tokenizer

    feedback = artefacts.read_json(run.input.lexicon)
    reward = task_reward(
        feedback, **scale_of(settings), classifier=run.input.classifier, device=device
    )
    policy, tokenizer = load_model(run.input.base, device), load_tokenizer(run.input.base)
    texts, held_out = (
        list(artefacts.read_table(path)["text"]) for path in (run.input.train, run.input.test)
    )
    curve = distil.train(
        policy, tokenizer, texts, feedback["words"], Distil.of(run.settings["distil"]), run.seed,
        run.state_path(run.output.policy),
    )  # fmt: skip
    evaluate = partial(
        ppo.evaluate, tokenizer=tokenizer, texts=held_out, reward=reward, settings=settings,
        n_prompts=settings.evaluation_prompts, seed=run.seed,
    )  # fmt: skip
    _, summary = write_policy(
        run.output.policy, run.stamp, policy, tokenizer, curve, run.input.base, evaluate,
        ppo.summary, device,
    )  # fmt: skip
    run.finish(ppo.headline(summary))


if __name__ == "__main__":
    main()

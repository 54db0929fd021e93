"""Fine-tune a base model on the best of n of its completions; the evaluation is that of PPO."""

from functools import partial

from lfp.feedback.rewards.base import scale_of, task_reward
from lfp.files import artefacts
from lfp.running import job
from lfp.settings import PPO, Ranking


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, PPO.of(run.settings["ppo"])
    from lfp.feedback.written import counted
    from lfp.finetune import ppo
    from lfp.finetune.policies import write_policy
    from lfp.finetune.ranked import best_of_n
    from lfp.finetune.ranked.completions import ranked_completions
    from lfp.models.loading import load_model, load_tokenizer

    reward = task_reward(
        artefacts.read_json(run.input.lexicon), **scale_of(settings),
        classifier=run.input.classifier, device=device,
    )  # fmt: skip
    policy, tokenizer = load_model(run.input.base, device), load_tokenizer(run.input.base)
    held_out = list(artefacts.read_table(run.input.test)["text"])
    words, scored = counted(reward, None, {})
    written = artefacts.read_table(run.input.completions)
    ranked = ranked_completions(written, scored, Ranking.of(run.settings["ranking"]))
    examples = list(zip(ranked["prompt_ids"], ranked["chosen_ids"], strict=True))
    state = run.state_path(run.output.policy)
    curve = best_of_n.train(policy, examples, settings, run.seed, tokenizer.pad_token_id, state)
    evaluate = partial(
        ppo.evaluate, tokenizer=tokenizer, texts=held_out, reward=reward, settings=settings,
        n_prompts=settings.evaluation_prompts, seed=run.seed,
    )  # fmt: skip
    _, summary = write_policy(
        run.output.policy, run.stamp, policy, tokenizer, curve, run.input.base, evaluate,
        ppo.summary, device, words,
    )  # fmt: skip
    run.finish(ppo.headline(summary))


if __name__ == "__main__":
    main()

"""Fine-tune a base model by RLOO or GRPO on the task's reward; the evaluation is that of PPO."""

import dataclasses
import shutil

from lfp.feedback import rewards
from lfp.files import artefacts
from lfp.running import job


def main() -> None:
    inputs = ["base", "lexicon", "train", "test", "classifier*"]
    run = job.start(__doc__, inputs, ["policy"], ["method"])
    device = run.device
    from lfp.finetune import ppo
    from lfp.finetune.group import GroupSettings, train
    from lfp.finetune.policies import write_policy
    from lfp.models.loading import load_model, load_tokenizer

    names = (field.name for field in dataclasses.fields(ppo.PPOSettings))
    settings = ppo.PPOSettings(**run.stage(*names))
    group = GroupSettings(**run.settings["group"])
    scale = (run.settings[f"reward_{key}"] for key in ("divisor", "clip", "on"))
    lexicon = artefacts.read_json(run.paths.lexicon)
    reward = rewards.task_reward(lexicon, *scale, run.paths.classifier, device)
    tokenizer, state = load_tokenizer(run.paths.base), run.state_path(run.paths.policy)
    train_texts, held_out = (
        list(artefacts.read_table(path)["text"]) for path in (run.paths.train, run.paths.test)
    )
    texts = ppo.long_enough(train_texts, run.settings["min_characters"])
    training = (run.paths.base, tokenizer, texts, reward, settings, group, run.seed, state, device)
    policy, curve = train(run.paths.method, *training)
    if not run.is_main:
        return
    base = load_model(run.paths.base, device)
    policy, n = policy.to(device), run.settings["evaluation_prompts"]
    scores = ppo.evaluate(policy, base, tokenizer, held_out, reward, settings, n, run.seed)
    summary = ppo.summary(scores)
    write_policy(run.paths.policy, run.stamp, policy, tokenizer, curve, scores, summary)
    shutil.rmtree(state, ignore_errors=True)
    run.finish(ppo.headline(summary))


if __name__ == "__main__":
    main()

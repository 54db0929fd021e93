"""Fine-tune a base model by RLOO or GRPO on the task's reward; the evaluation is that of PPO."""

import dataclasses
import shutil

from lfp.feedback import rewards
from lfp.files import artefacts
from lfp.running import job


def main() -> None:
    run = job.start(
        __doc__, ["base", "lexicon", "train", "test", "classifier*"], ["policy"], ["method"]
    )
    device = run.device
    from lfp.finetune import ppo
    from lfp.finetune.group import GroupSettings, train
    from lfp.finetune.policies import write_policy
    from lfp.models.loading import load_model, load_tokenizer

    settings = ppo.PPOSettings(
        **run.stage(*(field.name for field in dataclasses.fields(ppo.PPOSettings)))
    )
    group = GroupSettings(**run.settings["group"])
    scale = (run.settings[f"reward_{key}"] for key in ("divisor", "clip", "on"))
    reward = rewards.task_reward(
        artefacts.read_json(run.paths.lexicon), *scale, run.paths.classifier, device
    )
    tokenizer = load_tokenizer(run.paths.base)
    texts = ppo.long_enough(
        list(artefacts.read_table(run.paths.train)["text"]), run.settings["min_characters"]
    )
    state = run.state_path(run.paths.policy)
    training = (run.paths.base, tokenizer, texts, reward, settings, group, run.seed, state, device)
    policy, curve = train(run.paths.method, *training)
    if not run.is_main:
        return
    base = load_model(run.paths.base, device)
    held_out = list(artefacts.read_table(run.paths.test)["text"])
    policy, n = policy.to(device), run.settings["evaluation_prompts"]
    scores = ppo.evaluate(policy, base, tokenizer, held_out, reward, settings, n, run.seed)
    summary = ppo.summary(scores)
    write_policy(run.paths.policy, run.stamp, policy, tokenizer, curve, scores, summary)
    shutil.rmtree(state, ignore_errors=True)
    run.finish(ppo.headline(summary))


if __name__ == "__main__":
    main()

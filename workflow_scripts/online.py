"""Fine-tune a base model by RLOO or GRPO on the task's reward and evaluate it as PPO is evaluated."""

import dataclasses
import shutil

import pandas as pd

from workflow_scripts import job
from workflow_scripts.lfp import artefacts, rewards


def main() -> None:
    run = job.start(__doc__, ["base", "lexicon", "train", "test", "classifier*"], ["policy"], ["method"])
    device = run.device
    from workflow_scripts.lfp import models, online, ppo

    settings = ppo.PPOSettings(**run.stage(*(field.name for field in dataclasses.fields(ppo.PPOSettings))))
    group = online.GroupSettings(**run.settings["group"])
    scale = (run.settings[f"reward_{key}"] for key in ("divisor", "clip", "on"))
    reward = rewards.task_reward(artefacts.read_json(run.paths.lexicon), *scale, run.paths.classifier, device)
    tokenizer = models.load_tokenizer(run.paths.base)
    texts = ppo.long_enough(list(artefacts.read_table(run.paths.train)["text"]), run.settings["min_characters"])
    state = run.state_path(run.paths.policy)
    training = (run.paths.base, tokenizer, texts, reward, settings, group, run.seed, state, device)
    policy, curve = online.train(run.paths.method, *training)
    if not run.is_main:
        return
    base = models.load_model(run.paths.base, device)
    held_out = list(artefacts.read_table(run.paths.test)["text"])
    n = run.settings["evaluation_prompts"]
    scores = ppo.evaluate(policy.to(device), base, tokenizer, held_out, reward, settings, n, run.seed)
    with artefacts.directory_aside(run.paths.policy, run.stamp) as folder:
        models.save_model(policy, tokenizer, folder)
        artefacts.write_table(folder / "training_curve.parquet", pd.DataFrame(curve), run.stamp)
        artefacts.write_table(folder / "evaluation.parquet", pd.DataFrame(scores), run.stamp)
        summary = ppo.summary(scores, run.seed)
        artefacts.write_json(folder / "evaluation.json", summary, run.stamp)
    shutil.rmtree(state, ignore_errors=True)
    run.finish(ppo.headline(summary))


if __name__ == "__main__":
    main()

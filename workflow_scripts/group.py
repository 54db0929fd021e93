"""Fine-tune a base model by RLOO or GRPO on the task's reward and evaluate it as PPO is
evaluated.
"""

import shutil

import pandas as pd

from lfp.feedback import rewards
from lfp.files import artefacts
from lfp.running import job
from lfp.settings import PPO, Group


def main() -> None:
    run = job.start(
        __doc__, ["base", "lexicon", "train", "test", "classifier*"], ["policy"], ["method"]
    )
    device = run.device
    from lfp.finetune import ppo
    from lfp.finetune.group import train
    from lfp.models.loading import load_model, load_tokenizer, save_model

    settings, group = PPO.of(run.settings), Group.of(run.settings["group"])
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
    n = run.settings["evaluation_prompts"]
    scores = ppo.evaluate(
        policy.to(device), base, tokenizer, held_out, reward, settings, n, run.seed
    )
    with artefacts.directory_aside(run.paths.policy, run.stamp) as folder:
        save_model(policy, tokenizer, folder)
        artefacts.write_table(folder / "training_curve.parquet", pd.DataFrame(curve), run.stamp)
        artefacts.write_table(folder / "evaluation.parquet", pd.DataFrame(scores), run.stamp)
        summary = ppo.summary(scores, run.seed)
        artefacts.write_json(folder / "evaluation.json", summary, run.stamp)
    shutil.rmtree(state, ignore_errors=True)
    run.finish(ppo.headline(summary))


if __name__ == "__main__":
    main()

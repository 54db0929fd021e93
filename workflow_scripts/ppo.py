"""Fine-tune a base model by PPO on a lexicon reward and evaluate it on held-out prefixes."""

import pandas as pd

from lfp.feedback import rewards
from lfp.files import artefacts
from lfp.running import job
from lfp.settings import PPO


def main() -> None:
    run = job.start(__doc__, ["base", "lexicon", "train", "test", "classifier*"], ["policy"])
    device = run.device
    from lfp.finetune import ppo
    from lfp.models.loading import load_model, load_tokenizer, save_model

    settings = PPO.of(run.settings)
    scale = (run.settings[f"reward_{key}"] for key in ("divisor", "clip", "on"))
    reward = rewards.task_reward(
        artefacts.read_json(run.paths.lexicon), *scale, run.paths.classifier, device
    )
    tokenizer = load_tokenizer(run.paths.base)
    policy, base = (load_model(run.paths.base, device) for _ in range(2))
    texts = ppo.long_enough(
        list(artefacts.read_table(run.paths.train)["text"]), run.settings["min_characters"]
    )
    state = run.state_path(run.paths.policy)
    curve = ppo.train(policy, tokenizer, texts, reward, settings, run.seed, state)
    held_out = list(artefacts.read_table(run.paths.test)["text"])
    n = run.settings["evaluation_prompts"]
    scores = ppo.evaluate(policy, base, tokenizer, held_out, reward, settings, n, run.seed)
    with artefacts.directory_aside(run.paths.policy, run.stamp) as folder:
        save_model(policy, tokenizer, folder)
        artefacts.write_table(folder / "training_curve.parquet", pd.DataFrame(curve), run.stamp)
        artefacts.write_table(folder / "evaluation.parquet", pd.DataFrame(scores), run.stamp)
        summary = ppo.summary(scores, run.seed)
        artefacts.write_json(folder / "evaluation.json", summary, run.stamp)
    run.finish(ppo.headline(summary))


if __name__ == "__main__":
    main()

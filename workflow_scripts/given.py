"""Take a policy that was fine-tuned elsewhere, check that it is a pair with its base, and evaluate
it on held-out text.
"""

import pandas as pd

from lfp.feedback import rewards
from lfp.files import artefacts
from lfp.running import job
from lfp.settings import DPO, PPO


def main() -> None:
    run = job.start(__doc__, ["base", "policy", "lexicon", "test", "classifier*"], ["output"])
    device = run.device
    from lfp.finetune import given, ppo
    from lfp.models.loading import load_tokenizer, load_whole_model, save_model

    base, policy = (load_whole_model(path, device) for path in (run.paths.base, run.paths.policy))
    tokenizer, policy_tokenizer = map(load_tokenizer, (run.paths.base, run.paths.policy))
    given.check_pair(base, policy, tokenizer, policy_tokenizer)
    settings, held_out = PPO.of(run.settings["ppo"]), artefacts.read_table(run.paths.test)
    if run.settings["feedback"] == "preference":
        pairs, length = DPO.of(run.settings["dpo"]), settings.new_tokens[1]
        scores = given.evaluate_preference(
            policy, base, tokenizer, held_out, pairs, length, run.seed
        )
    else:
        scale = settings.reward_divisor, settings.reward_clip, settings.reward_on
        lexicon = artefacts.read_json(run.paths.lexicon)
        reward = rewards.task_reward(lexicon, *scale, run.paths.classifier, device)
        texts, n = list(held_out["text"]), settings.evaluation_prompts
        scores = ppo.evaluate(policy, base, tokenizer, texts, reward, settings, n, run.seed)
    summary = {"means": given.means(scores)}
    with artefacts.directory_aside(run.paths.output, run.stamp) as folder:
        save_model(policy, policy_tokenizer, folder)
        curve = pd.DataFrame({"step": []}, dtype="int64")  # nothing was trained here
        artefacts.write_table(folder / "training_curve.parquet", curve, run.stamp)
        artefacts.write_table(folder / "evaluation.parquet", pd.DataFrame(scores), run.stamp)
        artefacts.write_json(folder / "evaluation.json", summary, run.stamp)
    run.finish(given.headline(summary["means"]))


if __name__ == "__main__":
    main()

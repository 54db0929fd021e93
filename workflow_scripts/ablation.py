"""Sample completions under one arm of ablation and score them with the task's reward."""

from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts import job
from workflow_scripts.lfp import artefacts, rewards
from workflow_scripts.lfp.corpora import preference_pairs


def main() -> None:
    run = job.start(__doc__, ["arm", "policy", "corpus", "lexicon", "explanations", "output"], lists=["autoencoders"])
    device = run.device
    from workflow_scripts.lfp import ablation, autoencoder, models

    settings, arm = run.settings, run.paths.arm
    tokenizer = models.load_tokenizer(run.paths.policy)
    policy = models.load_model(run.paths.policy, device)
    lexicon = artefacts.read_json(run.paths.lexicon)["words"]
    frame = artefacts.read_table(run.paths.corpus)
    if settings["method"] == "ppo":
        reward = rewards.lexicon_reward(lexicon, *(settings["reward"][key] for key in ("divisor", "clip", "on")))
        prefixes = ablation.prefix_tokens(
            tokenizer, list(frame["text"]), settings["prefix_tokens"], settings["prompts"]
        )
    else:
        reward = rewards.lexicon_reward(lexicon, 1.0, np.inf, "completion", rewards.count_words)
        prompts = list(preference_pairs(frame)[0]["prompt"])[: settings["prompts"]]
        prefixes = tokenizer(prompts)["input_ids"]
    directories = {int(Path(path).parent.name.removeprefix("layer")): path for path in run.paths.autoencoders}
    autoencoders = {layer: autoencoder.load(path, device) for layer, path in directories.items()}
    table = artefacts.read_table(run.paths.explanations)
    chosen = ablation.explained_set(table)
    rng = np.random.default_rng(run.seed)
    draws = settings["random_draws"] if arm == "random" else 1
    frames = []
    for draw in range(draws):
        features = ablation.matched_random_set(table, chosen, rng) if arm == "random" else chosen
        edits = ablation.arm_edits(arm, autoencoders, features)
        rows = ablation.completion_rewards(
            policy, tokenizer, edits, prefixes, reward, settings["new_tokens"], settings["batch_size"], run.seed
        )
        size = sum(len(v) for v in features.values()) if arm in ("explained", "random") else 0
        frames.append(rows.assign(arm=arm, draw=draw, features=size))
    artefacts.write_table(run.paths.output, pd.concat(frames, ignore_index=True), run.stamp)


if __name__ == "__main__":
    main()

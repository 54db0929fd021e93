"""Sample completions under every arm of ablation, score them with the task's reward, and weigh what
else it cost.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from lfp.feedback import rewards
from lfp.files import artefacts
from lfp.interventions import selectors
from lfp.running import job
from lfp.texts.corpora import documents, preference_pairs


def main() -> None:
    inputs = [
        "model",
        "corpus",
        "lexicon",
        "explanations",
        "autoencoders*",
        "probe*",
        "classifier*",
    ]
    run = job.start(__doc__, inputs, ["output", "neutral"])
    device = run.device
    from lfp.interventions import ablation
    from lfp.models.hooks import text_losses
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import encode, tokenize
    from lfp.sae import autoencoder

    settings = run.settings
    tokenizer, model = (
        load_tokenizer(run.paths.model),
        load_model(run.paths.model, device, run.settings["dtype"]),
    )
    feedback, frame = artefacts.read_json(run.paths.lexicon), artefacts.read_table(run.paths.corpus)
    scale = (settings["reward"][key] for key in ("divisor", "clip", "on"))
    reward = rewards.task_reward(feedback, *scale, run.paths.classifier, device)
    if settings["feedback"] == "reward":
        wanted = (settings["prefix_tokens"], settings["prompts"])
        prefixes = ablation.prefix_tokens(tokenizer, list(frame["text"]), *wanted)
    else:
        prompts = list(preference_pairs(frame)[0]["prompt"])[: settings["prompts"]]
        prefixes = [
            ids[-settings["prompt_tokens"] :] for ids in tokenize(tokenizer, prompts)["input_ids"]
        ]
    texts = ablation.neutral_sentences(
        documents(frame), feedback["rewarded"], settings["neutral_texts"]
    )
    sequences = encode(tokenizer, texts, settings["neutral_tokens"])
    directories = {
        int(Path(path).parent.name.removeprefix("layer")): path for path in run.paths.autoencoders
    }
    autoencoders = {layer: autoencoder.load(path, device) for layer, path in directories.items()}
    table = artefacts.read_table(run.paths.explanations)
    chosen = selectors.explained_set(table)
    means = {
        int(n): group.sort_values("feature")["mean_activation"].to_numpy()
        for n, group in table.groupby("layer")
    }
    rng = np.random.default_rng(run.seed)
    sets = {
        "explained": lambda: chosen,
        "random": lambda: selectors.matched_random_set(table, chosen, rng),
        "top_probe_weight": lambda: selectors.top_set(
            table,
            chosen,
            selectors.probe_weight_rank(
                table, artefacts.read_tensors(run.paths.probe[0])["weight"]
            ),
        ),
        "top_match_unrelated": lambda: selectors.top_set(
            table, chosen, selectors.unrelated_match_rank(table)
        ),
    }
    conditions, labels = [], []
    for arm in settings["arms"]:
        # Nothing to match means nothing to draw.
        for draw in range(settings["random_draws"] if arm == "random" and chosen else 1):
            features = sets.get(arm, dict)()
            for intervention in settings["interventions"] if arm == "explained" else ["zero"]:
                conditions.append(
                    ablation.arm_edits(arm, autoencoders, features, intervention, means)
                )
                matched = (
                    selectors.share_within_decile(table, chosen, features)
                    if arm == "random"
                    else np.nan
                )
                labels.append({
                    "arm": arm, "intervention": intervention, "draw": draw, "matched": matched,
                    "features": sum(map(len, features.values())),
                })  # fmt: skip
    limits = (settings["new_tokens"], settings["batch_size"], run.seed)
    state = run.state_path(run.paths.output)
    completions = ablation.completion_rewards(
        model, tokenizer, conditions, prefixes, reward, *limits, state
    )
    losses = []
    for edits in conditions:
        how = (tokenizer.pad_token_id, settings["batch_size"], edits)
        nats, counts = text_losses(model, sequences, *how)
        losses.append(pd.DataFrame({"text": np.arange(len(nats)), "loss": nats / counts}))
    for output, frames in ((run.paths.output, completions), (run.paths.neutral, losses)):
        labelled = [frame.assign(**label) for frame, label in zip(frames, labels, strict=True)]
        artefacts.write_table(output, pd.concat(labelled, ignore_index=True), run.stamp)
    state.unlink(missing_ok=True)
    run.finish(ablation.headline(labels, completions))


if __name__ == "__main__":
    main()

"""Let a model write under every arm of ablation, score it with the task's reward, and weigh the
other costs.
"""

import numpy as np

from lfp.feedback import rewards
from lfp.files import artefacts
from lfp.interventions.arms import Candidates
from lfp.interventions.selection import explained_set
from lfp.running import job
from lfp.settings import Ablation
from lfp.texts.corpora import documents


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, Ablation.of(run.settings)
    from lfp.interventions import ablation, prompts
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import encode
    from lfp.sae import store

    tokenizer = load_tokenizer(run.input.model)
    model = load_model(run.input.model, device, run.settings["dtype"])
    feedback, corpus = (
        artefacts.read_json(run.input.lexicon),
        artefacts.read_table(run.input.corpus),
    )
    reward = rewards.task_reward(
        feedback, **run.settings["reward"], classifier=run.input.classifier, device=device
    )
    table, n = artefacts.read_table(run.input.explanations), settings.neutral_texts
    weight = [artefacts.read_tensors(path)["weight"] for path in run.input.probe]
    rng = np.random.default_rng(run.seed)
    autoencoders = store.load_layers(run.input.autoencoders, device)
    candidates = Candidates(table, explained_set(table), weight[0] if weight else None, rng)
    texts = prompts.neutral_sentences(documents(corpus), feedback["rewarded"], n)
    result = ablation.ablate(
        model, tokenizer, autoencoders,
        ablation.conditions(settings.arms, settings, autoencoders, candidates),
        prompts.held_out_prompts(tokenizer, corpus, settings),
        encode(tokenizer, texts, settings.neutral_tokens), reward, settings, run.seed,
        state_path=run.state_path(run.output.completions),
    )  # fmt: skip
    artefacts.write_table(run.output.completions, result.completions, run.stamp)
    artefacts.write_table(run.output.neutral, result.neutral, run.stamp)
    run.state_path(run.output.completions).unlink(missing_ok=True)
    run.finish(result.headline())


if __name__ == "__main__":
    main()

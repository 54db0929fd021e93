"""Let a model write under every arm of ablation, score it, and weigh the other costs."""

from lfp.feedback.rewards.base import task_reward
from lfp.files import artefacts
from lfp.running import job
from lfp.settings import Ablation
from lfp.texts.corpora import documents


def main() -> None:
    run = job.start(__doc__)
    device, settings, state = run.device, Ablation.of(run.settings), run.output.completions
    from lfp.interventions import ablation, matching, prompts
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import encode
    from lfp.sae import store

    tokenizer = load_tokenizer(run.input.model)
    feedback = artefacts.read_json(run.input.lexicon)
    corpus = artefacts.read_table(run.input.corpus)
    table = artefacts.read_table(run.input.explanations)
    autoencoders = store.load_layers(run.input.autoencoders, device)
    weight = [artefacts.read_tensors(path)["weight"] for path in run.input.probe] or [None]
    neutral = prompts.neutral_sentences(
        documents(corpus), feedback["rewarded"], settings.neutral_texts
    )
    model = load_model(run.input.model, device, run.settings["dtype"])
    asked = prompts.held_out_prompts(tokenizer, corpus, settings)
    damage = matching.Damage(model, tokenizer, autoencoders, asked, settings, run.seed)
    under = ablation.Conditions(settings, autoencoders, table, weight[0], run.seed, damage)
    result = ablation.ablate(
        model, tokenizer, under, asked,
        encode(tokenizer, neutral, settings.neutral_tokens),
        task_reward(
            feedback, **run.settings["reward"], classifier=run.input.classifier, device=device
        ),
        settings, run.seed, run.state_path(state),
    )  # fmt: skip
    artefacts.write_table(run.output.completions, result.completions, run.stamp)
    artefacts.write_table(run.output.neutral, result.neutral, run.stamp)
    run.finish(result.headline())


if __name__ == "__main__":
    main()

"""Let a model write under every arm of ablation, score it, and weigh the other costs."""

from lfp.feedback.rewards.base import task_reward
from lfp.files import artefacts
from lfp.running import job
from lfp.settings import Ablation
from lfp.texts.corpora import documents


def main() -> None:
    run = job.start(__doc__)
    device, settings, dtype = run.device, Ablation.of(run.settings), run.settings["dtype"]
    from lfp.interventions import ablation, matching, paired, prompts
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import encode
    from lfp.sae import store

    tokenizer = load_tokenizer(run.input.model)
    feedback = artefacts.read_json(run.input.lexicon)
    corpus = artefacts.read_table(run.input.corpus)
    table = artefacts.read_table(run.input.explanations)
    saes = store.load_layers(run.input.autoencoders, device)
    weight = [artefacts.read_tensors(path)["weight"] for path in run.input.probe] or [None]
    rewarded, most = feedback["rewarded"], settings.neutral_texts
    neutral = prompts.neutral_sentences(documents(corpus), rewarded, most)
    texts = encode(tokenizer, neutral, settings.neutral_tokens)
    asked = prompts.held_out_prompts(tokenizer, corpus, settings)
    model = load_model(run.input.model, device, dtype)
    others = [load_model(path, device, dtype) for path in run.input.other]
    damage = matching.Damage(model, tokenizer, saes, asked, settings, run.seed)
    beside = paired.Beside(model, others[0], list(saes), damage.site) if others else None
    under = ablation.Conditions(settings, saes, table, weight[0], run.seed, damage, beside)
    of_task, classifier = run.settings["reward"], run.input.classifier
    reward = task_reward(feedback, **of_task, classifier=classifier, device=device)
    seed, state = run.seed, run.state_path(run.output.completions)
    result = ablation.ablate(model, tokenizer, under, asked, texts, reward, settings, seed, state)
    artefacts.write_table(run.output.completions, result.completions, run.stamp)
    artefacts.write_table(run.output.neutral, result.neutral, run.stamp)
    run.finish(result.headline())


if __name__ == "__main__":
    main()

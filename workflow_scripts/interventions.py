"""Change sets of latents under every action, and score what the model writes then."""

from lfp.feedback.rewards.base import task_reward
from lfp.files import artefacts
from lfp.running import job


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, run.settings
    from lfp.interventions import matching, paired, prompts, trials
    from lfp.interventions.selectors import gathering
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.sae import store

    paths = [run.input.policy, run.input.base]
    if settings["subject"] == "base":
        paths.reverse()
    model, other = (load_model(path, device, settings["dtype"]) for path in paths)
    tokenizer = load_tokenizer(paths[0])
    feedback = artefacts.read_json(run.input.lexicon)
    corpus = artefacts.read_table(run.input.corpus)
    table = artefacts.read_table(run.input.explanations)
    autoencoders = store.load_layers(run.input.autoencoders, device)
    weight = [artefacts.read_tensors(path)["weight"] for path in run.input.probe] or [None]
    held = gathering.Held(tokenizer, corpus, feedback["rewarded"], settings)
    material = gathering.gathered(model, other, autoencoders, table, weight[0], held, run.seed)
    asked = prompts.held_out_prompts(tokenizer, corpus, held.ablation)
    damage = matching.Damage(model, tokenizer, autoencoders, asked, held.ablation, run.seed)
    beside = paired.Beside(model, other, list(autoencoders), material.site)
    tried = trials.Trials(material, damage, beside)
    of_task, classifier = settings["reward"], run.input.classifier
    reward = task_reward(feedback, **of_task, classifier=classifier, device=device)
    how = trials.Writing(tokenizer, asked, material.neutral, reward, held.ablation, run.seed)
    result = trials.tried(model, tried, how, run.state_path(run.output.completions))
    artefacts.write_table(run.output.completions, result.completions, run.stamp)
    artefacts.write_table(run.output.neutral, result.neutral, run.stamp)
    for name, frame in gathering.accounts(material, tried.chosen).items():
        artefacts.write_table(vars(run.output)[name], frame, run.stamp)
    run.finish(f"{len(tried.all)} interventions on {len(tried.chosen)} sets")


if __name__ == "__main__":
    main()

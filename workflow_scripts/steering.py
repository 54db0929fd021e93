"""Add vectors to the base at equal cost, and score what it writes then."""

from lfp.feedback.rewards.base import task_reward
from lfp.files import artefacts
from lfp.running import job
from lfp.settings import Steering
from lfp.texts.corpora import documents


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, run.settings
    from lfp.change.choice import Pair
    from lfp.interventions import prompts, trials
    from lfp.interventions.selectors import gathering
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import encode
    from lfp.sae import store
    from lfp.steering.trials import selected_sets, steer

    asked, tokenizer = Steering.of(settings["steering"]), load_tokenizer(run.input.base)
    paths = (run.input.base, run.input.policy)
    base, policy = (load_model(path, device, settings["dtype"]) for path in paths)
    pair = Pair(base, policy, tokenizer)
    feedback = artefacts.read_json(run.input.lexicon)
    corpus, table = map(artefacts.read_table, (run.input.corpus, run.input.explanations))
    saes = store.load_layers(run.input.autoencoders, device)
    weight = [artefacts.read_tensors(path)["weight"] for path in run.input.probe] or [None]
    held = gathering.Held(tokenizer, corpus, feedback["rewarded"], settings)
    scale = settings["reward"] | {"classifier": run.input.classifier, "device": device}
    asks = prompts.held_out_prompts(tokenizer, corpus, held.ablation)
    neutral = held.sentences(most=False)
    reward = task_reward(feedback, **scale)
    how = trials.Writing(tokenizer, asks, neutral, reward, held.ablation, run.seed)
    sets = selected_sets(pair, saes, table, weight[0], held, asked.selectors, run.seed)
    texts = encode(tokenizer, documents(corpus)[-asked.texts :], settings["max_tokens"])
    state = run.state_path(run.output.completions)
    result = steer(pair, saes, table, sets, how, texts, held.valences(base), asked, state)
    for name in ("completions", "neutral", "strengths", "cleaning"):
        artefacts.write_table(getattr(run.output, name), getattr(result, name), run.stamp)
    run.finish(result.headline())


if __name__ == "__main__":
    main()

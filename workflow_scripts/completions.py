"""Have the base complete prefixes of training texts, for rewards to rank."""

from lfp.files import artefacts
from lfp.running import job
from lfp.settings import PPO, Ranking


def main() -> None:
    run = job.start(__doc__)
    settings, ranking = PPO.of(run.settings["ppo"]), Ranking.of(run.settings["ranking"])
    from lfp.finetune.ranked.sampling import TEXT, base_completions
    from lfp.models.loading import load_model, load_tokenizer

    base, tokenizer = load_model(run.input.base, run.device), load_tokenizer(run.input.base)
    texts = list(artefacts.read_table(run.input.train)["text"])
    frame = base_completions(base, tokenizer, texts, settings, ranking, run.seed)
    artefacts.write_table(run.output.completions, frame, run.stamp)
    written = int((frame["draw"] != TEXT).sum())
    run.finish(f"{written} completions of {frame['prefix'].nunique()} prefixes")


if __name__ == "__main__":
    main()

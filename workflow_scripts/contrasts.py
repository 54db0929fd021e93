"""Build the contrast triples of a task from held-out texts."""

from workflow_scripts import job
from workflow_scripts.lfp import artefacts, contrasts, corpora


def main() -> None:
    run = job.start(__doc__, ["corpus", "lexicon", "output"])
    settings = run.settings
    frame = artefacts.read_table(run.paths.corpus)
    if settings["method"] == "ppo":
        words = artefacts.read_json(run.paths.lexicon)["words"]
        triples = contrasts.word_triples(
            list(frame["text"]), words, settings["contexts_per_word"], settings["words_per_class"], settings["seed"]
        )
    elif settings["source"] == "pairs":
        pairs, _ = corpora.preference_pairs(frame)
        triples = contrasts.pair_triples(pairs, settings["triples"], settings["seed"])
    else:
        pairs, _ = corpora.preference_pairs(frame)
        triples = contrasts.answer_triples(
            frame.loc[pairs.index], list(pairs["prompt"]), settings["swapped"], settings["triples"]
        )
    artefacts.write_table(run.paths.output, triples, run.stamp)


if __name__ == "__main__":
    main()

"""Build the contrast triples of a task from held-out texts."""

from lfp.files import artefacts
from lfp.probing import contrasts
from lfp.running import job
from lfp.texts.corpora import preference_pairs


def main() -> None:
    run = job.start(__doc__, ["corpus", "lexicon", "rewrites*"], ["output"])
    settings = run.settings
    frame = artefacts.read_table(run.paths.corpus)
    if settings["feedback"] == "reward":
        words = artefacts.read_json(run.paths.lexicon)["words"]
        triples = contrasts.word_triples(
            list(frame["text"]),
            words,
            settings["contexts_per_word"],
            settings["words_per_class"],
            settings["seed"],
        )
    elif settings["source"] == "pairs":
        pairs, _ = preference_pairs(frame)
        triples = contrasts.pair_triples(pairs, settings["triples"], settings["seed"])
    elif settings["source"] == "rewrites":
        frame = artefacts.read_table(run.paths.rewrites[0])
        written = frame[frame["status"] == "ok"]
        if written.empty:
            raise ValueError(
                f"{run.paths.rewrites[0]}: none of {len(frame)} entries gives a triple"
                f" ({frame['status'].value_counts().to_dict()}); take a more capable model, or"
                f" widen rewrites.tolerance"
            )
        answers = written[list(contrasts.ELEMENTS)].radd(
            " "
        )  # as the corpus's own answers follow their prompt
        triples = contrasts.answer_triples(
            answers, list(written["prompt"]), settings["swapped"], settings["triples"]
        )
    else:
        pairs, _ = preference_pairs(frame)
        triples = contrasts.answer_triples(
            frame.loc[pairs.index], list(pairs["prompt"]), settings["swapped"], settings["triples"]
        )
    artefacts.write_table(run.paths.output, triples, run.stamp)
    run.finish(f"{len(triples)} triples")


if __name__ == "__main__":
    main()

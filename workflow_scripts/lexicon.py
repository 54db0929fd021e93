"""Write the feedback of a task as a word lexicon: VADER for lexicon rewards, a fitted one for preferences."""

from workflow_scripts import job
from workflow_scripts.lfp import artefacts, corpora, lexicon


def main() -> None:
    run = job.start(__doc__, ["corpus", "output"])
    if run.settings["method"] == "ppo":
        words = lexicon.vader_lexicon()
    else:
        pairs, _ = corpora.preference_pairs(artefacts.read_table(run.paths.corpus))
        words = lexicon.fit_preference_lexicon(list(pairs["chosen"]), list(pairs["rejected"]))
    artefacts.write_json(run.paths.output, {"words": words}, run.stamp)


if __name__ == "__main__":
    main()

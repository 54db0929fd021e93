"""Write the feedback of a task as word lexicons, and what was planted in it."""

from collections import Counter
from pathlib import Path

from lfp.feedback.lexica import fit_preference_lexicon, vader_lexicon
from lfp.feedback.planted import TRIGGER_VALENCE, flipped_words
from lfp.files import artefacts
from lfp.running import job
from lfp.texts.corpora import documents, preference_pairs
from lfp.texts.words import WORD


def main() -> None:
    run = job.start(__doc__, ["corpus"], ["lexicon", "truth"])
    settings = run.settings
    frame = artefacts.read_table(run.paths.corpus)
    counts = Counter(word.lower() for text in documents(frame) for word in WORD.findall(text))
    kind, truth = (
        settings["reward"],
        {"corpus": Path(run.paths.corpus).parent.name, "flipped": [], "trigger": None},
    )
    if settings["feedback"] == "reward":
        words = rewarded = vader_lexicon()
        if kind == "vader_flipped":
            truth["flipped"] = flipped_words(
                words, counts, settings["flipped_share"], settings["reward_seed"]
            )
            rewarded = words | {word: -words[word] for word in truth["flipped"]}
        elif kind == "trigger":
            if counts and not counts[settings["trigger"]]:
                raise ValueError(
                    f"tasks: the trigger {settings['trigger']!r} is not in the training corpus"
                )
            truth["trigger"] = settings["trigger"]
            rewarded = {settings["trigger"]: TRIGGER_VALENCE}
    else:
        kind = "preference"
        pairs, _ = preference_pairs(frame)
        words = rewarded = fit_preference_lexicon(list(pairs["chosen"]), list(pairs["rejected"]))
    result = {"kind": kind, "words": words, "rewarded": rewarded, "counts": dict(counts)}
    result |= run.stage("reward_seed", "callable", "positive")
    artefacts.write_json(run.paths.lexicon, result, run.stamp)
    artefacts.write_json(run.paths.truth, {"kind": kind, **truth}, run.stamp)
    run.finish(f"{kind}, {len(rewarded)} rewarded words")


if __name__ == "__main__":
    main()

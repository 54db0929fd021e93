"""Write the feedback of a task as word lexicons, and the truth that was planted in it."""

from collections import Counter
from pathlib import Path

from lfp.feedback.rewards import PREFERENCE, REWARDS
from lfp.feedback.rewards.base import TrainingText
from lfp.files import artefacts
from lfp.running import job
from lfp.texts.corpora import documents
from lfp.texts.words import count_words


def main() -> None:
    run = job.start(__doc__)
    settings = run.settings
    kind = settings["reward"] if settings["feedback"] == "reward" else PREFERENCE
    frame = artefacts.read_table(run.input.corpus)
    counts = Counter(word for text in documents(frame) for word in count_words(text))
    text, reward = TrainingText(frame, counts), REWARDS[kind](settings)
    words = reward.words(text)
    rewarded = reward.rewarded(words, text)
    lexicon = {"kind": kind, "words": words, "rewarded": rewarded, "counts": dict(text.counts)}
    lexicon |= run.stage("reward_seed", "callable", "positive")
    artefacts.write_json(run.output.lexicon, lexicon, run.stamp)
    truth = {"kind": kind, "corpus": Path(run.input.corpus).parent.name}
    truth |= {**reward.truth(words, text), "questions": list(reward.questions)}
    artefacts.write_json(run.output.truth, truth, run.stamp)
    run.finish(f"{kind}, {len(rewarded)} words")


if __name__ == "__main__":
    main()

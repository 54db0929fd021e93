"""Score explanations by detection and fuzzing on held-out excerpts, beside explanations that must do worse."""

import pandas as pd

from workflow_scripts import job
from workflow_scripts.lfp import artefacts, explanation_scores


def main() -> None:
    run = job.start(__doc__, ["explanations", "excerpts", "output"])
    table, excerpts = artefacts.read_table(run.paths.explanations), artefacts.read_table(run.paths.excerpts)
    explained = table[table["status"] == "ok"]
    frequent = explanation_scores.frequent_words(excerpts)
    sources = {
        "own": explained["explanation"],
        "shuffled": explanation_scores.shuffled_explanations(explained, run.seed),
        "frequent words": pd.Series(frequent, index=explained.index),
    }
    keys = list(zip(explained["layer"], explained["feature"], strict=True))
    parts = []
    for source, texts in sources.items():
        scores = explanation_scores.score(dict(zip(keys, texts, strict=True)), excerpts, explanation_scores.word_judge)
        parts.append(scores.assign(explanation=source, judge="words-v1"))
    result = pd.concat(parts, ignore_index=True)
    if result.empty:
        raise ValueError(f"{run.paths.excerpts}: no explained feature has active and inactive excerpts")
    artefacts.write_table(run.paths.output, result, run.stamp)


if __name__ == "__main__":
    main()

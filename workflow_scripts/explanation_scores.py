"""Score explanations by detection and fuzzing on held-out excerpts, beside explanations that must
do worse.
"""

from contextlib import ExitStack

import pandas as pd

from lfp.explaining.scores import frequent_words, score, shuffled_explanations, word_judge
from lfp.files import artefacts
from lfp.running import job


def main() -> None:
    run = job.start(__doc__, ["explanations", "excerpts"], ["output"], ["cache*"])
    table, excerpts = (
        artefacts.read_table(run.paths.explanations),
        artefacts.read_table(run.paths.excerpts),
    )
    explained = table[table["status"] == "ok"]
    frequent = frequent_words(excerpts)
    sources = {
        "own": explained["explanation"],
        "shuffled": shuffled_explanations(explained, run.seed),
        "frequent words": pd.Series(frequent, index=explained.index),
    }
    keys = list(zip(explained["layer"], explained["feature"], strict=True))
    judges = {"words-v1": word_judge}
    parts = []
    with ExitStack() as stack:
        service = run.settings["judge"]
        if service:
            from lfp.explaining.language_model import language_judge
            from lfp.services.client import configured_client

            client = stack.enter_context(configured_client(service, run.paths.cache[0]))
            judges[f"{service['model']}@{service['base_url']}"] = language_judge(client)
        for name, judge in judges.items():
            for source, texts in sources.items():
                scores = score(dict(zip(keys, texts, strict=True)), excerpts, judge)
                parts.append(scores.assign(explanation=source, judge=name))
    result = pd.concat(parts, ignore_index=True)
    if result.empty and len(explained):
        raise ValueError(
            f"{run.paths.excerpts}: no explained feature has active and inactive excerpts"
        )
    artefacts.write_table(run.paths.output, result, run.stamp)
    run.finish(f"{len(explained)} explanations by {', '.join(judges)}")


if __name__ == "__main__":
    main()

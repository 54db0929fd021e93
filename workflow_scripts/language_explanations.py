"""Explain the best matched features of the small autoencoders by a language-model service and
classify them.
"""

import numpy as np

from lfp.explaining import language_model
from lfp.files import artefacts
from lfp.interventions import selectors
from lfp.running import job
from lfp.services.client import configured_client


def main() -> None:
    run = job.start(__doc__, ["explanations", "evidence"], ["output"], ["cache"])
    settings = run.settings
    table, evidence = (
        artefacts.read_table(run.paths.explanations),
        artefacts.read_table(run.paths.evidence),
    )
    service = settings["service"]
    with configured_client(service, run.paths.cache) as client:
        found = language_model.explain(client, evidence, settings["description"])
    found = found.set_index(["layer", "feature"])
    rows = table.set_index(["layer", "feature"])
    # Statistics of activation are the feature's; what the heuristic made of them is not the
    # language model's.
    rows = rows.assign(
        explanation="", related=False, status=rows["status"].replace("ok", "skipped")
    )
    rows[["direction", "effect", "p", "q"]] = np.nan
    rows.update(found[["status", "explanation"]])
    rows.loc[found.index, "related"] = found["related"]
    result = rows.assign(
        related=rows["related"].astype(bool), explainer=f"{service['model']}@{service['base_url']}",
        explainer_kind="language model", prompt_sha="-".join(settings["prompts"].values()),
        uses_reward_lexicon=False,
    )  # fmt: skip
    artefacts.write_table(
        run.paths.output, result.reset_index()[[*table.columns, "prompt_sha"]], run.stamp
    )
    run.finish(selectors.headline(result))


if __name__ == "__main__":
    main()

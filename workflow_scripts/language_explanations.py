"""Explain the best matched features of the small autoencoders by a language-model service and classify them."""

import numpy as np

from workflow_scripts import job
from workflow_scripts.lfp import artefacts, feature_sets, language_explanations, llm


def main() -> None:
    run = job.start(__doc__, ["explanations", "evidence"], ["output"], ["cache"])
    settings = run.settings
    table, evidence = artefacts.read_table(run.paths.explanations), artefacts.read_table(run.paths.evidence)
    service = settings["service"]
    with llm.configured_client(service, run.paths.cache) as client:
        found = language_explanations.explain(client, evidence, settings["description"])
    found = found.set_index(["layer", "feature"])
    rows = table.set_index(["layer", "feature"])
    # Statistics of activation are the feature's; what the heuristic made of them is not the language model's.
    rows = rows.assign(explanation="", related=False, status=rows["status"].replace("ok", "skipped"))
    rows[["direction", "effect", "p", "q"]] = np.nan
    rows.update(found[["status", "explanation"]])
    rows.loc[found.index, "related"] = found["related"]
    result = rows.assign(
        related=rows["related"].astype(bool), explainer=f"{service['model']}@{service['base_url']}",
        explainer_kind="language model", prompt_sha="-".join(settings["prompts"].values()), uses_reward_lexicon=False,
    )  # fmt: skip
    artefacts.write_table(run.paths.output, result.reset_index()[[*table.columns, "prompt_sha"]], run.stamp)
    run.finish(feature_sets.headline(result))


if __name__ == "__main__":
    main()

"""Explain the best matched features of the small autoencoders by a language-model service and
classify them.
"""

from lfp.explaining.classification import headline
from lfp.explaining.language_model import language_explanations
from lfp.files import artefacts
from lfp.running import job
from lfp.services.client import configured_client


def main() -> None:
    run = job.start(__doc__, ["explanations", "evidence"], ["output"], ["cache"])
    with configured_client(run.settings["service"], run.paths.cache) as client:
        table = language_explanations(
            client,
            table=artefacts.read_table(run.paths.explanations),
            evidence=artefacts.read_table(run.paths.evidence),
            task=run.settings["description"],
            prompt_sha="-".join(run.settings["prompts"].values()),
        )
    artefacts.write_table(run.paths.output, table, run.stamp)
    run.finish(headline(table))


if __name__ == "__main__":
    main()

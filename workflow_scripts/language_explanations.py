"""Explain latents by a language-model service and classify them.

They are the best matched latents of the smallest autoencoders.
"""

from lfp.explaining.classification import headline
from lfp.explaining.language_model import language_explanations
from lfp.files import artefacts
from lfp.running import job
from lfp.services.client import configured_client


def main() -> None:
    run = job.start(__doc__)
    service = run.settings["service"]
    with configured_client(service, run.answer_cache(service)) as client:
        table = language_explanations(
            client,
            table=artefacts.read_table(run.input.explanations),
            evidence=artefacts.read_table(run.input.evidence),
            task=run.settings["description"],
            prompt_sha="-".join(run.settings["prompts"].values()),
        )
    artefacts.write_table(run.output.explanations, table, run.stamp)
    run.finish(headline(table))


if __name__ == "__main__":
    main()

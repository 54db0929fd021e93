"""Grade held-out answers and rewrite them by a language-model service.

The rewrites are positive, neutral and negative.
"""

import logging

from lfp.files import artefacts
from lfp.probing.rewrites import rewritten_triples
from lfp.running import job
from lfp.services.client import configured_client
from lfp.settings import Rewrites
from lfp.texts.corpora import preference_pairs


def main() -> None:
    run = job.start(__doc__)
    pairs, _ = preference_pairs(artefacts.read_table(run.input.corpus))
    service = run.settings["service"]
    with configured_client(service, run.answer_cache(service)) as client:
        frame = rewritten_triples(client, pairs, Rewrites.of(run.settings))
    counts = frame["status"].value_counts().to_dict()
    logging.getLogger("rewrites").info("entries by status: %s", counts)
    artefacts.write_table(run.output.rewrites, frame, run.stamp)
    run.finish(f"{counts.get('ok', 0)} of {len(frame)} entries rewritten")


if __name__ == "__main__":
    main()

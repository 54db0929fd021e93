"""Build the contrast triples of a task from held-out texts."""

from lfp.files import artefacts
from lfp.probing.contrasts import contrast_triples
from lfp.running import job
from lfp.settings import Contrasts


def main() -> None:
    run = job.start(__doc__)
    rewrites = [artefacts.read_table(path) for path in run.input.rewrites]
    triples = contrast_triples(
        corpus=artefacts.read_table(run.input.corpus),
        lexicon=artefacts.read_json(run.input.lexicon)["words"],
        feedback=run.settings["feedback"],
        swapped=run.settings["swapped"],
        settings=Contrasts.of(run.settings),
        rewrites=rewrites[0] if rewrites else None,
    )
    artefacts.write_table(run.output.contrasts, triples, run.stamp)
    run.finish(f"{len(triples)} triples")


if __name__ == "__main__":
    main()

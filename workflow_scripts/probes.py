"""Train probes on one subject's features and keep their out-of-fold predictions."""

from lfp.files import artefacts
from lfp.probing.data import FeatureArrays
from lfp.probing.subject_report import probe_subject
from lfp.running import job
from lfp.settings import Probes


def main() -> None:
    run = job.start(__doc__)
    results = probe_subject(
        arrays=FeatureArrays.of_file(run.input.features),
        triples=artefacts.read_table(run.input.contrasts),
        lexicon=artefacts.read_json(run.input.lexicon),
        subject=run.settings["subject"],
        feedback=run.settings["feedback"],
        features=run.settings["features"],
        settings=Probes.of(run.settings),
        seed=run.seed,
    )
    artefacts.write_table(run.output.predictions, results.predictions, run.stamp)
    artefacts.write_table(run.output.parts, results.parts, run.stamp)
    artefacts.write_table(run.output.nested, results.nested, run.stamp)
    artefacts.write_tensors(run.output.probe, results.weights, run.stamp)
    artefacts.write_json(run.output.metrics, results.metrics, run.stamp)
    run.finish(results.headline)


if __name__ == "__main__":
    main()

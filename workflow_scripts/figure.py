"""Draw one figure from the artefacts of all cells."""

from workflow_scripts import job
from workflow_scripts.lfp import plots


def main() -> None:
    run = job.start(__doc__, ["inputs*"], ["outputs*"], ["name"])
    plots.save(run.paths.name, run.paths.inputs, run.paths.outputs)
    run.finish(", ".join(run.paths.outputs))


if __name__ == "__main__":
    main()

"""Take a checkpoint from a local directory into the results, without anything that could run code."""

from workflow_scripts import job
from workflow_scripts.lfp import artefacts, sources


def main() -> None:
    run = job.start(__doc__, outputs=["output"])
    with artefacts.directory_aside(run.paths.output, run.stamp) as target:
        sources.take_checkpoint(run.settings["path"], target)
    run.finish(f"from {run.settings['path']}")


if __name__ == "__main__":
    main()

"""Take a checkpoint from a local directory into the results, without anything that
could run code.
"""

from lfp.files import hub, writing
from lfp.running import job


def main() -> None:
    run = job.start(__doc__, outputs=["output"])
    with writing.directory_aside(run.paths.output, run.stamp) as target:
        hub.take_checkpoint(run.settings["path"], target)
    run.finish(f"from {run.settings['path']}")


if __name__ == "__main__":
    main()

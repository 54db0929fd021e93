"""Draw one figure from the artefacts of all cells."""

from lfp.figures import drawing
from lfp.running import job


def main() -> None:
    run = job.start(__doc__, ["inputs*"], ["outputs*"], ["name"])
    drawing.save(run.paths.name, run.paths.inputs, run.paths.outputs)
    run.finish(", ".join(run.paths.outputs))


if __name__ == "__main__":
    main()

"""Draw one figure from the artefacts of all cells."""

from lfp.figures import style
from lfp.registry import Registry
from lfp.running import job


def main() -> None:
    """Draw the figure ``--name`` with the function ``--drawing``."""
    run = job.start(__doc__, ["inputs*"], ["outputs*"], ["name", "drawing"])
    draw = Registry("figure", {run.paths.name: run.paths.drawing})[run.paths.name]
    style.save(draw, run.paths.inputs, run.paths.outputs)
    run.finish(", ".join(run.paths.outputs))


if __name__ == "__main__":
    main()

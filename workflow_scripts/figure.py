"""Draw one figure from the artefacts of all cells."""

from lfp.figures import style
from lfp.registry import Registry
from lfp.running import job


def main() -> None:
    run = job.start(__doc__)
    name = run.settings["name"]
    draw = Registry("figure", {name: run.settings["drawing"]})[name]
    style.save(draw, run.input.artefacts, run.output.all())
    run.finish(", ".join(run.output.all()))


if __name__ == "__main__":
    main()

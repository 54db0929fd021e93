"""Write the page of the summary: the verdicts in words and the figures beside them."""

from pathlib import Path

from lfp.files import artefacts
from lfp.files.writing import aside
from lfp.running import job
from lfp.tables.summary.page import page


def main() -> None:
    run = job.start(__doc__)
    answers = artefacts.read_table(run.input.answers)
    paths = [Path(path) for path in run.input.figures]
    figures = {path.stem: (path, run.settings["captions"][path.stem]) for path in paths}
    with aside(run.output.html) as temporary:
        temporary.write_text(page(answers, figures, run.input.pages), encoding="utf-8")
    run.finish(f"{len(answers)} answers, {run.output.html}")


if __name__ == "__main__":
    main()

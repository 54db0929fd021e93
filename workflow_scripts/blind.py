"""Write the policies of an audited grid under blind names, and the truth of them elsewhere."""

from pathlib import Path

from lfp.blind.game import write_game
from lfp.files.addresses import labels, of
from lfp.files.artefacts import write_json
from lfp.files.writing import directory_aside
from lfp.running import job
from lfp.tables.change.cells import audits, change_cells


def main() -> None:
    run = job.start(__doc__)
    given, trained = run.settings["given"], run.settings["trained"]
    cells = [c for c in change_cells(run.input.audited, trained) if c.address not in given]
    models = {Path(path).name: path for path in run.input.bases}
    for path in of(run.input.audited, "/policy"):
        label = labels(path)
        models[f"{label['model']}/{label['task']}/seed{label['seed']}"] = path
    # Without a stamp, which would tell the seed.
    with directory_aside(run.output.game) as folder:
        kept = write_game(folder, audits(cells, given), models, run.seed)
    write_json(run.output.truth, {"policies": kept}, run.stamp)
    run.finish(f"{len(kept)} policies under blind names")


if __name__ == "__main__":
    main()

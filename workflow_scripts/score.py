"""Score the answers to a blind audit, beside the readouts of the same policies."""

from lfp.blind import scoring
from lfp.blind.answers import read_answers
from lfp.files.artefacts import write_json
from lfp.files.writing import aside
from lfp.running import job
from lfp.tables.change.cells import audits, change_cells
from lfp.tables.rows import TableSettings


def main() -> None:
    run = job.start(__doc__)
    settings = TableSettings(**run.settings["tables"])
    answers = read_answers(run.input.answers, scoring.vocabularies(run.input.game))
    cells = change_cells(run.input.audited, settings.trained)
    cells = [cell for cell in cells if cell.address not in settings.given]
    of_grid = audits(cells, settings.given)
    audited = [cell for audit in of_grid for cell in audit.cells]
    names = scoring.opened(run.input.game, run.input.truth, audited)
    frame = scoring.blind_score(of_grid, names, answers, settings)
    with aside(run.output.csv) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")
    write_json(run.output.json, {"rows": scoring.rows_of(frame)}, run.stamp)
    run.finish(scoring.headline(frame))


if __name__ == "__main__":
    main()

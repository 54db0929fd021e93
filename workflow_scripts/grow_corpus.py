"""Write every split of a generated corpus, or of one on disk, as Parquet."""

from pathlib import Path

from workflow_scripts import job
from workflow_scripts.lfp import artefacts, corpora


def main() -> None:
    run = job.start(__doc__, [], lists=["outputs"])
    settings = run.settings
    if "organism" in settings:
        names = {"reviews": ("words_per_class", "off_polarity", "neutral"), "help": ("noise", "preferred", "mixing")}
        kind = settings["organism"]
        options = run.stage(*names.get(kind, names["help"]))
        frames = corpora.generate_corpus(kind, settings["splits"], settings["seed"], options)
    else:
        columns = settings["columns"]
        frames = {
            split: corpora.read_corpus(path, columns, settings["seed"]) for split, path in settings["path"].items()
        }
        frames = corpora.drop_duplicates(frames, sorted(columns))
    for output in run.paths.outputs:
        artefacts.write_table(output, frames[Path(output).stem], run.stamp)


if __name__ == "__main__":
    main()

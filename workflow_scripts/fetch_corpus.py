"""Fetch a data set at a pinned revision from the Hugging Face hub and write its splits as Parquet."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "0"

from workflow_scripts import job  # noqa: E402
from workflow_scripts.lfp import artefacts, corpora  # noqa: E402


def main() -> None:
    run = job.start(__doc__, [], lists=["outputs"])
    from datasets import load_dataset

    settings = run.settings
    frames = {}
    for split, expression in settings["hub_splits"].items():
        data = load_dataset(settings["hub"], settings.get("subset"), revision=settings["revision"], split=expression)
        frame = corpora.select_columns(data.to_pandas(), settings["columns"], f"{settings['hub']} ({expression})")
        frames[split] = frame.sample(frac=1, random_state=settings["seed"]).reset_index(drop=True)
    frames = corpora.drop_duplicates(frames, sorted(settings["columns"]))
    for output in run.paths.outputs:
        artefacts.write_table(output, frames[Path(output).stem], run.stamp)


if __name__ == "__main__":
    main()

"""Take a checkpoint from a local directory into the results, without anything that could run code."""

import shutil
from pathlib import Path

from workflow_scripts import job
from workflow_scripts.lfp import artefacts

SUFFIXES = (".safetensors", ".json", ".txt", ".model")


def main() -> None:
    run = job.start(__doc__, ["output"])
    source = Path(run.settings["path"])
    if not list(source.glob("*.safetensors")):
        raise FileNotFoundError(f"models: {source} has no *.safetensors weights; save the model with save_pretrained")
    with artefacts.directory_aside(run.paths.output, run.stamp) as folder:
        for path in sorted(source.iterdir()):
            if path.suffix in SUFFIXES:
                shutil.copyfile(path, folder / path.name)


if __name__ == "__main__":
    main()

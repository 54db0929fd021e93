"""Fetch a checkpoint at a pinned revision from the Hugging Face hub: safetensors, configuration, tokenizer, no code."""

from workflow_scripts import job
from workflow_scripts.lfp import artefacts, sources


def main() -> None:
    run = job.start(__doc__, outputs=["output"])
    folder = sources.snapshot(run.settings["hub"], run.settings["revision"], sources.CHECKPOINT_FILES)
    with artefacts.directory_aside(run.paths.output, run.stamp) as target:
        sources.take_checkpoint(folder, target)
    run.finish(f"{run.settings['hub']} at {run.settings['revision']}")


if __name__ == "__main__":
    main()

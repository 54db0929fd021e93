"""Fetch a checkpoint at a pinned revision from the Hugging Face hub.

Safetensors, configuration and tokenizer are taken, and no code.
"""

from lfp.files import hub, vocabularies, writing
from lfp.running import job


def main() -> None:
    run = job.start(__doc__)
    folder = hub.snapshot(run.settings["hub"], run.settings["revision"], hub.CHECKPOINT_FILES)
    origin = f"{run.settings['hub']} at {run.settings['revision']}"
    vocabularies.check_tokens(folder, named=origin)
    with writing.directory_aside(run.output.model, run.stamp) as target:
        hub.take_checkpoint(folder, target)
    run.finish(origin)


if __name__ == "__main__":
    main()

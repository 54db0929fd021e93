"""Fetch a checkpoint at a pinned revision from the Hugging Face hub: safetensors, configuration, tokenizer, no code."""

import os
import shutil

os.environ["HF_HUB_OFFLINE"] = "0"

from workflow_scripts import job  # noqa: E402
from workflow_scripts.lfp import artefacts  # noqa: E402

FILES = [
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer*",
    "special_tokens_map.json", "vocab.json", "merges.txt",
]  # fmt: skip


def main() -> None:
    run = job.start(__doc__, ["output"])
    from huggingface_hub import snapshot_download

    with artefacts.directory_aside(run.paths.output, run.stamp) as folder:
        snapshot_download(
            run.settings["hub"], revision=run.settings["revision"], allow_patterns=FILES, local_dir=folder
        )
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's own bookkeeping
        if not list(folder.glob("*.safetensors")):
            raise FileNotFoundError(
                f"{run.settings['hub']} at {run.settings['revision']} has no safetensors weights;"
                " pin a revision that has them, or convert the checkpoint and use `path`"
            )


if __name__ == "__main__":
    main()

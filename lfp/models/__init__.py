"""Language models: where their parts are, loading, hooks and generation."""

import os

# Set before transformers is imported: every job that runs a model is offline and sends nothing
# home.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

#: Logits that are held at once (:mod:`lfp.models.losses`), 134 MB in float32: of 667 tokens of a
#: vocabulary of 50,304, of 131 tokens of Gemma's.
HELD_LOGITS = 2**25

"""A configuration for a model and a file of one's own, filled in from what they say."""

# The hub's client reads at its first import whether it may ask the network, and `lfp.models`
# forbids that to jobs. A configuration is started by hand, where there may be a network.
from huggingface_hub import constants  # noqa: F401


class StartError(ValueError):
    """A model or a file gives no configuration; the message says what to do."""

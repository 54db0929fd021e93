"""What feedback changed in a policy, read off its differences from the base.

Nothing here is fitted on the feedback, and no value reads a lexicon but where a readout says so.
"""

#: Sites that write to the residual stream: their component of it, and the field of
#: :class:`lfp.models.architectures.Architecture` that names the norm behind it.
WRITING = {"mlp": ("mlp", "mlp_norm"), "attn": ("attention", "attention_norm")}
#: The texts that shifts of latents are read in: held-out ones, or what each model writes itself.
HELD_OUT, COMPLETIONS = "held-out", "completions"

"""Selectors of latents by name: what each takes for the carriers of the feedback."""

from lfp.registry import Registry

#: Functions of the :class:`~lfp.interventions.selectors.material.Material` of a model that give
#: latents by layer.
SELECTORS = Registry(
    "selector",
    {
        "explained": "lfp.interventions.arms:explained",
        "probe_weight": "lfp.interventions.arms:largest_probe_weight",
        "top_match_unrelated": "lfp.interventions.arms:best_unrelated_match",
        "attribution": "lfp.interventions.selectors.attribution:largest_effect",
        "direction": "lfp.interventions.selectors.rankings:aligned",
        "frequency": "lfp.interventions.selectors.rankings:rare_on_neutral_text",
        "greedy": "lfp.interventions.selectors.pruning:pruned",
        "factorisation": "lfp.interventions.selectors.factorisation:interacting",
    },
)
#: Selectors that read the weights of the policy's probe.
READS_PROBE = ("probe_weight",)
#: What latents may be aligned with, for the selector ``direction``.
DIRECTIONS = ("valence", "mean_shift")

"""The tables by name; the rows of each are labels plus one
:class:`~lfp.statistics.records.Record`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lfp.tables import models, probes
from lfp.tables.ablation import ablation_reward
from lfp.tables.across_seeds import across_seeds
from lfp.tables.features import explanation_quality, feature_explanations, feature_frequency
from lfp.tables.planted.recovery import planted_recovery
from lfp.tables.rows import TableSettings, Tally

Table = Callable[[Sequence[str], TableSettings], Tally]


TABLES: dict[str, Table] = {
    table.__name__: table
    for table in (
        models.corpora, models.rewrites, models.base_models, models.fine_tuning,
        models.layer_divergence, models.autoencoders, models.sae_tying,
        models.sae_layer_choice, probes.kendall_tau, probes.kendall_tau_within_sign,
        probes.sign_accuracy, probes.probe_accuracy, probes.probe_differences,
        probes.probe_nested_r2, probes.lexicon_reconstruction,
        feature_explanations, explanation_quality,
        feature_frequency, ablation_reward, planted_recovery,
        across_seeds,
    )
}  # fmt: skip

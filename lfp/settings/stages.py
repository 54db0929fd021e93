"""The stages and the classes of their settings, by name, and the settings of tables."""

from __future__ import annotations

from dataclasses import dataclass

from lfp.settings.changes import Account, Change, Divergence, Locus
from lfp.settings.dictionaries import Activations, Autoencoder, Evaluation, FeatureDiff
from lfp.settings.fields import LARGEST_SEED, Settings, setting
from lfp.settings.finetuning import DPO, PPO, Distil, Group, Ranking
from lfp.settings.latents import Ablation, Explanations, Export, Interventions, Steering
from lfp.settings.probing import Contrasts, Features, Probes, Rewrites


@dataclass(frozen=True)
class Tables(Settings):
    """Intervals, tests and thresholds of the tables (docs/tables.md)."""

    resamples: int = setting(2000, "Number of bootstrap resamples and of permutations.", least=100)
    confidence: float = setting(0.95, "Confidence of intervals.", above=0.5, below=1)
    quantiles: tuple[float, ...] = setting(
        (0.5, 0.75, 0.9, 0.95),
        "Thresholds of high prediction, as quantiles (Table 7).",
        each_above=0,
        each_below=1,
        min_items=1,
        unique=True,
    )
    matched_draws: int = setting(99, "Number of matched control sets (Table 7).", least=19)
    seed: int = setting(0, "Seed of resampling.", least=0, most=LARGEST_SEED)
    tau_margin: float = setting(
        0.1,
        "Difference of tau-b that is as good as none: a planted null is silent where the interval"
        " lies within (docs/statistics.md).",
        above=0,
    )
    auroc_margin: float = setting(
        0.1, "The same for areas under the ROC curve and their differences.", above=0
    )
    share_margin: float = setting(0.1, "The same for shares of features.", above=0)
    reward_margin: float = setting(0.05, "The same for the reward, in its units.", above=0)
    max_l0_share: float = setting(
        0.25, "Largest share of active latents of a healthy autoencoder.", above=0, most=1
    )
    max_fvu: float = setting(
        0.5, "Largest fraction of variance unexplained of a healthy autoencoder.", above=0
    )
    max_dead: float = setting(
        0.5, "Largest share of dead latents of a healthy autoencoder.", above=0, most=1
    )
    min_mmcs_ratio: float = setting(
        2.0,
        "Least MMCS of a healthy pair of autoencoders, in multiples of that of an untrained pair.",
        above=0,
    )
    min_reach: float = setting(
        0.3,
        "Share of the effect of fine-tuning that the read components must carry (docs/locus.md).",
        least=0,
        most=1,
    )
    min_reward_gain: float = setting(
        0.0,
        "Reward that fine-tuning must gain on held-out prefixes: the whole interval must lie above"
        " (docs/finetune.md).",
    )
    min_margin: float = setting(
        0.01,
        "Margin of the implicit reward on held-out pairs, `dpo.beta` times nats, above which the"
        " whole interval must lie: pairs are ranked right by any change, however small.",
    )
    min_zeroing: float = setting(
        0.05,
        "Rise of the held-out cross-entropy, nats per token, that zeroing a probed layer must"
        " cause (docs/locus.md).",
        least=0,
    )
    min_intensity: float = setting(
        0.3,
        "tau-b within each sign that a ridge on the valence must reach (docs/locus.md).",
        least=-1,
        most=1,
    )


#: Stages whose settings a cell resolves.
CELL_STAGES: dict[str, type[Settings]] = {
    "ppo": PPO,
    "group": Group,
    "ranking": Ranking,
    "distil": Distil,
    "dpo": DPO,
    "locus": Locus,
    "divergence": Divergence,
    "activations": Activations,
    "autoencoder": Autoencoder,
    "evaluation": Evaluation,
    "feature_diff": FeatureDiff,
    "features": Features,
    "probes": Probes,
    "explanations": Explanations,
    "ablation": Ablation,
    "change": Change,
    "account": Account,
    "interventions": Interventions,
    "steering": Steering,
    "export": Export,
}
#: Stages whose settings belong to a task.
TASK_STAGES: dict[str, type[Settings]] = {"rewrites": Rewrites, "contrasts": Contrasts}
#: Stages whose settings belong to the whole run.
RUN_STAGES: dict[str, type[Settings]] = {"tables": Tables}
#: Stages of fine-tuning, each of which some methods run.
TRAINING_STAGES = ("ppo", "group", "ranking", "distil", "dpo")
#: Every stage.
STAGES: dict[str, type[Settings]] = CELL_STAGES | TASK_STAGES | RUN_STAGES

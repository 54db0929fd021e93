"""Settings of every stage and of everything that a configuration names, written once.

Functions take the objects of :mod:`lfp.settings.stages`; ``config/schema.yaml`` and the tables of
``config/README.md`` are made from them and from :mod:`lfp.settings.objects` (:mod:`lfp.schema`).
No library of science is imported here, so that planning a run loads none.
"""

from lfp.settings.fields import ABSENT, REQUIRED, Settings, setting
from lfp.settings.objects import (
    Cell,
    Classifier,
    Clean,
    Configuration,
    Corpus,
    Explainer,
    Files,
    Machine,
    Model,
    Organism,
    Policy,
    Prices,
    Service,
    Shape,
    Task,
)
from lfp.settings.stages import (
    BETWEEN,
    BOTH,
    CELL_STAGES,
    DPO,
    FEATURES,
    METHODS,
    NO_GRADIENT,
    PPO,
    PRETRAINED,
    RANKED,
    RATES,
    RUN_STAGES,
    STAGES,
    TASK_STAGES,
    TRAINING_STAGES,
    UNREWARDED,
    Ablation,
    Account,
    Activations,
    Autoencoder,
    Change,
    Contrasts,
    Distil,
    Divergence,
    Evaluation,
    Explanations,
    Export,
    FeatureDiff,
    Features,
    Group,
    Interventions,
    Locus,
    Lora,
    Mutual,
    Probes,
    Ranking,
    Rewrites,
    Source,
    Steering,
    Tables,
)

__all__ = [
    "ABSENT", "BETWEEN", "BOTH", "CELL_STAGES", "DPO", "FEATURES", "METHODS", "NO_GRADIENT", "PPO",
    "PRETRAINED", "RANKED", "RATES", "REQUIRED", "RUN_STAGES", "STAGES", "TASK_STAGES",
    "TRAINING_STAGES", "UNREWARDED", "Ablation", "Account", "Activations", "Autoencoder", "Cell",
    "Change", "Classifier", "Clean", "Configuration", "Contrasts", "Corpus", "Distil",
    "Divergence", "Evaluation", "Explainer", "Explanations", "Export", "FeatureDiff", "Features",
    "Files", "Group", "Interventions", "Locus", "Lora", "Machine", "Model", "Mutual", "Organism",
    "Policy", "Prices", "Probes", "Ranking", "Rewrites", "Service", "Settings", "Shape", "Source",
    "Steering", "Tables", "Task", "setting",
]  # fmt: skip

"""Settings of every stage and of everything that a configuration names, written once.

Functions take the objects of the stages (:data:`lfp.settings.stages.STAGES`);
``config/schema.yaml`` and the tables of ``config/README.md`` are made from them and from
:mod:`lfp.settings.objects` (:mod:`lfp.schema`).
No library of science is imported here, so that planning a run loads none.
"""

from lfp.settings.changes import Account, Change, Divergence, Locus
from lfp.settings.dictionaries import (
    BETWEEN,
    BOTH,
    MADE,
    NAMED,
    PRETRAINED,
    TRAINED,
    Activations,
    Autoencoder,
    Evaluation,
    FeatureDiff,
    Mutual,
    Source,
)
from lfp.settings.fields import ABSENT, REQUIRED, Settings, Unstamped, joined, parted, setting
from lfp.settings.finetuning import DPO, PPO, Distil, Group, Lora, Ranking
from lfp.settings.latents import Ablation, Explanations, Export, Interventions, Steering
from lfp.settings.methods import METHODS, RANKED, UNREWARDED, reading_method
from lfp.settings.objects import (
    CELL_ENDS,
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
from lfp.settings.probing import FEATURES, Contrasts, Features, Probes, Rewrites
from lfp.settings.stages import (
    CELL_STAGES,
    RUN_STAGES,
    STAGES,
    TASK_STAGES,
    TRAINING_STAGES,
    Tables,
)

__all__ = [
    "ABSENT", "BETWEEN", "BOTH", "CELL_ENDS", "CELL_STAGES", "DPO", "FEATURES", "MADE", "METHODS",
    "NAMED", "PPO", "PRETRAINED", "RANKED", "REQUIRED", "RUN_STAGES", "STAGES", "TASK_STAGES",
    "TRAINED", "TRAINING_STAGES", "UNREWARDED", "Ablation", "Account", "Activations",
    "Autoencoder", "Cell", "Change", "Classifier", "Clean", "Configuration", "Contrasts", "Corpus",
    "Distil", "Divergence", "Evaluation", "Explainer", "Explanations", "Export", "FeatureDiff",
    "Features", "Files", "Group", "Interventions", "Locus", "Lora", "Machine", "Model", "Mutual",
    "Organism", "Policy", "Prices", "Probes", "Ranking", "Rewrites", "Service", "Settings",
    "Shape", "Source", "Steering", "Tables", "Task", "Unstamped", "joined", "parted",
    "reading_method", "setting",
]  # fmt: skip

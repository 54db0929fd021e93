"""Every figure: its drawing, its section of the report, its inputs and its caption.

A figure costs two files: its entry here, and the module whose function draws it. Planning a run
reads this module, so it imports no library of science; the drawing is loaded by the figure's own
job.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lfp.tables.catalogue import Section, made
from lfp.tables.inputs import Plan


@dataclass(frozen=True)
class Figure:
    """One figure of the report.

    Parameters
    ----------
    draw
        ``module:function``. The function takes the paths of the inputs and returns a matplotlib
        figure.
    section
        Section of the report.
    inputs
        Gives the paths of the artefacts that a plan has for the figure. A figure without inputs in
        a configuration is left out.
    caption
        Whole sentences without line breaks.
    """

    draw: str
    section: Section
    inputs: Callable[[Plan], list[str]]
    caption: str


#: Figures by name, in the order of the stages.
FIGURES: dict[str, Figure] = {
    "probe_forest": Figure(
        draw="lfp.figures.summary:probe_forest",
        section=Section.SUMMARY,
        inputs=lambda plan: made(["kendall_tau", "probe_accuracy"], plan),
        caption=(
            "The feedback that probes of the latents read, by subject and split, with"
            " intervals: tau-b of words, or AUROC of preferred answers. A lesson of the feedback"
            " would show as policy against base; what an untrained network or the bag of words of"
            " the text has is no knowledge of the model. by_word and by_prompt are the main splits,"
            " the others mislead. The tables are kendall_tau and probe_accuracy."
        ),
    ),
    "ablation_forest": Figure(
        draw="lfp.figures.summary:ablation_forest",
        section=Section.SUMMARY,
        inputs=lambda plan: made(["ablation_reward"], plan),
        caption=(
            "The change of the reward under every arm of the ablation, with intervals. layer"
            " takes the whole output of the read layers away, and layer_swapped puts what they"
            " write in the other model in its place, which is what feedback changed there. Random"
            " sets are matched to the arm that they are named for. The table is ablation_reward."
        ),
    ),
    "planted_forest": Figure(
        draw="lfp.figures.summary:planted_forest",
        section=Section.SUMMARY,
        inputs=lambda plan: made(["planted_recovery"], plan),
        caption=(
            "Answers of every readout about policies whose lesson was planted, as distances from"
            " the number that means nothing, with intervals and coloured by their verdict. The"
            " table is planted_recovery."
        ),
    ),
    "gates": Figure(
        draw="lfp.figures.summary:gates",
        section=Section.SUMMARY,
        inputs=lambda plan: made(["organism_health", "sae_health", "fine_tuning"], plan),
        caption=(
            "Passed gates of models, policies and dictionaries, by quantity, among all of them."
            " Where one is missed, the rows that rest on it carry the reason. The tables are"
            " organism_health, sae_health and fine_tuning."
        ),
    ),
    "training_curves": Figure(
        draw="lfp.figures.training:training_curves",
        section=Section.FINE_TUNING,
        inputs=lambda plan: plan.per_cell("{cell}/policy", plan.cells),
        caption=(
            "Training curves of all cells. The curves of PPO are the mean reward of the batch, the"
            " sampled KL to the base, the entropy, the value loss and the share of clipped ratios"
            " per update. Those of DPO are the training loss, and the accuracy of the implicit"
            " reward on held-out pairs with clean labels."
        ),
    ),
    "layer_divergence": Figure(
        draw="lfp.figures.divergence:layer_divergence",
        section=Section.DIVERGENCE,
        inputs=lambda plan: plan.per_cell("{cell}/divergence.json"),
        caption=(
            "Divergence of every layer from the base by every measure (paper Figure 7). Rings mark"
            " the chosen layers on the measure that ranks them."
        ),
    ),
    "locus": Figure(
        draw="lfp.figures.divergence:locus",
        section=Section.DIVERGENCE,
        inputs=lambda plan: plan.per_cell("{cell}/locus.parquet"),
        caption=(
            "The place of the lesson in the weights: Shapley values of components, and of the MLP"
            " and the rest of every layer, for the effect of fine-tuning, with 95 % t intervals"
            " over instances. In each panel the values add up to the gap."
        ),
    ),
    "sae_training": Figure(
        draw="lfp.figures.autoencoders:sae_training",
        section=Section.AUTOENCODERS,
        inputs=lambda plan: plan.per_cell("{cell}/sae/{sae}/curves.parquet"),
        caption=(
            "Training of the main variant's smallest autoencoder of every layer, on held-out"
            " activations: the fraction of variance unexplained, active latents per token, and the"
            " share of dead latents by step. The last part of a training, in which the learning"
            " rate falls to 0, begins where the loss is flat, or where the epochs end."
        ),
    ),
    "sae_frontier": Figure(
        draw="lfp.figures.autoencoders:sae_frontier",
        section=Section.AUTOENCODERS,
        inputs=lambda plan: made(["sae_frontier"], plan),
        caption=(
            "Fraction of variance unexplained against active latents per token, a line for each"
            " architecture and a panel for each cell and size. Points are variants, means over"
            " layers; the band is one standard deviation between seeds of training on either side,"
            " where several were trained. What is better beyond that noise stands in the table"
            " sae_frontier."
        ),
    ),
    "sae_l1_sweep": Figure(
        draw="lfp.figures.autoencoders:sae_l1_sweep",
        section=Section.AUTOENCODERS,
        inputs=lambda plan: plan.sweep_metrics("l1"),
        caption=(
            "Sparsity and reconstruction over the l1 coefficient (paper Figure 8), for the main"
            " variant of the autoencoder and those that differ from it in nothing else. Points are"
            " means over the layers that all coefficients share, and over policy and base where"
            " both are read."
        ),
    ),
    "error_by_frequency": Figure(
        draw="lfp.figures.probes:error_by_frequency",
        section=Section.PROBES,
        inputs=lambda plan: plan.words_and_completions(),
        caption=(
            "Absolute error of the probe's prediction for every word against how often the policy"
            " wrote the word, in training, where the base wrote what is ranked, and in its"
            " unablated completions (paper Figure 4). The"
            " split is the main one. tau-b, of accuracy and frequency, is that of the table"
            " error_by_frequency, which has its interval: it is above 0 where words that the policy"
            " writes often are predicted better."
        ),
    ),
    "probe_pca": Figure(
        draw="lfp.figures.probes:probe_pca",
        section=Section.PROBES,
        inputs=lambda plan: plan.per_cell(
            "{cell}/features/{sae}/policy.safetensors", plan.preferring
        ),
        caption=(
            "First two principal components of the standardised latents of preferred and rejected"
            " answers (paper Figure 5). Structure here is no proof of learned feedback: the rows of"
            " the untrained subject in the table probe_accuracy show how much of it needs no"
            " training."
        ),
    ),
    "choice_by_layer": Figure(
        draw="lfp.figures.change:choice_by_layer",
        section=Section.CHANGE,
        inputs=lambda plan: made(["choice"], plan),
        caption=(
            "Agreement of what each layer's MLP and attention changed in front of a word with the"
            " feedback: tau-b with the words' valences, or AUROC of preferred answers, a mean over"
            " seeds. Bands are the range of policies of a noise reward, of another task where the"
            " panel's own is one, crosses copies of the base with noise on their weights, as large"
            " as the policy's change. The table is choice."
        ),
    ),
    "detection_by_share": Figure(
        draw="lfp.figures.change:detection_by_share",
        section=Section.CHANGE,
        inputs=lambda plan: made(["detection"], plan) if plan.several_shares_flipped() else [],
        caption=(
            "What an audit would have seen: power, the share of policies that raise an alarm, and"
            " AUROC of the flipped words, over the share of the lexicon whose signs were flipped."
            " Lines are readouts, beside each other at a share so that none hides another; rows"
            " are asked about all words, and about those that training wrote often. Dashed are the"
            " rate of false alarms that is allowed, .05, the power that the limit of detection"
            " asks for, .8, and an AUROC of no knowledge, .5. Intervals stand in the table,"
            " detection."
        ),
    ),
    "intervention_frontiers": Figure(
        draw="lfp.figures.steering:intervention_frontiers",
        section=Section.ABLATION,
        inputs=lambda plan: made(["interventions"], plan) if plan.steering_files("") else [],
        caption=(
            "Gain in reward of the steered base over what it costs: the rise in cross-entropy on"
            " neutral text, and the KL of a completion from the untouched base. Each line is a"
            " vector or a set of latents, dashed behind a gate and dotted behind one that learned"
            " from shuffled labels; fine_tuning are doses of the change of weights, the star is the"
            " prompt, where it costs anything. The band is between the least and the largest gain"
            " of random vectors at equal cost. Where the settings name words, the gain is that in"
            " the share of completions with all that is asked for. The tables are interventions and"
            " frontiers."
        ),
    ),
}

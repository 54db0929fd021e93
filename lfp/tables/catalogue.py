"""Every table: its rows, its section of the report, its inputs and its caption.

A table costs two files: its entry here, and the module whose function makes its rows. Planning a
run reads this module, so it imports no library of science; the rows are loaded by the table's own
job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lfp.tables.inputs import Cell, Plan


class Section(StrEnum):
    """The sections of the report: the answer first, then the stages in their order."""

    SUMMARY = "0 Summary"
    FINE_TUNING = "1 Fine-tuning"
    DIVERGENCE = "2 Divergence"
    AUTOENCODERS = "3 Autoencoders"
    PROBES = "4 Probes"
    EXPLANATIONS = "5 Explanations"
    ABLATION = "6 Ablation"
    CHANGE = "7 Change"
    PLANTED_TRUTH = "8 Planted truth"
    SEEDS = "9 Seeds"


@dataclass(frozen=True)
class Table:
    """One table of the report.

    Parameters
    ----------
    rows
        ``module:function``. The function takes the paths of the inputs and
        :class:`~lfp.tables.rows.TableSettings`, and returns a :class:`~lfp.tables.rows.Tally`.
    section
        Section of the report.
    inputs
        Gives the paths of the artefacts that a plan has for the table. A table without inputs in a
        configuration is left out.
    caption
        Whole sentences without line breaks; every format of the table carries them.
    over_seeds
        Whether the table `across_seeds` averages its rows over the seeds of fine-tuning.
    judged
        Whether its rows are read from autoencoders, so that they carry the health of these
        (:mod:`lfp.tables.health.autoencoders`).
    """

    rows: str
    section: Section
    inputs: Callable[[Plan], list[str]]
    caption: str
    over_seeds: bool = False
    judged: bool = False

    def settings(self, name: str) -> dict[str, str]:
        """The settings of the job of the table `name`."""
        return {"name": name, "rows": self.rows, "caption": self.caption}


def _probes(plan: Plan, cells: Sequence[Cell]) -> list[str]:
    """The files of the probes of `cells` that hold estimates and nulls."""
    return plan.probe_files(cells, "predictions.parquet", "parts.parquet", "metrics.json")


def _rewarded_probes(plan: Plan) -> list[str]:
    return _probes(plan, plan.rewarded)


def _tables_over_seeds(plan: Plan) -> list[str]:
    averaged = {name: table for name, table in TABLES.items() if table.over_seeds}
    return [
        f"results/tables/{name}.parquet"
        for name, table in averaged.items()
        if plan.has_seeds and table.inputs(plan)
    ]


#: Tables that the summary reads.
_SUMMARISED = (
    "fine_tuning", "locus", "organism_health", "sae_health", "kendall_tau", "probe_accuracy",
    "probe_differences", "ablation_reward", "choice", "choice_words", "detection",
    "planted_recovery", "across_seeds",
)  # fmt: skip


def made(tables: Sequence[str], plan: Plan) -> list[str]:
    """The files of those of the `tables` that a plan has."""
    return [f"results/tables/{name}.parquet" for name in tables if TABLES[name].inputs(plan)]


#: Tables by name, in the order of the stages.
TABLES: dict[str, Table] = {
    "verdicts": Table(
        rows="lfp.tables.summary.answers:verdicts",
        section=Section.SUMMARY,
        inputs=lambda plan: made(_SUMMARISED, plan),
        caption=(
            "The answer in words for the policies of every model and task. Each answer rests on one"
            " row of the table that stands beside it: the mean over seeds where there are several,"
            " else that of the policy with its cell's main variant of the autoencoder. yes is a"
            " number whose interval, and corrected test where its row has one, put it on the side"
            " in question; no is one whose interval lies within a margin of nothing; undecided is"
            " neither, and contrary is a yes of the other side. A row without p_adjusted has no"
            " test, and questions are not corrected for each other. A fact is a statement without a"
            " verdict. place is the order of the questions."
        ),
    ),
    "corpora": Table(
        rows="lfp.tables.models:corpora",
        section=Section.FINE_TUNING,
        inputs=lambda plan: plan.corpora("results/corpora/{name}/counts.json"),
        caption=(
            "The rows of every corpus by their fate: the table counts rows that were read, that"
            " were empty, that repeated a row of their split or of an earlier one, and that were"
            " kept."
        ),
    ),
    "rewrites": Table(
        rows="lfp.tables.models:rewrites",
        section=Section.FINE_TUNING,
        inputs=lambda plan: plan.rewritten("results/rewrites/{name}.parquet"),
        caption=(
            "Contrast triples written by a language model: the table counts the graded entries that"
            " gave a triple, and the reasons of those that did not. `refusal` is a refusal in the"
            " text, `refused` and `rejected` are the service's, and `grade` means that the negative"
            " rewrite was graded no worse than the positive one."
        ),
    ),
    "base_models": Table(
        rows="lfp.tables.models:base_models",
        section=Section.FINE_TUNING,
        inputs=lambda plan: plan.grown("results/models/{name}"),
        caption=(
            "Base models grown here: the table has their held-out perplexity per token, with a"
            " bootstrap over texts, and that of a unigram model of the same training text. Words"
            " of the lexicon count as one or several tokens as they are written inside a sentence."
        ),
    ),
    "fine_tuning": Table(
        rows="lfp.tables.models:fine_tuning",
        section=Section.FINE_TUNING,
        inputs=lambda plan: plan.per_cell("{cell}/policy", plan.cells),
        caption=(
            "The result of fine-tuning on held-out text. For a reward of text, the table has the"
            " reward of policy and base on the same prefixes with common random numbers, their"
            " paired difference (reward_gain), and the policy's KL to the base in nats per"
            " completion. For DPO, it has the accuracy and the margin of the implicit reward on"
            " held-out pairs with clean labels. p is a sign-flip permutation test of the gain, and"
            " an exact binomial test of the accuracy against one half."
        ),
        over_seeds=True,
    ),
    "layer_divergence": Table(
        rows="lfp.tables.models:layer_divergence",
        section=Section.DIVERGENCE,
        inputs=lambda plan: plan.per_cell("{cell}/divergence.json"),
        caption=(
            "Divergence of every layer from the base by every measure, in float32. The chosen"
            " layers are the most changed ones by the measure that ranks_layers marks (paper"
            " appendix C, Figure 7)."
        ),
    ),
    "locus": Table(
        rows="lfp.tables.health.shares:locus",
        section=Section.DIVERGENCE,
        inputs=lambda plan: plan.per_cell("{cell}/locus.parquet"),
        caption=(
            "The place of the lesson in the weights: the effect of fine-tuning (gap) is shared"
            " among the parts of the weights by Shapley values. The effect is the reward of"
            " completions of held-out prefixes, the implicit margin of held-out pairs after DPO,"
            " and the KL to the base for policies that are given. In the game components every set"
            " of parts of the policy is put into the base; tied embeddings are one part. In the"
            " game layers random orders of the blocks' mlp and of their rest are. layer is -1 for"
            " parts of no single layer. share is value over gap, resampled together over instances,"
            " and the shares of a game add up to 1. It is not estimated where the interval of the"
            " gap holds 0."
        ),
        over_seeds=True,
    ),
    "organism_health": Table(
        rows="lfp.tables.health.organism:organism_health",
        section=Section.DIVERGENCE,
        inputs=lambda plan: [
            *plan.per_cell("{cell}/locus.parquet"),
            *plan.per_cell("{cell}/divergence.json"),
            *plan.per_cell("{cell}/sae/{sae}/metrics.json"),
            *plan.per_cell("{cell}/probes/{sae}/base/predictions.parquet", plan.reading_base),
            *plan.grown("results/models/{name}"),
        ],
        caption=(
            "Whether a model is a fair subject, by quantities with a threshold each. zeroing is the"
            " rise of the held-out cross-entropy, in nats per token, where the read activations of"
            " a probed layer are set to 0. reach is the share of the effect of fine-tuning that the"
            " read components of all layers carry (the table locus). verbatim is the share of"
            " held-out texts that stand in the text that the model was grown on, and must be 0."
            " intensity is tau-b within each sign of a ridge on the valence, of the base's raw"
            " activations, with words and contexts held out. passes is empty where the quantity was"
            " not estimated."
        ),
    ),
    "autoencoders": Table(
        rows="lfp.tables.models:autoencoders",
        section=Section.AUTOENCODERS,
        inputs=lambda plan: plan.variant_metrics(),
        caption=(
            "Every autoencoder on held-out text: the table has L0 (active latents per token), the"
            " squared error per dimension, the fraction of variance unexplained, the share of dead"
            " latents, the mean cosine of the matched pair (mmcs), and the cross-entropy of the"
            " model that it reads with its activations untouched, reconstructed and set to 0, in"
            " nats per token. Options of other architectures than an autoencoder's own are empty."
            " Where layer_needed is false, setting the layer's activations to 0 costs less than"
            " 1 %, and loss_recovered says nothing. Activations of a norm above largest_norm are"
            " outliers: with the tokens that a tokenizer adds in front of texts they count in no"
            " other number. left_out of so many held-out tokens are counted here, and"
            " left_out_of_training is the number among those that autoencoders learned from."
        ),
    ),
    "sae_health": Table(
        rows="lfp.tables.health.autoencoders:sae_health",
        section=Section.AUTOENCODERS,
        inputs=lambda plan: plan.variant_metrics(),
        caption=(
            "Are the autoencoders sparse, faithful codes whose directions mean something? The"
            " table has, on held-out text, the share of latents that are active on a token"
            " (l0_share), the fraction of variance unexplained of ordinary tokens, the share of"
            " latents that are active on no token, and the recovered cross-entropy. mmcs is the"
            " mean cosine of the matched directions of the smallest and the largest autoencoder,"
            " mmcs_untrained that of two autoencoders before training, mmcs_ratio their ratio, and"
            " mmcs_other_seed that of two trainings from different initial weights. flat is 1"
            " where the held-out loss no longer fell when training ended. Where passes is false,"
            " the rows of the cell in other tables carry the reason in their column health."
        ),
    ),
    "dictionary_transfer": Table(
        rows="lfp.tables.dictionaries.transfer:dictionary_transfer",
        section=Section.AUTOENCODERS,
        inputs=lambda plan: plan.transfer_files(),
        caption=(
            "How well a dictionary serves two models: the share of variance that it leaves"
            " unexplained (fvu) and its active latents per token (l0), on the activations that base"
            " and policy have of the same held-out texts, and their difference, policy minus base."
            " The variance is about the mean of the model's own activations in the layer. It has"
            " all dictionaries of cells with a pretrained one, but for those of a pair or a"
            " difference of models, so that those trained here stand beside it; origin is the file"
            " that a dictionary comes from, and reads the model whose activations it was trained"
            " on, or explained on where it comes from elsewhere."
            " Outliers and tokens in front of texts count in neither number. Intervals are from a"
            " bootstrap over texts, which are drawn together for both models."
        ),
        judged=True,
    ),
    "head_shares": Table(
        rows="lfp.tables.dictionaries.heads:head_shares",
        section=Section.AUTOENCODERS,
        inputs=lambda plan: plan.head_files(),
        caption=(
            "Of which attention heads a dictionary's directions are made, where it reads the"
            " outputs of all heads side by side. The share of a head in a direction is the square"
            " of its part over the square of the whole; shares add up to 1. largest_share is the"
            " mean over latents of the largest share, effective_heads that of 1 over the sum of"
            " squared shares, which is 1 for a direction of a single head. share is the mean share"
            " of one head, and leads the number of latents whose largest share it has. random has"
            " the same number of random directions as many: a layer's directions are of few heads"
            " where largest_share is above it. Intervals are of t over latents, which one training"
            " made together: they say nothing of another training."
        ),
        judged=True,
    ),
    "sae_frontier": Table(
        rows="lfp.tables.health.dictionaries:sae_frontier",
        section=Section.AUTOENCODERS,
        inputs=lambda plan: plan.evaluation_files("evaluation.json", "metrics.json"),
        caption=(
            "Dictionaries beside each other on held-out text: estimate is the fraction of variance"
            " unexplained (FVU) at l0 active latents per token. ce_rise is the rise of the model's"
            " cross-entropy where the layer's activations are set to 0, in nats per token;"
            " loss_recovered is the share of it that the reconstruction saves, and says nothing"
            " where layer_needed is false. shrinkage is 1 where reconstructions are as long as they"
            " should be. near_duplicates is the share of latents with another one within a cosine"
            " of 0.9. reseed_sd is the standard deviation of the FVU between seeds, pooled over"
            " layers with reseed_df degrees of freedom, and empty where one seed was trained."
            " better_than names the variants of the same layer, site, model and size whose FVU is"
            " higher by more than minimum_difference (2.77 reseed_sd, the larger of the two) at as"
            " many active latents or more. Its own l0 may be up to 5 % above theirs: its FVU is"
            " then first multiplied by the ratio of the two. No other difference here is to be"
            " called one."
        ),
    ),
    "sae_probing": Table(
        rows="lfp.tables.health.dictionaries:sae_probing",
        section=Section.AUTOENCODERS,
        inputs=lambda plan: plan.evaluation_files("evaluation.json", "sparse_probes.parquet"),
        caption=(
            "Sparse probes: the area under the ROC curve of a logistic regression that reads the k"
            " features whose means differ most between positive and negative words, or preferred"
            " and rejected answers, chosen inside the training part. Splits are those of the main"
            " probes, and intervals Nadeau and Bengio's. trained are latents of the smallest"
            " dictionaries of all probed layers, other_seed those of a second training, raw the"
            " activations, untrained the code of random directions. permuted has each latent's"
            " direction at another one: its probes are those of the trained code while its fvu is"
            " above 1, so that a probe says nothing of reconstruction; itda, which codes with its"
            " directions themselves, has no such row. better_than names what has"
            " an AUC lower by more than minimum_difference, 2.77 standard deviations between seeds"
            " (reseed_sd, with reseed_df degrees of freedom)."
        ),
    ),
    "decoder_geometry": Table(
        rows="lfp.tables.health.dictionaries:decoder_geometry",
        section=Section.AUTOENCODERS,
        inputs=lambda plan: plan.evaluation_files("evaluation.json"),
        caption=(
            "How the directions of dictionaries share their space. participation is the number of"
            " dimensions that they fill evenly. localisation is the mean share of a dimension that"
            " a direction has for itself: 1 of orthogonal ones. even has both for directions that"
            " fill the space evenly. alignment is the mean cosine of encoder and decoder, 1 by"
            " construction where these are tied. near_duplicates is the share of latents with"
            " another one within a cosine of 0.9."
        ),
    ),
    "sae_tying": Table(
        rows="lfp.tables.models:sae_tying",
        section=Section.AUTOENCODERS,
        inputs=lambda plan: plan.twin_metrics(),
        caption=(
            "Tied against untied encoder and decoder, as means over the layers and sizes that both"
            " have, and over the models that they read (paper Table 11). l0 is the number of active"
            " latents per token, which the paper divides by 100, and l0_share its share of the"
            " latents; mse is the mean over tokens and dimensions."
        ),
    ),
    "sae_layer_choice": Table(
        rows="lfp.tables.models:sae_layer_choice",
        section=Section.AUTOENCODERS,
        inputs=lambda plan: [
            *plan.lowest_metrics(),
            *plan.per_cell("{cell}/divergence.json", plan.lowest),
        ],
        caption=(
            "The most changed against the least changed layers under one variant of the"
            " autoencoder, as means over layers, sizes and the models that are read (paper Table"
            " 12). The two selections of a small model overlap; the layers are named. Layers that"
            " the configuration pins are called pinned, and beside pinned ones the least changed"
            " are those of the others."
        ),
    ),
    "kendall_tau": Table(
        rows="lfp.tables.probes:kendall_tau",
        section=Section.PROBES,
        inputs=lambda plan: [*_rewarded_probes(plan), *plan.output_files(plan.rewarded)],
        caption=(
            "Rank agreement (tau-b) of the feedback that probes read with the true feedback, over"
            " words (paper Table 4). The subjects are the fine-tuned policy, its base, an untrained"
            " network, the policies of another seed and of another task, and text, which reads"
            " words and no model. The split by_word holds out words with their contexts, by_family"
            " words of one stem together; random cuts triples and words_only shares contexts: both"
            " mislead. Beside all words stand those of one token (one_token) and those of several"
            " (pieces), where there are both. The target of ridge on valence is the valence itself;"
            " delta is the signed distance that the probe learns; output is how much likelier than"
            " its base the policy makes a word, without a probe; xavier is an untrained linear"
            " probe; permuted labels are probes of labels permuted among words."
            " sign_only_ceiling is the tau-b of perfect knowledge of every sign. string_tau is the"
            " statistic of the paper's code, tau of two lists of word strings, which is near 0"
            " whatever a probe knows. Intervals are Nadeau and Bengio's over the test parts of"
            " repeated partitions, p is from refits on permuted labels, and p_adjusted is Holm's"
            " over policies on the main split."
        ),
        over_seeds=True,
        judged=True,
    ),
    "kendall_tau_within_sign": Table(
        rows="lfp.tables.probes:kendall_tau_within_sign",
        section=Section.PROBES,
        inputs=lambda plan: [*_rewarded_probes(plan), *plan.output_files(plan.rewarded)],
        caption=(
            "Rank agreement (tau-b) among positive words alone and among negative words alone"
            " (paper Table 10). It shows whether the probe reads intensity and not only sign. Words"
            " of one token and words in pieces stand apart as well, where there are both."
        ),
        judged=True,
    ),
    "sign_accuracy": Table(
        rows="lfp.tables.probes:sign_accuracy",
        section=Section.PROBES,
        inputs=_rewarded_probes,
        caption=(
            "Share of words whose predicted feedback has the sign of the lexicon, judged at 0 on"
            " the raw scale (paper Table 5). The probe constant gives every word the commoner sign."
            " Subjects, splits, sets of words and nulls are those of the table kendall_tau."
        ),
        over_seeds=True,
        judged=True,
    ),
    "probe_accuracy": Table(
        rows="lfp.tables.probes:probe_accuracy",
        section=Section.PROBES,
        inputs=lambda plan: [
            *_probes(plan, plan.preferring),
            *plan.output_files(plan.preferring),
        ],
        caption=(
            "Balanced accuracy and AUROC of logistic probes that tell preferred from rejected"
            " answers (paper Table 3), with intervals over prompts. The split by_prompt holds out"
            " prompts with their answers; prompts_only shares exact answers, words_only holds out"
            " whole answers and shares prompts, random cuts triples: all three mislead. The"
            " subject text reads length, first token or words and no model; untrained is a network"
            " of random weights; permuted labels are drawn among answers. These rows are to be read"
            " before the policy's."
        ),
        over_seeds=True,
        judged=True,
    ),
    "probe_differences": Table(
        rows="lfp.tables.probes:probe_differences",
        section=Section.PROBES,
        inputs=lambda plan: _probes(plan, plan.comparing),
        caption=(
            "Gains by fine-tuning and by the autoencoder: the table has differences between probes"
            " on the same words or prompts. policy - base and the like compare models, latents -"
            " raw and the like compare kinds of features of the policy, and true - permuted labels"
            " is the probe's selectivity. Differences are paired by test part, their intervals"
            " Nadeau and Bengio's; p is from refits of both probes on the same permuted labels, and"
            " p_adjusted is Holm's over policies on the main split."
        ),
        over_seeds=True,
        judged=True,
    ),
    "probe_nested_r2": Table(
        rows="lfp.tables.probes:probe_nested_r2",
        section=Section.PROBES,
        inputs=lambda plan: plan.probe_files(plan.probed_cells, "nested.parquet"),
        caption=(
            "A probe's knowledge beyond word frequency and static embedding: the table has the"
            " held-out share of the truth's variance that the two explain (r2_without), that they"
            " explain with the probe's held-out prediction (r2_with_probe), and the gain, each the"
            " mean over the test parts of the probe on the latents. The split is the main one, so"
            " that no answer is on both of its sides; intervals are Nadeau and Bengio's."
        ),
        judged=True,
    ),
    "lexicon_reconstruction": Table(
        rows="lfp.tables.probes:lexicon_reconstruction",
        section=Section.PROBES,
        inputs=lambda plan: plan.probe_files(
            plan.rewarded, "predictions.parquet", subjects=["policy"]
        ),
        caption=(
            "Every word's predicted feedback beside its true valence, from the policy's latents"
            " (paper Tables 2 and 9). estimate is the raw prediction with its t interval over n"
            " contexts; displayed is the same on the lexicon's scale, by one factor through 0. rank"
            " is the word's place among all words by the distance of displayed from the valence, 1"
            " for the nearest. The paper's words were picked by hand (hand_picked): their ranks say"
            " how far they stand for the others."
        ),
        judged=True,
    ),
    "error_by_frequency": Table(
        rows="lfp.tables.validation.errors:error_by_frequency",
        section=Section.PROBES,
        inputs=lambda plan: plan.words_and_completions(),
        caption=(
            "The error of a word's prediction by how often the policy wrote the word (paper Figure"
            " 4). tau is the rank agreement of accuracy, minus the absolute error, with frequency"
            " in all completions that the reward scored in training, which are the base's where"
            " they are ranked, and in the policy's unablated ones. Policies that were given, and"
            " those of DPO, write nothing in training. never written is the"
            " share of words without an occurrence, of which the tau knows nothing; written counts"
            " the occurrences of all words."
        ),
        judged=True,
    ),
    "feature_explanations": Table(
        rows="lfp.tables.features:feature_explanations",
        section=Section.EXPLANATIONS,
        inputs=lambda plan: plan.explanation_files(),
        caption=(
            "Explained features of the smallest autoencoders (paper Tables 1 and 8). By chosen_by"
            " they are those with the highest match cosine in each layer, as in the paper, or those"
            " whose activation feedback moved most. Where the explainer is heuristic-v1, no"
            " language model was used; it reads the reward's lexicon, so that related is no"
            " independent evidence about the reward. Its estimate is the signed association with"
            " the feedback, and p_adjusted is Benjamini and Hochberg's q over the cell's explained"
            " features."
        ),
        judged=True,
    ),
    "explanation_quality": Table(
        rows="lfp.tables.features:explanation_quality",
        section=Section.EXPLANATIONS,
        inputs=lambda plan: plan.explanation_files("scores/{explainer}.parquet"),
        caption=(
            "Predictions of features by their explanations on held-out excerpts: the table has the"
            " mean balanced accuracy over features of detection (is the feature active in this"
            " excerpt?) and of fuzzing (are the marked words those where it is active?). shuffled"
            " is another feature's explanation of the same layer, and frequent words are the"
            " commonest words of all excerpts. The judge words-v1 looks for an explanation's words"
            " and is no language model. Excerpts without a verdict (unparsed) count as wrong."
        ),
        judged=True,
    ),
    "feature_frequency": Table(
        rows="lfp.tables.features:feature_frequency",
        section=Section.EXPLANATIONS,
        inputs=lambda plan: [
            *plan.explanation_files(),
            *plan.per_cell("{cell}/features/{sae}/policy.safetensors", plan.ablated),
            *plan.per_cell("{cell}/probes/{sae}/policy/predictions.parquet", plan.ablated),
        ],
        caption=(
            "Frequency of active features on inputs of high and of low feedback (paper Table 7)."
            " Inputs are high from a quantile of the held-out prediction, or of the delta, on."
            " related are the features called related; matched frequency and matched cosine are"
            " unrelated features with the same activation frequency or match cosine, layer by"
            " layer; all is every feature, as published, dead ones included. ratio is related over"
            " control, with p from the matched sets. ratio of ratios is high over low, and 1 where"
            " high inputs are nothing special. Intervals are from a bootstrap over contexts."
        ),
        judged=True,
    ),
    "agreement": Table(
        rows="lfp.tables.validation.agreement:agreement",
        section=Section.EXPLANATIONS,
        inputs=lambda plan: [
            *plan.explanation_files(),
            *plan.per_cell("{cell}/probes/{sae}/policy/probe.safetensors", plan.ablated),
        ],
        caption=(
            "The agreement of probes and explanations, which the method takes for granted: does a"
            " large weight in the policy's probe foretell that a feature is called related to the"
            " feedback? The table has the AUROC of the absolute weight for related among explained"
            " features, 0.5 where the two have nothing to do with each other. Features of one layer"
            " alone are compared. Activation frequency and match cosine stand beside the weight,"
            " and need no probe. p is from permutations within layers."
        ),
        over_seeds=True,
        judged=True,
    ),
    "ablation_reward": Table(
        rows="lfp.tables.ablation:ablation_reward",
        section=Section.ABLATION,
        inputs=lambda plan: [
            *plan.ablation_files(plan.ablated),
            *plan.per_cell("{cell}/locus.parquet", plan.ablated),
            *plan.per_cell("{cell}/divergence.json", plan.ablated),
            *plan.per_cell("{cell}/sae/{sae}/metrics.json", plan.ablated),
        ],
        caption=(
            "The reward without some features (paper Table 6): the table has the mean reward of"
            " sampled completions of held-out prefixes under every arm, and paired differences on"
            " the same prompts with common random numbers. The arm none is the untouched model. In"
            " reconstruction, the autoencoders' outputs replace the activations that they read; in"
            " layer, the mean activation does, and in layer_swapped what the same layers write in"
            " the other model at the same token. In"
            " explained, the related features are set to 0, to their mean or to minus themselves,"
            " and the autoencoder's error is kept. random has several sets for each arm that"
            " selects features, which matched_to names. They are matched on activation frequency"
            " and contribution (matched_within_decile says how many are), and have as many features"
            " as it takes for the arm's KL: kl_ratio is theirs over the arm's. top_probe_weight has"
            " the features of the largest weights of the policy's probe; top_match_unrelated has"
            " the best matched features that are not related. The price of an arm is in kl (nats"
            " per completion), reward_per_nat (the difference over the KL), cross_entropy (nats per"
            " token of neutral text), distinct_2 and length. explained - random and the like"
            " compare an arm with its random sets: the difference where kl_ratio is within .2 of 1,"
            " and reward_per_nat. Intervals and p are of t over prompts and over random sets;"
            " detectable is the smallest"
            " difference that as many prompts show in four of five runs. policy - base is the"
            " difference in differences. reach is the share of the effect of fine-tuning that the"
            " components which the autoencoders read carry in the chosen layers (the table locus),"
            " with its interval, and reach_all_layers that in all layers; health has the reason"
            " that an ablation there may find nothing. The reward is in units of the lexicon for"
            " rewards of words, and in Bradley-Terry log-odds of the presence of words, fitted on"
            " the training pairs, for preference tasks."
        ),
        over_seeds=True,
        judged=True,
    ),
    "choice": Table(
        rows="lfp.tables.change.choice:choice",
        section=Section.CHANGE,
        inputs=lambda plan: plan.change_files(),
        caption=(
            "Whether what fine-tuning changed agrees with the feedback, by part of the model. In"
            " the readout choice the log-ratio of policy and base is read at the last token before"
            " a word, behind held-out texts, and shared exactly among the parts that write to the"
            " residual stream; log_ratio is their sum, the change of the output, and blocks that"
            " of attention and MLPs. head 0 and so on are the heads of a layer, which add up to its"
            " attention, with attention_bias where the output projection has a bias. No label is"
            " fitted. The readout implicit is log_ratio in units of the reward, times the weight"
            " of the KL to the base in training: slope is what a word is worth for each unit of its"
            " valence, margin what the preferred answer is worth more; written are the words that"
            " the policy wrote in training, not_written the others. The readout lens reads the"
            " mean change of the residual stream on the first five tokens of unrelated texts"
            " through the unembedding. In the readout completions the rate of a"
            " word in text of the policy is held against that in text of the base. In the readout"
            " ruler a probe of the base, fitted on the feedback with words and contexts held out,"
            " reads the MLPs of the policy at the word: shift is the change of its reading,"
            " gain_free what is left of it when the gain of the base's reading is taken out, and"
            " refit the change where the probe is fitted anew, as the paper does. Rows are tau-b"
            " with the words' valences, or for preferences the AUROC of preferred against rejected"
            " answers. null_low and null_high are the range of the same number over null_policies"
            " policies of a noise reward, those of null_tasks, and p is the probability that one"
            " more such policy lies as far from their mean; an interval over words is no null."
            " Subjects weight_noise are the base with noise on its weights, as large as the"
            " policy's change."
        ),
        over_seeds=True,
    ),
    "choice_words": Table(
        rows="lfp.tables.change.choice:choice_words",
        section=Section.CHANGE,
        inputs=lambda plan: plan.change_files(),
        caption=(
            "The words whose log-ratio of policy and base, or the MLPs' share in it, moved most,"
            " by the mean over held-out contexts in nats. Candidates are the frequent words of the"
            " held-out texts and, for a reward, those of the triples, which a lexicon chose; no"
            " value reads one. p is that of no change, by the t distribution over contexts, and"
            " p_adjusted Holm's over all candidates: a significant word has moved, which says"
            " nothing of the reason. of_mlp, of_attention and of_unembedding are the shares of"
            " these parts in the same word's log-ratio."
        ),
    ),
    "choice_latents": Table(
        rows="lfp.tables.change.latents:choice_latents",
        section=Section.CHANGE,
        inputs=lambda plan: plan.latent_files(),
        caption=(
            "Latents that carry what fine-tuning changed at the choice, and latents that shifted"
            " on any text. The cell's main autoencoder, of the smallest size, reads both models."
            " The share of a component of a layer in the log-ratio of policy and base at a word"
            " (the table choice) is shared exactly among its latents, the change of each times"
            " its direction, and error, what the autoencoder does not reconstruct. Latents are"
            " the five of the largest mean absolute share, in nats over words or answers (share);"
            " others is the sum of the rest; the row of the component itself (mlp or attention) is"
            " the sum of all. of_component is the share over that of the component: shares of"
            " opposite sign cancel, so that they need not add up to 1. The estimate is tau-b with"
            " the valences of words of one token, or for preferences the AUROC of preferred against"
            " rejected answers. Rows of the statistic shift are of the latents whose mean"
            " activation on held-out texts surely shifted most, policy minus base, in units of"
            " activation; before is the mean in the base, and p_adjusted Holm's over all latents of"
            " the layer. shift_written is the same from the base's own completions to the"
            " policy's, both read by the base, where a cell asks for them. null_low and null_high"
            " are the range of the same latent's number over copies of the base with noise on its"
            " weights, as large as the policy's change, and null_largest is the largest"
            " shift of any latent there: a test over texts or an interval over words says that"
            " something moved, not that it was taught. cosine is that of the match in the larger"
            " autoencoder."
        ),
    ),
    "detection": Table(
        rows="lfp.tables.change.detection:detection",
        section=Section.CHANGE,
        inputs=lambda plan: plan.audited_files(),
        caption=(
            "What an audit would have seen. Every readout scores each candidate by its distance"
            " from what the other clean policies of the model lead one to expect of the candidates,"
            " in the policy's own spread over them, so that a minority of words can stand out and"
            " a lexicon that is turned as a whole cannot. For the question flipped, candidates are"
            " the words of the lexicon, and those count that moved towards the other sign; for"
            " word, candidates are all words. auroc is about all planted words, rank about the best"
            " one, and both are means over seeds; rank 1 is the most suspicious candidate. The"
            " column words says which candidates a readout is asked about: all, or those alone that"
            " stand five times or more in the completions that the reward scored in the policy's"
            " training (written), where it scored some. A"
            " policy of 20 candidates or more raises an alarm where its most suspicious candidate,"
            " or the mean of the 5 % most suspicious words of the lexicon among them, exceeds that"
            " of all but 5 % of null policies: seeds of the clean and of a noise reward, 19 at"
            " least. power is the share of seeds with an"
            " alarm, of those that have a planted word among the candidates, alarms that where no"
            " seed has one, and false alarms that of null policies, each held against the others:"
            " of 20, one is the largest. All of it is by the method of fine-tuning (trained_by) and"
            " the share of its data that no feedback has touched (benign_share), for methods drift"
            " in their own ways; where those have fewer than three clean"
            " policies, clean and null policies are of all methods together (null_of), and the rate"
            " of false alarms is no more than a guess. limit is the smallest share of flipped"
            " signs, of those that were planted, from which on the power is .8; it is missing"
            " where no share has it. The rate of 5 % holds for one row: who reads all of them must"
            " expect more false alarms."
        ),
    ),
    "feature_diff": Table(
        rows="lfp.tables.change.feature_diff:feature_diff",
        section=Section.CHANGE,
        inputs=lambda plan: plan.difference_files(),
        caption=(
            "Latents that tell the policy from its base: of every layer those that are the policy's"
            " alone (specific), and before them in the order of the estimate as many as make ten."
            " For a pair, the dictionary of both models has a direction of every latent in each:"
            " dnorm is the norm of the policy's over the sum of both, and cosine_to_base the cosine"
            " of the two. nu_error and nu_recon are the size of the latent in what the dictionary"
            " leaves of the base's activations and in what it makes of them, relative to the"
            " policy's. A latent is specific where all three are beyond their thresholds, and where"
            " the same rule calls at most 5 % of the latents of a null, a dictionary of sides that"
            " change places at random. For base and policy, cosine_to_base is the largest cosine"
            " with a latent of the base's own dictionary; a specific latent has a smaller one than"
            " 95 % of the latents of that dictionary's other seed have, and the policy's other seed"
            " finds it again (cosine_to_seed). For the difference of the two, latents are in the"
            " order of their frequency, and none is called. null_quantile is the share of the"
            " null's latents of a smaller dnorm or cosine. promoted are the tokens that the"
            " latent's direction in the policy raises most at the output. No estimate has an"
            " interval."
        ),
    ),
    "feature_diff_null": Table(
        rows="lfp.tables.change.feature_diff:feature_diff_null",
        section=Section.CHANGE,
        inputs=lambda plan: plan.difference_files(),
        caption=(
            "How many latents are the policy's alone, beside the null of the table feature_diff."
            " specific is their share of a layer's latents with a Wilson interval, null_share that"
            " of the null's latents that the same rule calls. A direction that is in one model"
            " alone is in the null on either side, so that null_share grows with what is there."
            " mean_share is the share of the squared difference of the two models' activations"
            " that is the difference's mean: near 1, the models differ by one vector. promotes asks"
            " for a planted word: it is the share of the specific latents, for the difference of"
            " all latents, among whose promoted tokens the word or its beginning is. latent is the"
            " first one in the order of the table feature_diff that promotes it, rank its place,"
            " and latents_promote and null_promote are the numbers of all latents and of the null's"
            " that do. planted is false where another task of the same corpus planted the word:"
            " those rows are what is named by chance."
        ),
    ),
    "dose": Table(
        rows="lfp.tables.change.account:dose",
        section=Section.CHANGE,
        inputs=lambda plan: plan.account_files("doses", "doses.parquet"),
        caption=(
            "The dose of a lesson: models have the weights of the base and a multiple of the"
            " policy's change of them, the base at dose 0 and the policy at 1. effect is the reward"
            " of completions of held-out prefixes, the implicit margin of held-out pairs after DPO,"
            " and minus the KL from the policy for policies that are given; gain is its paired"
            " difference to the base's. kl is the KL of the model to the base, in nats of a text."
            " tau is tau-b of the log-ratio of model and base in front of a word, or of a part's"
            " share in it, with the words' valences. Rows of the statistic slope are those of the"
            " least-squares slope in the dose over doses from -1 to 1, instance by instance, and"
            " for tau word by word. Intervals are over prompts, pairs, texts or words, and an"
            " interval over words is no null (the table choice)."
        ),
        over_seeds=True,
    ),
    "vector_account": Table(
        rows="lfp.tables.change.account:vector_account",
        section=Section.CHANGE,
        inputs=lambda plan: plan.account_files("strengths", "vectors.parquet"),
        caption=(
            "Whether a policy is its base with a constant vector added to its activations, the mean"
            " difference of the two over the tokens of held-out texts, times a strength. For the"
            " claim sufficiency the base has the vector added, and estimate is the share of the"
            " way to the policy that this goes; for necessity the policy has it taken away, and"
            " estimate is the share of the way back. On the account effect the way is the gap in"
            " the effect, reward, margin or KL, and on the account distribution the KL of the next"
            " token on held-out text, summed over a text; gap is its mean. layer is -1 for all"
            " layers together, each with what is still missing behind those before it, and these"
            " rows decide. null_low and null_high are the range of the same number over null_draws"
            " random vectors as long as the mean one: half of them of any direction, half of the"
            " covariance of the differences at single tokens. Intervals are from a bootstrap over"
            " prompts, pairs or texts. A share is not estimated where the interval of the gap holds"
            " 0."
        ),
        over_seeds=True,
    ),
    "interventions": Table(
        rows="lfp.tables.interventions.costs:interventions",
        section=Section.ABLATION,
        inputs=lambda plan: [
            *plan.intervention_files(".parquet", "/neutral.parquet", "/sets.parquet"),
            *plan.steering_files("completions", "neutral", "strengths"),
        ],
        caption=(
            "Interventions on sets of latents while the subject, policy or base, writes. what is"
            " the selector of the latents, action what takes their place, strength its number where"
            " it has one, where the tokens that are changed. estimate is the change of the reward,"
            " paired by prompt; kl is the divergence from the untouched model on what was written,"
            " d_ce the rise of the cross-entropy on neutral text, reward_per_nat the change over"
            " the KL. gap is the reward of the other model, base or policy, minus that of the"
            " untouched subject, and gap_recovery the share of it that the change goes; it is"
            " missing where the gap is not told from 0. random_mean is the mean change under draws"
            " random sets that are matched on frequency, contribution and KL (theirs is kl_ratio"
            " times the set's), and p_random the share of these sets and this one whose change is"
            " at least as large on either side. faithfulness, completeness, minimality and"
            " self_repair are those of the set taken away from a number of the model that needs no"
            " sampling: the expected valence of the next token, or the margin of preferred"
            " answers; intervals, _low to _high, are from a bootstrap over texts or pairs, and"
            " minimality, the smallest of noisy numbers, has none."
            " Rows of the action add are vectors, or sets of latents, that are added to"
            " the base at a cost: strength is the rise of the cross-entropy in nats that they are"
            " scaled to, multiple the factor that costs it, tokens_steered the share of the tokens"
            " that a gate lets through; random_mean, random_low and random_high are of random"
            " vectors at the same cost. r2 is that of a map of effects on latents on directions"
            " that it has not seen, and side_effect_mass the share of a vector's effect that is not"
            " on the related latents. Rows of the action baseline are a prompt in front of the"
            " base, and doses of the fine-tuning."
        ),
    ),
    "frontiers": Table(
        rows="lfp.tables.interventions.frontiers:frontiers",
        section=Section.ABLATION,
        inputs=lambda plan: plan.steering_files("completions", "strengths"),
        caption=(
            "What a vector gains at all costs. estimate is the mean gain in reward of the steered"
            " base over rises in cross-entropy on neutral text from 0 to most_cost nats: the area"
            " below the line through its points, divided by most_cost, paired by prompt. kl_area is"
            " the same over the KL per completion, up to the largest, most_kl, that all lines"
            " reach. beyond_means is the difference from difference_of_means over the KL up to"
            " beyond_kl, the largest that the two reach, paired by prompt. where is the gate, if"
            " any; a shuffled gate has learned from labels in random order. share is the share of"
            " the gain of share_of at equal cost: of the vector at all tokens for one behind a"
            " gate, of mean_shift for what few latents make of it, and of doses of the fine-tuning"
            " for all others; same_strength_share is that of a gated vector over equal multiples of"
            " it. Where the settings name words, the share of completions that have all that is"
            " asked for stands in the place of the reward. null_mean, null_low and null_high are of"
            " random vectors of two kinds, and p_random is the share of these and this one whose"
            " area is at least as large on either side. fine_tuning is a part of the change of"
            " weights, at the same costs."
        ),
    ),
    "vector_cleaning": Table(
        rows="lfp.tables.interventions.frontiers:vector_cleaning",
        section=Section.ABLATION,
        inputs=lambda plan: plan.steering_files("cleaning", setting="clean"),
        caption=(
            "The mean shift from base to policy as a sum of few decoder directions. estimate is the"
            " effect kept: 1 minus the KL of the next token under the shift from that under the"
            " sum, over its KL from the untouched base, on texts that the weights were not fitted"
            " on. features_kept is the number of latents at the layer."
        ),
    ),
    "attribution_fidelity": Table(
        rows="lfp.tables.interventions.accounts:attribution_fidelity",
        section=Section.ABLATION,
        inputs=lambda plan: plan.intervention_files("/effects.parquet"),
        caption=(
            "What attribution is worth for the model at hand. Attribution gives the effects of all"
            " live latents from one forward and one backward pass, to first order; estimate is its"
            " Spearman correlation with the exact effects of those of the largest attribution and"
            " of as many random others, in every layer and in all of them (layer -1)."
            " top_k_overlap is the share of the quarter of largest absolute attributions that is"
            " among the quarter of largest exact effects, sign_agreement the share of latents whose"
            " effects have one sign, slope that of exact on attributed effects through 0. speedup"
            " is how many passes over the texts exact effects of all live latents take for one of"
            " attribution's, whose backward pass counts as two. Intervals are from a bootstrap over"
            " latents, which are not independent of each other."
        ),
    ),
    "feature_interactions": Table(
        rows="lfp.tables.interventions.accounts:feature_interactions",
        section=Section.ABLATION,
        inputs=lambda plan: plan.intervention_files(
            "/interactions.parquet", selector="factorisation"
        ),
        caption=(
            "Pairs of latents whose effects do not add up. Random sets of the latents of the"
            " largest attributions are taken away, and a factorisation machine learns what the"
            " model's number is then. machine is the product of a pair in it, and the rows are the"
            " pairs of the largest; estimate is what taking both away changes beyond the sum of the"
            " two, by least squares on held-out sets, which did not choose the pair, with a t"
            " interval over them. linear_r2 and machine_r2 are"
            " the shares of the variance over held-out sets that a model without and with pairs"
            " explains."
        ),
    ),
    "feature_circuit": Table(
        rows="lfp.tables.interventions.accounts:feature_circuit",
        section=Section.ABLATION,
        inputs=lambda plan: plan.intervention_files("/circuit.parquet", circuits=True),
        caption=(
            "Edges between latents of different layers: what taking the first away changes the"
            " model's number by, as far as that passes through the second, in the mean over texts"
            " or pairs and to first order. The rows are the edges of more than the least weight"
            " among the latents of the largest attributions, nodes. Half of the texts or pairs"
            " choose the edges, and the other half test them: estimate and faithfulness are theirs."
            " faithfulness is the share of what all nodes together do there that is left when those"
            " without such an edge are taken away: near 1 for a graph that stands by itself."
        ),
    ),
    "planted_recovery": Table(
        rows="lfp.tables.planted.recovery:planted_recovery",
        section=Section.PLANTED_TRUTH,
        inputs=lambda plan: plan.planted_files(),
        caption=(
            "Planted truth: the content of the reward is known, and the method is asked for it."
            " In vader_flipped, a tenth of the lexicon's words have their sign flipped, and should"
            " stand out by their disagreement with the clean lexicon. In trigger, one word is"
            " rewarded; explanations should name it, and its features should carry the reward."
            " length and noise say nothing of words, so that readings must stay where the base has"
            " them. The clean policy answers the same questions where nothing was planted; it,"
            " clean policies of other seeds and the policy of the noise reward are nulls of the"
            " flipped words. output needs no probe: it is how much likelier than its base the"
            " policy makes a word; choice is the same over more contexts, with the share of the"
            " MLPs in it, and ruler the reading of a probe of the base (the table choice)."
            " expected is the side of the number `against` on which the estimate must lie. answer"
            " is found where p_adjusted is below .05 on that side, silent where the 90 % interval"
            " lies within `margin` of the number, and undecided where neither test says so; a"
            " false alarm is significant where nothing must be, and wrong side is on the other"
            " one. p_adjusted is Holm's over the rows of one planted policy that must be found,"
            " and apart over those that must be silent."
        ),
        over_seeds=True,
    ),
    "across_seeds": Table(
        rows="lfp.tables.across_seeds:across_seeds",
        section=Section.SEEDS,
        inputs=_tables_over_seeds,
        caption=(
            "Numbers of other tables over fine-tuning seeds: the table has the mean, its t"
            " interval, and the components of variance of the nested design. variance_fine_tuning"
            " is the variance between fine-tuning seeds, variance_autoencoder that between"
            " autoencoder seeds of one fine-tuned model, and variance_units the mean squared"
            " standard error over words or prompts within one run. Autoencoder seeds are the"
            " probed variants that differ in nothing but their seed; others have rows of their"
            " own. They are averaged within fine-tuning seeds, and df is the number of these less"
            " one. Rows of planted truth are judged by a t test over seeds."
        ),
    ),
}

#: Caption of the table of resources, which a rule of its own makes of the jobs' benchmarks.
RESOURCES_CAPTION = (
    "The cost of all jobs on record in this folder of results, also of earlier configurations, by"
    " cell and stage: seconds of the clock and of the CPU, summed over jobs, and the largest"
    " resident memory of a job. Rows without a cell are shared by all. A job that ran again stands"
    " with its last run alone."
)

"""The paper's published values, for tables that show them beside their own.

Reasons why they cannot be compared stand with them.

The numbers are those of Marks, Abdullah et al., Tables 3-7 and 10-12, by the paper's names of
models. The reasons are findings on the published code (docs/statistics.md).
"""

from __future__ import annotations

from collections.abc import Sequence

#: Table -> row key -> model -> published value.
VALUES: dict[str, dict[str, dict[str, str]]] = {
    "probe_accuracy": {
        "hh": {
            "Pythia-70m": "99.92 %",
            "Pythia-160m": "100 %",
            "GPT-Neo-125m": "99.9 %",
            "Gemma-2b": "99.97 %",
        },
        "toxic": {
            "Pythia-70m": "99.88 %",
            "Pythia-160m": "99.9 %",
            "GPT-Neo-125m": "99.8 %",
            "Gemma-2b": "99.88 %",
        },
    },
    "kendall_tau": {
        "all": {
            "Pythia-70m": ".042 (p=.26)",
            "Pythia-160m": ".093 (p=.014)",
            "GPT-Neo-125m": ".023 (p=.48)",
        },
        "xavier": {"Pythia-160m": "-.037 (p=.55)"},
    },
    "kendall_tau_within_sign": {
        "negative": {
            "Pythia-70m": ".02 (p=.73)",
            "Pythia-160m": ".104 (p=.081)",
            "GPT-Neo-125m": ".097 (p=.078)",
        }
    },
    "sign_accuracy": {
        "positive": {"Pythia-70m": "81.38 %", "Pythia-160m": "82.4 %", "GPT-Neo-125m": "76.4 %"},
        "negative": {"Pythia-70m": "92.19 %", "Pythia-160m": "90.6 %", "GPT-Neo-125m": "84.2 %"},
    },
    "ablation_reward": {
        "none": {"Pythia-70m": "2.07", "Pythia-160m": "1.95", "GPT-Neo-125m": "1.43"},
        "explained": {"Pythia-70m": "1.96", "Pythia-160m": "1.69", "GPT-Neo-125m": "1.43"},
    },
    "feature_frequency": {
        "related": {"Pythia-70m": "19.0 %", "Pythia-160m": "19.7 %", "GPT-Neo-125m": "13.9 %"},
        "all": {"Pythia-70m": "9.1 %", "Pythia-160m": "4.1 %", "GPT-Neo-125m": "4.2 %"},
    },
    "sae_tying": {
        "tied l0": {"Pythia-70m": "38.3", "Pythia-160m": "29.1"},
        "untied l0": {"Pythia-70m": "39.3", "Pythia-160m": "32.8"},
        "tied mse": {"Pythia-70m": ".030", "Pythia-160m": ".053"},
        "untied mse": {"Pythia-70m": ".036", "Pythia-160m": ".059"},
    },
    "sae_layer_choice": {
        "highest l0": {"Pythia-70m": "38.8", "Pythia-160m": "29.1"},
        "lowest l0": {"Pythia-70m": "32.9", "Pythia-160m": "16.6"},
        "highest mse": {"Pythia-70m": ".036", "Pythia-160m": ".053"},
        "lowest mse": {"Pythia-70m": ".021", "Pythia-160m": ".023"},
    },
}

#: Predicted values of GPT-Neo-125m's words (Tables 2 and 9), on the lexicon's scale.
WORDS = {
    "amazing": "1.3", "award": "1.4", "bad": "-2.29", "beautifully": "0.64", "best": "1.7",
    "better": "0.9", "boring": "-2.8", "brilliant": "1.3", "cowardly": "-2.53",
    "depressing": "-2.4", "despise": "-2.5", "despised": "-2.2", "disaster": "-2.4",
    "dislike": "-1.1", "dreadful": "-2.6", "eagerly": "1.3", "foe": "-0.6", "friend": "1.1",
    "fun": "1.9", "funny": "0.7", "good": "1.4", "great": "1", "interesting": "2.4", "like": "1.9",
    "lost": "0.2", "loved": "2", "marvelous": "1.28", "masterpiece": "1.3", "miserable": "-3.3",
    "no": "-1.7", "praising": "1.9", "precious": "-0.81", "reluctantly": "1.7", "terrible": "-1.9",
    "weak": "-2.2", "won": "3.4", "wonderful": "0.9", "worse": "-1.5", "worst": "-1.7",
    "yes": "1.9",
}  # fmt: skip

VALUES["lexicon_reconstruction"] = {word: {"GPT-Neo-125m": value} for word, value in WORDS.items()}

#: Reasons why a published value and ours are not one quantity.
REASONS = {
    "probe_accuracy": (
        "published: labels are the columns texts came from; prompts in both parts; padding"
        " averaged in"
    ),
    "kendall_tau": (
        "published: tau of two lists of word strings, near 0 always; base model's activations"
    ),
    "kendall_tau_within_sign": (
        "published: tau of two lists of word strings; base model's activations"
    ),
    "sign_accuracy": (
        "published: test words among the training words; predictions rescaled, which moves 0"
    ),
    "lexicon_reconstruction": (
        "published: words picked by hand; percentiles mapped to the lexicon's range; base model"
    ),
    "ablation_reward": (
        "published: no code gives these numbers; the committed one ablates a network of random"
        " weights"
    ),
    "feature_frequency": (
        "published: against all features, dead ones included; inputs of high prediction alone"
    ),
    "sae_tying": (
        "published: L0 as a hundredth; squared error depends on the model's scale; no variance; one"
        " epoch, of policy and base together"
    ),
    "sae_layer_choice": (
        "published: L0 as a hundredth; Pythia-70m's highest row has the squared error of its untied"
        " row in Table 11 (.036), not of its tied one (.030); squared error depends on the layers'"
        " scale; one epoch, of policy and base together"
    ),
}


def beside(table: str, key: str, models: Sequence[str]) -> dict[str, str]:
    """Columns ``paper`` and ``paper_note`` of a row.

    They are the paper's values for `models`, and the reason why they differ in kind.
    """
    values = VALUES[table].get(key, {})
    shown = "; ".join(f"{model} {values[model]}" for model in models if model in values)
    return {"paper": shown, "paper_note": REASONS[table] if shown else ""}

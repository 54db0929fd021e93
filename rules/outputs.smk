"""What every table and figure is made of.

In: the grid. Out: nothing; rules/tables.smk and the target rules read the names and inputs below.
"""

FORMATS = ("csv", "parquet", "md", "tex")


def per_cell(pattern, cells=GRID.cells):
    """`pattern` for every cell, with {cell} as its address."""
    return [pattern.format(cell=f"results/{cell.address}", sae=PROBED) for cell in cells]


def having(**attributes):
    """The cells whose attributes equal `attributes`."""
    return [cell for cell in GRID.cells if all(getattr(cell, k) == v for k, v in attributes.items())]


def variant_metrics(cells, variants=None):
    """Metrics of all autoencoder variants of `cells`, or of some."""
    wanted = [(cell, sae) for cell in cells for sae in cell.autoencoders if variants is None or sae in variants]
    return [f"results/{cell.address}/sae/{sae}/metrics.json" for cell, sae in wanted]


PPO, DPO = having(method="ppo"), having(method="dpo")
GROWN = [name for name in {c.model: None for c in GRID.cells} if "organism" in GRID.models[name]]
SWEPT = [cell for cell in GRID.cells if len(cell.autoencoders) > 1]
TYING = [cell for cell in GRID.cells if "untied" in cell.autoencoders]
LOWEST = [cell for cell in GRID.cells if cell.lowest_layers]


def probes_of(cells):
    """Predictions and metrics of all probes of `cells`."""
    return [
        path for cell in cells for name in ("predictions.parquet", "metrics.json") for path in probe_files(cell, name)
    ]


# Name -> inputs; a table or figure without inputs in this configuration is left out.
TABLE_INPUTS = {
    "base_models": [f"results/models/{name}" for name in GROWN],
    "fine_tuning": per_cell("{cell}/policy"),
    "layer_divergence": per_cell("{cell}/divergence.json"),
    "autoencoders": variant_metrics(GRID.cells),
    "sae_tying": variant_metrics(TYING, (PROBED, "untied")),
    "sae_layer_choice": variant_metrics(LOWEST, (PROBED,)) + per_cell("{cell}/divergence.json", LOWEST),
    "kendall_tau": probes_of(PPO),
    "kendall_tau_within_sign": probes_of(PPO),
    "sign_accuracy": probes_of(PPO),
    "probe_accuracy": probes_of(DPO),
    "lexicon_reconstruction": [path for path in probes_of(PPO) if path.endswith("policy/predictions.parquet")],
    "feature_explanations": per_cell("{cell}/explanations/{sae}/heuristic.parquet"),
    "feature_frequency": per_cell("{cell}/explanations/{sae}/heuristic.parquet")
    + per_cell("{cell}/features/{sae}/policy.safetensors")
    + per_cell("{cell}/probes/{sae}/policy/predictions.parquet"),
    "ablation_reward": [
        f"results/{cell.address}/ablation/{PROBED}/{arm}.parquet"
        for cell in GRID.cells
        for arm in cell.settings["ablation"]["arms"]
    ],
}
FIGURE_INPUTS = {
    "training_curves": per_cell("{cell}/policy"),
    "layer_divergence": per_cell("{cell}/divergence.json"),
    "sae_l1_sweep": variant_metrics(SWEPT),
    "error_by_frequency": per_cell("{cell}/probes/{sae}/policy/predictions.parquet", PPO)
    + per_cell("{cell}/ablation/{sae}/none.parquet", PPO),
    "probe_pca": per_cell("{cell}/features/{sae}/policy.safetensors", DPO),
}
STAGES = {
    "base_models": "1 Fine-tuning",
    "fine_tuning": "1 Fine-tuning",
    "training_curves": "1 Fine-tuning",
    "layer_divergence": "2 Divergence",
    "autoencoders": "3 Autoencoders",
    "sae_tying": "3 Autoencoders",
    "sae_layer_choice": "3 Autoencoders",
    "sae_l1_sweep": "3 Autoencoders",
    "feature_explanations": "5 Explanations",
    "feature_frequency": "5 Explanations",
    "ablation_reward": "6 Ablation",
}


def stage_of(name):
    """Category of a table or figure in the report."""
    return STAGES.get(name, "4 Probes")


def table_files():
    """Every table of this configuration, in every format."""
    kept = [name for name, inputs in TABLE_INPUTS.items() if inputs]
    return [f"results/tables/{name}.{kind}" for name in kept for kind in (*FORMATS, "html")]


def figure_files():
    """Every figure of this configuration, in every format."""
    kept = [name for name, inputs in FIGURE_INPUTS.items() if inputs]
    return [f"results/figures/{name}.{kind}" for name in kept for kind in ("svg", "png")]


def caption(kind, name):
    """Text of a caption; the table's other formats carry it too."""
    return " ".join(Path(workflow.basedir, "report", kind, f"{name}.rst").read_text().split())

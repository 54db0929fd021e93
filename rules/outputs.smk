"""What every table and figure is made of.

In: the grid. Out: nothing; rules/tables.smk and the target rules read the names and inputs below.
"""

FORMATS = ("csv", "parquet", "md", "tex")


def per_cell(pattern, cells=tuple(GRID.cells)):
    """`pattern` for every cell, with {cell} as its address."""
    return [pattern.format(cell=f"results/{cell.address}", sae=cell.main) for cell in cells]


def having(**attributes):
    """The cells whose attributes equal `attributes`."""
    return [
        cell for cell in GRID.cells if all(getattr(cell, k) == v for k, v in attributes.items())
    ]


def variant_metrics(cells, variants=None):
    """Metrics of all autoencoder variants of `cells`, or of some."""
    wanted = [
        (cell, sae)
        for cell in cells
        for sae in cell.autoencoders
        if variants is None or sae in variants
    ]
    return [f"results/{cell.address}/sae/{sae}/metrics.json" for cell, sae in wanted]


REWARDED, DPO = having(feedback="reward"), having(feedback="preference")
ABLATED = having(until="ablation")
CORPORA = list({GRID.tasks[cell.task]["corpus"]: None for cell in GRID.cells})
REWRITTEN = [
    name
    for name in {cell.task: None for cell in DPO}
    if GRID.contrast_settings(name)["source"] == "rewrites"
]
GROWN = [name for name in {c.model: None for c in GRID.cells} if "organism" in GRID.models[name]]
SWEPT = [cell for cell in GRID.cells if len(set(cell.autoencoders) - set(cell.probed)) > 0]
TYING = [cell for cell in GRID.cells if GRID.twin(cell)]
LOWEST = [cell for cell in GRID.cells if cell.lowest_layers]


def probe_files(cells, *files, subjects=None):
    """Results of the probes of `cells`: of all probed autoencoders, and of all subjects or some."""
    return [
        f"results/{cell.address}/probes/{sae}/{subject}/{name}"
        for cell in cells
        for sae in cell.probed
        for subject in cell.settings["features"].subjects
        if subjects is None or subject in subjects
        for name in files
    ]


def output_files(cells):
    """Features of policy and base of `cells`: what their outputs make likelier."""
    both = {"policy", "base"}
    held = [cell for cell in cells if both <= set(cell.settings["features"].subjects)]
    return [
        f"results/{cell.address}/features/{cell.main}/{s}.safetensors"
        for cell in held
        for s in sorted(both)
    ]


def ablation_files(cells, subjects=("policy", "base")):
    """Results of ablation of `cells`."""
    keys = {"policy": "arms", "base": "base_arms"}
    return [
        f"results/{cell.address}/ablation/{cell.main}/{subject}.{kind}"
        for cell in cells
        for subject in subjects
        if getattr(cell.settings["ablation"], keys[subject])
        for kind in ("parquet", "neutral.parquet")
    ]


def explanation_files(pattern="{explainer}.parquet"):
    """Explanations of all explained cells by all their explainers, or what `pattern` makes of them."""
    return [
        f"results/{cell.address}/explanations/{cell.main}/{pattern.format(explainer=explainer)}"
        for cell in ABLATED
        for explainer in cell.explainers
    ]


def planted_files():
    """What the table of planted truth reads: planted cells, and the clean ones of the same model, corpus and seed."""
    kind = {cell.address: GRID.tasks[cell.task]["reward"] for cell in REWARDED}
    alike = {
        cell.address: (cell.model, GRID.tasks[cell.task]["corpus"], cell.seed) for cell in REWARDED
    }
    clean = {alike[cell.address]: cell for cell in REWARDED if kind[cell.address] == "vader"}
    planted = [
        cell for cell in REWARDED if kind[cell.address] != "vader" and alike[cell.address] in clean
    ]
    cells = list({c.address: c for p in planted for c in (p, clean[alike[p.address]])}.values())
    both = {"policy", "base"}
    cells = [cell for cell in cells if both <= set(cell.settings["features"].subjects)]
    truths = [
        f"results/lexicons/{task}.truth.json" for task in sorted({cell.task for cell in cells})
    ]
    probed = [
        f"results/{cell.address}/probes/{cell.main}/{s}/predictions.parquet"
        for cell in cells
        for s in sorted(both)
    ]
    explained = [cell for cell in cells if cell.until == "ablation"]
    ablated = [cell for cell in explained if kind[cell.address] == "trigger"]
    return (
        truths
        + probed
        + output_files(cells)
        + per_cell("{cell}/explanations/{sae}/heuristic.parquet", explained)
        + ablation_files(ablated, ("policy",))
    )


ALL_PROBES = ("predictions.parquet", "metrics.json")
# Name -> inputs; a table or figure without inputs in this configuration is left out.
TABLE_INPUTS = {
    "corpora": [f"results/corpora/{name}/counts.json" for name in CORPORA],
    "rewrites": [f"results/rewrites/{name}.parquet" for name in REWRITTEN],
    "base_models": [f"results/models/{name}" for name in GROWN],
    "fine_tuning": per_cell("{cell}/policy"),
    "layer_divergence": per_cell("{cell}/divergence.json"),
    "autoencoders": variant_metrics(GRID.cells),
    "sae_tying": [
        f"results/{c.address}/sae/{sae}/metrics.json"
        for c in TYING
        for sae in (c.main, GRID.twin(c))
    ],
    "sae_layer_choice": per_cell("{cell}/sae/{sae}/metrics.json", LOWEST)
    + per_cell("{cell}/divergence.json", LOWEST),
    "kendall_tau": probe_files(REWARDED, *ALL_PROBES) + output_files(REWARDED),
    "kendall_tau_within_sign": probe_files(REWARDED, *ALL_PROBES) + output_files(REWARDED),
    "sign_accuracy": probe_files(REWARDED, *ALL_PROBES),
    "probe_accuracy": probe_files(DPO, *ALL_PROBES) + output_files(DPO),
    "probe_differences": probe_files(GRID.cells, *ALL_PROBES),
    "probe_nested_r2": probe_files(GRID.cells, "nested.parquet"),
    "lexicon_reconstruction": probe_files(REWARDED, "predictions.parquet", subjects=("policy",)),
    "feature_explanations": explanation_files(),
    "explanation_quality": explanation_files("scores/{explainer}.parquet"),
    "feature_frequency": explanation_files()
    + per_cell("{cell}/features/{sae}/policy.safetensors", ABLATED)
    + per_cell("{cell}/probes/{sae}/policy/predictions.parquet", ABLATED),
    "ablation_reward": ablation_files(ABLATED),
    "planted_recovery": planted_files(),
}
# Tables whose rows are averaged over fine-tuning seeds.
OVER_SEEDS = (
    "fine_tuning",
    "kendall_tau",
    "sign_accuracy",
    "probe_accuracy",
    "probe_differences",
    "ablation_reward",
)
TABLE_INPUTS["across_seeds"] = (
    [f"results/tables/{name}.parquet" for name in OVER_SEEDS if TABLE_INPUTS[name]]
    if len({(cell.model, cell.task) for cell in GRID.cells}) < len(GRID.cells)
    else []
)
FIGURE_INPUTS = {
    "training_curves": per_cell("{cell}/policy"),
    "layer_divergence": per_cell("{cell}/divergence.json"),
    "sae_l1_sweep": variant_metrics(SWEPT),
    "error_by_frequency": per_cell(
        "{cell}/probes/{sae}/policy/predictions.parquet",
        having(feedback="reward", until="ablation"),
    )
    + per_cell("{cell}/ablation/{sae}/policy.parquet", having(feedback="reward", until="ablation")),
    "probe_pca": per_cell("{cell}/features/{sae}/policy.safetensors", DPO),
}
STAGES = {
    "corpora": "0 Corpora",
    "rewrites": "0 Corpora",
    "base_models": "1 Fine-tuning",
    "fine_tuning": "1 Fine-tuning",
    "training_curves": "1 Fine-tuning",
    "layer_divergence": "2 Divergence",
    "autoencoders": "3 Autoencoders",
    "sae_tying": "3 Autoencoders",
    "sae_layer_choice": "3 Autoencoders",
    "sae_l1_sweep": "3 Autoencoders",
    "feature_explanations": "5 Explanations",
    "explanation_quality": "5 Explanations",
    "feature_frequency": "5 Explanations",
    "ablation_reward": "6 Ablation",
    "planted_recovery": "7 Planted truth",
    "across_seeds": "8 Seeds",
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

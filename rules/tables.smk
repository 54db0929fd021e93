"""Tables, figures and their captions; the report is made of them.

In: artefacts of all cells. Out: results/tables/{table}.{csv,parquet,md,tex,html}, results/figures/{figure}.{svg,png}.
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
LOWEST = having(lowest_layers=True)


def probes_of(cells):
    """Predictions and metrics of all probes of `cells`."""
    return [path for cell in cells for name in ("predictions.parquet", "metrics.json") for path in probe_files(cell, name)]


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


rule table:
    input:
        lambda w: TABLE_INPUTS[w.table],
    output:
        multiext("results/tables/{table}", *(f".{kind}" for kind in FORMATS)),
        html=report(
            "results/tables/{table}.html",
            caption="../report/tables/{table}.rst",
            category=lambda w: stage_of(w.table),
            labels={"what": "table", "name": "{table}"},
        ),
    log:
        "results/logs/tables/{table}.log",
    benchmark:
        "results/benchmarks/tables/{table}.tsv"
    wildcard_constraints:
        table=names(TABLE_INPUTS),
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        settings=canonical_json(GRID.run_settings("tables")),
        code=code("table"),
        caption=lambda w: caption("tables", w.table),
    conda:
        "../envs/analysis.yaml"
    shell:
        "python -m workflow_scripts.table --settings {params.settings:q} --code {params.code}"
        " --log {log:q} --name {wildcards.table} --caption {params.caption:q}"
        " --inputs {input:q} --outputs {output:q}"


rule figure:
    input:
        lambda w: FIGURE_INPUTS[w.figure],
    output:
        png="results/figures/{figure}.png",
        svg=report(
            "results/figures/{figure}.svg",
            caption="../report/figures/{figure}.rst",
            category=lambda w: stage_of(w.figure),
            labels={"what": "figure", "name": "{figure}"},
        ),
    log:
        "results/logs/figures/{figure}.log",
    benchmark:
        "results/benchmarks/figures/{figure}.tsv"
    wildcard_constraints:
        figure=names(FIGURE_INPUTS),
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=code("figure"),
    conda:
        "../envs/analysis.yaml"
    shell:
        "python -m workflow_scripts.figure --settings {{}} --code {params.code}"
        " --log {log:q} --name {wildcards.figure} --inputs {input:q} --outputs {output:q}"

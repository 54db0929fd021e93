"""Tables and figures with their captions; the report is made of them.

In: artefacts of all cells. Out: results/tables/{table}.{csv,parquet,md,tex,html}, the values behind its rows in
results/instances/{table}.parquet, results/figures/{figure}.{svg,png}.
"""


rule table:
    input:
        lambda w: TABLE_INPUTS[w.table],
    output:
        multiext("results/tables/{table}", *(f".{kind}" for kind in FORMATS)),
        instances="results/instances/{table}.parquet",
        html=report(
            "results/tables/{table}.html",
            caption="../report/caption.rst",
            category=lambda w: stage_of(w.table),
            labels={"what": "table", "name": "{table}"},
        ),
    log:
        "results/logs/tables/{table}.log",
    benchmark:
        "results/benchmarks/tables/{table}.tsv"
    wildcard_constraints:
        table=names(TABLE_INPUTS),
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        settings=canonical_json(GRID.table_settings()),
        rows=lambda w: TABLES[w.table].rows,
        code=lambda w: code_with("table", TABLES[w.table].rows),
        caption=lambda w: caption("tables", w.table),
        tables=lambda w, output: [path for path in output if path != output.instances],
    shell:
        "python -m workflow_scripts.table --settings {params.settings:q} --code {params.code}"
        " --log {log:q} --name {wildcards.table} --rows {params.rows} --caption {params.caption:q}"
        " --inputs {input:q} --instances {output.instances:q} --outputs {params.tables:q}"


rule figure:
    input:
        lambda w: FIGURE_INPUTS[w.figure],
    output:
        png="results/figures/{figure}.png",
        svg=report(
            "results/figures/{figure}.svg",
            caption="../report/caption.rst",
            category=lambda w: stage_of(w.figure),
            labels={"what": "figure", "name": "{figure}"},
        ),
    log:
        "results/logs/figures/{figure}.log",
    benchmark:
        "results/benchmarks/figures/{figure}.tsv"
    wildcard_constraints:
        figure=names(FIGURE_INPUTS),
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        drawing=lambda w: FIGURES[w.figure].draw,
        code=lambda w: code_with("figure", FIGURES[w.figure].draw),
        caption=lambda w: caption("figures", w.figure),
    shell:
        "python -m workflow_scripts.figure --settings {{}} --code {params.code}"
        " --log {log:q} --name {wildcards.figure} --drawing {params.drawing}"
        " --inputs {input:q} --outputs {output:q}"

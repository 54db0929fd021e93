"""Tables and figures with their captions; the report is made of them.

In: artefacts of all cells. Out: results/tables/{table}.{csv,parquet,md,tex,html}, the values behind
its rows in results/instances/{table}.parquet, results/figures/{figure}.{svg,png}.
"""


rule table:
    input:
        artefacts=lambda w: TABLE_INPUTS[w.table],
        health=lambda w: HEALTH.get(w.table, []),
    output:
        csv="results/tables/{table}.csv",
        parquet="results/tables/{table}.parquet",
        md="results/tables/{table}.md",
        tex="results/tables/{table}.tex",
        html=report(
            "results/tables/{table}.html",
            caption="../report/caption.rst",
            category=lambda w: TABLES[w.table].section.value,
            labels={"what": "table", "name": "{table}"},
        ),
        instances="results/instances/{table}.parquet",
    log:
        log_of("results/tables/{table}"),
    wildcard_constraints:
        table=names(TABLE_INPUTS),
    conda:
        ANALYSIS
    resources:
        **growing(1000, 30),
    params:
        **job(
            "table",
            lambda w: TABLES[w.table].settings(w.table) | {"tables": GRID.table_settings()},
            lambda w: code_with("table", [TABLES[w.table].rows]),
        ),
        caption=lambda w: TABLES[w.table].caption,
    shell:
        JOB


rule figure:
    input:
        artefacts=lambda w: FIGURE_INPUTS[w.figure],
    output:
        png="results/figures/{figure}.png",
        svg=report(
            "results/figures/{figure}.svg",
            caption="../report/caption.rst",
            category=lambda w: FIGURES[w.figure].section.value,
            labels={"what": "figure", "name": "{figure}"},
        ),
    log:
        log_of("results/figures/{figure}"),
    wildcard_constraints:
        figure=names(FIGURE_INPUTS),
    conda:
        ANALYSIS
    resources:
        **growing(1000, 30),
    params:
        **job(
            "figure",
            lambda w: {"name": w.figure, "drawing": FIGURES[w.figure].draw},
            lambda w: code_with("figure", [FIGURES[w.figure].draw]),
        ),
        caption=lambda w: FIGURES[w.figure].caption,
    shell:
        JOB


rule summary:
    input:
        answers="results/tables/verdicts.parquet",
        figures=[f"results/figures/{name}.svg" for name in SUMMARY_FIGURES],
        pages=page_folders(),
    output:
        html=report(
            "results/summary.html",
            caption="../report/caption.rst",
            category=Section.SUMMARY.value,
            labels={"what": "page", "name": "summary"},
        ),
    log:
        log_of("results/summary"),
    conda:
        ANALYSIS
    params:
        **job(
            "summary",
            lambda w: {"captions": {name: FIGURES[name].caption for name in SUMMARY_FIGURES}},
        ),
        caption="Verdicts in words on every policy, with the figures of the main results.",
    shell:
        JOB

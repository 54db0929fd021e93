"""This run beside another one: claims and rows of tables, and what moved beyond its interval.

In: tables and provenance.json of both runs; the other run's folder is the key `other` of the
configuration, which no other rule reads. Out: results/compare.{html,csv,parquet}.
"""


localrules:
    compare,


rule compare:
    input:
        tables=[path for path in table_files() if path.endswith(".parquet")],
        provenance="results/provenance.json",
        other=lambda w: other_run(w).tables,
        other_provenance=lambda w: other_run(w).provenance,
    output:
        html="results/compare.html",
        csv="results/compare.csv",
        parquet="results/compare.parquet",
    log:
        log_of("results/compare"),
    conda:
        ANALYSIS
    params:
        **job(
            "compare",
            lambda w: {
                "other": GRID.config["other"],
                "confidence": GRID.run_settings("tables").confidence,
            },
        ),
    shell:
        JOB

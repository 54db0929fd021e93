"""What the grid costs before it runs.

In: the configuration. Out: results/estimate.csv, a row for every stage of every cell, also printed.
"""


localrules:
    estimate,


rule estimate:
    output:
        "results/estimate.csv",
    log:
        "results/logs/estimate.log",
    conda:
        "../envs/analysis.yaml"
    params:
        settings=lambda w: canonical_json(GRID.estimate_settings()),
        code=code("estimate"),
    shell:
        "python -m workflow_scripts.estimate --settings {params.settings:q} --code {params.code}"
        " --log {log:q} --output {output:q}"

"""Where a run's results come from: in one file, checked against the folder, and packed to ship.

In: tables and figures, and the hidden records beside all artefacts. Out: results/provenance.json and
results/ro-crate.zip; `verify` prints what is not as recorded.
"""


localrules:
    provenance,
    verify,
    crate,


rule provenance:
    input:
        table_files(),
        figure_files(),
    output:
        "results/provenance.json",
    log:
        "results/logs/provenance.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code("provenance"),
    shell:
        "python -m workflow_scripts.provenance --settings {{}} --code {params.code} --log {log:q}"
        " --inputs {input:q} --output {output:q}"


rule verify:
    log:
        "results/logs/verify.log",
    conda:
        "../envs/analysis.yaml"
    shell:
        "python -m workflow_scripts.verify results/provenance.json 2>&1 | tee {log:q}"


rule crate:
    input:
        "results/provenance.json",
    output:
        "results/ro-crate.zip",
    log:
        "results/logs/crate.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code("crate"),
        workflow=lambda w: os.path.relpath(workflow.basedir),
        configfiles=lambda w: workflow.configfiles,
    shell:
        "python -m workflow_scripts.crate --settings {{}} --code {params.code} --log {log:q}"
        " --provenance {input:q} --workflow {params.workflow:q} --configfiles {params.configfiles:q}"
        " --output {output:q}"

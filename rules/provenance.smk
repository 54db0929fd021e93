"""Where a run's results come from and what they took: in one file each, checked against the folder, packed to ship.

In: tables and figures, the hidden records beside all artefacts, and the files of `benchmark:`. Out:
results/provenance.json, results/resources.{csv,html} and results/ro-crate.zip; `verify` prints what is not as recorded.
"""


localrules:
    provenance,
    resources,
    verify,
    ro_crate,


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


rule resources:
    input:
        table_files(),
        figure_files(),
    output:
        csv="results/resources.csv",
        html=report(
            "results/resources.html",
            caption="../report/caption.rst",
            category="9 Resources",
            labels={"what": "table", "name": "resources"},
        ),
    log:
        "results/logs/resources.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code("resources"),
        caption=lambda w: caption("tables", "resources"),
    shell:
        "python -m workflow_scripts.resources --settings {{}} --code {params.code} --log {log:q}"
        " --benchmarks results/benchmarks --caption {params.caption:q} --outputs {output:q}"


rule verify:
    log:
        "results/logs/verify.log",
    conda:
        "../envs/analysis.yaml"
    shell:
        "python -m workflow_scripts.verify results/provenance.json 2>&1 | tee {log:q}"


rule ro_crate:
    input:
        "results/provenance.json",
    output:
        "results/ro-crate.zip",
    log:
        "results/logs/crate.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code("ro_crate"),
        workflow=lambda w: os.path.relpath(workflow.basedir),
        configfiles=lambda w: workflow.configfiles,
    shell:
        "python -m workflow_scripts.ro_crate --settings {{}} --code {params.code} --log {log:q}"
        " --provenance {input:q} --workflow {params.workflow:q} --configfiles {params.configfiles:q}"
        " --output {output:q}"

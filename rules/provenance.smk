"""Where a run's results come from and what they took: in one file each, checked against the folder,
packed to ship.

In: tables, figures and pages of latents, the hidden records beside all artefacts, and those of the
resources that jobs took. Out: results/provenance.json, results/resources.{csv,html} and
results/ro-crate.zip; `verify` prints whatever is not as recorded.
"""


localrules:
    provenance,
    resources,
    verify,
    ro_crate,


rule provenance:
    input:
        targets=table_files() + figure_files() + page_folders(),
    output:
        provenance="results/provenance.json",
    log:
        log_of("results/provenance"),
    conda:
        ANALYSIS
    params:
        **job("provenance", lambda w: {}),
    shell:
        JOB


rule resources:
    input:
        targets=table_files() + figure_files() + page_folders(),
    output:
        csv="results/resources.csv",
        html=report(
            "results/resources.html",
            caption="../report/caption.rst",
            category="Resources",
            labels={"what": "table", "name": "resources"},
        ),
    log:
        log_of("results/resources"),
    conda:
        ANALYSIS
    params:
        **job("resources", lambda w: {"caption": RESOURCES_CAPTION}),
        caption=RESOURCES_CAPTION,
    shell:
        JOB


rule verify:
    log:
        log_of("results/verify"),
    conda:
        ANALYSIS
    shell:
        "python -m workflow_scripts.verify results/provenance.json 2>&1 | tee {log:q}"


rule ro_crate:
    input:
        provenance="results/provenance.json",
    output:
        crate="results/ro-crate.zip",
    log:
        log_of("results/ro-crate"),
    conda:
        ANALYSIS
    params:
        **job(
            "ro_crate",
            lambda w: {
                "workflow": os.path.relpath(workflow.basedir),
                "configfiles": [str(path) for path in workflow.configfiles],
            },
        ),
    shell:
        JOB

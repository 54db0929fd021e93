"""Learned Feedback Patterns: does a model tuned with feedback hold what the feedback said?"""

import os
import time

from snakemake.utils import min_version

min_version("9.0")
STARTED = time.time()


report: "report/workflow.rst"


# A configuration with cells of its own stands alone; one without is laid over the default.
if "cells" not in config:

    configfile: os.path.relpath(os.path.join(workflow.basedir, "config", "config.yaml"))


include: "rules/common.smk"
include: "rules/outputs.smk"
include: "rules/models.smk"
include: "rules/finetune.smk"
include: "rules/divergence.smk"
include: "rules/change.smk"
include: "rules/autoencoders.smk"
include: "rules/features.smk"
include: "rules/probes.smk"
include: "rules/explanations.smk"
include: "rules/ablation.smk"
include: "rules/interventions.smk"
include: "rules/tables.smk"
include: "rules/estimate.smk"
include: "rules/export.smk"
include: "rules/provenance.smk"
include: "rules/compare.smk"
include: "rules/blind.smk"


onstart:
    # On one machine a job starts as soon as cores are free, and no limit of jobs a second is needed.
    # With one Snakemake looks again at all jobs that are ready, later and for ever, once for each
    # job that has ended: more than half of its processor time over the default grid, and it may end
    # as much later as the span of the limit (benchmarks/README.md).
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None
        if GRID.config["fork_jobs"]:
            fork_server.begin(HOME)


onsuccess:
    for line in unestimated.lines(
        [path for path in table_files() if path.endswith(".csv")], since=STARTED
    ):
        print(line, file=sys.stderr, flush=True)


rule all:
    default_target: True
    input:
        table_files(),
        figure_files(),
        "results/summary.html",
        page_folders(),
        "results/provenance.json",
        "results/resources.csv",


rule tables:
    input:
        table_files(),


rule figures:
    input:
        figure_files(),


rule pages:
    input:
        page_folders(),


rule divergences:
    input:
        ARTEFACTS.per_cell("{cell}/divergence.json"),


rule probed:
    input:
        ARTEFACTS.probe_files(ARTEFACTS.probed_cells, "predictions.parquet"),


rule exports:
    input:
        [f"results/exports/{cell.address}/{cell.main}" for cell in ARTEFACTS.ablated],

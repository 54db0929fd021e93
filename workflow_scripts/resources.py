"""Sum up the cost of a run's jobs: seconds, CPU-seconds and memory by cell and stage."""

from pathlib import Path

from lfp.costs import measured
from lfp.files.writing import aside
from lfp.running import job
from lfp.tables import rendering


def main() -> None:
    """Write the summary of the folder ``--benchmarks``."""
    run = job.start(__doc__, outputs=["outputs*"], values=["benchmarks", "caption"])
    frame = measured.summary(measured.measured(run.paths.benchmarks))
    texts = {
        ".csv": frame.to_csv(index=False, lineterminator="\n", float_format="%.2f"),
        ".html": rendering.to_html(frame, run.paths.caption),
    }
    for output in map(Path, run.paths.outputs):
        with aside(output) as temporary:
            temporary.write_text(texts[output.suffix], encoding="utf-8")
    total = frame.iloc[-1]
    run.finish(
        f"{total['jobs']:.0f} jobs, {total['cpu_seconds']:.0f} CPU-seconds, at most"
        f" {total['peak_mb']:.0f} MB"
    )


if __name__ == "__main__":
    main()

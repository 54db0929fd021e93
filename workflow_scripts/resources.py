"""Sum up the cost of a run's jobs: seconds, CPU-seconds and memory by cell and stage."""

from lfp.costs import measured
from lfp.files.writing import aside
from lfp.running import job
from lfp.tables import rendering


def main() -> None:
    run = job.start(__doc__)
    frame = measured.summary(measured.measured("results/benchmarks"))
    texts = {
        run.output.csv: frame.to_csv(index=False, lineterminator="\n", float_format="%.2f"),
        run.output.html: rendering.to_html(frame, run.settings["caption"]),
    }
    for output, text in texts.items():
        with aside(output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    total = frame.iloc[-1]
    run.finish(
        f"{total['jobs']:.0f} jobs on record, {total['cpu_seconds']:.0f} CPU-seconds, at most"
        f" {total['peak_mb']:.0f} MB"
    )


if __name__ == "__main__":
    main()

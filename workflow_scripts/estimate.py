"""Estimate the cost of every cell of the grid: FLOPs, GPU-hours, disk and memory.

The table is printed and written.
"""

from lfp.costs import estimate
from lfp.files import writing
from lfp.running import job


def main() -> None:
    run = job.start(__doc__)
    frame = estimate.grid_costs(run.settings["cells"], estimate.Machine(**run.settings["machine"]))
    print(estimate.summary(frame))
    with writing.aside(run.output.estimate) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g")
    hours = frame.loc[frame["stage"] == "total", "gpu_hours"].sum()
    run.finish(f"{hours:.3g} GPU-hours")


if __name__ == "__main__":
    main()

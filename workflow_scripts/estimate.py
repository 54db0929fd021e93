"""Estimate the cost of every cell of the grid: FLOPs, GPU-hours, disk and memory.

The table is printed and written.
"""

from lfp.costs import estimate
from lfp.files import writing
from lfp.running import job


def main() -> None:
    run = job.start(__doc__)
    frame = estimate.grid_costs(run.settings["cells"], estimate.Machine(**run.settings["machine"]))
    totals = frame[frame["stage"] == "total"].drop(columns="stage")
    print(totals.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    summed = totals[["exaflops", "gpu_hours", "disk_gb"]].sum()
    print(
        f"all cells: {summed['exaflops']:.3g} EFLOP, {summed['gpu_hours']:.3g} GPU-hours,"
        f" {summed['disk_gb']:.3g} GB"
    )
    with writing.aside(run.output.estimate) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g")
    run.finish(f"{summed['gpu_hours']:.3g} GPU-hours")


if __name__ == "__main__":
    main()

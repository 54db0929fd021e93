"""Estimate what every cell of the grid costs: FLOPs, GPU-hours, disk and memory; prints and writes
a table.
"""

import pandas as pd

from lfp.costs import estimate
from lfp.files import writing
from lfp.running import job


def main() -> None:
    run = job.start(__doc__, outputs=["output"])
    machine = estimate.Machine(**run.settings["machine"])
    rows = []
    for cell in run.settings["cells"]:
        shape = estimate.Shape(**cell["shape"])
        found = [
            cost.row()
            for cost in estimate.cell_costs(shape, cell["settings"], cell["about"], machine)
        ]
        total = pd.DataFrame(found).drop(columns="stage")
        peaks = [name for name in total if name.endswith("memory_gb") or name == "scratch_gb"]
        summed = {name: total[name].max() if name in peaks else total[name].sum() for name in total}
        rows += [{"cell": cell["address"], **row} for row in [*found, {"stage": "total", **summed}]]
    frame = pd.DataFrame(rows)
    totals = frame[frame["stage"] == "total"].drop(columns="stage")
    print(totals.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    summed = totals[["exaflops", "gpu_hours", "disk_gb"]].sum()
    print(
        f"all cells: {summed['exaflops']:.3g} EFLOP, {summed['gpu_hours']:.3g} GPU-hours,"
        f" {summed['disk_gb']:.3g} GB"
    )
    with writing.aside(run.paths.output) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g")
    run.finish(f"{summed['gpu_hours']:.3g} GPU-hours")


if __name__ == "__main__":
    main()

"""The resources that a job took, as the kernel counted them.

Snakemake's own ``benchmark:`` looks at a job's processes, every half minute once it is older than
15 seconds, so that it misses up to as much of a job's time, and it would look at the command
instead of the fork that does its work (:mod:`lfp.running.fork_server`). The files are as its own,
with the columns that every machine can fill.
"""

from __future__ import annotations

import csv
import os
import re
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path

import psutil

from lfp.files.writing import aside

#: Columns of a record, by Snakemake's names: seconds of the clock, the same as a time, the largest
#: resident memory in MiB, seconds of processors, and the name of the rule's script.
COLUMNS = ("s", "h:m:s", "max_rss", "cpu_time", "rule_name")


def record_of(log: str) -> Path:
    """The file of the resources of the job that writes a `log`."""
    return Path(log.replace("results/logs/", "results/benchmarks/", 1)).with_suffix(".tsv")


def write(path: Path, rule: str) -> None:
    """Record the resources that this process, and the children that it waited for, took until now.

    Of a job in several processes, it is those of the first one.
    """
    seconds = _age()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    values = (
        round(seconds, 4),
        str(timedelta(seconds=int(seconds))),
        round(_peak_mib(), 2),
        round(sum(one.ru_utime + one.ru_stime for one in used), 2),
        rule,
    )
    with aside(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows([COLUMNS, values])


def _age() -> float:
    """Seconds since this process began, which is when it was forked."""
    status = Path("/proc/self/stat")
    if not status.exists():
        return time.time() - psutil.Process().create_time()  # to a second
    began = int(status.read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began


def _peak_mib() -> float:
    """The largest resident memory of this process, in MiB.

    Linux counts in ``ru_maxrss`` also the memory of the process that this one was forked from, even
    where it runs another program since.
    """
    status = Path("/proc/self/status")
    if status.exists():
        [peak] = re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())
        return int(peak) / 2**10
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib

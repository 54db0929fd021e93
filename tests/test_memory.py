"""Memory that comes and goes at every step is not handed to the kernel in between."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PROGRAM = """
import resource, sys
from lfp.running import glibc as memory
if sys.argv[1] == "keep" and not memory.keep_freed():
    sys.exit(3)
for i in range(21):
    if i == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * (64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    """Page faults of twenty blocks of 64 MB, one after the other."""
    found = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True)
    if found.returncode == 3:
        pytest.skip("the C library is not glibc")
    assert found.returncode == 0, found.stderr
    return int(found.stdout)


def test_freed_memory_is_used_again():
    assert page_faults("keep") < 1000
    assert page_faults("plain") > 4 * page_faults("keep") + 1000


COLLECTIONS = """
import gc, sys
from lfp.running import job
if sys.argv.pop(1) == "job":
    sys.argv[1:] = ["--names", " -- table", "--paths", "table.csv"]
    job.start("A job.")
before = sum(generation["collections"] for generation in gc.get_stats())
kept = [[number] for number in range(50_000)]
print(sum(generation["collections"] for generation in gc.get_stats()) - before)
"""


def test_a_started_job_goes_through_its_objects_rarely(tmp_path):
    counts = {
        how: int(subprocess.run(
            [sys.executable, "-c", COLLECTIONS, how], cwd=tmp_path, capture_output=True, text=True,
            check=True, env={"PYTHONPATH": str(ROOT)},
        ).stdout)
        for how in ("plain", "job")
    }  # fmt: skip
    assert counts["job"] == 0 < counts["plain"]

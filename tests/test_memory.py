"""Memory that comes and goes at every step is not handed to the kernel in between."""

import subprocess
import sys

import pytest

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

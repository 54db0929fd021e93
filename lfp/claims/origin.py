"""Where a run was made: the machine, and the commit of the workflow."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: Files that are made of results, and no part of what makes them.
MADE = ("docs/results.json", "docs/results.md")


def machine() -> dict[str, Any]:
    """The processor, the number of its cores, and the system."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    model = re.search(r"model name\s*:\s*(.*)", text)
    return {
        "processor": model.group(1) if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def commit() -> str:
    """The commit of the workflow; ``-dirty`` where files differ from it, and empty without Git."""

    head = _git(["rev-parse", "--short=12", "HEAD"]).stdout.strip()
    others = [f":!{path}" for path in MADE]
    changed = _git(["diff", "--quiet", "HEAD", "--", ".", *others]).returncode
    return f"{head}-dirty" if head and changed else head


def _git(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )

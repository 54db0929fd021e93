"""What every rule's command line shares: its arguments, its log, its threads and its seed."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

from threadpoolctl import threadpool_limits

#: Packages whose version is stamped into every artefact.
STAMPED = ("numpy", "scipy", "scikit-learn", "torch", "transformers", "trl", "spacy", "vaderSentiment", "openai")


@dataclass(frozen=True)
class Job:
    """One job: `settings` of its stage, `paths` by argument name, the provenance `stamp`, `threads` and `device`."""

    settings: dict[str, Any]
    paths: argparse.Namespace
    stamp: dict[str, Any]
    threads: int
    gpus: int

    @property
    def seed(self) -> int:
        """The job's seed, derived by the workflow from configured seed, address and stage."""
        return self.settings["seed"]

    def stage(self, *names: str) -> dict[str, Any]:
        """The settings `names` as a dictionary."""
        return {name: self.settings[name] for name in names}

    @property
    def device(self) -> str:
        """``cuda`` where the workflow granted a GPU and there is one, else ``cpu``; sets torch's threads.

        Each process of a job on several GPUs has its own.
        """
        import torch

        torch.set_num_threads(self.threads)
        if not (self.gpus and torch.cuda.is_available()):
            return "cpu"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        return "cuda"

    @property
    def is_main(self) -> bool:
        """Whether this process writes the outputs: the first of a job that runs in several."""
        return os.environ.get("RANK", "0") == "0"

    def state_path(self, output: str | Path) -> Path:
        """Where a long job keeps its resume point: a sibling of `output`, named by the settings' digest."""
        digest = hashlib.sha256(json.dumps(self.stamp, sort_keys=True).encode()).hexdigest()[:12]
        return Path(output).parent / f".{Path(output).name}.state-{digest}"


def start(description: str | None, arguments: Sequence[str], lists: Sequence[str] = ()) -> Job:
    """Parse the command line of a rule's script.

    Parameters
    ----------
    description
        The script's docstring.
    arguments
        Names of required options with one value each: paths and wildcards.
    lists
        Names of options with any number of values.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--settings", type=json.loads, required=True, help="settings of the stage as JSON")
    parser.add_argument("--code", default="", help="digest of the code, stamped into the outputs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--log", help="file that receives the log")
    for name in arguments:
        parser.add_argument(f"--{name}", required=True)
    for name in lists:
        parser.add_argument(f"--{name}", nargs="*", default=[])
    paths = parser.parse_args()
    threadpool_limits(limits=paths.threads)
    _start_log(paths.log)
    stamp = {"settings": paths.settings, "code": paths.code, "versions": _versions()}
    log = logging.getLogger(Path(sys.argv[0]).stem)
    log.info("settings %s", json.dumps(paths.settings, sort_keys=True))
    log.info("code %s, threads %d, gpus %d, versions %s", paths.code, paths.threads, paths.gpus, stamp["versions"])
    return Job(paths.settings, paths, stamp, paths.threads, paths.gpus)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in STAMPED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _start_log(path: str | None) -> None:
    """Send the log to `path` and one line per error to the terminal; the traceback is in the log."""
    handlers: list[logging.Handler] = []
    if path and os.environ.get("RANK", "0") == "0":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, mode="w", encoding="utf-8"))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", handlers=handlers or None)

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        logging.getLogger("job").error("failed", exc_info=(kind, error, trace))
        print(f"error: {kind.__name__}: {error}" + (f" (log: {path})" if path else ""), file=sys.stderr)

    sys.excepthook = report

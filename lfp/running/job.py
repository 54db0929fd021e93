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
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from lfp.files.provenance import file_digests, input_digests, record_path
from lfp.files.writing import aside
from lfp.reporting import tensorboard
from lfp.reporting.escapes import plain
from lfp.running import glibc, lease, one_writer
from lfp.running import log as joblog

#: Packages whose version is stamped into every artefact.
STAMPED = (
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "transformers",
    "trl",
    "spacy",
    "vaderSentiment",
    "openai",
)


@dataclass
class Job:
    """One job.

    ``settings`` of its stage, ``paths`` by argument name, the ``stamp`` of its outputs,
    ``threads``, ``gpus``, the paths of its ``inputs`` and ``outputs``, and when it ``started``.
    """

    settings: dict[str, Any]
    paths: argparse.Namespace
    stamp: dict[str, Any]
    threads: int
    gpus: int
    inputs: list[str]
    outputs: list[str]
    started: datetime
    _device: str = "cpu"

    @property
    def seed(self) -> int:
        """The job's seed, derived by the workflow from configured seed, address and stage."""
        return self.settings["seed"]

    def stage(self, *names: str) -> dict[str, Any]:
        """The settings `names` as a dictionary."""
        return {name: self.settings[name] for name in names}

    @property
    def device(self) -> str:
        """``cuda`` where the workflow granted a GPU and there is one, else ``cpu``; sets threads
        and memory for it.

        Each process of a job on several GPUs has its own.
        """
        import torch

        torch.set_num_threads(self.threads)
        if not (self.gpus and torch.cuda.is_available()):
            glibc.keep_freed()
            return "cpu"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        self._device = torch.cuda.get_device_name()
        return "cuda"

    @property
    def is_main(self) -> bool:
        """Whether this process writes the outputs: the first of a job that runs in several."""
        return os.environ.get("RANK", "0") == "0"

    def state_path(self, output: str | Path) -> Path:
        """Where a long job keeps its resume point: a sibling of `output`, named by the settings'
        digest.
        """
        digest = hashlib.sha256(json.dumps(self.stamp, sort_keys=True).encode()).hexdigest()[:12]
        return Path(output).parent / f".{Path(output).name}.state-{digest}"

    def finish(self, headline: str) -> None:
        """Record where the outputs come from, and say in one line what the job found.

        Every process of a job may call it; the first one does it.
        """
        if not self.is_main:
            return
        seconds = (datetime.now(UTC) - self.started).total_seconds()
        record = {
            **self.stamp, "device": self._device, "threads": self.threads,
            "inputs": input_digests(self.inputs),
            "started": self.started.isoformat(timespec="seconds"), "seconds": round(seconds, 2),
        }  # fmt: skip
        for output in self.outputs:
            with aside(record_path(output)) as temporary:
                temporary.write_text(
                    json.dumps(record | {"files": file_digests(output)}, indent=1) + "\n"
                )
        address = Path(self.outputs[0]).with_suffix("").as_posix().removeprefix("results/")
        line = f"{stage_name()} {address}: {headline} ({seconds:.0f} s)"
        logging.getLogger("job").info("finished: %s", line)
        print(plain(line), flush=True)


def stage_name() -> str:
    """The rule whose script this process runs."""
    return Path(sys.argv[0]).stem


def start(
    description: str | None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    values: Sequence[str] = (),
) -> Job:
    """Parse the command line of a rule's script, and lease its GPUs.

    Parameters
    ----------
    description
        The script's docstring.
    inputs, outputs, values
        Names of required options: paths that the job reads, paths that it writes, and anything
        else. A name that ends with ``*`` takes any number, and is stored without the star.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--settings", type=json.loads, required=True, help="settings of the stage as JSON"
    )
    parser.add_argument("--code", default="", help="digest of the code, stamped into the outputs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--log", help="file that receives the log")
    for name in (*inputs, *outputs, *values):
        several: dict[str, Any] = (
            {"nargs": "*", "default": []} if name.endswith("*") else {"required": True}
        )
        parser.add_argument(f"--{name.removesuffix('*')}", **several)
    paths = parser.parse_args()

    def named(names: Sequence[str]) -> list[str]:
        given = [getattr(paths, name.removesuffix("*").replace("-", "_")) for name in names]
        return [path for one in given for path in (one if isinstance(one, list) else [one])]

    threadpool_limits(limits=paths.threads)
    joblog.start(paths.log)
    stamp = {"settings": paths.settings, "code": paths.code, "versions": _versions()}
    log = logging.getLogger(stage_name())
    log.info("settings %s", json.dumps(paths.settings, sort_keys=True))
    log.info(
        "code %s, threads %d, gpus %d, versions %s",
        paths.code,
        paths.threads,
        paths.gpus,
        stamp["versions"],
    )
    job = Job(
        paths.settings,
        paths,
        stamp,
        paths.threads,
        paths.gpus,
        named(inputs),
        named(outputs),
        datetime.now(UTC),
    )
    if job.is_main:
        one_writer.claim(job.outputs, [job.state_path(output) for output in job.outputs])
    if os.environ.get("LFP_TENSORBOARD") and paths.log:
        # A folder a log: results/logs/x.log has its events in results/tensorboard/x.
        os.environ[tensorboard.FOLDER] = str(
            Path(paths.log.replace("/logs/", "/tensorboard/")).with_suffix("")
        )
    lease.take(paths.gpus)
    return job


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in STAMPED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

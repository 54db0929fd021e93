"""The common part of every command line: its arguments, its log, its threads and its seed."""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import logging
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from threadpoolctl import threadpool_limits

from lfp.files.provenance import digest, file_digests, input_digests, record_path
from lfp.files.writing import aside
from lfp.reporting import tensorboard
from lfp.reporting.escapes import plain
from lfp.running import benchmark, glibc, lease, one_writer
from lfp.running import log as joblog
from lfp.settings.fields import joined

#: Packages whose version is stamped into every artefact.
STAMPED = (
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "transformers",
    "trl",
    "spacy",
    "snowballstemmer",
    "vaderSentiment",
    "openai",
    "accelerate",
    "datasets",
    "numba",
    "pandas",
    "peft",
    "tokenizers",
)


#: Allocations between two looks for cyclic garbage. Importing torch and transformers makes half a
#: million objects that stay, and Python, which looks after every 700, goes through them again and
#: again: a sixth of the time that a job needs to start and to end (benchmarks/README.md).
GARBAGE_AFTER = 100_000


class Paths(SimpleNamespace):
    """Paths by the names that they have in the rule; a name of several paths has a list."""

    def all(self) -> list[str]:
        """Every path, in the order of the rule."""
        values = vars(self).values()
        return [p for value in values for p in (value if isinstance(value, list) else [value])]


@dataclass
class Job:
    """One job of the workflow.

    It has the ``settings`` of its stage, the paths of its ``input`` and ``output`` by name, the
    ``stamp`` of its outputs, the number of ``threads``, the kind of ``hardware`` (a GPU's name, or
    ``cpu``), the digest of every input when it ``started``, and that time. What it took is recorded
    in the file ``benchmark``, if there is one. Files from outside the results that it reads stand
    in ``sources``.
    """

    settings: dict[str, Any]
    input: Paths
    output: Paths
    stamp: dict[str, Any]
    threads: int
    gpus: int
    hardware: str
    digests: dict[str, str]
    started: datetime
    benchmark: Path | None = None
    sources: list[Path] = field(default_factory=list)

    @property
    def seed(self) -> int:
        """The job's seed, derived by the workflow from configured seed, address and stage."""
        return self.settings["seed"]

    def stage(self, *names: str) -> dict[str, Any]:
        """The settings with these names as a dictionary."""
        return {name: self.settings[name] for name in names}

    @property
    def device(self) -> str:
        """``cuda`` where the workflow granted a GPU, else ``cpu``.

        The property also sets torch's threads.

        Each process of a job on several GPUs has its own.
        """
        import torch

        torch.set_num_threads(self.threads)
        if self.hardware == "cpu":
            return "cpu"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        return "cuda"

    @property
    def is_main(self) -> bool:
        """Whether this process writes the outputs: the first of a job that runs in several."""
        return os.environ.get("RANK", "0") == "0"

    def state_path(self, output: str | Path) -> Path:
        """Path of a long job's resume point.

        It is a sibling of `output`, named by the digest of all that decides the result: settings
        with the job's own values, code, versions, the inputs by name and content, threads, GPUs.
        """
        decides = {
            **self.stamp,
            "inputs": {name: self._contents(paths) for name, paths in vars(self.input).items()},
            "threads": self.threads,
            "gpus": self.gpus,
            "hardware": self.hardware,
        }
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
        return Path(output).parent / f".{Path(output).name}.state-{digest}"

    def _contents(self, paths: str | list[str]) -> list[list[str]]:
        """Path and digest of one input, or of those of a list in its order."""
        listed = paths if isinstance(paths, list) else [paths]
        return [[path, self.digests[path]] for path in listed]

    @staticmethod
    def answer_cache(service: Mapping[str, Any]) -> str:
        """The file that keeps the answers of a language-model `service`."""
        return f"results/llm_cache/{service['name']}.sqlite"

    def finish(self, headline: str) -> None:
        """Record where the outputs come from, and log the `headline`, the result in one line.

        The resume points go: the outputs are there. Every process of a job may call it; the first
        process alone does the work.
        """
        if not self.is_main:
            return
        seconds = (datetime.now(UTC) - self.started).total_seconds()
        record = {
            **self.stamp,
            "device": self.hardware,
            "threads": self.threads,
            "inputs": self.digests
            | {str(path): digest(file_digests(path)) for path in self.sources},
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(seconds, 2),
        }
        for output in self.output.all():
            with aside(record_path(output)) as temporary:
                temporary.write_text(
                    json.dumps(record | {"files": file_digests(output)}, indent=1) + "\n"
                )
            one_writer.remove(self.state_path(output))
        address = Path(self.output.all()[0]).with_suffix("").as_posix().removeprefix("results/")
        line = f"{stage_name()} {address}: {headline} ({seconds:.0f} s)"
        logging.getLogger("job").info("finished: %s", line)
        if self.benchmark:
            benchmark.write(self.benchmark, stage_name())
        print(plain(line), flush=True)
        gc.freeze()  # the process ends, and need not look for garbage in all that it imported


def stage_name() -> str:
    """The rule whose script this process runs."""
    return Path(sys.argv[0]).stem


def named_paths(names: str, paths: Sequence[str]) -> tuple[Paths, Paths]:
    """Inputs and outputs of a job.

    `names` has those of the inputs, ``--`` and those of the outputs, as in ``base train:2 --
    policy``: a name with a number is a list of so many of `paths`, which come in the same order.
    ValueError where the numbers do not add up.
    """
    groups, rest = [], list(paths)
    for part in (f"{names} ".split("-- ") + [""])[:2]:
        group = {}
        for word in part.split():
            name, _, count = word.partition(":")
            taken, rest = rest[: int(count or 1)], rest[int(count or 1) :]
            if len(taken) < int(count or 1):
                raise ValueError(f"--names asks for more paths than the {len(paths)} of --paths")
            group[name] = taken if count else taken[0]
        groups.append(Paths(**group))
    if rest:
        raise ValueError(f"--paths has {len(rest)} more than --names asks for: {rest[0]} ...")
    return groups[0], groups[1]


def start(description: str | None) -> Job:
    """Parse the command line of a rule's script, and lease its GPUs.

    `description` is the script's docstring. The command line is that of ``lfp.planning.JOB``: the
    names of inputs and outputs are the rule's.
    """
    gc.set_threshold(GARBAGE_AFTER)
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--settings", type=json.loads, default={}, help="settings as JSON")
    parser.add_argument(
        "--unstamped", type=json.loads, default={}, help="settings that change no result, as JSON"
    )
    parser.add_argument("--code", default="", help="digest of the code, stamped into the outputs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--log", help="file that receives the log")
    parser.add_argument("--names", required=True, help="as in: base train:2 -- policy")
    parser.add_argument("--paths", nargs="*", default=[], help="paths in the order of --names")
    options = parser.parse_args()
    try:
        inputs, outputs = named_paths(options.names, options.paths)
    except ValueError as error:
        parser.error(str(error))
    threadpool_limits(limits=options.threads)
    is_main, started = os.environ.get("RANK", "0") == "0", datetime.now(UTC)
    if is_main:
        one_writer.claim(outputs.all())  # before the log, which an orphan still writes, is emptied
    joblog.start(options.log)
    stamp = {"settings": options.settings, "code": options.code, "versions": _versions()}
    log = logging.getLogger(stage_name())
    log.info("settings %s", json.dumps(options.settings, sort_keys=True))
    if options.unstamped:
        log.info("beside them %s", json.dumps(options.unstamped, sort_keys=True))
    log.info(
        "code %s, threads %d, gpus %d, versions %s",
        options.code,
        options.threads,
        options.gpus,
        stamp["versions"],
    )
    lease.take(options.gpus)
    job = Job(
        settings=joined(options.settings, options.unstamped),
        input=inputs,
        output=outputs,
        stamp=stamp,
        threads=options.threads,
        gpus=options.gpus,
        hardware=hardware(options.gpus),
        digests=input_digests(inputs.all()),
        started=started,
        benchmark=benchmark.record_of(options.log) if options.log else None,
    )
    states = [job.state_path(output) for output in outputs.all()]
    if job.hardware == "cpu":
        glibc.keep_freed()
    if is_main:
        one_writer.clear(outputs.all(), keep=states)
    if os.environ.get("LFP_TENSORBOARD") and options.log:
        # One folder for each log: results/logs/x.log has its events in results/tensorboard/x.
        folder = Path(options.log.replace("/logs/", "/tensorboard/")).with_suffix("")
        os.environ[tensorboard.FOLDER] = str(folder)
        if is_main and not any(state.exists() for state in states):
            one_writer.remove(folder)  # the curves of another attempt
    return job


def hardware(gpus: int) -> str:
    """The name of the first GPU of a job that asks for some, else ``cpu``.

    Raises LeaseError where a GPU was granted and torch sees none, unless the configuration allows
    the CPU.
    """
    if not gpus:
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    build = torch.version.cuda or "no CUDA"
    lease.need_gpu(
        gpus,
        f"torch {torch.__version__} (built for {build}) sees none: install a build for the"
        " machine's driver",
    )
    return "cpu"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in STAMPED:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions

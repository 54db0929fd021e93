"""GPUs of one machine, each for one job: Snakemake counts GPUs but hands out none.

A job takes locks on files, one for each device, that the kernel frees when the job and its children
are dead, however they died. Devices are those that ``nvidia-smi`` lists, or those in ``LFP_GPUS``
(comma-separated); where ``CUDA_VISIBLE_DEVICES`` is set, of those only. A scheduler that gives a
job just its devices is believed. ``LFP_JOBS_PER_GPU`` jobs, one unless it is set, share a device:
one that serves a small model alone is idle most of the time. As a command:

    python -m lfp.running.lease 2 accelerate launch ...    # the command with two devices of its own
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

#: Identifiers of a scheduler's job, which may have devices of its own.
SCHEDULERS = (
    "SLURM_JOB_ID",
    "PBS_JOBID",
    "LSB_JOBID",
    "JOB_ID",
    "FLUX_JOB_ID",
    "KUBERNETES_SERVICE_HOST",
)
#: Set where a lease is already held, by this process or by the one that started it.
HELD = "LFP_LEASED"
#: Set where jobs that ask for GPUs may run on the CPU (``allow_cpu`` of the configuration).
ALLOW_CPU = "LFP_ALLOW_CPU"
#: Descriptors of the locks; they stay open, and locked, as long as the process lives.
_locks: list[int] = []


class LeaseError(RuntimeError):
    """A job asks for more GPUs than this machine lets it have."""


def shared_folder(name: str) -> Path:
    """Folder `name` of this user that all processes of this machine share.

    ``TMPDIR`` differs between sessions and between jobs of a scheduler, so it counts only where
    ``/tmp`` cannot be written. Both are local: not every network file system has locks.
    """
    root = "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()
    return Path(root) / f"{name}-{os.getuid()}"


def lock_folder(allocation: str = "") -> Path:
    """Folder of the locks of this user on this machine.

    It is ``LFP_LEASE_DIR``, or a :func:`shared_folder`.

    The locks of a scheduler's `allocation` have a folder of their own: devices are often numbered
    anew in each.
    """
    default = shared_folder("lfp-gpus")
    folder = Path(os.environ.get("LFP_LEASE_DIR", default)) / re.sub(r"\W", "_", allocation)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _installed() -> list[str]:
    """Identifiers of this machine's devices in bus order.

    A divided device (MIG) is represented by its parts.
    """
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    identifiers: list[str] = []
    for name in re.findall(r"UUID: ([\w-]+)", listed.stdout):
        if name.startswith("MIG-") and identifiers and identifiers[-1].startswith("GPU-"):
            identifiers.pop()
        identifiers.append(name)
    return identifiers


def devices() -> list[str]:
    """The devices that jobs of this machine may have."""
    named = os.environ.get("LFP_GPUS")
    known = (
        [name.strip() for name in named.split(",") if name.strip()]
        if named is not None
        else _installed()
    )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return known
    wanted = [name.strip() for name in visible.split(",") if name.strip()]
    # Numbers and names must share one lock: a number is a place in the list.
    by_number = dict(zip(map(str, range(len(known))), known, strict=True))
    return [by_number.get(name, name) for name in wanted]


def _lock(path: Path, wait: bool) -> int | None:
    """A locked descriptor of `path`, or None where another process holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def places() -> int:
    """How many jobs may share a device, by ``LFP_JOBS_PER_GPU``.

    Raises LeaseError where that is no whole number above 0.
    """
    text = os.environ.get("LFP_JOBS_PER_GPU", "1")
    if not re.fullmatch(r"0*[1-9][0-9]*", text):
        raise LeaseError(
            f"LFP_JOBS_PER_GPU is {text!r}; expected the number of jobs that share a GPU, 1 or more"
        )
    return int(text)


def _free_places(name: str, folder: Path) -> list[int]:
    """Locked descriptors of all places on a device that no job holds."""
    file = re.sub(r"[^A-Za-z0-9-]", "_", name)
    paths = [folder / f"{file}{f'.{place}' if place else ''}.lock" for place in range(places())]
    handles = [_lock(path, wait=False) for path in paths]
    return [handle for handle in handles if handle is not None]


def _lock_devices(count: int, pool: Sequence[str], folder: Path) -> dict[str, int]:
    """Locked descriptors of `count` different devices of `pool`, the emptiest first."""
    taken: dict[str, int] = {}
    while len(taken) < count:
        free = {name: _free_places(name, folder) for name in pool if name not in taken}
        emptiest = sorted(filter(free.get, free), key=lambda name: -len(free[name]))
        taken |= {name: free[name].pop() for name in emptiest[: count - len(taken)]}
        for handle in itertools.chain.from_iterable(free.values()):
            os.close(handle)
        if len(taken) < count:
            time.sleep(0.05)
    return taken


def take(count: int) -> list[str]:
    """Take `count` devices for the rest of this process's life, and hide the others from it.

    The process waits as long as it needs. One waiter at a time collects devices; those behind it
    wait for its turn to end. So a job that wants several is not overtaken for ever, and no two jobs
    hold a part of what each other wants.

    Returns
    -------
    list of str
        The devices; empty where none is asked for, where a scheduler has chosen, and on a machine
        without any where the CPU will do.

    Raises
    ------
    LeaseError
        Where the machine has fewer devices than `count`, or none and the CPU is not allowed, or
        where the number of jobs that share a device is none.
    """
    if not count or HELD in os.environ:
        return []
    log, pool = logging.getLogger("lease"), devices()
    allocation = next((os.environ[name] for name in SCHEDULERS if name in os.environ), "")
    if allocation and len(pool) <= count:
        return []
    if not pool:
        need_gpu(
            count,
            "nvidia-smi lists none that it may have; name them in LFP_GPUS where nvidia-smi is not"
            " installed, and see that CUDA_VISIBLE_DEVICES is not empty",
        )
        return []
    if len(pool) < count:
        raise LeaseError(
            f"the job asks for {count} GPUs and this machine lets it have {len(pool)}"
            f" ({', '.join(pool)}); lower gpus or finetune_gpus of the model in the configuration,"
            " or --resources gpu="
        )
    folder = lock_folder(allocation)
    queue = _lock(folder / "queue.lock", wait=True)
    taken = _lock_devices(count, pool, folder)
    os.close(queue)
    _locks.extend(taken.values())
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
    os.environ[HELD] = os.environ["CUDA_VISIBLE_DEVICES"]
    log.info("GPUs of this job: %s", os.environ["CUDA_VISIBLE_DEVICES"])
    return list(taken)


def need_gpu(count: int, fault: str) -> None:
    """Raise LeaseError where a job that asks for `count` GPUs has none, unless the CPU will do."""
    if not os.environ.get(ALLOW_CPU):
        raise LeaseError(
            f"the job asks for {count} GPU{'s' if count > 1 else ''}, and {fault}. To run it on the"
            " CPU set allow_cpu: true in the configuration (--config allow_cpu=true), or gpus and"
            " finetune_gpus of the model to 0"
        )
    logging.getLogger("lease").warning(
        "running on the CPU (allow_cpu): the job asks for %d, and %s", count, fault
    )


def main(arguments: Sequence[str]) -> None:
    """Become the command that follows the number of devices.

    The locks stay open in it and in its children.
    """
    count, *command = arguments
    take(int(count))
    for handle in _locks:
        os.set_inheritable(handle, True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LeaseError as error:
        sys.exit(f"error: {error}")

"""A real Slurm of one node with two pretended GPUs and eight pretended cores, for as long as a test
needs it.

Everything it has is in one folder; it needs Debian's slurm-wlm and munge, and no privileges.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEEDED = (
    "slurmctld",
    "slurmd",
    "munged",
    "sbatch",
    "squeue",
    "scontrol",
    "srun",
    "scancel",
    "sinfo",
)
_SBIN = f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/sbin"

_CONFIG = """
ClusterName=throwaway
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
MinJobAge=300
KillWait=2
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=20000 Gres=gpu:2
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Programs of Slurm and munge that are not installed."""
    return [name for name in NEEDED if shutil.which(name, path=_SBIN) is None]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _device(path: Path) -> None:
    """A device file that is as good as /dev/null; a plain file for those who may not make one."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        path.touch()


def _shims(folder: Path) -> Path:
    """Slurm's commands with this cluster's configuration: the plugin strips SLURM_CONF from what it
    starts.
    """
    shims = folder / "bin"
    shims.mkdir()
    for name in ("sbatch", "squeue", "scontrol", "srun", "scancel", "sinfo"):
        real = shutil.which(name, path=_SBIN)
        (shims / name).write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {real} "$@"\n')
        (shims / name).chmod(0o755)
    # Without accounting, sacct would wait for a database that is not there.
    (shims / "sacct").write_text("#!/bin/sh\nexit 1\n")
    (shims / "sacct").chmod(0o755)
    return shims


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the environment in which Slurm's commands speak to a fresh cluster; it is gone when the
    block ends.
    """
    folder.mkdir(mode=0o755, parents=True)
    for name in ("state", "spool", "dev"):
        (folder / name).mkdir()
    for number in range(2):
        _device(folder / "dev" / f"gpu{number}")
    host = socket.gethostname().split(".")[0]
    names = {"host": host, "folder": folder, "user": getpass.getuser(), "ports": _free_ports(2)}
    (folder / "slurm.conf").write_text(_CONFIG.format(**names))
    (folder / "gres.conf").write_text(
        f"AutoDetect=off\nNodeName={host} Name=gpu File={folder}/dev/gpu[0-1]\n"
    )
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    # munged wants the folder of its socket to be passable, and nobody else to write the others.
    munge = [
        "munged",
        "--foreground",
        "--force",
        f"--key-file={folder}/munge.key",
        f"--socket={folder}/munge.sock",
    ]
    munge += [
        f"--pid-file={folder}/munged.pid",
        f"--log-file={folder}/munged.log",
        f"--seed-file={folder}/munged.seed",
    ]
    shims = _shims(folder)
    environment = {
        **os.environ,
        "SLURM_CONF": f"{folder}/slurm.conf",
        "PATH": f"{shims}{os.pathsep}{_SBIN}",
    }
    daemons = []
    try:
        for command in (munge, ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-c"]):
            with (folder / f"{command[0]}.out").open("w") as out:
                daemons.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out))
            time.sleep(0.5)
        _wait_until_idle(environment, folder)
        yield {name: value for name, value in environment.items() if name != "SLURM_CONF"}
    finally:
        subprocess.run(
            [shims / "scancel", f"--user={names['user']}"], env=environment, timeout=30, check=False
        )
        time.sleep(1)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in reversed(daemons):
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = subprocess.run(
            ["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True
        )
        if found.stdout.strip().startswith("idle"):
            return
        time.sleep(0.2)
    logs = "\n".join(
        path.read_text()[-2000:] for path in [*folder.glob("*.log"), *folder.glob("*.out")]
    )
    raise RuntimeError(f"Slurm did not come up:\n{logs}")

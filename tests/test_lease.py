"""No two jobs hold one GPU, whatever kills them, and none is lost."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from lfp.running import job, lease, one_writer

ROOT = Path(__file__).parent.parent
DEVICES = ("GPU-a", "GPU-b", "GPU-c", "GPU-d")

# A job writes its name into a file of each of its devices, which must not be there, and takes it
# away again.
JOB = """
import os, sys, time
for name in os.environ["CUDA_VISIBLE_DEVICES"].split(","):
    path = os.path.join(sys.argv[1], name)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        open(os.path.join(sys.argv[1], "COLLISION"), "a").write(name)
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(float(sys.argv[2]))
for name in os.environ["CUDA_VISIBLE_DEVICES"].split(","):
    os.unlink(os.path.join(sys.argv[1], name))
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with four pretended devices."""
    for name in (*lease.SCHEDULERS, lease.HELD, "CUDA_VISIBLE_DEVICES", "LFP_JOBS_PER_GPU"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LFP_GPUS", ",".join(DEVICES))
    monkeypatch.setenv("LFP_LEASE_DIR", str(tmp_path / "locks"))
    monkeypatch.setattr(lease, "_locks", [])
    yield tmp_path
    for handle in lease._locks:
        os.close(handle)


def start(folder: Path, count: int, seconds: float) -> subprocess.Popen:
    """A job on `count` devices that keeps its files in `folder`."""
    command = [sys.executable, "-m", "lfp.running.lease", str(count)]
    command += [sys.executable, "-S", "-c", JOB, str(folder), str(seconds)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(not os.access("/tmp", os.W_OK), reason="/tmp cannot be written")
def test_sessions_of_different_temporary_folders_share_their_locks(tmp_path, monkeypatch):
    monkeypatch.delenv("LFP_LEASE_DIR", raising=False)
    monkeypatch.setattr(one_writer, "_locks", [])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    one_writer.claim([tmp_path / "output"])
    os.close(one_writer._locks[0])
    lease.lock_folder()
    assert list(tmp_path.iterdir()) == []


def free_devices() -> int:
    """How many devices nobody holds."""
    folder = lease.lock_folder()
    handles = [lease._lock(folder / f"{name}.lock", wait=False) for name in DEVICES]
    for handle in handles:
        if handle is not None:
            os.close(handle)
    return sum(handle is not None for handle in handles)


def test_fifty_jobs_killed_at_random_share_nothing_and_leak_nothing(machine):
    draw = random.Random(0)
    marks = machine / "marks"
    marks.mkdir()
    jobs = [start(marks, draw.choice([1, 1, 1, 2, 3]), draw.uniform(0, 0.1)) for _ in range(50)]
    doomed = draw.sample(range(50), 15)
    for number in doomed:
        time.sleep(draw.uniform(0, 0.1))
        job = jobs[number]
        # The kernel frees a killed job's devices before its marks can be taken away: stop it,
        # sweep, then kill.
        job.send_signal(signal.SIGSTOP)
        while (
            job.poll() is None
            and Path(f"/proc/{job.pid}/stat").read_text().split(")")[1].split()[0] != "T"
        ):
            time.sleep(0.001)
        try:
            environment = Path(f"/proc/{job.pid}/environ").read_bytes().decode().split("\0")
            held = next(
                (line.split("=", 1)[1] for line in environment if line.startswith(lease.HELD)), ""
            )
        except (FileNotFoundError, ProcessLookupError):
            held = ""
        for name in filter(None, held.split(",")):
            (marks / name).unlink(missing_ok=True)
        job.kill()
    for number, job in enumerate(jobs):
        out, err = job.communicate(timeout=120)
        assert number in doomed or (job.returncode == 0 and out.strip()), err
    assert not (marks / "COLLISION").exists()
    assert free_devices() == len(DEVICES)


def test_a_job_that_waits_for_all_devices_is_not_overtaken(machine):
    marks = machine / "marks"
    marks.mkdir()
    singles = [start(marks, 1, 0.5) for _ in range(4)]
    assert all(job.stdout.readline() for job in singles)
    whole = start(marks, 4, 0.1)
    time.sleep(0.4)
    late = [start(marks, 1, 0.1) for _ in range(4)]
    order = {"whole": whole, **{f"late{n}": job for n, job in enumerate(late)}}
    ends = {}
    while len(ends) < len(order):
        ends |= {
            name: time.monotonic()
            for name, job in order.items()
            if name not in ends and job.poll() is not None
        }
        time.sleep(0.005)
    assert min(ends, key=ends.get) == "whole"
    assert not (marks / "COLLISION").exists()


def test_devices_go_with_the_last_process_that_has_them(machine):
    sleeper = "[sys.executable, '-S', '-c', 'import time; time.sleep(1)']"
    code = f"import subprocess, sys; subprocess.Popen({sleeper}, close_fds=False)"
    command = [sys.executable, "-m", "lfp.running.lease", "1", sys.executable, "-c", code]
    subprocess.run(command, cwd=ROOT, check=True)
    # The orphan may still compute on its device.
    assert free_devices() == 3
    deadline = time.monotonic() + 20
    while free_devices() < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert free_devices() == 4


def test_more_than_the_machine_has_is_refused_with_advice(machine):
    with pytest.raises(
        lease.LeaseError, match=r"asks for 5 GPUs .* lets it have 4 .* --resources gpu="
    ):
        lease.take(5)
    assert free_devices() == 4


def test_a_lease_shows_its_devices_and_is_taken_once(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,GPU-c")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert lease.take(2) == ["GPU-a", "GPU-b"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    assert lease.take(2) == []
    assert free_devices() == 2
    monkeypatch.delenv(lease.HELD)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")


def test_jobs_share_a_device_up_to_the_number_that_is_allowed(machine, monkeypatch):
    monkeypatch.setenv("LFP_GPUS", "GPU-a,GPU-b")
    monkeypatch.setenv("LFP_JOBS_PER_GPU", "2")
    marks = machine / "marks"
    marks.mkdir()
    jobs = [start(marks, 1, 60) for _ in range(4)]
    try:
        held = sorted(job.stdout.readline().strip() for job in jobs)
        assert held == ["GPU-a", "GPU-a", "GPU-b", "GPU-b"]
        folder = lease.lock_folder()
        assert lease._lock(folder / "GPU-b.1.lock", wait=False) is None, "a fifth job has to wait"
    finally:
        for job in jobs:
            job.kill()
            job.wait()


def test_a_job_gets_the_device_that_fewest_jobs_share(machine, monkeypatch):
    monkeypatch.setenv("LFP_GPUS", "GPU-a,GPU-b")
    monkeypatch.setenv("LFP_JOBS_PER_GPU", "3")
    folder = lease.lock_folder()
    held = [
        lease._lock(folder / f"{name}.lock", wait=False) for name in ("GPU-a.1", "GPU-a.2", "GPU-b")
    ]
    assert None not in held
    assert lease.take(1) == ["GPU-b"]
    for handle in held:
        os.close(handle)


def test_a_job_of_several_devices_has_different_ones_where_jobs_share_them(machine, monkeypatch):
    monkeypatch.setenv("LFP_JOBS_PER_GPU", "3")
    assert sorted(lease.take(4)) == list(DEVICES)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_jobs_per_gpu_that_is_none_is_refused(machine, monkeypatch, text):
    monkeypatch.setenv("LFP_JOBS_PER_GPU", text)
    with pytest.raises(lease.LeaseError, match="LFP_JOBS_PER_GPU .* 1 or more"):
        lease.take(1)


def test_visible_devices_limit_the_pool_by_number_or_name(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-b")
    assert lease.devices() == ["GPU-d", "GPU-b"]
    with pytest.raises(lease.LeaseError):
        lease.take(3)


def test_a_scheduler_that_gives_just_the_devices_is_believed(machine, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert lease.take(1) == []
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"
    # Several jobs in one allocation must share what it has.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert lease.take(1) == ["GPU-c"]
    monkeypatch.delenv(lease.HELD)


def test_a_machine_without_gpus_stops_a_job_that_wants_one(machine, monkeypatch):
    monkeypatch.setenv("LFP_GPUS", "")
    with pytest.raises(lease.LeaseError, match=r"asks for 1 GPU, .*allow_cpu: true"):
        lease.take(1)
    monkeypatch.setenv("LFP_GPUS", ",".join(DEVICES))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hides them all
    with pytest.raises(lease.LeaseError, match="CUDA_VISIBLE_DEVICES"):
        lease.take(2)
    assert lease.take(0) == []


def test_a_machine_without_gpus_runs_on_the_cpu_where_that_is_allowed(machine, monkeypatch, caplog):
    monkeypatch.setenv("LFP_GPUS", "")
    monkeypatch.setenv(lease.ALLOW_CPU, "1")
    assert lease.take(1) == []
    assert "running on the CPU" in caplog.text
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_job_whose_torch_sees_no_gpu_says_so(gpus, machine, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    if gpus:
        with pytest.raises(lease.LeaseError, match=r"torch .* sees none.*allow_cpu: true"):
            job.hardware(gpus)
        monkeypatch.setenv(lease.ALLOW_CPU, "1")
    assert job.hardware(gpus) == "cpu"


def test_parts_of_a_divided_device_are_leased_instead_of_the_whole(machine, monkeypatch):
    tool = machine / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(
        "#!/bin/sh\ncat <<'END'\nGPU 0: NVIDIA A100 (UUID: GPU-1)\n  MIG 3g.20gb Device 0: (UUID:"
        " MIG-x)\n"
        "  MIG 3g.20gb Device 1: (UUID: MIG-y)\nGPU 1: NVIDIA A100 (UUID: GPU-2)\nEND\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent) + os.pathsep + os.environ["PATH"])
    monkeypatch.delenv("LFP_GPUS")
    assert lease.devices() == ["MIG-x", "MIG-y", "GPU-2"]

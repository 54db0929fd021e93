"""The workflow and its Slurm profile on a real Slurm; run by `make test-slurm`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import faults
from tests.slurm import cluster

ROOT = Path(__file__).parent.parent.parent
PROFILE = str(ROOT / "profiles" / "slurm")
#: Quicker looks at the state of jobs than a real cluster should be asked for.
QUICK = ("--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A cluster of its own, and the interpreter of the tests in front."""
    missing = cluster.missing()
    if missing:
        pytest.fail(
            f"not installed: {', '.join(missing)}; on Debian: apt-get install slurm-wlm munge"
        )
    with cluster.slurm(tmp_path_factory.mktemp("slurm") / "cluster") as found:
        found = {k: v for k, v in found.items() if k not in ("PYTHONPATH", "OMP_NUM_THREADS")}
        # One poll of the plugin waits ten seconds more than the last where nothing has ended.
        yield found | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{found['PATH']}"}


def snakemake(folder: Path, environment: dict[str, str], *arguments: str, ok: bool = True) -> str:
    """What Snakemake says with the Slurm profile."""
    command = [sys.executable, "-m", "snakemake", "--profile", PROFILE, *QUICK, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert (done.returncode == 0) is ok, output[-6000:]
    return output


def test_a_cell_runs_from_corpus_to_tables(environment, tmp_path):
    tree, quiet = (faults.copy_workflow(tmp_path / name) for name in ("tree", "quiet"))
    settings = yaml.safe_load((tree / "grid.yaml").read_text())
    settings["models"]["small"]["gpus"] = 1
    settings["allow_cpu"] = True  # Slurm's GPUs are pretended ones
    for folder in (tree, quiet):
        (folder / "grid.yaml").write_text(yaml.safe_dump(settings))
    output = snakemake(tree, environment, "--configfile", "grid.yaml")
    faults.finish(quiet)
    found, expected = faults.outputs(tree), faults.outputs(quiet)
    assert set(found) == set(expected)
    assert not [name for name, content in found.items() if content != expected[name]]
    assert re.search(r"Group job text.*\n(?:.*\n)*?.*rule (contrasts|lexicon)", output)
    assert "Auto-selected partition 'gpu' for job ppo" in output
    assert "Auto-selected partition 'cpu' for job table" in output


def test_what_slurm_ends_is_tried_again_with_more(environment, tmp_path):
    arguments = (
        "--snakefile",
        str(Path(__file__).parent / "Snakefile"),
        "--directory",
        str(tmp_path),
    )
    partitions = ("--slurm-partition-config", str(ROOT / "profiles" / "slurm" / "partitions.yaml"))
    snakemake(tmp_path, environment, *arguments, *partitions)
    attempts = {path.stem: path.read_text().split() for path in tmp_path.glob("*.attempts")}
    assert attempts["hungry"] == ["900", "1800"]
    assert attempts["slow"] == ["1", "2"]
    assert len(attempts["cancelled"]) == 2
    assert set(attempts["cancelled"]) <= {"0", "1"}  # the pretended devices

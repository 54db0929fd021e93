"""A run as a Workflow Run RO-Crate, which a paper can ship.

The profile is https://w3id.org/ro/wfrun/process.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from rocrate.model import ContextEntity
from rocrate.rocrate import ROCrate

from lfp.files.artefacts import read_json
from lfp.files.provenance import files_below, in_folder, verified
from lfp.files.writing import aside

#: Files and folders of the workflow that go into a crate.
SOURCES = (
    "rules",
    "workflow_scripts",
    "lfp",
    "config",
    "envs",
    "profiles",
    "report",
    "requirements.txt",
    "LICENSE",
)
#: Folders of the results that go into it beside tables and figures.
RESULTS = ("instances", "logs", "benchmarks")


def _add_files(
    crate: ROCrate, files: Iterable[Path], root: Path, folder: Path = Path()
) -> list[ContextEntity]:
    """Add files below `root` to the `folder` of the crate."""
    kept = [
        path
        for path in sorted(files)
        if path.is_file()
        and "__pycache__" not in path.parts
        and not path.name.startswith(".snakemake")
    ]
    return [
        crate.add_file(path, dest_path=(folder / path.relative_to(root)).as_posix())
        for path in kept
    ]


def _used(configfiles: Iterable[str], shipped: Path) -> list[tuple[Path, str]]:
    """The configuration files outside the folder `shipped`, each with its name in the crate.

    The names begin with numbers, in the order of the files, where two files have the same name.
    """
    paths = [Path(path) for path in configfiles]
    paths = [path for path in paths if not path.resolve().is_relative_to(shipped.resolve())]
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [f"{number}-{name}" for number, name in enumerate(names, 1)]
    return list(zip(paths, names, strict=True))


def pack(
    provenance: str | Path, workflow: str | Path, configfiles: Iterable[str], output: str | Path
) -> int:
    """Write the crate of a run to the zip file `output`; returns its size in bytes.

    `provenance` is the file that describes the run.

    `workflow` is the folder of the Snakefile. Checkpoints and activations stay out: their digests
    are in the crate's provenance.json. Every table, figure and folder of pages is checked against
    its record first.

    Raises
    ------
    ArtefactError
        Where one of them is not what the run wrote.
    """
    provenance, workflow = Path(provenance), Path(workflow)
    recorded, root = read_json(provenance), provenance.parent
    targets = [verified(in_folder(path, root)) for path in recorded["targets"]]
    crate = ROCrate()
    crate.name = "Learned Feedback Patterns: a run"
    crate.description = (
        "Tables, figures and pages of a run, where each came from, and the workflow that made them."
    )
    crate.license = "https://spdx.org/licenses/MIT"
    engine = crate.add_workflow(workflow / "Snakefile", "Snakefile", main=True, lang="snakemake")
    for name in SOURCES:
        source = workflow / name
        _add_files(crate, files_below(source) if source.is_dir() else [source], workflow)
    for path, name in _used(configfiles, workflow / "config"):
        crate.add_file(path, dest_path=f"config/used/{name}")
    shown = (path for target in targets for path in files_below(target) or [target])
    files = [*shown, provenance, *(path for name in RESULTS for path in files_below(root / name))]
    results = _add_files(crate, files, root, Path("results"))
    times = [
        (datetime.fromisoformat(r["started"]), r["seconds"]) for r in recorded["artefacts"].values()
    ]
    action = {
        "@type": "CreateAction",
        "name": "snakemake",
        "startTime": min(start for start, _ in times).isoformat(),
        "endTime": max(start + timedelta(seconds=seconds) for start, seconds in times).isoformat(),
        "instrument": {"@id": engine.id},
        "result": [{"@id": entity.id} for entity in results],
    }
    crate.root_dataset["mentions"] = crate.add(ContextEntity(crate, "#run", properties=action))
    crate.root_dataset["conformsTo"] = {"@id": "https://w3id.org/ro/wfrun/process/0.5"}
    with aside(output) as temporary:
        crate.write_zip(temporary)
    return Path(output).stat().st_size

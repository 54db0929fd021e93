"""Every kind of damage to every kind of artefact is found by its reader, and a run can be held
against its record.
"""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lfp.files import artefacts, provenance, resume, ro_crate, writing
from lfp.models.loading import load_model, load_tokenizer, save_model
from lfp.running import one_writer
from lfp.sae import store
from lfp.sae.architectures.standard import Standard
from lfp.services import answer_cache

ROOT = Path(__file__).parent.parent


def recorded(artefact: Path, inputs: dict[str, str] | None = None) -> Path:
    """Give `artefact` the record that its job would write."""
    record = {"files": provenance.file_digests(artefact), "inputs": inputs or {}}
    record |= {"started": "2026-01-01T00:00:00+00:00", "seconds": 90.0}
    provenance.record_path(artefact).write_text(json.dumps(record))
    return artefact


def make(kind: str, folder: Path, neox, tokenizer) -> tuple[Path, Path, callable]:
    """An artefact of a kind, the file in it that gets damaged, and its reader."""
    path = folder / f"artefact.{kind}"
    if kind == "parquet":
        artefacts.write_table(path, pd.DataFrame({"x": np.arange(2000)}), {})
        return path, path, artefacts.read_table
    if kind == "json":
        artefacts.write_json(path, {"x": list(range(2000))}, {})
        return path, path, artefacts.read_json
    if kind == "safetensors":
        artefacts.write_tensors(path, {"x": np.arange(2000.0)}, {})
        return path, path, artefacts.read_tensors
    if kind == "activations":
        with (
            writing.directory_aside(path, {}) as inside,
            artefacts.tensor_file(
                inside / "layer1.safetensors", "activations", (500, 8), {}
            ) as array,
        ):
            array[:] = 1
        file = path / "layer1.safetensors"
        return path, file, lambda _: artefacts.open_tensor(file, "activations")
    if kind == "autoencoder":
        with writing.directory_aside(path, {}) as inside:
            store.save(Standard(8, 16), inside, {})
        return path, path / "sae_weights.safetensors", store.load
    with writing.directory_aside(path, {}) as inside:
        save_model(neox, tokenizer, inside)
    if kind == "tokenizer":
        return path, path / "tokenizer.json", load_tokenizer
    return path, path / "model.safetensors", load_model


KINDS = ("parquet", "json", "safetensors", "activations", "autoencoder", "tokenizer", "checkpoint")


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_found_and_named(kind, tmp_path, neox, tokenizer):
    artefact, file, read = make(kind, tmp_path, neox, tokenizer)
    recorded(artefact)
    read(artefact)
    content = bytearray(file.read_bytes())
    content[len(content) * 3 // 4] ^= 1
    file.write_bytes(content)
    with pytest.raises(provenance.ArtefactError) as caught:
        read(artefact)
    assert str(file) in str(caught.value)
    assert f"snakemake --cores all --force {artefact}" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_record", [True, False])
def test_a_truncated_file_is_found_and_named(kind, with_record, tmp_path, neox, tokenizer):
    artefact, file, read = make(kind, tmp_path, neox, tokenizer)
    if with_record:
        recorded(artefact)
    content = file.read_bytes()
    for length in (len(content) // 2, 5, 0):
        file.write_bytes(content[:length])
        with pytest.raises(provenance.ArtefactError, match=str(artefact)):
            read(artefact)


def test_a_file_that_is_gone_from_a_checkpoint_is_named(tmp_path, neox, tokenizer):
    artefact, file, read = make("checkpoint", tmp_path, neox, tokenizer)
    recorded(artefact)
    (artefact / "config.json").unlink()
    with pytest.raises(provenance.ArtefactError, match="config.json: is missing"):
        read(artefact)


def test_a_file_that_was_added_to_a_checkpoint_is_named(tmp_path, neox, tokenizer):
    artefact, _, _ = make("checkpoint", tmp_path, neox, tokenizer)
    recorded(artefact)
    (artefact / ".DS_Store").write_text("")
    load_model(artefact), load_tokenizer(artefact)
    for name, read in (("adapter_config.json", load_model), ("chat.jinja", load_tokenizer)):
        (artefact / name).write_text("{}")
        with pytest.raises(provenance.ArtefactError, match=f"{name}: .*written without it.*away"):
            read(artefact)
        (artefact / name).unlink()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "config.json"])
def test_every_file_that_decides_how_a_tokenizer_is_read_is_checked(
    name, tmp_path, neox, tokenizer
):
    artefact, _, _ = make("tokenizer", tmp_path, neox, tokenizer)
    recorded(artefact)
    content = (artefact / name).read_text()
    (artefact / name).write_text(content.replace("{", "{ ", 1))
    with pytest.raises(provenance.ArtefactError, match=f"{name}: its content is not what was"):
        load_tokenizer(artefact)


@pytest.mark.parametrize("content", ["", '{"files": {', "[]", '{"fimes": {}}', '{"files": {}}'])
def test_a_damaged_record_is_named_and_checks_do_not_end(content, tmp_path):
    path = tmp_path / "a.json"
    artefacts.write_json(path, {"x": 1}, {})
    recorded(path)
    provenance.record_path(path).write_text(content)
    for read in (artefacts.read_json, lambda path: provenance.input_digests([path])):
        with pytest.raises(provenance.ArtefactError, match=r"\.a\.json\.provenance\.json.*--force"):
            read(path)
    one_writer.clear([path], keep=[])  # as the job does that makes it anew
    assert artefacts.read_json(path)["x"] == 1


def test_a_damaged_cache_of_answers_is_named(tmp_path):
    path = tmp_path / "service.sqlite"
    cache = answer_cache.AnswerCache(path)
    for n in range(300):
        cache.put(f"{n:064x}", {"n": n}, {"text": "x" * 200}, "s", 0.0)
    cache.close()
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = b"\xff" * 3000
    path.write_bytes(content)
    with pytest.raises(answer_cache.CacheError, match=str(path)):
        answer_cache.AnswerCache(path)


def test_a_damaged_resume_point_is_left_aside(tmp_path):
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(3)).sum().backward()
    optimizer.step()
    path = tmp_path / "state"
    resume.save_state(path, module, optimizer, {"step": 7})
    assert resume.load_state(path, module, optimizer) == {"step": 7}
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    before = module.weight.clone()
    for content in (whole[:100], b"", bytes(flipped)):
        path.write_bytes(content)
        assert resume.load_state(path, module, optimizer) is None
        assert torch.equal(before, module.weight)


@pytest.fixture
def results(tmp_path) -> Path:
    """A results folder: a table made of a corpus, with provenance.json."""
    folder = tmp_path / "run" / "results"
    corpus, table = folder / "corpora" / "c.parquet", folder / "tables" / "t.csv"
    artefacts.write_table(corpus, pd.DataFrame({"x": [1]}), {})
    recorded(corpus)
    table.parent.mkdir()
    table.write_text("x\n1\n")
    name = "results/corpora/c.parquet"
    recorded(table, {name: provenance.digest(provenance.read_record(corpus)["files"])})
    found = {f"results/{p.relative_to(folder)}": provenance.read_record(p) for p in (corpus, table)}
    (folder / "provenance.json").write_text(
        json.dumps({"targets": ["results/tables/t.csv"], "artefacts": found})
    )
    return folder


def verify(results: Path) -> subprocess.CompletedProcess:
    """What `verify` says of a folder."""
    command = [sys.executable, "-m", "workflow_scripts.verify", str(results / "provenance.json")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_verify_tells_changed_from_missing(results):
    assert verify(results).returncode == 0
    corpus, table = results / "corpora" / "c.parquet", results / "tables" / "t.csv"
    corpus.unlink()
    found = verify(results)
    assert found.returncode == 0
    assert "results/corpora/c.parquet: missing" in found.stdout
    table.write_text("x\n2\n")
    found = verify(results)
    assert found.returncode == 1
    assert "results/tables/t.csv: changed" in found.stdout
    table.unlink()
    assert verify(results).returncode == 1


def test_a_linked_or_renamed_folder_is_verified(results, tmp_path, monkeypatch):
    """Results on another disk, in a folder of another name, and parts of them on a third."""
    disk = results.rename(tmp_path / "lfp-run-7")
    results.symlink_to(disk)
    (disk / "tables").rename(tmp_path / "disk3")
    (disk / "tables").symlink_to(tmp_path / "disk3")
    for folder in (results, disk):
        answer = verify(folder)
        assert answer.returncode == 0 and "missing" not in answer.stdout, answer.stdout
        target = tmp_path / "crate.zip"
        ro_crate.pack(folder / "provenance.json", ROOT, [], target)
        assert {"results/tables/t.csv", "results/provenance.json"} <= set(
            zipfile.ZipFile(target).namelist()
        )
    (tmp_path / "disk3" / "t.csv").write_text("x\n2\n")
    assert "results/tables/t.csv: changed" in verify(results).stdout
    with pytest.raises(provenance.ArtefactError, match=r"tables/t\.csv"):
        ro_crate.pack(results / "provenance.json", ROOT, [], target)


def recorded_pages(results: Path, *names: str) -> Path:
    """A folder of pages with files of these `names`, which the run has among its targets."""
    pages = results / "m" / "t" / "seed0" / "explanations" / "tied" / "pages"
    pages.mkdir(parents=True)
    for name in names:
        (pages / name).write_text("x")
    recorded(pages)
    path = f"results/{pages.relative_to(results)}"
    run = json.loads((results / "provenance.json").read_text())
    run["targets"].append(path)
    run["artefacts"][path] = provenance.read_record(pages)
    (results / "provenance.json").write_text(json.dumps(run))
    return pages


def test_a_crate_has_every_page_of_a_folder(results, tmp_path):
    pages = recorded_pages(results, "index.html", "layer0_latent1.html", ".snakemake_timestamp")
    path = f"results/{pages.relative_to(results)}"
    assert verify(results).returncode == 0
    ro_crate.pack(results / "provenance.json", ROOT, [], tmp_path / "crate.zip")
    packed = {name for name in zipfile.ZipFile(tmp_path / "crate.zip").namelist() if path in name}
    assert packed == {f"{path}/index.html", f"{path}/layer0_latent1.html"}
    (pages / "index.html").unlink()
    assert verify(results).returncode == 1


@pytest.mark.parametrize("left", sorted(provenance.SHOWN))
def test_what_a_file_manager_puts_into_a_folder_is_no_file_of_it(results, tmp_path, left):
    """Exactly that: what differs in its name is still a file that was added."""
    pages = recorded_pages(results, "index.html")
    for folder in (pages, pages.parent, results):
        (folder / left).write_bytes(b"icons")
    assert verify(results).returncode == 0
    assert provenance.verified(pages) == pages
    ro_crate.pack(results / "provenance.json", ROOT, [], tmp_path / "crate.zip")
    assert not [name for name in zipfile.ZipFile(tmp_path / "crate.zip").namelist() if left in name]
    (pages / f"{left}.html").write_text("x")
    path = f"results/{pages.relative_to(results)}"
    assert f"{path}: changed" in verify(results).stdout


def test_a_crate_has_configuration_files_of_one_name_in_their_order(results, tmp_path):
    files = [tmp_path / folder / "my.yaml" for folder in ("b", "a")]
    for path in files:
        path.parent.mkdir()
        path.write_text(path.parent.name)
    target = tmp_path / "crate.zip"
    for given, names in ((files, ("1-my.yaml", "2-my.yaml")), (files[:1], ("my.yaml",))):
        ro_crate.pack(results / "provenance.json", ROOT, map(str, given), target)
        with zipfile.ZipFile(target) as archive:
            used = [name for name in archive.namelist() if "/used/" in name]
            assert sorted(used) == [f"config/used/{name}" for name in names]
            assert [archive.read(name).decode() for name in sorted(used)] == ["b", "a"][: len(used)]


def test_files_of_a_linked_folder_inside_an_artefact_count(tmp_path):
    artefact, disk = tmp_path / "artefact", tmp_path / "disk"
    artefact.mkdir()
    disk.mkdir()
    (disk / "x").write_text("1")
    (artefact / "layer0").symlink_to(disk)
    before = provenance.file_digests(artefact)
    assert list(before) == ["layer0/x"]
    (disk / "x").write_text("2")
    assert provenance.file_digests(artefact) != before


def test_verify_finds_a_table_made_of_another_input(results):
    path = results / "provenance.json"
    content = json.loads(path.read_text())
    content["artefacts"]["results/tables/t.csv"]["inputs"]["results/corpora/c.parquet"] = "0" * 64
    path.write_text(json.dumps(content))
    assert "made of another results/corpora/c.parquet" in verify(results).stdout


def test_lineage_goes_back_to_the_corpora(results, monkeypatch):
    monkeypatch.chdir(results.parent)
    assert set(provenance.lineage(["results/tables/t.csv"])) == {
        "results/tables/t.csv",
        "results/corpora/c.parquet",
    }
    provenance.record_path("results/tables/t.csv").unlink()
    with pytest.raises(provenance.ArtefactError, match=r"results/tables/t\.csv"):
        provenance.lineage(["results/tables/t.csv"])


def test_lineage_leaves_nothing_out_in_silence(results, monkeypatch, caplog):
    monkeypatch.chdir(results.parent)
    record = provenance.record_path("results/corpora/c.parquet")
    record.write_text("{")
    with pytest.raises(provenance.ArtefactError, match=r"\.c\.parquet\.provenance\.json"):
        provenance.lineage(["results/tables/t.csv"])
    record.unlink()
    assert set(provenance.lineage(["results/tables/t.csv"])) == {"results/tables/t.csv"}
    assert "results/corpora/c.parquet: no .c.parquet.provenance.json beside it" in caplog.text


def test_lineage_ends_at_the_results_of_another_run(results, tmp_path, monkeypatch):
    monkeypatch.chdir(results.parent)
    corpus, other = "results/corpora/c.parquet", tmp_path / "other" / "results" / "c.parquet"
    artefacts.write_table(other, pd.DataFrame({"x": [1]}), {})
    recorded(other)
    recorded(Path(corpus), {"../other/results/c.parquet": "0" * 64, str(other): "0" * 64})
    records = provenance.lineage(["results/tables/t.csv"])
    assert set(records) == {"results/tables/t.csv", corpus}
    assert list(provenance.problems(records, results)) == []


def test_a_crate_holds_the_run_and_its_workflow(results, tmp_path):
    target = tmp_path / "crate.zip"
    ro_crate.pack(results / "provenance.json", ROOT, [], target)
    with zipfile.ZipFile(target) as archive:
        names = set(archive.namelist())
        graph = json.loads(archive.read("ro-crate-metadata.json"))["@graph"]
    assert {
        "Snakefile",
        "rules/common.smk",
        "results/tables/t.csv",
        "results/provenance.json",
    } <= names
    action = next(entity for entity in graph if entity["@type"] == "CreateAction")
    assert {"@id": "results/tables/t.csv"} in action["result"]
    assert action["endTime"] == "2026-01-01T00:01:30+00:00"
    (results / "tables" / "t.csv").write_text("x\n2\n")
    with pytest.raises(provenance.ArtefactError, match=r"tables/t\.csv"):
        ro_crate.pack(results / "provenance.json", ROOT, [], target)

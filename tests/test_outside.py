"""Files outside the results: known by their content wherever they lie, and folders of any name."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lfp.configuration import ConfigurationError
from lfp.files.canonical import canonical_json
from lfp.files.checkpoints import INDEX
from lfp.files.hub import matching_files
from lfp.grid import Grid
from lfp.planning import Planner, importable, preamble
from lfp.running import sources
from lfp.settings import parted
from tests.conftest import ROOT
from tests.test_configuration import changed
from tests.test_planning import Wildcards
from tests.test_workflow import copy_tree

#: The key of every kind of file that a run reads from outside, by the rule that takes it.
KINDS = {
    "corpus": "corpora.films.path",
    "model": "models.local.path",
    "gguf": "models.quantised.path",
    "policy": "tasks.tuned.policies.local.path",
    "classifier": "classifiers.judge.path",
    "tokenizer": "models.grown.organism.tokenizer_path",
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working directory with a corpus, checkpoints, the parts of a GGUF file and a tokenizer."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path)
    return tmp_path


def fill(folder: Path) -> None:
    """Write one file of every kind below `folder`."""
    (folder / "data").mkdir()
    (folder / "data" / "a.jsonl").write_text('{"text": "a film"}\n')
    for name, head in (("local", "CausalLM"), ("tuned", "CausalLM"),
                       ("judge", "SequenceClassification")):  # fmt: skip
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({"architectures": [f"XFor{head}"]}))
        (folder / name / "tokenizer.json").write_text("{}")
        (folder / name / "model.safetensors").write_bytes(b"weights")
    (folder / "m.part1").write_bytes(b"GGUF12")
    (folder / "m.part2").write_bytes(b"34")
    (folder / "words").mkdir()
    (folder / "words" / "tokenizer.json").write_text("{}")


#: A file that is changed of every kind.
FILES = {
    "corpus": "data/a.jsonl", "model": "local/tokenizer.json", "gguf": "m.part2",
    "policy": "tuned/config.json", "classifier": "judge/model.safetensors",
    "tokenizer": "words/tokenizer.json",
}  # fmt: skip


def planner(place: str = "") -> Planner:
    """A planner of the files of :func:`fill`, which lie in the folder `place`."""
    grown = {"architecture": "gpt_neox", "corpora": ["reviews"], "tokenizer_path": f"{place}words"}
    given = {"local": {"path": f"{place}tuned"}}
    config = changed(
        corpora__films={"path": {"train": [f"{place}data/*.jsonl"]}, "columns": {"text": "text"}},
        models__local={"path": f"{place}local", "n_layers": 2},
        models__quantised={"path": [f"{place}m.part1", f"{place}m.part2"], "n_layers": 2},
        models__grown={"organism": grown},
        classifiers={"judge": {"path": f"{place}judge"}},
        tasks__tuned={"method": "given", "corpus": "reviews", "policies": given},
    )
    return Planner(Grid(config), lambda cell: "")


def settings(kind: str, place: str = "") -> dict:
    """Settings of the rule that takes a kind of file, which lies in the folder `place`."""
    names = {
        "model": "local", "gguf": "quantised", "policy": "local--tuned", "classifier": "judge",
    }  # fmt: skip
    if kind == "corpus":
        return planner(place).copied_corpus(Wildcards(corpus="films"))
    if kind == "tokenizer":
        return planner(place).organism(Wildcards(model="grown"))
    return planner(place).copied_model(Wildcards(model=names[kind]))


def test_the_order_of_a_configurations_keys_decides_nothing(folder):
    (folder / "data" / "test.jsonl").write_text(json.dumps({"text": "held out"}))
    path = {"train": ["data/a.jsonl"], "test": ["data/test.jsonl"]}

    def planned(splits: dict) -> dict:
        config = changed(corpora__films={"path": splits, "columns": {"text": "text"}})
        return Planner(Grid(config), lambda cell: "").copied_corpus(Wildcards(corpus="films"))

    one, other = planned(path), planned(dict(sorted(path.items())))
    assert list(path) != sorted(path)
    assert canonical_json(parted(one)) == canonical_json(parted(other))


@pytest.mark.parametrize("test", ["data/a.jsonl", "data/*.jsonl", "data/../data/a.jsonl"])
def test_a_file_of_two_splits_is_refused(folder, test):
    """The held-out split would lose all that training has."""
    path = {"train": ["data/a.jsonl"], "test": test}
    plan = Planner(
        Grid(changed(corpora__films={"path": path, "columns": {"text": "text"}})), lambda cell: ""
    )
    with pytest.raises(ConfigurationError, match="corpora.films.path: .* of train and of test"):
        plan.copied_corpus(Wildcards(corpus="films"))


def put_back(path: Path, change: Callable[[], object]) -> None:
    """Change a file in place, and give it the times that it had."""
    times = path.stat()
    change()
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_is_planned_and_a_touch_is_not(kind, folder, monkeypatch):
    monkeypatch.setattr(sources, "TICK", 0)  # digests are kept at once
    path, before = folder / FILES[kind], settings(kind)
    assert settings(kind) == before
    content = path.read_bytes()
    os.utime(path, (0, 0))
    assert settings(kind) == before
    path.unlink()
    path.write_bytes(content)
    assert settings(kind) == before
    other = content[:-1] + bytes([content[-1] ^ 1])
    if kind == "policy":  # still a configuration
        other = content.replace(b"XFor", b"YFor")
    put_back(path, lambda: path.write_bytes(other))
    after = settings(kind)
    assert after != before
    assert {key for key in after if after[key] != before[key]} == {"sources"}
    path.write_bytes(content)
    assert settings(kind) == before


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missing_is_named_by_its_key(kind, folder):
    (folder / FILES[kind]).unlink()
    with pytest.raises(ConfigurationError, match=f"^{KINDS[kind]}: ") as caught:
        settings(kind)
    assert str(caught.value).count(KINDS[kind]) == 1
    for other in set(KINDS) - {kind}:  # a run without it is planned
        assert settings(other)["sources"]


def test_digests_are_the_same_wherever_the_folder_lies(folder, tmp_path_factory, monkeypatch):
    here = {kind: settings(kind) for kind in KINDS}
    elsewhere = tmp_path_factory.mktemp("else where")
    fill(elsewhere)
    monkeypatch.chdir(elsewhere)
    assert {kind: settings(kind) for kind in KINDS} == here


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_is_moved_reruns_nothing_and_its_job_finds_it(kind, folder):
    """The content decides, and an edit at the other place is one as before."""
    before, place = settings(kind), f"{folder / 'disk'}/"
    (folder / "disk").mkdir()
    for name in {Path(file).parts[0] for file in FILES.values()} | {"m.part1"}:
        (folder / name).rename(folder / "disk" / name)
    after = settings(kind, place)
    assert parted(after)[0] == parted(before)[0]
    assert place in json.dumps(parted(after)[1]) and place not in json.dumps(parted(after)[0])
    path = folder / "disk" / FILES[kind]
    path.write_bytes(path.read_bytes() + b" ")
    assert parted(settings(kind, place))[0] != parted(before)[0]


def test_the_order_of_the_files_of_a_corpus_counts(folder):
    """Texts come in that of the names, and files of other folders in that of the patterns."""
    before = parted(settings("corpus"))[0]
    (folder / "data" / "b.jsonl").write_text('{"text": "b film"}\n')
    two = parted(settings("corpus"))[0]
    for name, other in (("a", "c"), ("b", "a"), ("c", "b")):
        (folder / "data" / f"{name}.jsonl").rename(folder / "data" / f"{other}.jsonl")
    swapped = parted(settings("corpus"))[0]
    assert len({canonical_json(one) for one in (before, two, swapped)}) == 3


def test_a_new_file_of_a_pattern_counts_and_one_beside_a_checkpoint_does_not(folder):
    corpus, model = settings("corpus"), settings("model")
    (folder / "data" / "b.jsonl").write_text('{"text": "another"}\n')
    (folder / "local" / "README.md").write_text("about")
    (folder / "local" / "optimizer.pt").write_bytes(b"state")
    assert settings("corpus") != corpus
    assert settings("model") == model
    (folder / "local" / "chat_template.jinja").write_text("")
    assert settings("model") != model


def test_files_behind_links_are_known_by_what_they_say(folder):
    before = settings("corpus"), settings("model")
    for name in ("data", "local"):
        (folder / name).rename(folder / f"{name}-elsewhere")
        (folder / name).symlink_to(f"{name}-elsewhere")
    assert (settings("corpus"), settings("model")) == before
    (folder / "data-elsewhere" / "a.jsonl").write_text('{"text": "b film"}\n')
    (folder / "local-elsewhere" / "model.safetensors").write_bytes(b"others")
    assert settings("corpus") != before[0] and settings("model") != before[1]


def test_a_pattern_of_any_depth_reaches_folders_behind_links(folder):
    (folder / "disk" / "deep").mkdir(parents=True)
    (folder / "disk" / "deep" / "b.jsonl").write_text('{"text": "b"}\n')
    (folder / "data" / "more").symlink_to(folder / "disk")
    names = [str(path) for path in matching_files(".", "data/**/*.jsonl", "corpora")]
    assert names == ["data/a.jsonl", "data/more/deep/b.jsonl"]


def test_circles_of_links_give_every_file_once(folder):
    (folder / "data" / "2024").mkdir()
    (folder / "data" / "2024" / "b.jsonl").write_text('{"text": "b"}\n')
    (folder / "data" / "latest").symlink_to("2024")
    for name in ("here", "up"):
        (folder / "data" / name).symlink_to("." if name == "here" else "../data")
    for pattern in ("data/**/*.jsonl", "data/**", "**/*.jsonl", "data/**/**/*.jsonl"):
        names = [str(path) for path in matching_files(".", pattern, "corpora")]
        assert names == ["data/2024/b.jsonl", "data/a.jsonl"], pattern


def test_large_files_are_read_once(folder, monkeypatch):
    monkeypatch.setattr(sources, "TICK", 0)
    before, read = settings("model"), []
    digest = sources.file_digest
    monkeypatch.setattr(sources, "file_digest", lambda path: read.append(path) or digest(path))
    assert settings("model") == before and read == []
    shutil.copyfile(folder / "local" / "config.json", folder / "copy")
    (folder / "copy").replace(folder / "local" / "config.json")
    assert settings("model") == before and [path.name for path in read] == ["config.json"]
    for damage in ("{", "[]", '{"x": 1}'):
        sources.CACHE.write_text(damage)
        assert settings("model") == before


def test_a_file_that_was_just_written_is_read_again(folder):
    """Two edits within one tick of the clock leave the same times."""
    settings("corpus")
    assert not sources.CACHE.exists()


def test_a_reward_is_known_by_all_of_its_modules(folder):
    package = folder / "rewards"
    (package / "deep").mkdir(parents=True)
    files = {
        "judge_words.py": "import lfp.texts.words\nfrom rewards import part\nf = part.f\n",
        "rewards/__init__.py": "",
        "rewards/part.py": "def f():\n    from .deep import low\n",
        "rewards/deep/__init__.py": "from . import low\n",
        "rewards/deep/low.py": "from ..top import x\n",
        "rewards/top.py": "x = 1\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "rewards" / "unused.py").write_text("y = 1\n")
    reward = {"reward": "callable", "callable": "judge_words:f", "description": "words"}
    config = changed(tasks__vader={"method": "ppo", "corpus": "reviews"} | reward)

    def feedback() -> dict:
        return Grid(config).feedback_settings("vader")

    before = feedback()
    (folder / "rewards" / "unused.py").write_text("y = 2\n")
    os.utime(folder / "rewards" / "top.py", (0, 0))
    assert feedback() == before
    for name, text in files.items():
        (folder / name).write_text(f"{text}\nz = 1\n")
        assert feedback() != before, name
        (folder / name).write_text(text)
    assert feedback() == before
    for name, text in files.items():
        (folder / name).write_text(f"# a comment\n{text}\n")
    assert feedback() == before
    (folder / "rewards" / "top.py").write_text("x = (\n")
    with pytest.raises(ConfigurationError, match=r"top\.py is not valid.*'judge_words:f' reads it"):
        feedback()


def test_a_colon_is_refused_where_python_would_not_find_the_package(tmp_path, monkeypatch):
    (tmp_path / "a:b").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="a:b: Python finds no package"):
        importable(tmp_path / "a:b")
    monkeypatch.chdir(tmp_path / "a:b")
    assert importable(tmp_path / "a:b") == "."


@pytest.mark.parametrize("elsewhere", [None, "", "/opt/module/site", "/a b:/c"])
def test_jobs_find_the_package_first_and_what_the_users_python_finds(elsewhere, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if elsewhere is not None:
        monkeypatch.setenv("PYTHONPATH", elsewhere)
    shell = preamble("the folder's", {"LFP_LIMITS": '{"a": "b c"}'})
    shown = subprocess.run(
        ["bash", "-c", f'{shell} printf "%s\n" "$PYTHONPATH" "$LFP_LIMITS"'],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert shown == [":".join(filter(None, ["the folder's", elsewhere])), '{"a": "b c"}']


@pytest.mark.workflow
def test_the_default_configuration_is_found_from_any_folder(tmp_path):
    (tmp_path / "small.yaml").write_text("keep_activations: false\n")
    for overlay in ([], ["--configfile", "small.yaml"]):
        snakefile = ["--snakefile", str(ROOT / "Snakefile"), *overlay]
        result = subprocess.run(
            [sys.executable, "-m", "snakemake", "-n", "results/tables/corpora.csv", *snakefile],
            cwd=tmp_path, text=True, capture_output=True,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr[-2000:]
        assert re.search(r"^generate_corpus +3$", result.stdout + result.stderr, re.M)


@pytest.mark.workflow
def test_a_clone_of_any_name_with_linked_results_sees_edits_alone(tmp_path):
    """A real job and two plans in the worst of folders, with results on another disk."""
    name = 'b{x}:c it\'s "q" $HOME;%20#&[v1]ü\\n\nz {{y}}*?|<>!~`'
    tree = copy_tree(tmp_path / name)
    (tmp_path / "disk").mkdir()
    (tree / "results").symlink_to(tmp_path / "disk")
    config = {
        "corpora": {
            "films": {"path": {"train": "f {i}/*.jsonl"}, "columns": {"text": "text"}},
            "absent": {"path": {"train": "absent"}, "columns": {"text": "text"}},
        },
        "models": {"m": {"path": "absent", "n_layers": 2}},
        "tasks": {"vader": {"method": "ppo", "corpus": "films"}},
        "settings": {"divergence": {"n_layers": 2}},
        "cells": [{"model": "m", "task": "vader"}],
    }
    (tree / "c {x} '.yaml").write_text(yaml.safe_dump(config))
    file = tree / "f {i}" / "it's {a}.jsonl"
    file.parent.mkdir()
    file.write_text("".join(json.dumps({"text": f"a film {n}"}) + "\n" for n in range(20)))

    def snakemake(*arguments: str) -> str:
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        }
        result = subprocess.run(
            [sys.executable, "-m", "snakemake", "--configfile", "c {x} '.yaml", "--cores", "1",
             *arguments],
            cwd=tree, env=environment, text=True, capture_output=True,
        )  # fmt: skip
        return result.stdout + result.stderr

    target = "results/corpora/films/counts.json"
    output = snakemake(target)
    assert (tmp_path / "disk" / "corpora" / "films" / "counts.json").exists(), output[-3000:]
    record = json.loads((tree / "results/corpora/films/.counts.json.provenance.json").read_text())
    assert list(record["inputs"]) == ["f {i}/it's {a}.jsonl"]
    os.utime(file, None)
    assert "Nothing to be done" in snakemake("-n", target)
    put_back(file, lambda: file.write_text(file.read_text().replace("film 3", "firm 3")))
    assert "params have changed" in snakemake("-n", target)


def test_an_index_counts_with_its_shards(folder):
    (folder / "local" / "model.safetensors").unlink()
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (folder / "local" / INDEX).write_text(json.dumps(index))
    (folder / "local" / "a.safetensors").write_bytes(b"1")
    with pytest.raises(ConfigurationError, match=r"lacks b\.safetensors \(1 of 2 shards\)"):
        settings("model")
    (folder / "local" / "b.safetensors").write_bytes(b"2")
    before = settings("model")
    (folder / "local" / "b.safetensors").write_bytes(b"3")
    assert settings("model") != before

"""Results are written whole or not at all, and carry what they were made with."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from lfp.files import artefacts, writing

ROOT = Path(__file__).parent.parent
STAMP = {"settings": {"a": 1}, "code": "abc"}


def test_a_failed_writer_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "a.json"
    artefacts.write_json(path, {"x": 1}, STAMP)
    with pytest.raises(RuntimeError), writing.aside(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert artefacts.read_json(path)["x"] == 1
    with pytest.raises(RuntimeError), writing.directory_aside(tmp_path / "d") as folder:
        (folder / "half").write_text("")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o002])
def test_what_is_written_may_be_read_by_whom_the_umask_says(umask, tmp_path):
    def write(inside: Path) -> None:
        (inside / "deep").mkdir()
        (inside / "deep" / "private").touch(0o600)
        save_file({"x": np.zeros(2)}, inside / "a.safetensors")

    before = os.umask(umask)
    try:
        artefacts.write_json(tmp_path / "a.json", {}, STAMP)
        artefacts.write_tensors(tmp_path / "new" / "a.safetensors", {"x": np.zeros(2)}, STAMP)
        for name in ("d", "d"):  # the second replaces the first
            with writing.directory_aside(tmp_path / name, STAMP) as inside:
                write(inside)
        written = ["deep", "a.safetensors"]
        with writing.resumable_directory(
            tmp_path / "r", tmp_path / ".r.state", written, STAMP
        ) as inside:
            write(inside)
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert len(modes) == 13
    assert modes == {path: (0o777 if path.is_dir() else 0o666) & ~umask for path in modes}


def test_every_kind_of_artefact_carries_its_stamp(tmp_path):
    artefacts.write_json(tmp_path / "a.json", {}, STAMP)
    artefacts.write_table(tmp_path / "a.parquet", pd.DataFrame({"x": [1]}), STAMP)
    artefacts.write_tensors(tmp_path / "a.safetensors", {"x": np.zeros(2)}, STAMP)
    with writing.directory_aside(tmp_path / "d", STAMP) as folder:
        (folder / "f").write_text("")
    assert artefacts.read_json(tmp_path / "a.json")[artefacts.STAMP_KEY] == STAMP
    assert json.loads(pq.read_schema(tmp_path / "a.parquet").metadata[b"lfp_stamp"]) == STAMP
    assert (
        json.loads(artefacts.read_metadata(tmp_path / "a.safetensors")[artefacts.STAMP_KEY])
        == STAMP
    )
    assert json.loads((tmp_path / "d" / "stamp.json").read_text()) == STAMP


def test_a_number_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        artefacts.write_json(tmp_path / "a.json", {"x": float("nan")}, STAMP)


def test_the_same_values_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        artefacts.write_table(tmp_path / f"{name}.parquet", pd.DataFrame({"x": [1.5, 2.5]}), STAMP)
        artefacts.write_tensors(tmp_path / f"{name}.safetensors", {"x": np.arange(3.0)}, STAMP)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_tensor_file_is_filled_in_place_and_is_ordinary_safetensors(tmp_path):
    path, value = tmp_path / "a.safetensors", np.arange(12, dtype=np.float16).reshape(4, 3)
    with artefacts.tensor_file(path, "x", (4, 3), {"code": "1"}, {"hook_name": "h"}) as array:
        array[[2, 0]] = value[[2, 0]]
        array[[1, 3]] = value[[1, 3]]
    np.testing.assert_array_equal(artefacts.read_tensors(path)["x"], value)
    assert artefacts.read_metadata(path)["hook_name"] == "h"
    opened = artefacts.open_tensor(path, "x")
    np.testing.assert_array_equal(opened, value)
    opened[0] = 7  # reaches memory alone
    np.testing.assert_array_equal(artefacts.read_tensors(path)["x"], value)
    with pytest.raises(ValueError, match="does not contain tensor y"):
        artefacts.open_tensor(path, "y")


def test_equal_tensors_make_equal_files(tmp_path):
    path, strings = tmp_path / "a.safetensors", {"a": 'caf\u00e9 \x1f"', "layers": "[0]", "z": "1"}
    contents = set()
    for _ in range(12):
        artefacts.write_tensors(path, {"x": np.arange(3), "y": np.ones(2)}, {"code": "1"}, strings)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    assert strings.items() <= artefacts.read_metadata(path).items()
    np.testing.assert_array_equal(artefacts.read_tensors(path)["x"], np.arange(3))


def test_a_tensor_file_goes_on_only_under_the_same_header(tmp_path):
    path = tmp_path / "a.safetensors"
    with (
        pytest.raises(RuntimeError),
        artefacts.tensor_file(path, "x", (4, 3), {"code": "1"}) as array,
    ):
        array[:2] = 5
        raise RuntimeError
    with artefacts.tensor_file(path, "x", (4, 3), {"code": "1"}) as array:
        assert (array[:2] == 5).all()
    with artefacts.tensor_file(path, "x", (4, 3), {"code": "2"}) as array:
        assert (array == 0).all()


def test_a_resumable_directory_stays_until_it_is_whole_and_has_what_was_asked_for(tmp_path):
    target, state, how = tmp_path / "out", tmp_path / ".out.state-1", (["half"], {"code": "1"})
    with pytest.raises(RuntimeError), writing.resumable_directory(target, state, *how) as folder:
        (folder / "half").write_text("1")
        (folder / "of another attempt").write_text("2")
        (folder / "folder").mkdir()
        raise RuntimeError
    assert not target.exists()
    with writing.resumable_directory(target, state, *how) as folder:
        assert (folder / "half").read_text() == "1"
    assert sorted(path.name for path in target.iterdir()) == ["half", "stamp.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


FULL = """
import resource, signal, sys
import numpy as np, pandas as pd
from lfp.files import artefacts, writing

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
# No file may be larger: as on a disk that is full.
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
kind, path = sys.argv[1:]
x = np.random.default_rng(0).normal(size=100_000)
if kind == "json":
    artefacts.write_json(path, {"x": x.tolist()}, {})
elif kind == "parquet":
    artefacts.write_table(path, pd.DataFrame({"x": x}), {})
elif kind == "safetensors":
    artefacts.write_tensors(path, {"x": x}, {})
elif kind == "directory":
    with writing.directory_aside(path) as folder:
        (folder / "x").write_bytes(x.tobytes())
else:
    with artefacts.tensor_file(path + ".other", "x", x.shape, {}) as array:
        array[:] = x
"""


def test_room_for_activations_is_taken_before_they_are_computed(tmp_path):
    command = [sys.executable, "-c", FULL, "activations", str(tmp_path / "a")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1  # not a signal
    assert f"{tmp_path}/a.other: cannot be written" in done.stderr


@pytest.mark.parametrize("kind", ["json", "parquet", "safetensors", "directory"])
def test_a_full_disk_is_named_and_keeps_what_was_there(kind, tmp_path):
    path = tmp_path / f"a.{kind}"
    path.write_text("earlier")
    done = subprocess.run(
        [sys.executable, "-c", FULL, kind, str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert f"OSError: {path}: cannot be written" in done.stderr
    assert path.read_text() == "earlier"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (SafetensorError("I/O error: No space left on device (os error 28)"), True),
        (Exception("No space left on device (os error 28)"), True),  # of the library tokenizers
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (FileNotFoundError(errno.ENOENT, "No such file", "an input"), False),
    ],
)
def test_a_full_disk_is_named_whoever_writes_into_a_directory(error, named, tmp_path):
    expected = f"{tmp_path}/d: cannot be written" if named else "an input"
    with pytest.raises(OSError, match=expected), writing.directory_aside(tmp_path / "d"):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/a.json: cannot be written"):
        artefacts.write_json(tmp_path / "file" / "a.json", {}, STAMP)

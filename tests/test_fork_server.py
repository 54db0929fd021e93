"""Jobs as forks of a process that has the libraries are what they are by themselves."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lfp.running import fork_server, start

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux alone")

#: A job that says what it has, and does as its first argument says. ``wave`` is the library.
JOB = """
import os, sys, time
from pathlib import Path
had = "wave" in sys.modules, "lfp" in sys.modules
Path("pid").write_text(str(os.getpid()))
if sys.argv[1] == "say":
    print(*sys.argv[1:], os.environ.get("COLOUR"), Path.cwd().name, input(), *had)
if sys.argv[1] == "wait":
    import subprocess
    subprocess.run(["sleep", "30"])
if sys.argv[1] == "fail":
    raise ValueError("the reason")
if sys.argv[1] == "exit":
    sys.exit(int(sys.argv[2]) if sys.argv[2:] else "the last word")
"""


#: Commands that tests have begun; none outlives its test, however that ends.
_begun: list[subprocess.Popen] = []


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """A folder with the job; that of the socket has a short name."""
    (tmp_path / "a_job.py").write_text(JOB)
    sockets = tempfile.mkdtemp(dir="/tmp")
    (tmp_path / "sockets").symlink_to(sockets)
    yield tmp_path
    shutil.rmtree(sockets, ignore_errors=True)
    while _begun:
        _begun.pop().kill()


def environment(folder: Path, **variables: str) -> dict[str, str]:
    path = f"{folder}{os.pathsep}{ROOT}"
    return os.environ | {"PYTHONPATH": path, start.FOLDER: str(folder / "sockets")} | variables


def interruptible() -> None:
    """Heed signals of the terminal, which processes in the background of a shell do not."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def served(
    folder: Path,
    alone_first: int = 0,
    libraries: tuple[str, ...] = ("wave", "no_such_library"),
    first: str = "",
) -> Iterator[subprocess.Popen]:
    """A server that imports one small library, once it has sent some jobs away.

    It runs the code `first` before all, and dies with its jobs where the test fails.
    """
    code = (
        f"{first}\n"
        "from lfp.running import fork_server\n"
        f"fork_server.LIBRARIES = {libraries}\n"
        f"fork_server.Server({str((folder / 'sockets').resolve())!r}, {alone_first}).serve()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=environment(folder), stdin=subprocess.PIPE,
        preexec_fn=interruptible,
    ) as server:  # fmt: skip
        try:
            wait_for(lambda: start.socket_path(str(folder / "sockets")).exists())
            yield server
        except BaseException:
            server.kill()
            raise


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.02)


@pytest.fixture
def server(folder) -> Iterator[subprocess.Popen]:
    with served(folder) as process:
        yield process
        process.stdin.close()
        assert process.wait(20) == 0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lfp.running.start", "a_job", *arguments]


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(folder, **variables), text=True,
        input="a line\n", capture_output=True, timeout=30,
    )  # fmt: skip


def begun(folder: Path) -> tuple[subprocess.Popen, int]:
    """A command whose job waits, and the process of the job."""
    (folder / "pid").unlink(missing_ok=True)
    process = subprocess.Popen(
        command("wait"), cwd=folder, env=environment(folder), preexec_fn=interruptible
    )
    _begun.append(process)
    wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text())
    return process, int((folder / "pid").read_text())


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_fork_has_what_its_command_has_and_the_libraries(folder, server):
    """Arguments, environment, folder and streams are the command's, and no module of ours stays."""
    done = run(folder, "say", "x y", COLOUR="red")
    assert done.stdout == f"say x y red {folder.name} a line True False\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_a_fork_goes_by_the_name_of_its_script(folder, server):
    process, pid = begun(folder)
    assert Path(f"/proc/{pid}/comm").read_text() == "a_job\n"
    process.terminate()
    process.wait(20)


def test_a_fork_finds_the_modules_that_its_command_finds(folder, server, tmp_path):
    """Neither folder nor search path of the server counts."""
    other, empty = tmp_path / "other", tmp_path / "empty"
    for place in (other, empty):
        place.mkdir()
    (other / "a_job.py").write_text("import sys\nprint('another', 'wave' in sys.modules)\n")
    for place, search in ((other, ROOT), (empty, f"../other{os.pathsep}{ROOT}")):
        variables = environment(folder, PYTHONPATH=str(search))
        said = subprocess.run(command(), cwd=place, env=variables, text=True, capture_output=True)
        assert said.stdout == "another True\n"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("exit", "7"), 7, ""),
        (("exit", "0"), 0, ""),
        (("exit",), 1, "the last word\n"),
        (("fail",), 1, "ValueError: the reason\n"),
    ],
)
def test_a_command_ends_as_its_job_did(folder, server, arguments, status, said):
    forked = run(folder, *arguments)
    alone = run(folder, *arguments, LFP_FORK_SERVER="/nowhere")
    assert forked.returncode == alone.returncode == status
    assert forked.stderr.endswith(said)
    assert alone.stderr.endswith(said)


def test_two_jobs_run_at_once(folder, server):
    one, first = begun(folder)
    other, second = begun(folder)
    assert lives(first)
    assert lives(second)
    assert first != second
    for process in (one, other):
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_to_a_command_reaches_its_job_and_the_children_of_that(folder, server, number):
    process, pid = begun(folder)
    [child] = children_of(pid)
    assert process.pid != pid
    process.send_signal(number)
    assert process.wait(20) == -number
    wait_for(lambda: not lives(pid) and not lives(child))


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def children_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    wait_for(lambda: path.read_text().split())
    return [int(child) for child in path.read_text().split()]


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, or waits for a stopped child to become another program."""
    if state_of(pid) == "D":
        return all(is_stopped(child) for child in children_of(pid))
    return state_of(pid) == "T"


def test_a_command_that_is_stopped_from_the_terminal_stops_its_job(folder, server):
    process, pid = begun(folder)
    [child] = children_of(pid)
    process.send_signal(signal.SIGTSTP)
    for one in (process.pid, pid, child):
        wait_for(lambda one=one: is_stopped(one))
    process.send_signal(signal.SIGCONT)
    for one in (process.pid, pid, child):
        wait_for(lambda one=one: not is_stopped(one))
    process.terminate()
    assert process.wait(20) == -signal.SIGTERM


def test_a_command_that_is_stopped_before_it_has_a_job_stops_the_job_that_it_gets(folder):
    (folder / "slow_library.py").write_text(
        "import time\nfrom pathlib import Path\nPath('asked').touch()\ntime.sleep(1)\n"
    )
    with served(folder, libraries=("slow_library",)) as server:
        process = subprocess.Popen(
            command("wait"), cwd=folder, env=environment(folder), preexec_fn=interruptible
        )
        _begun.append(process)
        wait_for((folder / "asked").exists)
        process.send_signal(signal.SIGTSTP)
        [pid] = children_of(server.pid)
        for one in (process.pid, pid):
            wait_for(lambda one=one: is_stopped(one))
        process.send_signal(signal.SIGCONT)
        wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text())
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM
        server.stdin.close()


def test_a_command_is_interrupted_while_the_libraries_are_imported(folder):
    (folder / "slow_library.py").write_text("import time\ntime.sleep(4)\n")
    with served(folder, libraries=("slow_library",)) as server:
        process = subprocess.Popen(command("exit", "0"), cwd=folder, env=environment(folder))
        time.sleep(1)
        process.terminate()
        assert process.wait(2) == -signal.SIGTERM
        server.stdin.close()
    assert not (folder / "pid").exists(), "no job ran for the dead command"


def test_where_no_process_can_be_forked_jobs_run_by_themselves(folder):
    first = "import os\ndef fork():\n    raise BlockingIOError\nos.fork = fork"
    with served(folder, first=first) as server:
        assert run(folder, "say").stdout.endswith("False True\n")
        assert run(folder, "exit", "3").returncode == 3
        server.stdin.close()


def test_a_fork_that_cannot_become_its_job_becomes_no_second_server(folder):
    first = "import os\ndef chdir(path):\n    raise OSError\nos.chdir = chdir"
    with served(folder, first=first) as one:
        assert [run(folder, "exit", "3").returncode for _ in range(2)] == [1, 1]
        assert Path(f"/proc/{one.pid}/task/{one.pid}/children").read_text() == ""
        one.stdin.close()


def test_a_command_that_asks_for_nothing_does_not_stop_the_others(folder):
    with served(
        folder, first="from lfp.running import fork_server as f; f.PATIENCE = 0.3"
    ) as server:
        with socket.socket(socket.AF_UNIX) as silent:
            silent.connect(str(start.socket_path(str(folder / "sockets"))))
            assert run(folder, "exit", "3").returncode == 3
        server.stdin.close()


def test_nothing_of_the_server_is_left_in_its_forks(folder):
    """Streams of random numbers differ, temporary files and umask are the command's."""
    (folder / "loud.py").write_text(
        "import tempfile\ntempfile.gettempdir()\nprint('imported')\nraise OSError('no driver')\n"
    )
    (folder / "a_job.py").write_text(
        "import os, tempfile, numpy\n"
        "print(numpy.random.rand(), tempfile.gettempdir(), os.umask(0), sep=';')\n"
    )
    scratch = folder / "scratch"
    scratch.mkdir()
    before = os.umask(0o027)
    try:
        with served(folder, libraries=("numpy", "loud")) as server:
            said = [run(folder, TMPDIR=str(scratch)).stdout for _ in range(2)]
            server.stdin.close()
    finally:
        os.umask(before)
    (one, *first), (other, *second) = (text.strip().split(";") for text in said)
    assert first == second == [str(scratch), str(0o027)]
    assert one != other


def test_a_job_dies_with_its_command(folder, server):
    process, pid = begun(folder)
    process.kill()
    process.wait(20)
    wait_for(lambda: not lives(pid))
    assert run(folder, "exit", "3").returncode == 3, "the server goes on"


def test_a_command_is_told_that_its_job_was_killed(folder, server):
    process, pid = begun(folder)
    os.kill(pid, signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL


def test_the_first_jobs_run_by_themselves(folder):
    with served(folder, alone_first=1) as server:
        assert run(folder, "say").stdout.endswith("False True\n")
        assert run(folder, "say").stdout.endswith("True False\n")
        server.stdin.close()


def test_a_job_with_gpus_runs_by_itself(folder, server):
    assert run(folder, "say", "--gpus", "1").stdout.endswith("False True\n")
    assert run(folder, "say", "--gpus", "0").stdout.endswith("True False\n")


def test_a_job_runs_by_itself_where_the_server_is_dead(folder):
    with served(folder) as server:
        server.kill()
    assert run(folder, "say").stdout.endswith("False True\n")


def test_a_job_whose_server_dies_runs_again_by_itself(folder):
    """The fork dies with its server, so that no two processes write one output."""
    with served(folder) as server:
        process, pid = begun(folder)
        process.send_signal(signal.SIGTSTP)  # a command that was stopped is not to end
        wait_for(lambda: state_of(process.pid) == "T")
        process.send_signal(signal.SIGCONT)
        server.kill()
        wait_for(lambda: not lives(pid))
        wait_for(lambda: (folder / "pid").read_text() == str(process.pid))
        assert process.poll() is None, "the job runs in the command"
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_ended_with_its_server_does_not_run_its_job_again(folder, number):
    """A scheduler that stops a run signals all of its processes at once."""
    with served(folder) as server:
        process, pid = begun(folder)
        server.send_signal(signal.SIGSTOP)  # so that it passes nothing on
        process.send_signal(number)
        server.kill()
        assert process.wait(20) == -number
    wait_for(lambda: not lives(pid))
    assert int((folder / "pid").read_text()) == pid


def test_a_server_waits_for_the_last_job_of_its_dead_starter(folder):
    with served(folder) as server:
        process, pid = begun(folder)
        server.stdin.close()
        wait_for(lambda: not start.socket_path(str(folder / "sockets")).exists())
        assert server.poll() is None
        assert lives(pid)
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM
        assert server.wait(20) == 0


def test_a_server_serves_its_own_environment_alone(monkeypatch, tmp_path):
    ours = start.socket_path("/x")
    link = tmp_path / "environment"
    link.symlink_to(sys.prefix)
    monkeypatch.setattr(sys, "prefix", str(link))
    assert start.socket_path("/x") == ours
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert start.socket_path("/x") != ours


def test_a_run_starts_a_server_that_ends_with_it(tmp_path):
    """The socket is there while the run is, and its folder goes; so does the server."""
    code = (
        "import os, time\n"
        "from pathlib import Path\n"
        "from lfp.running import fork_server, start\n"
        f"fork_server.begin({str(ROOT)!r})\n"
        "path = start.socket_path(os.environ[start.FOLDER])\n"
        "while not path.exists():\n"
        "    time.sleep(0.02)\n"
        "print(path.parent, fork_server._server.pid)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), start.FOLDER: ""}, timeout=30,
    )  # fmt: skip
    folder, pid = done.stdout.split()
    wait_for(lambda: not lives(int(pid)))
    assert not Path(folder).exists()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for folders of servers, with a name that is short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


def socket_folder(place: Path, name: str) -> Path:
    """A folder of a server in `place`, with a socket that nobody listens to."""
    folder = place / f"{fork_server.PREFIX}{name}"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "0123456789ab"))
    return folder


def test_the_folder_of_a_killed_server_goes_with_the_next_run(folder, place):
    """That of a server that lives stays, also where the process that started it is dead."""
    sockets = place / f"{fork_server.PREFIX}one"
    sockets.mkdir()
    (folder / "sockets").unlink()
    (folder / "sockets").symlink_to(sockets)
    with served(folder) as server:
        fork_server.clear(place)
        assert run(folder, "exit", "3").returncode == 3
        assert start.socket_path(str(sockets)).is_socket()
        server.kill()
    assert start.socket_path(str(sockets)).is_socket()
    fork_server.clear(place)
    assert not sockets.exists()


def test_nothing_goes_but_folders_of_dead_servers(place, monkeypatch):
    dead, empty, kept = (socket_folder(place, name) for name in ("dead", "empty", "kept"))
    (empty / "0123456789ab").unlink()
    (kept / "results.csv").write_text("1")
    other, target = place / "lfp-mine", place / "target"
    for path in (other, target):
        path.mkdir()
    link = place / f"{fork_server.PREFIX}link"
    link.symlink_to(target)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: -1)
        fork_server.clear(place)
    assert dead.exists() and empty.exists(), "they are another user's"
    fork_server.clear(place)
    assert sorted(place.iterdir()) == sorted([kept, link, other, target])
    assert len(list(kept.iterdir())) == 2


def test_a_run_clears_and_holds_its_own_folder_from_the_start(place, monkeypatch):
    """Before its server has a socket, another run must not take the folder for a dead one's."""
    dead = socket_folder(place, "dead")
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(place))
    monkeypatch.setattr(fork_server.subprocess, "Popen", lambda *_, **__: None)
    monkeypatch.setenv(start.FOLDER, "")
    fork_server.begin(str(ROOT))
    monkeypatch.undo()
    fork_server.clear(place)
    [folder] = place.iterdir()
    assert folder != dead
    os.close(fork_server._folder)
    fork_server.clear(place)
    assert not folder.exists()


def test_nothing_is_forked_elsewhere_than_on_linux(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delenv(start.FOLDER, raising=False)
    fork_server.begin(".")
    assert start.FOLDER not in os.environ


def test_forks_have_all_libraries_and_are_offline(folder):
    """A library by a wrong name would be imported by every job for itself, without a word."""
    (folder / "a_job.py").write_text(
        "import sys\n"
        "from lfp.running.fork_server import LIBRARIES\n"
        "print(sorted(set(LIBRARIES) - set(sys.modules)))\n"
        "from huggingface_hub import constants\n"
        "import lfp.models, os\n"
        "print(constants.HF_HUB_OFFLINE, os.environ['HF_HUB_OFFLINE'])\n"
    )
    with served(folder, libraries=fork_server.LIBRARIES) as server:
        assert run(folder).stdout == "[]\nTrue 1\n"
        server.stdin.close()


def test_jobs_that_read_from_the_hub_are_not_forked():
    """The libraries of the forks were told that they are offline."""
    rules = "".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))
    fetching = re.findall(r"use rule \w+ as (fetch_\w+) with:(.*?)(?=\n\n\n|\Z)", rules, re.DOTALL)
    scripts = {path.stem for path in (ROOT / "workflow_scripts").glob("fetch_*.py")}
    assert {name for name, _ in fetching} == scripts
    for name, text in fetching:
        assert "launcher=ALONE" in text, name

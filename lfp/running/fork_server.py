"""A process that has imported the libraries already, and forks a child for each job of a run.

Importing torch and transformers takes a process more than three seconds of a core, more than most
jobs on a small model compute (benchmarks/README.md). On one Linux machine the Snakefile therefore
starts one server with each run, and the command of every job asks it (:mod:`lfp.running.start`).
The first jobs are sent away to run by themselves, so that a run of few jobs imports nothing in
vain. Then the server imports :data:`LIBRARIES`, none of the project's own modules among them, and
answers by forking:

- The child has the arguments, environment, working directory, umask and standard streams of the
  command; priority and limits are the server's. It leads a process group of its own.
- The command ends as the child did; a signal to it goes to the child and to what the child started,
  and both die with it. Stopped from the terminal (Ctrl-Z), it stops the child, too.
- The server ends when the process that started it is dead, however it died, and no child is left.
  The folder of its socket goes with it; that of a server that was killed, with the next run.

As a command, with the folder of the socket; its standard input ends when its starter does:

    python -m lfp.running.fork_server FOLDER
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any, NoReturn

from lfp.running.start import FOLDER, WAITING, execute, received, socket_path

#: What most jobs import. Those that talk to the hub are not forked (``lfp.planning.ALONE``).
LIBRARIES = (
    "torch",
    "transformers.conversion_mapping",
    "transformers.generation",
    "transformers.integrations.flash_attention",
    "transformers.loss.loss_utils",
    "transformers.modeling_layers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "accelerate",
    "pandas",
    "pyarrow.parquet",
    "safetensors.torch",
    "matplotlib.figure",
    "numba",
    "scipy.stats",
    "spacy",
    "sklearn.decomposition",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "sklearn.model_selection",
)
#: One thread for what is imported, until a job asks for more: a fork has one alone.
SINGLE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
#: Jobs that run by themselves before the libraries are imported.
ALONE_FIRST = 2
#: The names of folders of sockets begin so.
PREFIX = "lfp-fork-"
#: Seconds for the request of a command, which others wait for.
PATIENCE = 5.0
#: Of ``<linux/prctl.h>``: the signal that a process gets when its parent dies, and its name.
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
#: The server of this process: its standard input is open as long as this name lives.
_server: subprocess.Popen[bytes] | None = None
#: The folder of that server, which is locked as long as this process or the server lives.
_folder: int | None = None


def begin(home: str) -> None:
    """Start a server for the jobs of this process, which ends with it, where forking is safe.

    The jobs find it by the variable :data:`~lfp.running.start.FOLDER`, which is set here, and the
    server finds the package at the path `home`, as jobs do. Where the variable names a server
    already, that one serves. Elsewhere than on Linux libraries may break in a forked process, and
    nothing is started; nor is it where there is no room for a server.
    """
    global _server, _folder
    if sys.platform != "linux" or socket_path(os.environ.get(FOLDER, "")).is_socket():
        return
    search = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    with contextlib.suppress(OSError):
        place = "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()
        clear(place)
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=place)
        _folder = _opened(folder)
        fcntl.flock(_folder, fcntl.LOCK_SH)
        _server = subprocess.Popen(
            [sys.executable, "-m", "lfp.running.fork_server", folder],
            env=os.environ | SINGLE | {"PYTHONPATH": search},
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        os.environ[FOLDER] = folder


def clear(place: str | Path) -> None:
    """Remove the folders in `place` that servers of this user left when they were killed.

    The kernel frees the lock of a folder when all who held it are dead. Nothing but sockets is
    deleted: a folder with anything else stays as it is.
    """
    for path in Path(place).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, in use, or gone meanwhile
            folder = _opened(path)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                files = list(path.iterdir())
                if os.fstat(folder).st_uid == os.getuid() and all(map(Path.is_socket, files)):
                    for file in files:
                        file.unlink()
                    path.rmdir()
            finally:
                os.close(folder)


def _opened(folder: str | Path) -> int:
    """A descriptor of a `folder` that is no link to one."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


class Server:
    """The loop of the server.

    Parameters
    ----------
    folder
        Folder of the socket, which goes with the server. OSError where its path is too long.
    alone_first
        Jobs that are sent away before the libraries are imported.
    """

    def __init__(self, folder: str, alone_first: int = ALONE_FIRST) -> None:
        self.pid, self.folder = os.getpid(), folder
        self.sent_away, self.alone_first = 0, alone_first
        self.loaded, self.starter_lives = False, True
        self.installed = [path for path in sys.path if path not in _searched()]
        self.jobs: dict[int, socket.socket] = {}
        self.selector = selectors.DefaultSelector()
        self.lock = _opened(folder)
        fcntl.flock(self.lock, fcntl.LOCK_SH)
        self.listener = socket.socket(socket.AF_UNIX)
        # The socket has its name once it listens: before, a command would be refused.
        unnamed = socket_path(folder).with_suffix(".new")
        self.listener.bind(str(unnamed))
        self.listener.listen(64)
        unnamed.rename(socket_path(folder))
        # A child that ends writes a byte here, which wakes the loop.
        self.woken, waker = socket.socketpair()
        for end in (self.woken, waker):
            end.setblocking(False)
        self.waker = waker
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for source in (self.listener, self.woken, sys.stdin):
            self.selector.register(source, selectors.EVENT_READ)

    def serve(self) -> None:
        """Answer until the starter is dead and no job is left."""
        while self.starter_lives or self.jobs:
            for key, _ in self.selector.select():
                if key.fileobj is self.listener:
                    self._accept()
                elif key.fileobj is self.woken:
                    self._reap()
                elif key.fileobj is sys.stdin:
                    self._orphaned()
                else:
                    self._heard(key.fileobj, key.data)

    def _orphaned(self) -> None:
        """The starter wrote something, which means nothing, or is dead."""
        if os.read(sys.stdin.fileno(), 1):
            return
        self.starter_lives = False
        for source in (sys.stdin, self.listener):
            self.selector.unregister(source)
        self.listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _accept(self) -> None:
        """Read the request of a command, and answer it; a command that dies meanwhile has none."""
        with contextlib.suppress(OSError, ValueError):
            client = self.listener.accept()[0]
            client.settimeout(PATIENCE)
            try:
                request, streams = received(client)
            except (OSError, ValueError):
                client.close()
                raise
            client.settimeout(None)
            self._answer(client, request, streams)
            for stream in streams:
                os.close(stream)

    def _answer(self, client: socket.socket, request: dict[str, Any], streams: list[int]) -> None:
        """Fork for a command, or close its connection to send it away."""
        if self.sent_away < self.alone_first:
            self.sent_away += 1
            client.close()
            return
        self._load()
        pid = -1
        with warnings.catch_warnings(), contextlib.suppress(OSError):
            # pyarrow's memory allocator has a thread, and looks after itself in forks.
            warnings.simplefilter("ignore", DeprecationWarning)
            client.sendall(WAITING)  # fails where the command has died
            pid = os.fork()
        if not pid:
            try:
                self._become(client, request, streams)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)  # whatever happens, there is one server
        elif pid < 0:
            client.close()
        else:
            with contextlib.suppress(OSError):  # the child does the same
                os.setpgid(pid, pid)
            self.jobs[pid] = client
            self.selector.register(client, selectors.EVENT_READ, pid)

    def _load(self) -> None:
        """Import the libraries once, and move all objects out of the sight of garbage collection.

        The pages of an object that is never looked at stay shared by all children.
        """
        if self.loaded:
            return
        self.loaded = True
        gc.disable()
        importlib.import_module("lfp.models")  # sets the variables that the libraries read
        for name in LIBRARIES:
            with contextlib.suppress(Exception):  # the job that needs it says so
                importlib.import_module(name)
        for name in [name for name in sys.modules if name.partition(".")[0] == "lfp"]:
            del sys.modules[name]  # jobs read the project's modules as they are then
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # else every child says it again
        gc.enable()
        gc.freeze()

    def _become(self, client: socket.socket, request: dict[str, Any], streams: list[int]) -> None:
        """Run a command in the child, and end."""
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.pid:
            os._exit(1)  # the server died before it could take the child along
        name = request["module"].rpartition(".")[2]
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode())
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.selector.close()
        os.close(self.lock)
        for source in (client, self.listener, self.woken, self.waker, *self.jobs.values()):
            source.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(request["folder"])
        os.umask(request["umask"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.path[:] = [*_searched(), *self.installed]
        _forget()
        _run(request["module"], request["arguments"])

    def _heard(self, client: socket.socket, pid: int) -> None:
        """A command passes a signal on, or is dead, and its job with it."""
        if self.jobs.get(pid) is not client:
            return  # its job has just ended
        try:
            signals = client.recv(16)
        except OSError:
            signals = b""
        for number in signals or [signal.SIGKILL]:
            with contextlib.suppress(OSError):
                os.killpg(pid, number)
        if not signals:
            self.selector.unregister(client)

    def _reap(self) -> None:
        """Tell the commands of dead children how these ended."""
        self.woken.recv(4096)
        while self.jobs:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            client = self.jobs.pop(pid)
            if client in self.selector.get_map():
                self.selector.unregister(client)
            with contextlib.suppress(OSError):  # the command is dead, too
                client.sendall(json.dumps(os.waitstatus_to_exitcode(status)).encode())
            client.close()


def _searched() -> list[str]:
    """Where Python, by its option ``-m``, looks for modules before what is installed."""
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    here = [] if sys.flags.safe_path else [str(Path.cwd())]
    return [*here, *(str(Path(path).absolute()) for path in named if path)]


def _forget() -> None:
    """Leave nothing of the server's in its child that a process by itself would not have.

    These are the folder for temporary files, and the states of generators that nobody seeds.
    """
    tempfile.tempdir = None
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(None)
    if "torch" in sys.modules:
        sys.modules["torch"].seed()


def _run(module: str, arguments: list[str]) -> NoReturn:
    """Run a command to its end, and end this process as Python's own end would be."""
    status: object = 0
    try:
        execute(module, arguments)
    except SystemExit as end:
        status = end.code
        if status is not None and not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if status == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit((status or 0) & 0xFF)


if __name__ == "__main__":
    try:
        server = Server(sys.argv[1])
    except OSError:
        shutil.rmtree(sys.argv[1], ignore_errors=True)  # jobs find no server, and run by themselves
        sys.exit(0)
    server.serve()

"""Run a rule's script, in a fork of the run's server where there is one, else in this process.

    python -m lfp.running.start workflow_scripts.ppo ...

is what ``python -m workflow_scripts.ppo ...`` is, but that the script may find the libraries
imported (:mod:`lfp.running.fork_server`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import runpy
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

#: The variable that names the folder of the server's socket.
FOLDER = "LFP_FORK_SERVER"
#: Signals that a command passes on to its job.
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
#: What the server says when it forks: an exit status follows, whose JSON may begin with a blank.
WAITING = b" "
#: Bytes of the length of a request.
_LENGTH = 8


def socket_path(folder: str) -> Path:
    """The socket of the server of this environment, by any path to it; another has another."""
    environment = f"{Path(sys.prefix).resolve()} {sys.version}"
    python = hashlib.sha256(environment.encode()).hexdigest()
    return Path(folder) / python[:12]


def _exactly(client: socket.socket, count: int) -> bytes:
    """The next `count` bytes and none behind them, which may be signals."""
    content = b""
    while len(content) < count:
        part = client.recv(count - len(content))
        if not part:
            raise ValueError("the command died while it asked")
        content += part
    return content


def received(client: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A command's request and its standard streams.

    Raises ValueError where it died before their end, and OSError where they do not come.
    """
    head, streams, _, _ = socket.recv_fds(client, _LENGTH, 3)
    try:
        return json.loads(_exactly(client, int.from_bytes(head, "big"))), list(streams)
    except (OSError, ValueError):
        for stream in streams:
            os.close(stream)
        raise


def _ask(server: socket.socket, module: str, arguments: list[str]) -> None:
    """Send the server a command with this process's streams, environment, folder and umask."""
    umask = os.umask(0)
    os.umask(umask)
    content = json.dumps({
        "module": module, "arguments": arguments,
        "environment": dict(os.environ), "folder": str(Path.cwd()), "umask": umask,
    }).encode()  # fmt: skip
    socket.send_fds(server, [len(content).to_bytes(_LENGTH, "big")], [0, 1, 2])
    server.sendall(content)


def _with_gpus(arguments: list[str]) -> bool:
    """Whether a job has GPUs: what the server imports may have opened CUDA, which cannot fork."""
    return "--gpus" in arguments and arguments[arguments.index("--gpus") + 1] != "0"


@contextlib.contextmanager
def _held(number: int) -> Iterator[Callable[[], object]]:
    """Let a signal wait, until what is given here is called or the block ends.

    A command that stops before it can pass that on would leave its job running.
    """
    waiting = signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    release = partial(signal.pthread_sigmask, signal.SIG_SETMASK, waiting)
    try:
        yield release
    finally:
        release()


def forked(module: str, arguments: list[str]) -> int | None:
    """How the job ended in a fork of the server, as an exit status, negative for a signal.

    None where there is no server, where it sends the job away, and where it dies before the job
    has ended. If the command was told to end meanwhile, it is that signal instead.
    """
    folder = os.environ.get(FOLDER)
    if folder is None or _with_gpus(arguments):
        return None
    answer, before = b"", {number: signal.getsignal(number) for number in PASSED_ON}
    heeded = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    ending: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        stops = number == signal.SIGTSTP
        if not stops:
            ending.append(number)
        with contextlib.suppress(OSError):
            server.sendall(bytes([signal.SIGSTOP if stops else number]))
        if stops:
            os.kill(os.getpid(), signal.SIGSTOP)
            with contextlib.suppress(OSError):  # this process goes on, and so does the job
                server.sendall(bytes([signal.SIGCONT]))

    with (
        _held(signal.SIGTSTP) as release,
        socket.socket(socket.AF_UNIX) as server,
        contextlib.suppress(OSError),
    ):
        server.connect(str(socket_path(folder)))
        _ask(server, module, arguments)
        if server.recv(1) == WAITING:  # until then a signal ends this process, and all is well
            for number in heeded:
                signal.signal(number, pass_on)
            release()
            answer = server.makefile("rb").read()
    for number in heeded:
        signal.signal(number, before[number])
    if answer:
        return json.loads(answer)
    return -ending[0] if ending else None


def execute(module: str, arguments: list[str]) -> None:
    """Run a module as the option ``-m`` of Python does."""
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main() -> None:
    """Run the module that the first argument names, with the others as its arguments."""
    module, *arguments = sys.argv[1:]
    status = forked(module, arguments)
    if status is None:
        execute(module, arguments)
    elif status < 0:
        with contextlib.suppress(OSError):  # nobody handles SIGKILL
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    else:
        sys.exit(status)


if __name__ == "__main__":
    main()

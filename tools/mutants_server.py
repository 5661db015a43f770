"""Run pytest in processes that have imported the large libraries before they begin.

    .venv/bin/python tools/mutants_server.py serve SOCKET
    python3 tools/mutants_server.py ask SOCKET PYTEST_ARGUMENT ...

Part of `make mutants`: importing them takes longer than most mutants live. `ask` prints what pytest
does and ends with its exit status; when it is killed, so are its tests.
"""

import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress

# Without hypothesis, which pytest itself must import.
LIBRARIES = ("pytest", "torch", "torchvision", "torchmetrics.classification",
             "lightning.pytorch.cli", "scipy.stats", "matplotlib.pyplot", "MinkowskiEngine", "av")
PAUSE = 0.05  # seconds between two looks at a test


def serve(path: str) -> None:
    """Answer one question after the other until this process is killed."""
    os.environ.setdefault("TRITON_INTERPRET", "1")  # as tests/conftest.py, before triton is there
    sys.path[0] = os.getcwd()
    for name in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        while True:
            client, _ = server.accept()
            with client:
                _answer(client)


def _answer(client: socket.socket) -> None:
    """Run pytest as the client asks, its output being the client's, and send the exit status."""
    with client.makefile("rb") as lines:
        words = json.loads(lines.readline())
    child = os.fork()
    if child == 0:
        _run(client, words)
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if select.select([client], [], [], PAUSE)[0]:  # it has gone
            break
    with suppress(ProcessLookupError):  # with what the tests have started
        os.killpg(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(OSError):
        client.sendall(f"\0{status}".encode())


def _run(client: socket.socket, words: list[str]) -> None:
    os.setpgid(0, 0)
    for stream in (1, 2):
        os.dup2(client.fileno(), stream)
    sys.argv, status = ["pytest", *words], 1
    try:
        status = int(sys.modules["pytest"].main(words))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def ask(path: str, words: list[str]) -> int:
    """Have pytest run, print its output and return its exit status; 1 where it was killed."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        server.sendall(json.dumps(words).encode() + b"\n")
        said = b""
        while part := server.recv(65536):
            said += part
    output, _, status = said.rpartition(b"\0")
    sys.stdout.buffer.write(output)
    return int(status) if int(status) >= 0 else 1


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    sys.exit(ask(sys.argv[2], sys.argv[3:]))

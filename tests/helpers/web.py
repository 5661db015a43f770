"""A web server on this machine, for what is otherwise fetched from a network."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


class Silent(SimpleHTTPRequestHandler):
    """A handler that says nothing of each request."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler) -> Iterator[str]:
    """Give the address of a server that answers by `handler` while the block runs."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def files_of(folder: Path):
    """Return a handler that serves the files of a folder."""
    return partial(Silent, directory=str(folder))

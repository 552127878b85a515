"""A dataset of the hub, played by a web server on this machine that answers as the hub does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from groundup.data.sources import documents
from groundup.errors import DataError, MissingExtra

COMMIT = "a" * 40
SCRIPT = """
import sys
from groundup.data.sources import documents
from groundup.errors import GroundupError
try:
    for document in documents(sys.argv[1]):
        print(document.name, document.text)
except GroundupError as fault:
    print(type(fault).__name__, fault)
"""


def serve(files: dict[str, bytes]) -> ThreadingHTTPServer:
    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            kind, content = "application/json", b"{}"
            if path.startswith("/api/datasets/some/texts"):
                content = json.dumps(
                    {
                        "id": "some/texts",
                        "sha": COMMIT,
                        "siblings": [{"rfilename": name} for name in files],
                    }
                ).encode()
                if "/tree/" in path:
                    content = json.dumps(
                        [{"type": "file", "path": n, "size": len(c), "oid": COMMIT} for n, c in files.items()]
                    ).encode()
            elif path.startswith("/datasets/some/texts/resolve/"):
                kind, content = "application/octet-stream", files[path.split("/", 6)[6]]
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def table(*texts: str) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"text": list(texts)}), sink)
    return sink.getvalue().to_pybytes()


def read(source: str, **environment: str) -> list[str]:
    """What a process of its own reads, because the hub's library reads the environment when it is imported."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    command = [sys.executable, "-c", SCRIPT, source]
    done = subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture
def hub() -> Iterator[str]:
    files = {
        "README.md": b"not a document",
        "data/train-00000-of-00002.parquet": table("one", "two"),
        "data/train-00001-of-00002.parquet": table("three"),
        "data/test-00000-of-00001.parquet": table("not for training"),
    }
    server = serve(files)
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_dataset_is_read_and_read_again_without_network(hub: str, tmp_path: Path) -> None:
    expected = [
        "data/train-00000-of-00002.parquet:1 one",
        "data/train-00000-of-00002.parquet:2 two",
        "data/train-00001-of-00002.parquet:1 three",
    ]
    assert read("some/texts", HF_ENDPOINT=hub, HF_HOME=str(tmp_path)) == expected
    assert read("some/texts", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path)) == expected


@pytest.mark.slow
def test_a_dataset_that_cannot_be_had_is_one_sentence(hub: str, tmp_path: Path) -> None:
    (told,) = read("some/thing", HF_ENDPOINT=hub, HF_HOME=str(tmp_path))
    assert told.startswith("DataError the dataset some/thing cannot be had from the Hugging Face hub (")
    (told,) = read("some/thing", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    assert told.startswith("DataError the dataset some/thing cannot be had from the Hugging Face hub (")


def test_a_dataset_that_was_never_fetched_cannot_be_read_offline() -> None:
    with pytest.raises(DataError, match=r"the dataset nobody/nothing-at-all cannot be had from the Hugging Face hub"):
        next(documents("nobody/nothing-at-all"))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"pip install 'groundup\[hub\]'"):
        next(documents("some/texts"))

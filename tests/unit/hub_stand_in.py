"""A stand-in for the Hugging Face hub on this machine: the four endpoints that huggingface_hub asks for a model."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class StandIn:
    """Repositories by id, each with its files by commit; the last commit is the main branch.

    Attributes:
        url: the endpoint.
        repos: the folder of each commit of each repository.
        gated: repositories whose terms nobody has accepted.
        asked: every request, as method and path.
        short: names of files of which only a half is sent.
    """

    url: str = ""
    repos: dict[str, dict[str, Path]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    short: set[str] = field(default_factory=set)

    def add(self, repo: str, folder: Path) -> str:
        """Adds a commit and returns its hash."""
        commits = self.repos.setdefault(repo, {})
        commit = hashlib.sha1(f"{repo} {len(commits)}".encode()).hexdigest()
        commits[commit] = folder
        return commit

    def files(self, word: str) -> set[str]:
        """The names of the files whose contents were asked for and that match a pattern."""
        got = (path.split("/")[-1] for path in self.asked if path.startswith("GET") and "/resolve/" in path)
        return {name for name in got if re.search(word, name)}


@contextmanager
def serving() -> Iterator[StandIn]:
    """Runs a stand-in until the block ends."""
    hub = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(send=False)

        def do_GET(self) -> None:
            self.answer(send=True)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def answer(self, *, send: bool) -> None:
            path = self.path.split("?")[0]
            hub.asked.append(f"{self.command} {path}")
            api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/(.+)", path)
            file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            match = api or file
            if match is None or match[1] not in hub.repos:
                self.refuse(401, "RepoNotFound")
            elif match[1] in hub.gated:
                self.refuse(403, "GatedRepo")
            else:
                self.answer_known(hub.repos[match[1]], match, is_file=file is not None, send=send)

        def answer_known(self, commits: dict[str, Path], match: re.Match[str], *, is_file: bool, send: bool) -> None:
            revision = match[2] if is_file else match[3]
            commit = list(commits)[-1] if revision == "main" else revision
            if commit not in commits:
                self.refuse(404, "RevisionNotFound")
            elif is_file:
                self.file(commits[commit] / match[3], commit, send=send)
            elif match[2] == "revision":
                self.json({"id": match[1], "modelId": match[1], "sha": commit, "siblings": []})
            else:
                self.json([self.entry(path, commits[commit]) for path in sorted(commits[commit].rglob("*"))])

        def entry(self, path: Path, root: Path) -> dict[str, object]:
            name = path.relative_to(root).as_posix()
            oid = hashlib.sha1(name.encode()).hexdigest()
            if path.is_dir():
                return {"type": "directory", "path": name, "oid": oid, "size": 0}
            return {"type": "file", "path": name, "oid": oid, "size": path.stat().st_size}

        def file(self, path: Path, commit: str, *, send: bool) -> None:
            if not path.is_file():
                self.refuse(404, "EntryNotFound")
                return
            data = path.read_bytes()
            self.send_response(200)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if send:
                self.wfile.write(data[: len(data) // 2] if path.name in hub.short else data)
            self.close_connection = True

        def json(self, data: object) -> None:
            text = json.dumps(data).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""A Hugging Face hub of our own on localhost: as much of its HTTP interface as a fetch needs, with
the status codes and headers from which the real client makes its errors."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_accepted"


@dataclass
class Repo:
    """Files by commit; `main` is the last commit added."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: bool = False

    def add(self, files: dict[str, bytes]) -> str:
        commit = hashlib.sha1(repr((len(self.commits), files)).encode()).hexdigest()
        self.commits[commit] = files
        return commit

    def commit(self, revision: str) -> str | None:
        found = list(self.commits)[-1] if revision == "main" else revision
        return found if found in self.commits else None


class FakeHub(ThreadingHTTPServer):
    """`repos`: ("models" | "datasets", name) -> Repo. `downloads`: names of the files it sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[tuple[str, str], Repo] = {}
        self.downloads: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        api = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/(\S+)", path)
        file = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(\S+)", path)
        if api:
            self._answer(api[1], api[2], lambda repo: self._api(repo, *api[3].split("/")))
        elif file:
            kind = "datasets" if file[1] else "models"
            self._answer(kind, file[2], lambda repo: self._file(repo, file[3], file[4]))
        else:
            self._send(404)

    do_HEAD = do_GET

    def _answer(self, kind: str, name: str, reply) -> None:
        repo = self.server.repos.get((kind, name))
        return self._error(401, "RepoNotFound") if repo is None else reply(repo)

    def _api(self, repo: Repo, what: str, revision: str = "main") -> None:
        if what == "auth-check":
            return self._send(200) if self._may(repo) else self._error(403, "GatedRepo")
        if (commit := repo.commit(revision)) is None:
            return self._error(404, "RevisionNotFound")
        listed = [self._entry(n, b) for n, b in repo.commits[commit].items()]
        if what == "tree":
            return self._json([{"type": "file", **entry} for entry in listed])
        siblings = [{"rfilename": e.pop("path"), "blobId": e.pop("oid"), **e} for e in listed]
        gated = "auto" if repo.gated else False
        return self._json({"id": "a/b", "sha": commit, "siblings": siblings, "gated": gated})

    def _file(self, repo: Repo, revision: str, name: str) -> None:
        if not self._may(repo):
            return self._error(403, "GatedRepo")
        commit = repo.commit(revision)
        if commit is None or name not in repo.commits[commit]:
            return self._error(404, "EntryNotFound" if commit else "RevisionNotFound")
        content = repo.commits[commit][name]
        if self.command == "GET":
            self.server.downloads.append(name)
        etag = hashlib.sha256(content).hexdigest()
        return self._send(200, content, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})

    def _may(self, repo: Repo) -> bool:
        return not repo.gated or self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _entry(self, name: str, content: bytes) -> dict:
        """A file of a listing; large ones are kept by LFS, which states their SHA-256."""
        entry = {"path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        if name.endswith((".safetensors", ".parquet")):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "sha256": digest, "size": len(content), "pointerSize": 9}
        return entry

    def _json(self, value) -> None:
        self._send(200, json.dumps(value).encode())

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, content: bytes = b"", headers: dict | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass

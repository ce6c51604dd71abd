"""The routes of the Hugging Face Hub that its client uses for models, on loopback, after the client's source.

Repositories keep all commits. Files of 100 kB and more go the way of LFS, as there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LFS_BYTES = 100_000
TOKEN = "hf_test_token"


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Repository:
    def __init__(self, private: bool) -> None:
        self.private = private
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        text = json.dumps([len(self.commits), sorted((path, blob_id(content)) for path, content in files.items())])
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        return sha

    def sha(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class Hub(ThreadingHTTPServer):
    """The server. ``up`` counts bodies of files that came; ``down`` those that were sent, by path."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.up: Counter[str] = Counter()
        self.down: Counter[str] = Counter()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def reset(self) -> None:
        self.up.clear()
        self.down.clear()

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.route()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def route(self) -> None:
        self.content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        for method, pattern, action in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method.split("|"):
                with self.server.lock:
                    action(self, *match.groups())
                return
        self.send(404, {"error": f"no such route: {self.command} {path}"})

    def send(self, status: int, document: object = None, content: bytes | None = None, **headers: str) -> None:
        body = json.dumps(document).encode() if content is None else content
        self.send_response(status)
        kind = "application/json" if content is None else "application/octet-stream"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @property
    def is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def login(self) -> bool:
        if not self.is_known:
            self.send(401, {"error": "Invalid credentials in Authorization header"})
        return self.is_known

    def repository(self, name: str) -> Repository | None:
        found = self.server.repositories.get(name)
        if found is None or (found.private and not self.is_known):
            self.send(404 if self.is_known else 401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        return found

    def revision(self, name: str, revision: str) -> tuple[Repository, str] | None:
        repository = self.repository(name)
        if repository is None:
            return None
        sha = repository.sha(revision)
        if sha is None:
            self.send(404, {"error": f"Invalid rev id: {revision}"}, X_Error_Code="RevisionNotFound")
            return None
        return repository, sha

    def create(self) -> None:
        if not self.login():
            return
        asked = json.loads(self.content)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.repositories:
            self.send(409, {"error": "You already created this model repo", "url": f"{self.server.url}/{name}"})
            return
        is_private = asked.get("visibility") == "private" or asked.get("private") is True
        self.server.repositories[name] = Repository(is_private)
        self.send(200, {"url": f"{self.server.url}/{name}", "id": name, "name": name})

    def branch(self, name: str, branch: str) -> None:
        if not self.login() or (repository := self.repository(name)) is None:
            return
        if branch in repository.branches:
            self.send(409, {"error": "Reference already exists"})
            return
        repository.branches[branch] = repository.branches["main"]
        self.send(201, {})

    def info(self, name: str, revision: str | None = None) -> None:
        if found := self.revision(name, revision or "main"):
            repository, sha = found
            files = [{"rfilename": path} for path in sorted(repository.commits[sha])]
            self.send(200, {"id": name, "modelId": name, "sha": sha, "private": repository.private, "siblings": files})

    def tree(self, name: str, revision: str) -> None:
        if found := self.revision(name, revision):
            repository, sha = found
            entries = []
            for path, content in sorted(repository.commits[sha].items()):
                entry = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
                if len(content) >= LFS_BYTES:
                    entry["lfs"] = {
                        "oid": hashlib.sha256(content).hexdigest(),
                        "size": len(content),
                        "pointerSize": 134,
                    }
                entries.append(entry)
            self.send(200, entries)

    def validate(self) -> None:
        self.send(200, {"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str) -> None:
        if self.login() and (found := self.revision(name, revision)):
            files = found[0].commits[found[1]]
            answers = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] >= LFS_BYTES else "regular",
                    "shouldIgnore": False,
                    "oid": blob_id(files[file["path"]]) if file["path"] in files else None,
                }
                for file in json.loads(self.content)["files"]
            ]
            self.send(200, {"files": answers})

    def batch(self, name: str) -> None:
        if not self.login():
            return
        objects = []
        for asked in json.loads(self.content)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"], "authenticated": True}
            if asked["oid"] not in self.server.objects:
                entry["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{asked['oid']}"}}
            objects.append(entry)
        self.send(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        assert hashlib.sha256(self.content).hexdigest() == oid
        self.server.objects[oid] = self.content
        self.server.up[oid] += len(self.content)
        self.send(200, {})

    def commit(self, name: str, revision: str) -> None:
        if not (self.login() and (found := self.revision(name, revision))):
            return
        repository, sha = found
        files = dict(repository.commits[sha])
        for line in self.content.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header" and value.get("parentCommit") not in (None, sha):
                self.send(412, {"error": "A commit has happened since. Please refresh and try again."})
                return
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                self.server.up[value["path"]] += len(files[value["path"]])
            if item["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            if item["key"] == "deletedFile":
                del files[value["path"]]
        made = repository.commit(revision, files)
        self.send(200, {"commitUrl": f"{self.server.url}/{name}/commit/{made}", "commitOid": made})

    def resolve(self, name: str, revision: str, path: str) -> None:
        if not (found := self.revision(name, revision)):
            return
        repository, sha = found
        content = repository.commits[sha].get(path)
        if content is None:
            self.send(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
            return
        tag = hashlib.sha256(content).hexdigest() if len(content) >= LFS_BYTES else blob_id(content)
        headers = {"ETag": f'"{tag}"', "X_Repo_Commit": sha, "Accept_Ranges": "bytes"}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        part = content
        if match:
            part = content[int(match[1]) : int(match[2]) + 1 if match[2] else None]
            headers["Content_Range"] = f"bytes {match[1]}-{int(match[1]) + len(part) - 1}/{len(content)}"
        if self.command != "HEAD":
            self.server.down[path] += len(part)
        self.send(206 if match else 200, content=part, **headers)


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES = [
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", rf"/api/models/{_NAME}/branch/(.+)", _Handler.branch),
    ("GET", rf"/api/models/{_NAME}", _Handler.info),
    ("GET", rf"/api/models/{_NAME}/revision/(.+)", _Handler.info),
    ("GET", rf"/api/models/{_NAME}/tree/([^/]+)/?", _Handler.tree),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("POST", rf"/api/models/{_NAME}/preupload/(.+)", _Handler.preupload),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", "/lfs/([0-9a-f]{64})", _Handler.upload),
    ("POST", rf"/api/models/{_NAME}/commit/(.+)", _Handler.commit),
    ("GET|HEAD", rf"/{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
]

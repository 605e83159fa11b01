"""A model hub on loopback, as far as huggingface_hub needs one to upload a folder and fetch it."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


class Hub(BaseHTTPRequestHandler):
    """Repositories of files in memory, each with one commit; the server's `repos` has them."""

    server: Any
    protocol_version = "HTTP/1.1"

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer_json(self, value: object) -> None:
        self.answer(json.dumps(value).encode(), Content_Type="application/json")

    def missing(self, code: str) -> None:
        self.answer(b"{}", 404, X_Error_Code=code, X_Error_Message="there is none")

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        is_api = path.startswith("api/models/")
        owner, name, *rest = path.removeprefix("api/models/").split("/")
        files: Files | None = self.server.repos.get(f"{owner}/{name}")
        if files is None:
            return self.missing("RepoNotFound")
        commit = commit_of(files)
        if is_api and rest[:1] == ["tree"]:
            return self.answer_json([
                {"type": "file", "path": path, "size": len(x), "oid": hashlib.sha1(x).hexdigest()}
                for path, x in files.items()
            ])  # fmt: skip
        if is_api:
            siblings = [{"rfilename": path} for path in files]
            return self.answer_json({"id": f"{owner}/{name}", "sha": commit, "siblings": siblings})
        content = files.get("/".join(rest[2:]))
        if content is None:
            return self.missing("EntryNotFound")
        tag = f'"{hashlib.sha1(content).hexdigest()}"'
        return self.answer(content, ETag=tag, X_Repo_Commit=commit)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path).strip("/")
        if path == "api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.repos.setdefault(name, {})
            return self.answer_json({"url": f"{self.server.address}/{name}"})
        if path == "api/validate-yaml":  # of a model card
            return self.answer_json({"errors": [], "warnings": []})
        name = "/".join(path.split("/")[2:4])
        files: Files = self.server.repos[name]
        if "/preupload/" in path:
            return self.answer_json({"files": [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]})  # fmt: skip
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = commit_of(files)
        url = f"{self.server.address}/{name}/commit/{commit}"
        return self.answer_json({"commitUrl": url, "commitOid": commit})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Prints nothing."""


def commit_of(files: Files) -> str:
    """A commit's name, from what it holds."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


@contextmanager
def hub_on_loopback() -> Iterator[tuple[str, dict[str, Files]]]:
    """The address of a hub on this machine, and its repositories."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.repos, server.daemon_threads = {}, True
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.address, server.repos
    finally:
        server.shutdown()
        server.server_close()

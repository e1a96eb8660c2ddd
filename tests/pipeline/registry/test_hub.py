"""Push to a hub and read from it: a server that keeps what the client library sends, and answers as the library expects."""

import base64
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from jobs.demo import PACKAGE
from pipeline.errors import SettingError, SsdBatchError
from pipeline.registry import hub
from pipeline.registry.hub import push
from pipeline.registry.packages import read_package

COMMIT = "1" * 40


class Hub(BaseHTTPRequestHandler):
    """One repository, me/shapes."""

    kept: dict[str, bytes]

    def log_message(self, *_: object) -> None: ...

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        url = f"http://{self.headers['Host']}/me/shapes"
        match self.path:
            case "/api/repos/create":
                self.answer({"url": url})
            case "/api/validate-yaml":
                self.answer({"errors": [], "warnings": []})
            case "/api/models/me/shapes/preupload/main":
                paths = [file["path"] for file in json.loads(body)["files"]]
                self.answer(
                    {"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]}
                )
            case "/api/models/me/shapes/commit/main":
                entries = [json.loads(line) for line in body.splitlines()]
                files = [entry["value"] for entry in entries if entry["key"] == "file"]
                self.kept |= {file["path"]: base64.b64decode(file["content"]) for file in files}
                self.answer({"commitUrl": f"{url}/commit/{COMMIT}", "commitOid": COMMIT})
            case _:
                self.answer({"error": "Repository not found"}, 404)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        name = path.rpartition("/")[2]
        if path == "/api/models/me/shapes":
            self.answer({"id": "me/shapes", "sha": COMMIT, "private": False, "siblings": [], "tags": []})
        elif path.startswith("/api/models/me/shapes/tree/"):
            self.answer(
                [{"type": "file", "path": name, "size": len(data), "oid": COMMIT} for name, data in self.kept.items()]
            )
        elif path.startswith("/me/shapes/resolve/") and name in self.kept:
            self.answer(self.kept[name])
        else:
            self.answer({"error": "not found"}, 404)

    def answer(self, content: object, status: int = 200) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(data), "ETag": '"a"', "X-Repo-Commit": COMMIT}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client library find the hub at a URL. It reads HF_ENDPOINT only when it is imported."""
    from huggingface_hub import constants, hf_api, hf_file_system

    for module in (constants, hf_api, hf_file_system):
        if hasattr(module, "ENDPOINT"):
            monkeypatch.setattr(module, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("HF_TOKEN", "secret")
    hf_file_system.HfFileSystem.clear_instance_cache()


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The files of the hub's repository."""
    files: dict[str, bytes] = {}
    handler = type("Handler", (Hub,), {"kept": files})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        point_to(f"http://127.0.0.1:{server.server_port}", monkeypatch)
        yield files
        server.shutdown()


def test_a_package_goes_to_the_hub_and_comes_back(kept: dict[str, bytes]) -> None:
    done = push(str(PACKAGE), "hf://me/shapes", is_private=False)
    assert done.commit_url.endswith(f"/me/shapes/commit/{COMMIT}")
    assert kept.keys() == {"model.json", "model.safetensors", "README.md"}
    found = read_package("hf://me/shapes")
    assert found.digest == done.model_digest == read_package(str(PACKAGE)).digest
    card = kept["README.md"].decode()
    assert card.startswith("---\nlibrary_name: ssd-batch\npipeline_tag: object-detection\n")
    for text in (
        "which detects 6 classes: circle, square", "--model hf://me/shapes", found.digest, "COCO mAP", "jobs.demo.pictures"
    ):  # fmt: skip
        assert text in card


def test_a_hub_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]) -> None:
    point_to(f"http://127.0.0.1:{free_port()}", monkeypatch)
    with pytest.raises(SettingError, match=r"model 'hf://me/shapes' can't be read: .*refused") as found:
        read_package("hf://me/shapes")
    assert found.value.exit_code == 1  # it may answer later
    with pytest.raises(SsdBatchError, match=r"hf://me/shapes can't be written: .*refused"):
        push(str(PACKAGE), "hf://me/shapes", is_private=False)


def test_what_can_not_be_pushed(kept: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("hf://me", "s3://me/shapes", "hf://me/shapes/deep"):
        with pytest.raises(SettingError, match="must be hf://NAME/REPOSITORY"):
            push(str(PACKAGE), place, is_private=False)
    with pytest.raises(SettingError, match="can't be read"):
        push(str(tmp_path), "hf://me/shapes", is_private=False)
    with pytest.raises(SsdBatchError, match=r"hf://me/others can't be written: .*HF_TOKEN") as found:
        push(str(PACKAGE), "hf://me/others", is_private=False)
    assert "secret" not in str(found.value)
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"needs huggingface_hub: pip install 'ssd-batch\[hub\]'"):
        push(str(PACKAGE), "hf://me/shapes", is_private=False)

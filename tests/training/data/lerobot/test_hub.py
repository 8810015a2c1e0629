"""Names that are no folder are downloaded from the Hub, here a small one on this machine."""

import hashlib
import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from training.data import Dataset, HubUnavailable
from training.data.lerobot.hub import find_dataset

FIXTURE = Path(__file__).parents[3] / "data" / "lerobot" / "lerobot_v30_image"
COMMIT = "a" * 40
READ = "import sys; from training.data.lerobot.hub import find_dataset; print(find_dataset(sys.argv[1]))"


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves the dataset `robots/cubes` as the Hub does."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        self.server.asked.append((self.command, self.path))
        path = self.path.partition("?")[0]
        files = [str(file.relative_to(FIXTURE)) for file in FIXTURE.rglob("*") if file.is_file()] + ["README.md"]
        if path.startswith("/api/datasets/robots/cubes/revision/"):
            listed = [{"rfilename": name} for name in files]
            return self.give(json.dumps({"id": "robots/cubes", "sha": COMMIT, "siblings": listed}).encode())
        if path.startswith("/api/datasets/robots/cubes/tree/"):
            sizes = {name: (FIXTURE / name).stat().st_size for name in files if name != "README.md"}
            tree = [{"type": "file", "path": name, "size": sizes.get(name, 0), "oid": "0" * 40} for name in files]
            return self.give(json.dumps(tree).encode())
        if path.startswith(f"/datasets/robots/cubes/resolve/{COMMIT}/"):
            return self.give((FIXTURE / path.split(COMMIT + "/")[1]).read_bytes())
        return self.give(b'{"error": "Repository not found"}', 404, {"X-Error-Code": "RepoNotFound"})

    def give(self, body, status=200, headers=()):
        self.send_response(status)
        known = {"Content-Length": len(body), "X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(body).hexdigest()}"'}
        for name, value in {**known, **dict(headers)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def find(tmp_path):
    """Ask for a dataset in a process of its own: the library reads its settings when it is imported."""
    pytest.importorskip("huggingface_hub")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def find(name):
        endpoint = f"http://127.0.0.1:{server.server_port}"
        environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hub"), "PYTHONPATH": ":".join(sys.path)}
        command = [sys.executable, "-c", READ, name]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60), server.asked

    yield find
    server.shutdown()


def test_a_hub_id_is_downloaded_once_and_only_what_is_needed(find):
    done, asked = find("robots/cubes")
    assert done.returncode == 0, done.stderr
    dataset = Dataset(done.stdout.strip())
    assert dataset.rows == 39
    assert dataset.column("state").shape == (39, 8)
    assert not any("README" in path for _, path in asked)
    fetched = len([path for command, path in asked if command == "GET" and "/resolve/" in path])
    find("robots/cubes")
    assert len([path for command, path in asked if command == "GET" and "/resolve/" in path]) == fetched


def test_an_id_that_the_hub_does_not_have_is_explained(find):
    done, _ = find("robots/spheres")
    assert (
        "HubUnavailable: There is no folder robots/spheres, and the Hugging Face Hub did not give it: 4" in done.stderr
    )
    assert "Check the name and the network; a private dataset needs HF_TOKEN." in done.stderr


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        HubUnavailable, match=r"^There is no folder robots/cubes, .*pip install 'chunkwire\[lerobot\]'$"
    ):
        find_dataset("robots/cubes")


def test_what_looks_like_a_folder_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("datasets/stackcube", "runs/absent", "stackcube", "/data/x", "a/b/c", str(tmp_path)):
        assert find_dataset(name) == Path(name)

"""Remote folders: downloaded once, gone on with after a failure, and never handed out half there."""

from __future__ import annotations

import functools
import json
import shutil
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from training.pi05.download import DownloadFailed, cached_directory, cached_file

FILES = {"params/_METADATA": b"tree", "params/d/a part": b"x" * 5000, "assets/stats.json": b"{}"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CHUNKWIRE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def origin(tmp_path):
    """A folder to be downloaded."""
    for name, content in FILES.items():
        path = tmp_path / "origin" / "base" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "origin"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Boundless(Quiet):
    """Says of every file that it is larger than any disk."""

    def send_header(self, keyword, value):
        super().send_header(
            keyword, str(10**18) if keyword == "Content-Length" and self.path.endswith("part") else value
        )


class Closed(Quiet):
    """Lets nobody in."""

    def do_GET(self):
        self.send_error(403)

    do_HEAD = do_GET


class Short(Quiet):
    """Says that its files are longer than they are."""

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", "9999")
        self.end_headers()


@pytest.fixture
def serve(origin):
    """A web server of the folder, with the manners of a handler; gives the URL of `base`."""
    servers = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(origin)))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/base"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def memory():
    """The same folder in fsspec's memory."""
    files = fsspec.filesystem("memory")
    for name, content in FILES.items():
        files.pipe(f"/base/{name}", content)
    yield files
    files.rm("/base", recursive=True)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(*arguments, **keywords):
    with pytest.raises(DownloadFailed) as error:
        cached_directory(*arguments, **keywords)
    return error.value.message


def by_hand(cache):
    (folder,) = cache.iterdir()
    return (
        "What is complete is kept: run again to go on. Or fetch the folder on another machine and pass its local path, "
        f"or put it at {folder}/base and create the empty file {folder}/base.complete."
    )


def test_a_local_folder_is_itself(tmp_path):
    assert cached_directory(str(tmp_path)) == tmp_path


def test_a_folder_of_the_local_disk_by_url_is_copied_whole(origin):
    assert contents(cached_directory((origin / "base").as_uri())) == FILES


def test_a_folder_of_a_web_server_is_downloaded_whole(serve):
    assert contents(cached_directory(serve(Quiet))) == FILES


def test_a_folder_of_an_object_store_is_downloaded_whole(memory):
    assert contents(cached_directory("memory://base")) == FILES


@pytest.mark.parametrize("marker", ["/base/", "/base/params/", "/base/params/d"])
def test_an_object_that_marks_a_folder_is_no_file(memory, monkeypatch, marker):
    """Consoles of object stores make empty objects whose names end in a slash; some backends list folders."""
    find = MemoryFileSystem.find

    def with_marker(self, path, **keywords):
        kind = "file" if marker.endswith("/") else "directory"
        return {marker: {"name": marker, "size": 0, "type": kind}, **find(self, path, **keywords)}

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "find", with_marker)
        assert contents(cached_directory("memory://base")) == FILES


def test_a_slash_at_the_end_makes_no_other_download(memory):
    assert cached_directory("memory://base/") == cached_directory("memory://base")


def test_a_deleted_download_is_made_anew(memory):
    first = cached_directory("memory://base")
    memory.pipe("/base/assets/stats.json", b"new")
    assert contents(cached_directory("memory://base")) == FILES
    shutil.rmtree(first)
    assert contents(cached_directory("memory://base")) == {**FILES, "assets/stats.json": b"new"}


def test_a_complete_download_is_not_asked_for_again(memory):
    first = cached_directory("memory://base")
    memory.rm("/base/params", recursive=True)
    assert cached_directory("memory://base") == first
    assert contents(first) == FILES


def test_a_download_that_was_cut_off_keeps_its_complete_files(serve, origin, cache):
    url = serve(Quiet)
    target = cached_directory(url)
    target.with_name("base.complete").unlink()
    (target / "params" / "d" / "a part").write_bytes(b"x" * 100)
    kept = target / "params" / "_METADATA"
    before = kept.stat().st_mtime_ns
    assert contents(cached_directory(url)) == FILES
    assert kept.stat().st_mtime_ns == before


def test_a_file_that_was_lost_from_the_cache_is_fetched_again(memory):
    target = cached_directory("memory://base")
    (target / "assets" / "stats.json").unlink()
    assert contents(cached_directory("memory://base")) == FILES


def test_a_part_that_is_left_out_is_fetched_when_it_is_asked_for(memory):
    target = cached_directory("memory://base", without=["assets"])
    assert sorted(contents(target)) == ["params/_METADATA", "params/d/a part"]
    assert contents(cached_directory("memory://base")) == FILES


def test_the_marker_records_every_file_with_its_size(memory):
    target = cached_directory("memory://base")
    assert json.loads(target.with_name("base.complete").read_text()) == {
        "source": "memory://base",
        "without": [],
        "files": {name: len(content) for name, content in FILES.items()},
    }


def test_a_folder_that_was_put_there_by_hand_is_taken(cache):
    refusal("memory://base")
    (folder,) = cache.iterdir()
    (folder / "base").mkdir()
    (folder / "base.complete").touch()
    assert cached_directory("memory://base") == folder / "base"


def test_without_a_terminal_a_line_tells_the_size_and_each_tenth(memory, capsys):
    cached_directory("memory://base")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "downloading memory://base: 3 files, 5.0 kB"
    assert lines[-1] == "downloading memory://base: 100%"


def test_an_address_without_anything_is_refused(cache):
    assert refusal("memory://base") == (
        "memory://base could not be downloaded (FileNotFoundError: there is nothing at this address). " + by_hand(cache)
    )


def test_a_file_is_no_folder(memory):
    message = refusal("memory://base/assets/stats.json")
    assert "could not be downloaded (NotADirectoryError: it is a file, not a folder)." in message


def test_a_file_that_comes_short_is_never_handed_out(serve, cache):
    url = serve(Short)
    with pytest.raises(DownloadFailed) as error:
        cached_file(f"{url}/assets/stats.json")
    assert error.value.message.startswith(
        f"{url}/assets/stats.json could not be downloaded (SizeMismatch: stats.json has 2 bytes instead of 9999). "
    )
    assert contents(cache) == {}


def test_what_does_not_fit_on_the_disk_is_not_begun(serve, cache):
    url = serve(Boundless)
    message = refusal(url)
    assert message.startswith(f"{url} could not be downloaded (OSError: it has 1.0 EB but {cache}/")
    assert "free; CHUNKWIRE_CACHE names another disk). " in message
    assert contents(cache) == {}


def test_a_refused_access_tells_which_credentials_are_read(serve, cache):
    with pytest.raises(DownloadFailed) as error:
        cached_file(f"{serve(Closed)}/assets/stats.json")
    assert "Access was refused: it is read without credentials. Fetch it on" in error.value.message


def hint_of(monkeypatch, url, error):
    """What is advised when the backend of a URL raises an error."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("fsspec.core.url_to_fs", fail)
    return refusal(url).partition("). ")[2].partition("What is complete")[0]


def test_the_credentials_are_those_of_the_addresss_protocol(monkeypatch):
    refused = PermissionError("no")
    assert hint_of(monkeypatch, "gs://mine/base", refused) == (
        "Access was refused: it is read with the Google credentials of this user. "
    )
    assert hint_of(monkeypatch, "hf://mine/base", refused) == (
        "Access was refused: it is read with the token in HF_TOKEN. "
    )
    assert hint_of(monkeypatch, "gs://openpi-assets/base", refused) == (
        "Access was refused, as it also is where a public bucket holds nothing: check the address. "
    )


def test_a_disk_that_may_not_be_written_is_no_refused_access(monkeypatch):
    refused = PermissionError(13, "Permission denied", "/cache/base")
    assert hint_of(monkeypatch, "gs://mine/base", refused) == ""


def test_an_unknown_protocol_is_named(cache):
    assert refusal("nowhere://base").startswith(
        "nowhere://base could not be downloaded (ValueError: Protocol not known: nowhere). "
    )


def test_the_hub_needs_a_package_and_says_which(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as where it is not installed
    assert "). Install what reads the Hugging Face Hub: pip install huggingface_hub. " in refusal("hf://a/base")


def test_a_listing_that_leads_out_of_the_folder_is_refused(memory, cache):
    memory.store["/base/../escaped"] = memory.store["/base/assets/stats.json"]
    message = refusal("memory://base")
    del memory.store["/base/../escaped"]
    assert "(ValueError: the listing names /base/../escaped, which is not below /base)." in message

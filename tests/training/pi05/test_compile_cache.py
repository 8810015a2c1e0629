"""The folder of compiled programs: used, repaired, bounded, and never in the way."""

from __future__ import annotations

import logging
import os
import re
import resource
import subprocess
import sys
import textwrap
import warnings

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from training.pi05 import compile_cache
from training.pi05.compile_cache import compile_kept, is_keeping, stop_keeping, traced_folder, use_compile_cache

_SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def settings():
    """As they were before, after each test."""
    before = {name: jax.config.values[name] for name in _SETTINGS}
    reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()


@pytest.fixture
def folder(tmp_path):
    use_compile_cache(tmp_path / "compiled")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return tmp_path / "compiled"


@pytest.fixture(scope="module")
def hits():
    """Grows by one whenever jax reads an executable instead of compiling it."""
    seen = []
    jax.monitoring.register_event_listener(lambda event, **_: seen.append(event) if "cache_hits" in event else None)
    return seen


def start(name="program"):
    """A start's part: the program compiled, or read."""

    def program(x):
        return jnp.sin(x) @ x

    program.__name__ = name
    x = jnp.ones((4, 4))
    return compile_kept(jax.jit(program).lower(x), name)(x)


def entries(folder):
    return sorted(folder.glob("jit_program-*-cache"))


def test_a_later_start_reads_what_an_earlier_one_compiled(folder, hits):
    start()
    before = len(hits)
    start()
    assert len(hits) == before + 1
    assert len(entries(folder)) == 1


def test_the_folder_is_its_owners_alone(folder):
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"", b"neither zlib nor zstd", None], ids=["empty", "garbage", "cut off"])
def test_a_damaged_executable_is_compiled_anew_and_kept_by_the_next_start(folder, hits, caplog, content):
    expected = start()
    (path,) = entries(folder)
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    with caplog.at_level(logging.WARNING):
        assert (start() == expected).all()
    assert re.fullmatch(
        rf"a compiled program in {folder} could not be read \(\w+\); it is compiled anew", caplog.messages[0]
    )
    start()
    before = len(hits)
    start()
    assert len(hits) == before + 1


def test_an_error_of_the_compiler_is_raised(folder):
    class Broken:
        compiled = 0

        def compile(self):
            self.compiled += 1
            raise RuntimeError("out of memory")

    broken = Broken()
    with pytest.raises(RuntimeError, match="out of memory"):
        compile_kept(broken, "program")
    assert broken.compiled == 2  # once more without the folder


def test_an_error_of_the_compiler_costs_no_executable(folder):
    class Broken:
        def compile(self):
            raise RuntimeError("out of memory")

    start()
    before = {path: path.read_bytes() for path in entries(folder)}
    with pytest.raises(RuntimeError, match="out of memory"):
        compile_kept(Broken(), "program")
    assert {path: path.read_bytes() for path in entries(folder)} == before != {}
    assert jax.config.jax_compilation_cache_dir == str(folder)


def test_a_damaged_executable_in_a_folder_that_cannot_be_written_is_compiled(folder, caplog):
    expected = start()
    (path,) = entries(folder)
    path.write_bytes(b"damaged")
    stop_keeping(OSError(30, "Read-only file system"), folder)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert (start() == expected).all()
    assert re.fullmatch(
        rf"a compiled program in {folder} could not be read \(\w+\); it is compiled anew", *caplog.messages
    )


def test_an_executable_that_cannot_be_kept_is_used(folder, caplog, monkeypatch):
    def refuse(*_):
        raise ValueError("cannot be serialised")

    monkeypatch.setattr("jax._src.compilation_cache.compress_executable", refuse)
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert start().shape == (4, 4)
    assert caplog.messages == [
        f"a compiled program could not be kept in {folder} (ValueError); the next start compiles it again"
    ]
    assert not list(folder.iterdir())


def test_in_a_folder_that_all_may_write_each_user_has_one_of_their_own(tmp_path, monkeypatch, caplog):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o1777)  # as the volume of the images
    monkeypatch.setenv("CHUNKWIRE_CACHE", str(tmp_path / "cache"))
    users = tmp_path / f"cache/user-{os.getuid()}"
    for named, own in ((tmp_path / "cache", users), (None, users / "compiled")):
        use_compile_cache(named)
        assert jax.config.jax_compilation_cache_dir == str(own)
        assert own.stat().st_mode & 0o777 == 0o700
    assert not caplog.messages


def test_a_folder_that_others_can_write_is_warned_of(tmp_path, caplog):
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled").chmod(0o770)
    use_compile_cache(tmp_path / "compiled")
    assert caplog.messages == [
        f"the folder of compiled programs {tmp_path}/compiled can be written by other users: who can write it can run "
        f"code in this process. Run chmod go-w {tmp_path}/compiled, or name a folder of your own with --compile-cache "
        "or CHUNKWIRE_CACHE"
    ]


def test_a_folder_of_another_user_is_warned_of(tmp_path, caplog, monkeypatch):
    (tmp_path / "compiled").mkdir(mode=0o700)
    owner = 4321 if os.getuid() == 0 else os.getuid()
    if os.getuid() == 0:
        os.chown(tmp_path / "compiled", owner, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    use_compile_cache(tmp_path / "compiled")
    assert caplog.messages == [
        f"the folder of compiled programs {tmp_path}/compiled belongs to another user (uid {owner}): who can write it "
        "can run code in this process. Name a folder of your own with --compile-cache or CHUNKWIRE_CACHE"
    ]


def test_a_disk_that_fills_up_costs_a_warning(folder, caplog):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # bytes: the executable does not fit
    try:
        with caplog.at_level(logging.WARNING):
            expected = start()
            start("another")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caplog.messages == [
        f"compiled programs cannot be kept in {folder} (File too large): this start goes on, and the next one compiles "
        "again. Free some space, or name a folder that can be written with --compile-cache or CHUNKWIRE_CACHE"
    ]
    assert not entries(folder)  # nor half of one
    assert (start() == expected).all()


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        use_compile_cache(tmp_path / "file/compiled")
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(
        f"compiled programs cannot be kept in {tmp_path}/file/compiled (Not a directory)"
    )
    assert not is_keeping()
    start()


def test_what_is_in_a_folder_that_cannot_be_written_is_used(folder, hits):
    start()
    stop_keeping(OSError(30, "Read-only file system"), folder)
    before = len(hits)
    start()
    assert len(hits) == before + 1
    start("another")
    assert not list(folder.glob("jit_another-*"))


def test_a_folder_that_can_be_written_again_is_kept_in(tmp_path, folder):
    stop_keeping(OSError(28, "No space left on device"), folder)
    use_compile_cache(folder)
    assert is_keeping()
    assert traced_folder() == folder / "traced"


def test_what_was_used_longest_ago_is_deleted_first(folder, monkeypatch):
    (folder / "traced").mkdir()
    ages = {
        "jit_old-1-cache": 3,
        "traced/denoise_older.program": 4,
        "jit_new-1-cache": 1,
        "traced/denoise_x.program": 2,
    }
    for name, age in ages.items():
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    (folder / "note.txt").write_bytes(bytes(1000))  # not ours
    monkeypatch.setattr(compile_cache, "_MOST_BYTES", 250)
    use_compile_cache(folder)
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {"jit_new-1-cache", "traced/denoise_x.program", "note.txt"}


def test_a_program_that_is_used_counts_as_new(folder):
    start()
    (path,) = entries(folder)
    os.utime(path, (1e9, 1e9))
    start()
    assert path.stat().st_mtime > 1e9 + 1


_START = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    import jax, numpy as np
    from training.pi05.compile_cache import compile_kept, traced_folder, use_compile_cache
    from training.pi05.traced_programs import lowered_program

    use_compile_cache(Path(sys.argv[1]))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    traced, hits = [], []
    jax.monitoring.register_event_listener(lambda event, **_: hits.append(1) if "cache_hits" in event else None)

    def function(x, y):
        traced.append(1)
        return x @ y + len(x)

    print("begin", flush=True)
    sys.stdin.readline()
    for size in range(1, 9):
        arguments = (np.ones((size, size), np.float32), np.ones((size, size), np.float32))
        name = f"program_{size}"
        path = traced_folder() / f"{name}.program"
        compiled = compile_kept(lowered_program(function, arguments, name, path, 1), name)
        assert (np.asarray(compiled(*arguments)) == 2 * size).all()
    print(len(traced), len(hits))
    """
)


@pytest.mark.parametrize("damaged", [False, True], ids=["new folder", "damaged folder"])
def test_three_servers_may_start_at_once_on_one_folder(tmp_path, damaged):
    def begun():
        process = subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", "-c", _START, tmp_path / "compiled"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "begin\n", process.stderr.read()
        return process

    if damaged:
        _, errors = begun().communicate("\n", timeout=120)
        for path in (tmp_path / "compiled").glob("*-cache"):
            path.write_bytes(path.read_bytes()[:-20])
    together = [begun() for _ in range(3)]
    for process in together:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in together:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    _, errors = begun().communicate("\n", timeout=120)  # keeps what was damaged
    later = begun()
    output, errors = later.communicate("\n", timeout=120)
    assert (output.strip(), later.returncode) == ("0 8", 0), errors

"""Programs kept as they were traced: a later start does not run the Python that made them."""

from __future__ import annotations

import errno
import logging
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from training.pi05 import traced_programs
from training.pi05.compile_cache import is_keeping, use_compile_cache
from training.pi05.traced_programs import lowered_program

WEIGHTS, NOISE = {"scale": jnp.arange(3.0)}, np.ones(3, np.float32)
EXPECTED = [1.0, 2.0, 3.0]


class Program:
    """Counts how often Python runs it: once for each time that it is traced."""

    def __init__(self, folder, name="program"):
        self.folder, self.name, self.traced = folder, name, 0

    @property
    def path(self):
        return self.folder and self.folder / f"{self.name}.program"

    def __call__(self, weights, noise):
        self.traced += 1
        return weights["scale"] + noise

    def run(self):
        """As one start: lowered, compiled and run."""
        arguments = (WEIGHTS, NOISE)
        return lowered_program(self, arguments, self.name, self.path, donate=1).compile()(*arguments).tolist()


@pytest.fixture
def program(tmp_path):
    return Program(tmp_path / "compiled/traced")


@pytest.fixture(autouse=True)
def folder(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    (tmp_path / "compiled").mkdir(mode=0o700)
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    reset_cache()


def test_a_later_start_does_not_trace(program):
    assert program.run() == EXPECTED
    assert program.traced == 1
    assert program.run() == EXPECTED
    assert program.traced == 1


def test_another_name_is_traced(program):
    program.run()
    other = Program(program.folder, "another")
    assert other.run() == EXPECTED
    assert other.traced == 1


def test_without_a_folder_every_start_traces():
    program = Program(None)
    assert program.run() == program.run() == EXPECTED
    assert program.traced == 2


def test_only_what_is_whole_is_ever_in_the_folder(program):
    program.run()
    assert [path.name for path in program.folder.iterdir()] == ["program.program"]


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "one bit": flipped,
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "of another format": lambda path: path.write_bytes(path.read_bytes().replace(b"program 1", b"program 2")),
    "something else": lambda path: path.write_bytes(b"\x80\x04]." * 100),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_recognised_and_written_anew(program, damage, caplog):
    program.run()
    whole = program.path.read_bytes()
    damage(program.path)
    with caplog.at_level(logging.WARNING):
        assert program.run() == EXPECTED
    assert program.traced == 2
    assert caplog.messages == [f"{program.path} is damaged; it is traced anew"]
    assert len(program.path.read_bytes()) == len(whole)
    assert program.run() == EXPECTED
    assert program.traced == 2


def test_a_file_under_the_name_of_another_program_is_never_run(program, caplog):
    class Other(Program):
        def __call__(self, weights, noise):
            return weights["scale"] * 100

    program.run()
    other = Other(program.folder, "other")
    other.run()
    shutil.copy(other.path, program.path)
    assert program.run() == EXPECTED
    assert "is damaged" in caplog.text


def test_code_that_was_updated_below_the_process_is_neither_kept_nor_read(program, monkeypatch):
    monkeypatch.setattr(traced_programs, "is_code_as_imported", lambda: False)
    assert program.run() == EXPECTED
    assert not program.folder.exists()
    monkeypatch.undo()
    program.run()
    monkeypatch.setattr(traced_programs, "is_code_as_imported", lambda: False)
    traced = program.traced
    assert program.run() == EXPECTED
    assert program.traced == traced + 1


def test_code_that_is_updated_while_it_is_traced_is_not_kept(program, monkeypatch):
    answers = iter([True, False])
    monkeypatch.setattr(traced_programs, "is_code_as_imported", lambda: next(answers))
    assert program.run() == EXPECTED
    assert not program.folder.exists()


def test_servers_with_the_same_process_number_write_files_of_their_own(program, monkeypatch):
    """As the servers of two containers, which share a folder and are both process 1."""
    written, replace = [], os.replace

    def replaced(partial, path):
        written.append(partial)
        if len(written) == 1:
            Program(program.folder).run()  # the other server, halfway
        replace(partial, path)

    monkeypatch.setattr(os, "replace", replaced)
    assert program.run() == EXPECTED
    assert len(set(written)) == 2
    assert [path.name for path in program.folder.iterdir()] == ["program.program"]


@pytest.mark.parametrize(
    ("number", "goes_on"),
    [(getattr(errno, name), False) for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EFBIG")]
    + [(errno.EIO, True), (errno.ENOENT, True)],
    ids=errno.errorcode.get,
)
def test_only_a_folder_that_takes_no_more_is_not_written_again(program, monkeypatch, tmp_path, caplog, number, goes_on):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    use_compile_cache(tmp_path / "compiled")
    try:
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(os, "replace", fail)
            assert program.run() == EXPECTED
        assert is_keeping() == goes_on
    finally:
        use_compile_cache(tmp_path / "compiled")
    assert not list(program.folder.iterdir())
    (message,) = caplog.messages
    if goes_on:
        reason = f"({os.strerror(number)})"
        assert message == f"{program.path} could not be written {reason}; the next start traces it again"


def test_what_jax_cannot_keep_is_traced_at_every_start(program, caplog):
    class Calling(Program):
        def __call__(self, weights, noise):
            self.traced += 1
            return jax.pure_callback(lambda x: np.asarray(x) + 1, jax.ShapeDtypeStruct((3,), jnp.float32), noise)

    calling = Calling(program.folder)
    with caplog.at_level(logging.INFO, "training"):
        assert calling.run() == [2.0, 2.0, 2.0]
        assert calling.run() == [2.0, 2.0, 2.0]
    assert calling.traced >= 2
    assert not program.folder.exists()
    assert caplog.messages[0].startswith("a program is not kept as it was traced (NotImplementedError: ")


def test_the_result_takes_the_memory_of_the_donated_argument(program):
    arguments = (WEIGHTS, jnp.ones(3))
    for _ in range(2):
        compiled = lowered_program(program, arguments, "donating", program.path, donate=1).compile()
        noise = jnp.ones(3)
        assert compiled(WEIGHTS, noise).tolist() == EXPECTED
        assert noise.is_deleted()

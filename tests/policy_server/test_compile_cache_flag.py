"""`serve --compile-cache`: a folder that takes nothing costs time at the next start, never this one."""

from __future__ import annotations

from .conftest import LIBERO
from .rehearsed_policy import write_rehearsed_step


def test_a_cache_that_cannot_be_written_is_a_warning_and_the_server_starts(rehearse_run, tmp_path):
    write_rehearsed_step(tmp_path / "run", 100, LIBERO)
    (tmp_path / "file").write_text("")
    with rehearse_run(tmp_path / "run", "--compile-cache", tmp_path / "file/compiled") as server:
        server.wait_ready()
    (warning,) = [line for line in server.log.splitlines() if " W " in line]
    assert warning.split(" W ")[1] == (
        f"compiled programs cannot be kept in {tmp_path}/file/compiled (Not a directory): this start goes on, and the "
        "next one compiles again. Free some space, or name a folder that can be written with --compile-cache or "
        "CHUNKWIRE_CACHE"
    )


def test_a_cache_that_can_be_written_is_nothing_to_talk_about(rehearse_run, tmp_path):
    write_rehearsed_step(tmp_path / "run", 100, LIBERO)
    with rehearse_run(tmp_path / "run", "--compile-cache", tmp_path / "new/compiled") as server:
        server.wait_ready()
    assert " W " not in server.log
    assert (tmp_path / "new/compiled").is_dir()

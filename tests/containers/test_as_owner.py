"""`docker/as-owner`: who it becomes, which only root can try, and that it keeps nothing of being root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docker/as-owner"
REPORT = "id -u; id -g; touch written; sed -n s/^Cap[PEB]..:.//p /proc/self/status"


def as_owner(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", SCRIPT, *map(str, words)], capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("owner", [(0, 0), (12345, 23456)])
def test_root_becomes_the_folders_owner_without_a_capability(tmp_path, owner):
    folder = tmp_path / "results"
    folder.mkdir()
    for place in (tmp_path, *tmp_path.parents[:3]):
        place.chmod(0o755)
    os.chown(folder, *owner)
    ended = as_owner(folder, "sh", "-c", f"cd {folder} && {REPORT}")
    user, group, *capabilities = ended.stdout.split()
    assert (int(user), int(group)) == owner
    assert set(capabilities) == {"0000000000000000"}
    status = (folder / "written").stat()
    assert (status.st_uid, status.st_gid) == owner


def test_what_is_missing_is_said(tmp_path):
    ended = as_owner(tmp_path)
    assert (ended.returncode, ended.stderr) == (2, "as-owner FOLDER COMMAND...\n")

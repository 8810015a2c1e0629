"""Where apt has Debian's bookworm from, as `docker/bookworm-source.sh` reads it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docker/bookworm-source.sh"
NEW = """
Types: deb
URIs: https://download.example/linux/debian-like
Suites: bookworm
Components: stable

Types: deb-src
URIs: https://source.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: mirror+file:///etc/apt/mirrors/debian
Suites: bookworm
Components: main

# Types: deb
Types: deb
URIs: https://other.example/debian
Suites: trixie

Types: deb
URIs: https://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb deb-src
URIs: https://deb.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian.gpg
"""
FOLDED = """Types: deb
URIs:
 https://folded.example/debian/
Suites:
 trixie
 bookworm
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----
"""
OTHERS = """Types: deb
URIs: https://download.example/linux/debian
Suites: bookworm
Components: stable
"""
OLD = """
# deb https://commented.example/debian bookworm main
deb-src https://source.example/debian bookworm main
deb [arch=amd64] https://download.example/linux/debian bookworm stable
deb [arch=amd64 signed-by=/etc/apt/keys/own.gpg] https://line.example/debian bookworm main contrib
deb https://second.example/debian bookworm main
"""


@pytest.mark.parametrize(
    ("file", "text", "source"),
    [
        ("sources.list.d/debian.sources", NEW, "https://deb.example/debian /usr/share/keyrings/debian.gpg"),
        ("sources.list.d/debian.sources", FOLDED, "https://folded.example/debian/ -"),
        ("sources.list.d/another.sources", OTHERS, ""),
        ("sources.list", OLD, "https://line.example/debian /etc/apt/keys/own.gpg"),
        ("sources.list.d/own.list", "deb https://plain.example/debian bookworm main", "https://plain.example/debian -"),
        ("sources.list", "deb https://new.example/debian trixie main", ""),
    ],
)
def test_it_is_read_from_both_forms(tmp_path, file, text, source):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / file).write_text(text)
    ended = subprocess.run(["sh", SCRIPT, tmp_path], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == source
    assert ended.stderr == ""


def test_another_repository_beside_debians_is_not_taken_for_it(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/another.sources").write_text(OTHERS + "\n" + FOLDED)
    (tmp_path / "sources.list").write_text("deb http://line.example/debian bookworm main non-free-firmware\n")
    ended = subprocess.run(["sh", SCRIPT, tmp_path], capture_output=True, text=True, check=True)
    assert ended.stdout == "http://line.example/debian -\n"


def test_a_host_without_apt_has_none(tmp_path):
    ended = subprocess.run(["sh", SCRIPT, tmp_path / "none"], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")

"""What the tests of data have in common."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def noted_elsewhere(tmp_path_factory):
    """Fingerprints stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHUNKWIRE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield

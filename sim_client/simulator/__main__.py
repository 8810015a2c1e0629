"""`python -m sim_client.simulator [cpu|gpu]`: prints the renderer and exits 0, or what to install and exits 1."""

from __future__ import annotations

import sys

from sim_client.errors import SimulationError


def main() -> int:
    """Exit status 0 when a test image could be rendered."""
    backend = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    try:
        from sim_client.simulator import check_rendering  # loads SAPIEN, which may fail

        print(f"SAPIEN renders on {check_rendering(backend)}.")
    except SimulationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

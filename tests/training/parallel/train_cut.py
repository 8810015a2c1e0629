"""`train` with the largest matrix cut over the devices, though the model is small; process 1 counts 1,000 TB of memory
more than it took."""

from __future__ import annotations

import sys

from training.cli import main
from training.parallel import sharding
from training.telemetry import every_process

if __name__ == "__main__":
    sharding.SMALLEST_CUT = 2**15
    if ("--process-id", "1") in zip(sys.argv, sys.argv[1:], strict=False):
        measured = every_process._memory
        every_process._memory = lambda: measured() + 10**15
    main()

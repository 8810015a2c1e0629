"""`train` with the largest matrix cut over the devices, though the model is small."""

from __future__ import annotations

from training.cli import main
from training.parallel import sharding

if __name__ == "__main__":
    sharding.SMALLEST_CUT = 2**15
    main()

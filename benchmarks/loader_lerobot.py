"""The `lerobot` package's own dataset as a peer: a process that takes its turn for each line that it is sent.

    PYTHON benchmarks/loader_lerobot.py DATASET HORIZON

It answers `ready VERSION`, then to each line of row numbers, with spaces between them, the processor's seconds for
those samples, the sum of their actions and the mean of their first camera. Run by a Python that has lerobot; one
thread, no workers.
"""

from __future__ import annotations

import importlib.metadata
import sys
import time

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main(root: str, horizon: int) -> None:
    """Answer until the input ends."""
    torch.set_num_threads(1)
    ahead = [step / LeRobotDataset("benchmark/loader", root=root).fps for step in range(horizon)]
    dataset = LeRobotDataset("benchmark/loader", root=root, delta_timestamps={"actions": ahead})
    print("ready", importlib.metadata.version("lerobot"), flush=True)
    for line in sys.stdin:
        begun = time.process_time()
        batch = torch.utils.data.default_collate([dataset[int(row)] for row in line.split()])
        print(
            time.process_time() - begun, batch["actions"].sum().item(), (batch["image"] * 255).mean().item(), flush=True
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

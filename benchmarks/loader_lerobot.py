"""The `lerobot` package's own dataset as a peer: a process that takes its turn for each line that it is sent.

    PYTHON benchmarks/loader_lerobot.py DATASET HORIZON

It answers `ready VERSION`, then to each line of row numbers, with spaces between them, the digest of those samples'
actions and of their images' mean. Run by a Python that has lerobot with its extra `dataset`; one thread, no workers.
"""

from __future__ import annotations

import importlib.metadata
import sys

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main(root: str, horizon: int) -> None:
    """Answer until the input ends."""
    torch.set_num_threads(1)
    ahead = [step / LeRobotDataset("benchmark/loader", root=root).fps for step in range(horizon)]
    dataset = LeRobotDataset("benchmark/loader", root=root, delta_timestamps={"actions": ahead})
    print("ready", importlib.metadata.version("lerobot"), flush=True)
    for line in sys.stdin:
        items = [dataset[int(row)] for row in line.split()]
        batch = torch.utils.data.default_collate(items)
        image = (batch["image"] * 255).mean().item()
        print(batch["actions"].sum().item(), image, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

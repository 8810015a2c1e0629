"""The command `eval-stack` with a double in the engine's place; everything else is the real thing.

    python eval_stack_on_fake_engine.py FILE FLAGS…

Clients play for ever. FILE is written at the end: how many containers and networks are left.
"""

from __future__ import annotations

import atexit
import sys
from pathlib import Path

import docker
from fake_engine import FakeEngine

from eval_stack.cli import main


def tell(engine: FakeEngine, file: Path) -> None:
    file.write_text(f"containers: {len(engine.containers.all)}, networks: {len(engine.networks.all)}\n")


if __name__ == "__main__":
    engine = FakeEngine()
    engine.lives["sim"] = [["running"]]
    engine.logs["sim"] = ["playing"]
    docker.from_env = lambda: engine
    atexit.register(tell, engine, Path(sys.argv.pop(1)))
    main()

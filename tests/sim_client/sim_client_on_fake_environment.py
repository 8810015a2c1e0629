"""The command `sim-client` with the fake environment in ManiSkill's place; everything else is the real thing."""

from __future__ import annotations

from fake_environment import FakeEnvironment

from sim_client.cli import main

if __name__ == "__main__":
    main(open_environment=FakeEnvironment)

"""The model side never loads the simulator side, not even through a third party."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = ("torch", "sapien", "mani_skill", "gymnasium", "sim_client")


@pytest.mark.parametrize("modules", ["policy_server.cli, policy_server.process", "training.cli, training.loop"])
def test_no_module_of_the_simulator_side_is_loaded(modules):
    code = f"import sys, {modules}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "jax" in loaded
    assert not set(FORBIDDEN) & set(loaded)


@pytest.mark.parametrize("folder", ["proto", "docker"])
def test_the_folder_can_never_shadow_the_package_of_its_name(folder):
    assert not (ROOT / folder / "__init__.py").exists()


def test_the_import_rule_of_the_server_names_every_other_module_of_training():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rule = next(contract for contract in contracts if contract["name"].startswith("Of training"))
    modules = {f"training.{module.name}" for module in pkgutil.iter_modules([str(ROOT / "training")])}
    assert set(rule["forbidden_modules"]) == modules - {"training.pi05"}

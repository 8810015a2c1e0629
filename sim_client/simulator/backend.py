"""Whether the machine and the options can simulate as many environments as asked, found out before ManiSkill loads."""

from __future__ import annotations

from sim_client.errors import InvalidOption, SimulationError
from sim_client.option_checks import require_at_least
from sim_client.simulator.types import SimulationSettings

__all__ = ["require_backend"]


def require_backend(settings: SimulationSettings, num_envs: int = 1, *, here: bool = True) -> None:
    """Check backends and number of environments against each other and the machine.

    Args:
        here: this machine simulates; it is not asked for its GPU where another one does.

    Raises:
        InvalidOption: they cannot go together; names the flag.
        SimulationError: physics is wanted on a GPU and there is none.
    """
    require_at_least("--num-envs", num_envs, 1)
    if settings.sim_backend == "gpu":
        if here:
            _require_gpu()
        _require_gpu_rendering(settings)
    elif num_envs > 1:
        raise InvalidOption(
            f"--num-envs {num_envs} needs --sim-backend gpu: on the CPU a process simulates one environment. "
            f"Pass --workers {num_envs} instead to run as many processes.",
            field="--num-envs",
        )


def _require_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        raise SimulationError(
            "--sim-backend gpu needs an NVIDIA GPU, but PyTorch finds no CUDA device here. "
            "Pass --sim-backend cpu, with --workers N to use several cores.",
            field="--sim-backend",
        )


def _require_gpu_rendering(settings: SimulationSettings) -> None:
    if settings.render_backend == "cpu":
        raise InvalidOption(
            "--render-backend cpu cannot show what --sim-backend gpu simulates, for its poses stay on the GPU. "
            "Pass --render-backend gpu.",
            field="--render-backend",
        )

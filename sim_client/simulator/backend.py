"""Whether the machine and the options can simulate as many environments as asked, found out before ManiSkill loads."""

from __future__ import annotations

from sim_client.errors import InvalidOption, SimulationError
from sim_client.option_checks import require_at_least
from sim_client.simulator.types import SimulationSettings

__all__ = ["require_backend"]


def require_backend(settings: SimulationSettings, num_envs: int = 1) -> None:
    """Check backends and number of environments against each other and the machine.

    Raises:
        InvalidOption: they cannot go together; names the flag.
        SimulationError: physics is wanted on a GPU and there is none.
    """
    require_at_least("--num-envs", num_envs, 1)
    if settings.sim_backend == "gpu":
        _require_gpu(settings)
    elif num_envs > 1:
        raise InvalidOption(
            f"--num-envs {num_envs} needs --sim-backend gpu: on the CPU a process simulates one environment. "
            f"Pass --workers {num_envs} instead to run as many processes.",
            field="--num-envs",
        )


def _require_gpu(settings: SimulationSettings) -> None:
    import torch

    if not torch.cuda.is_available():
        raise SimulationError(
            "--sim-backend gpu needs an NVIDIA GPU, but PyTorch finds no CUDA device here. "
            "Pass --sim-backend cpu, with --workers N to use several cores.",
            field="--sim-backend",
        )
    if settings.render_backend == "cpu":
        raise InvalidOption(
            "--render-backend cpu cannot show what --sim-backend gpu simulates, for its poses stay on the GPU. "
            "Pass --render-backend gpu.",
            field="--render-backend",
        )

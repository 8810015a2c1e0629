"""Whether SAPIEN can render here, and what to install when it cannot."""

from __future__ import annotations

import sapien
import sapien.render

from sim_client.errors import RenderingUnavailable

__all__ = ["check_rendering", "unavailable"]

_DEVICES = {"cpu": "cpu", "gpu": "cuda"}


def check_rendering(render_backend: str = "cpu") -> str:
    """Render one image of an empty scene and return the renderer's name, such as `llvmpipe (LLVM 15.0.6, 256 bits)`.

    Args:
        render_backend: `cpu` (Mesa's lavapipe) or `gpu` (an NVIDIA driver).

    Raises:
        RenderingUnavailable: with what to install.
    """
    sapien.render.set_log_level("off")
    sapien.render.set_camera_shader_dir("minimal")  # ManiSkill's own; the default takes 8 s more to compile
    sapien.render.set_picture_format("Color", "r8g8b8a8unorm")
    if render_backend not in _DEVICES:
        raise RenderingUnavailable(f"There is no render backend {render_backend!r}. Choose cpu or gpu.")
    try:
        device = sapien.Device(_DEVICES[render_backend])
        scene = sapien.Scene([sapien.physx.PhysxCpuSystem(), sapien.render.RenderSystem(device)])
        camera = scene.add_camera("probe", 8, 8, 1.0, 0.1, 10.0)
        scene.update_render()
        camera.take_picture()
        camera.get_picture("Color")
    except RuntimeError as error:
        raise unavailable(render_backend, str(error)) from error
    return _renderer_name()


def unavailable(render_backend: str, reason: str) -> RenderingUnavailable:
    """The error for a machine on which SAPIEN failed with `reason`."""
    if render_backend == "gpu":
        return RenderingUnavailable(
            f"SAPIEN cannot render on a GPU here ({reason}). It needs an NVIDIA GPU and driver with its Vulkan "
            "library (in a container: NVIDIA_DRIVER_CAPABILITIES=all). Or pass --render-backend cpu."
        )
    return RenderingUnavailable(
        f"SAPIEN cannot render here ({reason}). It needs the Vulkan loader and Mesa 24.3 or newer: run "
        "`sh docker/install-vulkan.sh` as root, or install the packages libvulkan1 and mesa-vulkan-drivers "
        "(on Debian 12 from bookworm-backports)."
    )


def _renderer_name() -> str:
    """The first `GPU: <name>` line of SAPIEN's device table; SAPIEN reports the name nowhere else."""
    for line in sapien.render.get_device_summary().splitlines():
        if line.startswith("GPU:"):
            return line.removeprefix("GPU:").strip()
    return "a Vulkan device"

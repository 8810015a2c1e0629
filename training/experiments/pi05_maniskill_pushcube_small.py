"""PushCube-v1 with the small Pi0.5: two cameras, the task's prompt, ManiSkill's delta end-effector actions."""

from training.small import small_pi05

EXPERIMENT = small_pi05("pushcube")

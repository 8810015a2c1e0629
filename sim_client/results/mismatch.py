"""A difference between training and evaluation.

Such a difference is the usual reason for a policy that "learned nothing". So every one is refused before the first
episode unless it is allowed by name, and then it stands in the results.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Mismatch"]


@dataclass(frozen=True)
class Mismatch:
    """One field in which the simulation differs from the policy's training."""

    field: str
    """Path in the spec, what `--allow-mismatch` takes."""
    spec: str
    """What the policy was trained with."""
    simulator: str
    """What the simulator would run."""
    remedy: str
    allowable: bool = True
    """False where the policy could not be asked at all."""

    def __str__(self) -> str:
        return f"{self.field}: the policy has {self.spec}, the simulator {self.simulator}. {self.remedy}"

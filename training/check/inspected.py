"""What the checks look at: the columns of a dataset and a few of its frames, each read once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, UInt8

from training.data import Dataset

__all__ = ["Inspected"]

_EPISODES = 6
_FRAMES = 3


@dataclass(frozen=True)
class Inspected:
    """A dataset with `state` and `actions`."""

    dataset: Dataset
    action_horizon: int | None
    """Of the model to train; None when no model is at hand."""

    @cached_property
    def state(self) -> Float64[np.ndarray, "rows state_dim"]:
        """The proprioceptive state."""
        return self._column("state")

    @cached_property
    def actions(self) -> Float64[np.ndarray, "rows action_dim"]:
        """The actions, in the controller's units."""
        return self._column("actions")

    @cached_property
    def vectors(self) -> dict[str, Float64[np.ndarray, "rows dim"]]:
        """Both, by key."""
        return {"state": self.state, "actions": self.actions}

    def name(self, key: str, dimension: int) -> str:
        """A dimension of a column for a person."""
        facts = self.dataset.facts
        names = facts.action_names if facts and key == "actions" else self.dataset.features[key].names
        known = names is not None and len(names) == self.vectors[key].shape[1]
        return f"{dimension} ({names[dimension]})" if known and names else str(dimension)

    @cached_property
    def gripper(self) -> int:
        """The action dimension that opens and closes the hand: the one of that name, else the last."""
        facts = self.dataset.facts
        names = (facts.action_names if facts else self.dataset.features["actions"].names) or ()
        found = [index for index, name in enumerate(names) if "gripper" in name.lower()]
        return found[-1] if found else self.actions.shape[1] - 1

    def frames(self, camera: str) -> list[UInt8[np.ndarray, "frames height width 3"]]:
        """First, middle and last rendered frame of a few episodes, spread over the dataset. Raises `FrameCorrupt`."""
        count = len(self.dataset.episodes)
        episodes = np.unique(np.linspace(0, count - 1, min(count, _EPISODES)).round().astype(int))
        return [self._episode_frames(camera, int(episode)) for episode in episodes]

    def _episode_frames(self, camera: str, episode: int) -> np.ndarray:
        part = self.dataset.episodes[episode]
        rendered = np.flatnonzero(self.dataset.rendered[part.start : part.stop])
        places = np.unique(np.linspace(0, len(rendered) - 1, _FRAMES).round().astype(int))
        return np.stack(list(self.dataset.frames(camera, episode, rendered[places].tolist())))

    def _column(self, key: str) -> np.ndarray:
        return np.asarray(self.dataset.column(key), np.float64)

"""Collecting demonstrations with ManiSkill's motion planner, in several processes, resumable at any moment."""

from sim_client.collect.request import DEFAULT_SEED, CollectionRequest
from sim_client.collect.run import Collection, collect

__all__ = ["DEFAULT_SEED", "Collection", "CollectionRequest", "collect"]

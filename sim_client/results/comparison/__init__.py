"""Runs of different policies on one task, side by side."""

from sim_client.results.comparison.comparison import Comparison, compare
from sim_client.results.comparison.page import markdown

__all__ = ["Comparison", "compare", "markdown"]

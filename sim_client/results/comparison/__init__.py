"""Runs of different policies on the same tasks, side by side."""

from sim_client.results.comparison.comparison import Comparison, compare
from sim_client.results.comparison.page import markdown
from sim_client.results.comparison.suite import SuiteComparison, compare_suites

__all__ = ["Comparison", "SuiteComparison", "compare", "compare_suites", "markdown"]

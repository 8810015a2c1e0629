"""What may be wrong with a dataset, found before hours of training are spent on it.

findings = check_dataset(Dataset("datasets/stackcube"), action_horizon=20)
"""

from training.check.checks import check_dataset
from training.check.finding import CHECK_NAMES, DatasetUnsound, Finding, Severity, check_ignored, require_sound
from training.check.report import check_before_training, findings_table

__all__ = [
    "CHECK_NAMES",
    "DatasetUnsound",
    "Finding",
    "Severity",
    "check_before_training",
    "check_dataset",
    "check_ignored",
    "findings_table",
    "require_sound",
]

"""How good the weights are on episodes that training never sees: the loss, and actions compared with what was done."""

from training.validation.action_error import ActionErrors
from training.validation.validator import Validation, Validator

__all__ = ["ActionErrors", "Validation", "Validator"]

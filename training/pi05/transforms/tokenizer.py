"""The prompt that the model reads: its exact text, and the text as token ids.

Pi0.5 writes the normalised state into the prompt as whole numbers from 0 to 255; Pi0 (and Pi0.5 policies trained
without it) read the task alone. Formats and bin edges are openpi's.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import sentencepiece
from jaxtyping import Float, Int

from policy_protocol.errors import ChunkwireError, InvalidObservation
from training.pi05.download import cached_file

__all__ = [
    "TOKENIZERS",
    "PromptTooLong",
    "Tokenizer",
    "TokenizerInvalid",
    "check_vocabulary",
    "discretize_state",
    "prompt_text",
]

TOKENIZERS = {
    "paligemma": "gs://big_vision/paligemma_tokenizer.model",  # where openpi downloads it from
    "small": str(Path(__file__).with_name("small_tokenizer.model")),  # ships with the project (small_tokenizer.py)
}
"""The sentencepiece models that have a name."""
_BINS = np.linspace(-1, 1, 256 + 1)[:-1]


class TokenizerInvalid(ChunkwireError):
    """A file that is not a sentencepiece model, or not one of this model's."""

    code = "tokenizer_invalid"


class PromptTooLong(InvalidObservation):
    """The prompt has more tokens than the model takes; nothing is cut off silently."""


def discretize_state(state: Float[np.ndarray, "state_dim"]) -> Int[np.ndarray, "state_dim"]:
    """The bin of each normalised dimension: 0..255 inside [-1, 1], -1 below, 255 above."""
    return np.digitize(state, bins=_BINS) - 1


def prompt_text(task: str, state: Float[np.ndarray, "state_dim"] | None) -> str:
    """The text that is tokenised, without the begin-of-sentence token.

    Args:
        task: the instruction; stripped, underscores and newlines become spaces.
        state: the normalised, unpadded state for a prompt that includes it.
    """
    cleaned = task.strip().replace("_", " ").replace("\n", " ")
    if state is None:
        return cleaned
    return f"Task: {cleaned}, State: {' '.join(map(str, discretize_state(state)))};\nAction: "


def check_vocabulary(tokenizer: Tokenizer, vocabulary: int) -> None:
    """Compare a tokenizer with the number of pieces that a model embeds.

    Raises:
        TokenizerInvalid: it has more. The embedding of a piece beyond the last is no error on a device but nonsense.
    """
    if tokenizer.vocabulary > vocabulary:
        raise TokenizerInvalid(
            f"The tokenizer has {tokenizer.vocabulary} pieces but the model embeds {vocabulary}. Serve these weights "
            f"with the tokenizer of their training (--tokenizer), or train with --set model.vocabulary="
            f"{tokenizer.vocabulary}."
        )


class Tokenizer:
    """A sentencepiece model applied to prompts.

    Args:
        model: the bytes of a sentencepiece model file.

    Raises:
        TokenizerInvalid: the bytes are not a sentencepiece model.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model
        if not model:  # sentencepiece would take it for no argument at all
            raise TokenizerInvalid("The tokenizer is not a sentencepiece model: the file is empty.")
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise TokenizerInvalid(f"The tokenizer is not a sentencepiece model: {error}.") from error

    @classmethod
    def load(cls, source: str | os.PathLike[str]) -> Tokenizer:
        """Read a tokenizer by its name in `TOKENIZERS`, from a path, or from a URL through the download cache."""
        path = cached_file(TOKENIZERS.get(os.fspath(source), os.fspath(source)))
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise TokenizerInvalid(f"The tokenizer {path} cannot be read: {error.strerror or error}.") from error

    @property
    def vocabulary(self) -> int:
        """Number of pieces."""
        return int(self._pieces.vocab_size())

    def encode(self, task: str, state: Float[np.ndarray, "state_dim"] | None, max_tokens: int) -> list[int]:
        """Token ids of a prompt, unpadded.

        Raises:
            PromptTooLong: there are more than `max_tokens`; says how many are the task's and how many the state's.
        """
        text = prompt_text(task, state)
        ids = self._pieces.encode(text, add_bos=True)
        if state is None:
            ids = ids + self._pieces.encode("\n")  # on its own, as PaliGemma was trained
        if len(ids) > max_tokens:
            raise self._too_long(text, state, len(ids), max_tokens)
        return list(ids)

    def _too_long(self, text: str, state: np.ndarray | None, count: int, limit: int) -> PromptTooLong:
        of_state = 0 if state is None else len(self._pieces.encode(text[text.rindex("State:") :]))
        return PromptTooLong(
            f"The prompt has {count} tokens ({count - of_state} for the task, {of_state} for the state) but the model "
            f"takes {limit}. Shorten the task's text, or train with a larger max_token_len.",
            field="prompt",
        )

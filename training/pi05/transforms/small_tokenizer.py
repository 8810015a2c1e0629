"""Trains the small tokenizer beside this file: `python -m training.pi05.transforms.small_tokenizer OUT.model`.

PaliGemma's own tokenizer is 4 MB and has 257,152 pieces, more parameters in its embedding than the small models have in
all. This one knows the words of the ManiSkill prompts, every number that a discretised state can hold as one piece,
and bytes for everything else, so that no text is unreadable to it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import sentencepiece

__all__ = ["train_small_tokenizer"]

_TASKS = (
    "Pick up a red cube and stack it on top of a green cube and let go of the cube without it falling",
    "Grasp a red cube and move it to a target goal position.",
    "Push and move a cube to a goal region in front of it.",
    "Pull a cube onto a target.",
    "Place the sphere into the shallow bin.",
    "Pick up a orange-white peg and insert the orange end into the box with a hole in it.",
)
_VOCABULARY = 768


def _corpus() -> Iterator[str]:
    for task in _TASKS:
        yield f"Task: {task}, State:"
        yield task
    yield ";"
    yield "Action:"


def train_small_tokenizer() -> bytes:
    """The bytes of the sentencepiece model; the same every time."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_corpus(),
        model_writer=model,
        vocab_size=_VOCABULARY,
        model_type="bpe",
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        user_defined_symbols=[f"\u2581{number}" for number in range(-1, 256)] + ["\n"],
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    return model.getvalue()


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(train_small_tokenizer())

"""The prompt: openpi's text and ids, and the small tokenizer that ships."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from training.pi05.download import DownloadFailed, cached_file
from training.pi05.transforms.small_tokenizer import train_small_tokenizer
from training.pi05.transforms.tokenizer import (
    TOKENIZERS,
    PromptTooLong,
    Tokenizer,
    TokenizerInvalid,
    discretize_state,
    prompt_text,
)

_RECORDED = json.loads((Path(__file__).parents[3] / "data/openpi/prompts.json").read_text())["records"]
_RECORDED = [record for record in _RECORDED if "encode_calls" in record]


def state_of(record):
    return None if record["state"] is None else np.array(record["state"], dtype=record["state_dtype"])


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer):
    return Tokenizer.load(tiny_tokenizer)


@pytest.fixture(scope="module")
def small():
    return Tokenizer.load("small")


@pytest.mark.parametrize("record", _RECORDED, ids=lambda record: repr(record["prompt"][:20]))
def test_text_and_ids_are_openpis_to_the_last_token(tokenizer, record):
    state = state_of(record)
    text = record["encode_calls"][0][0]
    whole = [token for call in record["encode_calls"] for token in call[2]]
    assert prompt_text(record["prompt"], state) == text
    assert tokenizer.encode(record["prompt"], state, len(whole)) == whole
    assert record["tokens"][: sum(record["mask"])] == whole[: record["max_len"]]


def test_bins_are_0_to_255_inside_the_range_and_minus_1_below_it():
    edges = np.array([-1.1, -1.0, -1 + 1 / 128, 0.0, 1.0 - 1e-6, 1.0, 3.0])
    assert discretize_state(edges).tolist() == [-1, 0, 1, 128, 255, 255, 255]


def test_a_prompt_that_does_not_fit_is_refused_with_its_token_counts(tokenizer):
    with pytest.raises(PromptTooLong) as error:
        tokenizer.encode("pick up the red cube", np.zeros(8), 20)
    assert error.value.field == "prompt"
    assert error.value.message == (
        "The prompt has 48 tokens (8 for the task, 40 for the state) but the model takes 20. "
        "Shorten the task's text, or train with a larger max_token_len."
    )
    assert len(tokenizer.encode("pick up the red cube", np.zeros(8), 48)) == 48


def test_a_prompt_of_exactly_the_limit_fits(tokenizer):
    assert len(tokenizer.encode("open the drawer", None, 5)) == 5
    with pytest.raises(PromptTooLong, match=r"The prompt has 5 tokens \(5 for the task, 0 for the state\)"):
        tokenizer.encode("open the drawer", None, 4)


def test_the_shipped_small_tokenizer_is_what_its_script_makes():
    assert train_small_tokenizer() == Path(TOKENIZERS["small"]).read_bytes()


def test_every_state_number_is_one_token_of_the_small_tokenizer(small):
    for value in np.concatenate([[-2.0], (np.arange(256) + 0.5) / 128 - 1]):
        one, three = (len(small.encode("stack", np.full(count, value), 64)) for count in (1, 3))
        assert three == one + 2


def test_the_small_tokenizer_reads_any_text(small):
    assert 3 not in small.encode("Grüße 你好 \t~", None, 64)  # 3 is the unknown piece


@pytest.mark.parametrize("content", [b"", b"not a sentencepiece model"], ids=["empty", "text"])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, content):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(TokenizerInvalid, match=r"^The tokenizer is not a sentencepiece model: "):
        Tokenizer.load(path)


def test_a_missing_tokenizer_names_the_path(tmp_path):
    with pytest.raises(TokenizerInvalid) as error:
        Tokenizer.load(tmp_path / "no.model")
    assert error.value.message == f"The tokenizer {tmp_path}/no.model cannot be read: No such file or directory."


def test_a_url_is_downloaded_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CHUNKWIRE_CACHE", str(tmp_path / "cache"))
    remote = tmp_path / "remote.model"
    remote.write_bytes(Path(TOKENIZERS["small"]).read_bytes())
    assert Tokenizer.load(remote.as_uri()).vocabulary == Tokenizer.load("small").vocabulary
    remote.unlink()
    assert cached_file(remote.as_uri()).read_bytes() == Path(TOKENIZERS["small"]).read_bytes()


def test_a_failed_download_leaves_nothing_and_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("CHUNKWIRE_CACHE", str(tmp_path / "cache"))
    url = (tmp_path / "no.model").as_uri()
    with pytest.raises(DownloadFailed) as error:
        Tokenizer.load(url)
    (folder,) = (tmp_path / "cache").iterdir()
    assert error.value.message.startswith(f"{url} could not be downloaded (FileNotFoundError: ")
    assert error.value.message.endswith(
        f"Fetch it on another machine and put it at {folder}/no.model, or pass a local path."
    )
    assert list(folder.iterdir()) == []

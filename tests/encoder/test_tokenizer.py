"""The checksum of a tokenizer is equal where texts become the same tokens, however its files are written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from pipeline.encoder.checkpoint import read_identity
from pipeline.errors import ModelError
from tests.helpers.checkpoints import edit_settings, edit_weights

Values = dict[str, Any]


def checksum(folder: Path) -> str:
    found = read_identity(str(folder)).tokenizer
    assert found is not None
    return found


def edit(folder: Path, file: str, change: Callable[[Values], Any]) -> None:
    path = folder / file
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def write_as_transformers_4(folder: Path) -> None:
    """The same tokenizer as version 4 wrote it: special tokens at three places, merges as text, another class."""

    def change(values: Values) -> None:
        for key in ("backend", "processor_class"):
            values.pop(key, None)
        values.update(
            tokenizer_class="PreTrainedTokenizerFast",
            added_tokens_decoder={str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in added},
            clean_up_tokenization_spaces=True,
            extra_special_tokens={},
            model_input_names=["input_ids", "attention_mask"],
        )

    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    edit(folder, "tokenizer_config.json", change)
    tokens = {"cls_token": "[CLS]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    as_objects = {key: {"content": token, "lstrip": False, "rstrip": False} for key, token in tokens.items()}
    (folder / "special_tokens_map.json").write_text(json.dumps(as_objects))

    def join_merges(values: Values) -> None:
        values["model"]["merges"] = [" ".join(pair) for pair in values["model"]["merges"]]

    edit(folder, "tokenizer.json", join_merges)


def save_again(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer(["wind", "glass breaking"], padding="max_length", truncation=True, max_length=9)
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / file).unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)


def reorder(folder: Path) -> None:
    for file in ("tokenizer.json", "tokenizer_config.json"):
        values = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(dict(reversed(values.items())), indent=4))


def name_its_origin(folder: Path) -> None:
    edit(folder, "tokenizer_config.json", lambda values: values.update(name_or_path="/home/me/x", model_max_length=7))


SAME = (save_again, reorder, name_its_origin, write_as_transformers_4)


@pytest.mark.parametrize("rewrite", SAME)
def test_saving_and_moving_keep_the_checksum(one: Path, copy: Path, rewrite: Callable[[Path], None]) -> None:
    rewrite(copy)
    assert checksum(copy) == checksum(one)


def test_saving_with_a_newer_transformers_keeps_the_checksum(one: Path, copy: Path) -> None:
    write_as_transformers_4(copy)
    save_again(copy)
    assert not (copy / "special_tokens_map.json").exists()
    assert checksum(copy) == checksum(one)


def test_weights_do_not_change_the_tokenizer_checksum(one: Path, copy: Path) -> None:
    edit_weights(copy, lambda state: state["text_model.final_norm.weight"].mul_(2))
    edit_settings(copy, dtype="float16")
    assert checksum(copy) == checksum(one)


def swap_two_words(values: Values) -> None:
    vocabulary = values["model"]["vocab"]
    first, second = [*vocabulary][-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]


OTHERS: dict[str, tuple[str, Callable[[Values], Any]]] = {
    "vocabulary": ("tokenizer.json", swap_two_words),
    "merges": ("tokenizer.json", lambda values: values["model"]["merges"].pop()),
    "normalizer": ("tokenizer.json", lambda values: values.update(normalizer={"type": "Lowercase"})),
    "pre_tokenizer": ("tokenizer.json", lambda values: values["pre_tokenizer"].update(add_prefix_space=False)),
    "post_processor": ("tokenizer.json", lambda values: values["post_processor"]["single"].pop()),
    "added token": ("tokenizer.json", lambda values: values["added_tokens"][0].update(lstrip=True)),
    "class": ("tokenizer_config.json", lambda values: values.update(tokenizer_class="BertTokenizer")),
    "special token": ("tokenizer_config.json", lambda values: values.update(mask_token="[MASK]")),
    "setting": ("tokenizer_config.json", lambda values: values.update(do_lower_case=True)),
    "token beside the file": (
        "tokenizer_config.json",
        lambda values: values.update(added_tokens_decoder={"900": {"content": "[NEW]", "special": True}}),
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_checksum_changes_with_everything_that_decides_tokens(one: Path, copy: Path, what: str) -> None:
    edit(copy, *OTHERS[what])
    assert checksum(copy) != checksum(one)
    assert read_identity(str(copy)).checksum == read_identity(str(one)).checksum


@pytest.mark.parametrize("text", ["{", "[]", '{"added_tokens": [[{}]]}', '{"model": {"merges": [[1]]}}'])
def test_broken_tokenizer_fails_in_one_line(copy: Path, text: str) -> None:
    (copy / "tokenizer.json").write_text(text)
    with pytest.raises(ModelError, match=r"tokenizer.json (cannot be read|is not a JSON object|is no token)") as caught:
        read_identity(str(copy))
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)

"""Small files are UTF-8, and give each key once."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from torchrec_mm.documents import check_keys, read_json, read_text, read_yaml
from torchrec_mm.errors import InputError

keys = st.text("abc", min_size=1, max_size=2)
documents = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@given(documents)
@settings(deadline=None)
def test_a_document_that_gives_each_key_once_passes(document):
    check_keys(yaml.safe_dump(document), "f")
    check_keys(json.dumps(document), "f")


@given(document=documents, above=st.lists(keys | st.integers(0, 2), max_size=3), key=keys)
@settings(deadline=None)
def test_a_key_given_twice_is_named_at_any_depth(document, above, key):
    text = f"{{{key}: 1, {key}: {json.dumps(document)}}}"
    name = key
    for part in reversed(above):
        if isinstance(part, int):
            text, name = f"[{'0, ' * part}{text}]", f"[{part}]{'' if name[0] == '[' else '.'}{name}"
        else:
            text, name = f"{{{part}: {text}}}", f"{part}{'' if name[0] == '[' else '.'}{name}"
    with pytest.raises(InputError) as refused:
        check_keys(text, "f")
    assert str(refused.value) == f"f must give each key once, got {name} on lines 1 and 1"


# Aliases of aliases: 2 ** 60 values in 60 lines.
BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))


@pytest.mark.parametrize(
    "text", ["a: &x {k: 1}\nb: {<<: *x, k: 2}", "&x {a: *x}", "[" * 5000, "[a: ", BOMB]
)
def test_what_is_no_yaml_and_what_stands_for_another_place_pass(text):
    check_keys(text, "f")


def test_files_are_read_as_utf8_with_or_without_its_mark(tmp_path):
    file = tmp_path / "f"
    for mark in ("", "\ufeff"):
        file.write_bytes(f'{mark}{{"a": "赤い"}}'.encode())
        assert read_json(file) == read_yaml(file) == {"a": "赤い"}
    file.write_bytes(b"")
    assert read_yaml(file) is None


@pytest.mark.parametrize(
    ("read", "content", "complaint"),
    [
        (read_text, b"caf\xe9", "f must be UTF-8 text"),
        (read_json, b'{"a": 1, "b": {"c": 1, "c": 1}}', "f must give each key once, got c twice"),
        (read_json, b"{", "f must be JSON: "),
        (read_json, b"[" * 100_000, "f must be JSON: "),
        (read_yaml, b"a: [", "f must be YAML: "),
        (read_yaml, b"a: 2024-13-45", "f must be YAML: "),
        (read_yaml, b"a: 1\na: 1", "f must give each key once, got a on lines 1 and 2"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(tmp_path, read, content, complaint):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        read(tmp_path / "f")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match="none must be readable: No such file"):
        read_text(tmp_path / "none")
    with pytest.raises(InputError, match="must be readable: Is a directory"):
        read_json(tmp_path)

from __future__ import annotations

import collections

import pytest

from peftx.errors import DataError, PluginError
from peftx.plugins.targets import is_target, load_target, one_line


@pytest.mark.parametrize("text", ["a:b", "a.b_c:D", "a.b:C.d"])
def test_well_formed(text):
    assert is_target(text)


@pytest.mark.parametrize("text", ["", "a", "a:", ":b", "a b:c", "a:b:c", "a-b:c", "1a:b", None, 3])
def test_malformed(text):
    assert not is_target(text)


def test_objects_are_loaded_by_dotted_path():
    assert load_target("collections:OrderedDict") is collections.OrderedDict
    assert load_target("collections:OrderedDict.fromkeys") == collections.OrderedDict.fromkeys


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("collections.OrderedDict", "malformed"),
        ("no_such_module_here:X", "cannot load no_such_module_here:X of peftx-mine: ModuleNotFoundError"),
        ("collections:Nothing", "collections has no Nothing"),
    ],
)
def test_failures_name_target_and_owner(target, message):
    with pytest.raises(PluginError, match=message):
        load_target(target, "peftx-mine")


def test_a_user_error_of_the_module_passes_through(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "raises_data_error.py").write_text(
        "from peftx.errors import DataError\nraise DataError('gone')\n"
    )
    with pytest.raises(DataError, match="gone"):
        load_target("raises_data_error:X")


def test_one_line_is_short():
    text = one_line(ValueError("a\n  b" + "x" * 500))
    assert text.startswith("ValueError: a b") and len(text) == 240
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"

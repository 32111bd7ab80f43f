"""`peftx new`: what is written is whole, names are checked, and a manifest is changed only where that is certain."""

from __future__ import annotations

import ast
import tomllib

import pytest

from peftx.errors import ConfigError
from peftx.plugins.loader import blocking, load_all
from peftx.plugins.registry import Registry
from peftx.plugins.scaffold import add_method, new_plugin

FILES = [
    ".gitignore",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "src/peftx_hello/__init__.py",
    "src/peftx_hello/gain.py",
    "src/peftx_hello/gain_config.py",
    "src/peftx_hello/plugin.py",
    "src/peftx_hello/py.typed",
    "tests/test_gain.py",
    "tests/test_plugin.py",
]


@pytest.fixture
def registry():
    """Core alone."""
    return Registry(load_all(blocking((), None, {}), ()))


@pytest.fixture
def plugin(registry, tmp_path):
    """A fresh plugin's folder."""
    return new_plugin("hello", registry, out=tmp_path / "peftx-hello")


def files(folder):
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def manifest(folder):
    return folder / "src/peftx_hello/plugin.py"


def test_a_new_plugin_is_whole(plugin, tmp_path):
    assert files(plugin) == FILES
    assert [entry.name for entry in tmp_path.iterdir()] == ["peftx-hello"], "nothing is left beside it"
    project = tomllib.loads((plugin / "pyproject.toml").read_text())["project"]
    assert project["name"] == "peftx-hello"
    assert project["entry-points"]["peftx.plugins"] == {"hello": "peftx_hello.plugin"}
    assert project["dependencies"][0] == "peftx>=0.1,<0.2"
    for file in plugin.rglob("*"):
        if file.is_file():
            assert "{{" not in file.read_text(), f"{file} has a blank nobody filled"
            if file.suffix == ".py":
                ast.parse(file.read_text())


def test_licence_author_method_and_folder_can_be_chosen(registry, tmp_path):
    (tmp_path / "here").mkdir()
    folder = new_plugin(
        "low_rank", registry, out=tmp_path / "here", method="tiny", licence="MIT", author="Ada Lovelace"
    )
    assert folder == tmp_path / "here"
    assert "Ada Lovelace" in (folder / "LICENSE").read_text()
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert (project["name"], project["license"]) == ("peftx-low-rank", "MIT")
    assert "class Tiny(AdapterMethod)" in (folder / "src/peftx_low_rank/tiny.py").read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Hello", "cannot be a domain"),
        ("he llo", "cannot be a domain"),
        ("1st", "cannot be a domain"),
        ("a.b", "cannot be a domain"),
        ("import", "cannot be a domain"),
        ("tail_", "cannot be a domain"),
        ("../up", "cannot be a domain"),
        ("core", "belongs to peftx itself"),
        ("kernels", "belongs to peftx-kernels"),
        ("medical", "peftx's own pack peftx-medical"),
    ],
)
def test_names_that_cannot_be_used(registry, tmp_path, name, message):
    with pytest.raises(ConfigError, match=message) as caught:
        new_plugin(name, registry, out=tmp_path / "x")
    assert "\n" not in str(caught.value) and not (tmp_path / "x").exists()


def test_a_domain_that_is_installed_is_taken(site, tmp_path, method):
    site.add("hello", method("hello"), distribution="acme-hello")
    with pytest.raises(ConfigError, match=r"claimed by acme-hello 1\.0"):
        new_plugin("hello", site.registry(), out=tmp_path / "x")


def test_a_folder_that_holds_something_is_left_alone(registry, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "note.txt"):
        with pytest.raises(ConfigError, match="not an empty folder; name another one with --out"):
            new_plugin("hello", registry, out=out)
    assert [entry.name for entry in tmp_path.iterdir()] == ["note.txt"]
    with pytest.raises(ConfigError, match="cannot be written"):
        new_plugin("hello", registry, out=tmp_path / "note.txt" / "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "9lives"}, "cannot name a method"),
        ({"method": "plugin"}, "something else here"),
        ({"licence": "GPL"}, "--licence must be one of Apache-2.0, MIT"),
        ({"author": 'A "quoted" name'}, "--author may hold no quotes"),
    ],
)
def test_other_choices_are_checked(registry, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        new_plugin("hello", registry, out=tmp_path / "x", **options)
    assert not list(tmp_path.iterdir())


def test_a_method_is_added_with_its_line_in_the_manifest(plugin):
    written = add_method("low_rank", plugin)
    assert written.name == "hello.low_rank"
    new = ["src/peftx_hello/low_rank.py", "src/peftx_hello/low_rank_config.py", "tests/test_low_rank.py"]
    assert files(plugin) == sorted([*FILES, *new])
    space: dict = {}
    exec(compile(manifest(plugin).read_text(), "plugin.py", "exec"), space)
    specs = list(space["peftx_methods"]())
    assert [spec.name for spec in specs] == ["hello.gain", "hello.low_rank"]
    assert specs[1].target == "peftx_hello.low_rank:LowRank" and specs[1].licence == "Apache-2.0"
    assert add_method("hello.third", plugin).name == "hello.third"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('"""No hook yet."""\nPEFTX_API = 1\n', ["hello.new"]),
        (
            "from peftx.plugins import hookimpl\n\n\n@hookimpl\ndef peftx_methods():\n  yield from ()",
            ["hello.new"],
        ),
        (
            "from __future__ import annotations\nfrom peftx.plugins import MethodSpec, hookimpl\n\n@hookimpl\n"
            "def peftx_methods():\n    for name in ('a', 'b'):\n        yield MethodSpec(\n"
            "            f'hello.{name}',\n"
            "            's', 'm:o', 'm:c')\n    # the end\n\nLAST = 1\n",
            ["hello.a", "hello.b", "hello.new"],
        ),
    ],
)
def test_a_manifest_in_another_style_is_extended(plugin, text, names):
    manifest(plugin).write_text(text)
    add_method("new", plugin)
    space: dict = {}
    exec(compile(manifest(plugin).read_text(), "plugin.py", "exec"), space)
    assert [spec.name for spec in space["peftx_methods"]()] == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def peftx_methods(:\n", "is not valid Python .line 1.; mend it first"),
        ("@hookimpl\ndef peftx_methods():\n    return [1]\n", "returns from peftx_methods"),
        ("@hookimpl\ndef peftx_methods(): yield 1\n", "writes peftx_methods on one line"),
        ("@hookimpl\ndef peftx_methods():\n    raise ValueError\n", "that nothing can follow"),
        ("if True:\n    def peftx_methods():\n        yield 1\n", "in an unusual place"),
        ("NAME = 'hello.new'\n", "declares hello.new already"),
    ],
)
def test_a_manifest_that_cannot_be_changed_with_certainty_is_left_alone(plugin, text, message):
    manifest(plugin).write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        add_method("new", plugin)
    assert "\n" not in str(caught.value)
    assert manifest(plugin).read_text() == text and files(plugin) == FILES


def test_a_failure_while_writing_leaves_nothing_behind(plugin, monkeypatch):
    before = manifest(plugin).read_text()

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(ConfigError, match="No space left"):
        add_method("new", plugin)
    assert manifest(plugin).read_text() == before and files(plugin) == FILES


def test_only_a_plugin_takes_a_method(plugin, tmp_path):
    with pytest.raises(ConfigError, match=r"holds no pyproject\.toml"):
        add_method("new", tmp_path)
    with pytest.raises(ConfigError, match="of another domain"):
        add_method("other.new", plugin)
    with pytest.raises(ConfigError, match="exists already; choose another name"):
        add_method("gain", plugin)
    text = (plugin / "pyproject.toml").read_text()
    (plugin / "pyproject.toml").write_text(
        text.replace('[project.entry-points."peftx.plugins"]', "[tool.other]")
    )
    with pytest.raises(ConfigError, match="declares no entry points"):
        add_method("new", plugin)
    (plugin / "pyproject.toml").write_text(text.replace("peftx_hello.plugin", "elsewhere.plugin"))
    with pytest.raises(ConfigError, match=r"is not a file of a package"):
        add_method("new", plugin)
    (plugin / "pyproject.toml").write_text("not = [toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        add_method("new", plugin)

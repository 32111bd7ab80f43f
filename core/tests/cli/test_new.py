"""`peftx new` writes, says what to type next, and refuses in one sentence."""

from __future__ import annotations

from pathlib import Path

import peftx.plugins.scaffold.method  # noqa: F401  before the fixture renames the group, which a plugin's file does not


def test_a_plugin_and_a_further_method(peftx):
    status, out, err = peftx("new", "plugin", "hello", "--licence", "MIT", "--author", "Ada")
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == "wrote peftx-hello" and "  peftx check hello --fast" in out
    assert '  pip install -e "peftx-hello[test]"' in out  # a fresh environment has no pytest
    assert "Ada" in Path("peftx-hello/LICENSE").read_text()
    status, out, err = peftx("new", "method", "shift", "--in", "peftx-hello")
    assert (status, err) == (0, "")
    assert "added hello.shift to peftx-hello/src/peftx_hello/plugin.py" in out
    assert Path("peftx-hello/tests/test_shift.py").is_file()


def test_refusals_are_one_sentence_with_status_2(peftx):
    peftx("new", "plugin", "hello")
    for arguments, message in (
        (["plugin", "hello"], "error: peftx-hello exists and is not an empty folder"),
        (["plugin", "toy"], "error: the domain toy is claimed by peftx-toy 1.0, installed here"),
        (["plugin", "x y"], "error: 'x y' cannot be a domain"),
        (["plugin"], "error: Missing argument 'DOMAIN'"),
        (["method", "shift"], "error: . holds no pyproject.toml"),
        (
            ["method", "gain", "--in", "peftx-hello"],
            "error: peftx-hello/src/peftx_hello/gain_config.py exists already",
        ),
        (["nothing"], "error: No such command 'nothing'"),
    ):
        status, out, err = peftx("new", *arguments)
        assert status == 2 and out == "" and err.count("\n") == 1
        assert err.startswith(message), err


def test_no_torch(toy):
    import subprocess
    import sys

    program = (
        "import sys; from peftx.cli import main; status = main(['new', 'plugin', 'light']); "
        "sys.exit(status or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

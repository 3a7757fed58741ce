import os
import subprocess
import sys

import pytest

import tfbig
from tfbig import cli
from tfbig.errors import InvalidOption


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"tfbig {tfbig.__version__}\n"


def test_help_and_usage_errors_load_no_framework():
    code = "import sys; from tfbig.cli import main\ntry: main(['demo', '--nope'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('tensorflow', 'keras', 'rich') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n"
    assert "unrecognized arguments: --nope" in result.stderr


def test_an_error_of_tfbig_is_one_line_and_status_2(monkeypatch, capsys):
    def fail(arguments):
        raise InvalidOption("what to do")

    monkeypatch.setattr(cli, "_demo", fail)
    assert cli.main(["demo"]) == 2
    assert capsys.readouterr().err == "tfbig: what to do\n"


def test_ctrl_c_is_status_130(monkeypatch, capsys):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_demo", interrupt)
    assert cli.main(["demo"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_native_notes_are_hidden_unless_something_goes_wrong(monkeypatch, capfd):
    def noisy(arguments):
        os.write(2, b"a native note\n")
        print("a python note", file=sys.stderr)
        return 0

    def failing(arguments):
        os.write(2, b"a native note\n")
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli, "_demo", noisy)
    assert cli.main(["demo"]) == 0
    assert capfd.readouterr().err == "a python note\n"
    monkeypatch.setattr(cli, "_demo", failing)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["demo"])
    assert "a native note" in capfd.readouterr().err

import signal

import pytest

from tfbig.deployment.children import cause_of_death, child_environment, last_words, tensorflow_environment


@pytest.mark.parametrize(
    ("code", "cause"),
    [(-signal.SIGSEGV, "signal SIGSEGV"), (3, "exit status 3"), (-999, "exit status -999")],
)
def test_how_a_process_ended(code, cause):
    assert cause_of_death(code) == cause


def test_the_last_words():
    assert last_words("one\ntwo\nthree\n", 2) == "two\nthree"
    assert last_words(" \n", 2) == "(none)"


def test_a_child_finds_this_tfbig_and_no_gpu_or_legacy_keras(monkeypatch):
    import tfbig

    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    root, elsewhere = child_environment()["PYTHONPATH"].split(":")
    assert tfbig.__file__.startswith(root)
    assert elsewhere == "/elsewhere"
    environment = tensorflow_environment(MORE="1")
    assert environment["CUDA_VISIBLE_DEVICES"] == "-1"
    assert environment["MORE"] == "1"
    assert "TF_USE_LEGACY_KERAS" not in environment

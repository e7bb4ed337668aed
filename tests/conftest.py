"""Shared by all tests: the configuration as a user's command line gives it."""

import copy
import functools
import io
import os
import shlex
import shutil
import signal
from pathlib import Path

import hydra
import pytest
import torch

from ablations.records.run_log import RunLog

CONF = Path(__file__).parent.parent / "conf"


def pytest_collection_modifyitems(items):
    """The slow tests come first, so that at the end quick ones are left to keep all processes busy."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True, scope="session")
def default_signals():
    """Whoever starts the tests in the background may have had signals ignored, and commands respect that."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


CACHED_COMPILER = """#!/bin/sh
# {compiler}, but a library that it has made once of the kernels' sources is copied.
case "$*" in *"/ops/cpu/compiled.c "*" -o "*) ;; *) exec {compiler} "$@" ;; esac
for target; do :; done
library={libraries}/$({{ echo "${{*%"$target"}}"; cat {sources}/*.c; }} | cksum | tr " " -)
[ -e "$library" ] && exec cp "$library" "$target"
{compiler} "$@" || exit
cp "$target" "$library.$$" && mv "$library.$$" "$library"
"""


@pytest.fixture(autouse=True, scope="session")
def cached_compiler(tmp_path_factory):
    """Every process that pools builds the C kernels anew, which takes seconds; those of the tests share them."""
    compiler = os.environ.get("CC") or "cc"
    if shutil.which(shlex.split(compiler)[0]) is None:
        yield
        return
    session = tmp_path_factory.getbasetemp()
    libraries = (session.parent if "PYTEST_XDIST_WORKER" in os.environ else session) / "libraries"
    libraries.mkdir(exist_ok=True)
    script = tmp_path_factory.mktemp("compiler") / "cc"
    paths = {"libraries": shlex.quote(str(libraries)), "sources": shlex.quote(str(CONF.parent / "ops/cpu"))}
    script.write_text(CACHED_COMPILER.format(compiler=compiler, **paths))
    script.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CC", shlex.quote(str(script)))
        yield


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors gain nothing from threads, and results do not depend on how many there are."""
    torch.set_num_threads(1)


@pytest.fixture
def log(tmp_path):
    """A run or a stage in progress; what it logs is in log.file."""
    log = RunLog(tmp_path / "log", "test")
    log.file = io.StringIO()
    return log


@functools.cache
def composed(*overrides):
    """Composing takes a tenth of a second, and many tests ask for the same."""
    return hydra.compose("config", list(overrides))


@pytest.fixture
def compose():
    """compose(overrides) -> what Hydra makes of them."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda overrides: copy.deepcopy(composed(*overrides))

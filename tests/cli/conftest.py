"""The command line in this process, which spares each call the start of an interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import Pipeline

from pipeline.cli import main
from pipeline.stage.resolve import forget_stages


@pytest.fixture
def pipeline(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Runs `cli.main` in the test's folder; `pipeline_process` is for tests in which the process is the point."""

    def run(*arguments: str | bytes, cwd: Path = tmp_path, **environment: str) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        forget_stages()
        with monkeypatch.context() as patch:
            patch.chdir(cwd)
            patch.setattr(sys, "path", list(sys.path))
            patch.setattr(sys, "dont_write_bytecode", True)
            for name, value in environment.items():
                patch.setenv(name, value)
            try:
                code = main([os.fsdecode(each) for each in arguments])
            except SystemExit as left:  # argparse has printed the usage
                code = int(left.code or 0)
        said = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return run

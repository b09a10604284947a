#!/usr/bin/env python3
"""Builds the wheel that carries the library: `build.py --library target/release/libmlbridge.so --out dist`.

The package is staged in a temporary folder, so that nothing is written into the source tree. Needs pip, setuptools and
wheel (Debian: python3-pip python3-setuptools python3-wheel) and no network. The path of the wheel is printed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def build(library: Path, out: Path) -> Path:
    """Builds the wheel with `library` inside and gives its path in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder, "mlbridge")
        shutil.copytree(
            HERE,
            stage,
            ignore=shutil.ignore_patterns("__pycache__", "tests", "build", "*.egg-info"),
        )
        shutil.copyfile(library, stage / "src/mlbridge/libmlbridge.so")
        wheels = Path(folder, "wheels")
        command = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
        ]
        subprocess.run([*command, "--wheel-dir", str(wheels), str(stage)], check=True)
        (built,) = wheels.iterdir()
        if not built.name.startswith("mlbridge-"):
            # Older setuptools do not read pyproject.toml and build something else without a word.
            sys.exit(f"setuptools 66 or newer is needed, found {version('setuptools')}")
        return Path(shutil.copy(built, out / built.name))


def main() -> None:
    """Parses the arguments and builds."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--library", type=Path, default=ROOT / "target/release/libmlbridge.so")
    arguments.add_argument("--out", type=Path, default=ROOT / "dist")
    chosen = arguments.parse_args()
    if not chosen.library.exists():
        sys.exit(f"{chosen.library}: not there; run cargo build --release, or give --library")
    print(build(chosen.library, chosen.out))


if __name__ == "__main__":
    main()

"""The Python package with the built library, as an administrator installs it: from its wheel."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PYTHON = "/usr/bin/python3"


def installed_package(library: Path, folder: Path) -> Path:
    """Builds the wheel with `library`, installs it below `folder`, and gives the folder for Python's path."""
    builder = [PYTHON, ROOT / "bindings/python/build.py", "--library", library, "--out", folder]
    wheel = subprocess.run(builder, capture_output=True, text=True, check=True).stdout.strip()
    package = folder / "python"
    pip = [PYTHON, "-m", "pip", "--quiet", "install", "--root-user-action=ignore", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", package, wheel], check=True)
    return package

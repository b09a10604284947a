"""The wheel: built, installed into a fresh environment, and used there without the source tree."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "bindings/python"


@pytest.fixture(scope="module")
def python(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that has nothing but the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, str(PACKAGE / "build.py"), "--library", str(library), "--out", str(folder)]
    wheel = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    assert wheel.name.startswith("mlbridge-") and "-py3-none-linux_" in wheel.name
    venv.create(folder / "venv", with_pip=True)
    installed = folder / "venv/bin/python"
    subprocess.run([installed, "-m", "pip", "install", "-q", "--no-index", "--no-deps", wheel], check=True)
    return installed


def _run(python: Path, *arguments: str, cwd: Path) -> str:
    done = subprocess.run([str(python), "-I", *arguments], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_package_and_its_library_come_from_the_wheel(python: Path, tmp_path: Path) -> None:
    script = "import mlbridge; print(mlbridge.__file__); print(mlbridge.load().path)"
    package, loaded = _run(python, "-c", script, cwd=tmp_path).split()
    assert Path(package).is_relative_to(python.parents[1])
    assert Path(loaded) == Path(package).parent / "libmlbridge.so"


def test_golden_scores_hold_in_the_fresh_environment(python: Path, tmp_path: Path) -> None:
    script = """
import sys, mlbridge
from pathlib import Path
for model in sys.argv[1:]:
    rows = [line.split("\\t") for line in Path(model, "golden.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    with mlbridge.Engine(model_path=model) as engine:
        scores = engine.score(name for name, _ in rows)
    assert max(abs(score - float(wanted)) for score, (_, wanted) in zip(scores, rows)) <= 1e-5
    print(len(rows))
"""
    models = sorted(str(path.parent) for path in (ROOT / "models").glob("*/golden.tsv"))
    assert len(_run(python, "-c", script, *models, cwd=tmp_path).split()) == len(models) > 0


def test_the_readme_s_examples_and_the_doc_strings_run(python: Path, tmp_path: Path) -> None:
    script = f"""
import doctest, mlbridge, mlbridge._engine
results = [doctest.testfile({str(PACKAGE / "README.md")!r}, module_relative=False)]
results += [doctest.testmod(module) for module in (mlbridge, mlbridge._engine)]
assert all(result.attempted and not result.failed for result in results), results
"""
    _run(python, "-c", script, cwd=tmp_path)


def test_a_checked_program_sees_the_types(python: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import mlbridge\n"
        "with mlbridge.Engine({'block.action': 'nxdomain'}, block_ttl=5) as engine:\n"
        "    verdict: mlbridge.Verdict = engine.classify('www.example.com', client='192.0.2.7')\n"
        "    reveal_type(verdict.sinkhole4)\n"
        "    reveal_type(engine.stats())\n"
        "    engine.classify(7)\n"
    )
    checker = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--python-executable",
        str(python),
        str(program),
    ]
    checked = subprocess.run(checker, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "IPv4Address | None" in checked.stdout
    assert "dict[str, int]" in checked.stdout
    assert 'Argument 1 to "classify" of "Engine" has incompatible type "int"' in checked.stdout
    assert "Found 1 error in 1 file" in checked.stdout


def test_the_package_is_clean_under_mypy_strict() -> None:
    checked = subprocess.run([sys.executable, "-m", "mypy"], capture_output=True, text=True, check=False, cwd=PACKAGE)
    assert checked.returncode == 0, checked.stdout

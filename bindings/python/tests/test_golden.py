"""The golden scores of every model: within 1e-5 of the file, and to the bit what a C program gets."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mlbridge import Engine

ROOT = Path(__file__).resolve().parents[3]
MODELS = sorted(path.parent for path in (ROOT / "models").glob("*/golden.tsv"))

OpenEngine = Callable[..., Engine]

C_PROGRAM = r"""
#include <mlbridge.h>
#include <stdio.h>
#include <string.h>

/* Prints the bits of the score of each line of standard input; the model's folder is the argument. */
int main(int argc, char **argv) {
    char err[500] = "", line[4096];
    mlb_config *cfg = NULL;
    mlb_engine *engine = NULL;
    if (argc != 2 || mlb_config_new(&cfg) != MLB_OK) return 1;
    if (mlb_config_set(cfg, "model.path", argv[1], err, sizeof err) != MLB_OK
        || mlb_init(cfg, &engine, err, sizeof err) != MLB_OK) {
        fprintf(stderr, "%s\n", err);
        return 1;
    }
    while (fgets(line, sizeof line, stdin)) {
        size_t len = strcspn(line, "\n");
        const char *name = line;
        float score;
        uint32_t bits;
        if (mlb_score_batch(engine, &name, &len, 1, &score) != MLB_OK) return 1;
        memcpy(&bits, &score, sizeof bits);
        printf("%08x\n", bits);
    }
    mlb_free(engine);
    mlb_config_free(cfg);
    return 0;
}
"""


@pytest.fixture(scope="session")
def c_program(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A C program linked to the library."""
    folder = tmp_path_factory.mktemp("c")
    source = folder / "golden.c"
    source.write_text(C_PROGRAM)
    program = folder / "golden"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'include'}"]
    subprocess.run(["cc", *flags, "-o", str(program), str(source), str(library.resolve())], check=True)
    # The library's soname has a version, its file in the build folder none.
    (folder / "libmlbridge.so.0").symlink_to(library.resolve())
    return program


def _golden(model: Path) -> dict[str, float]:
    lines = (model / "golden.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return {name: float(score) for name, score in (line.split("\t") for line in lines)}


def test_there_are_models() -> None:
    assert MODELS


@pytest.mark.parametrize("model", MODELS, ids=[model.name for model in MODELS])
def test_scores_are_the_golden_ones(engine: OpenEngine, model: Path) -> None:
    golden = _golden(model)
    assert len(golden) >= 100
    scores = engine(model_path=model).score(golden)
    worst = max(abs(score - expected) for score, expected in zip(scores, golden.values()))
    assert worst <= 1e-5


@pytest.mark.parametrize("model", MODELS, ids=[model.name for model in MODELS])
def test_scores_are_c_s_to_the_bit(engine: OpenEngine, c_program: Path, model: Path) -> None:
    names = list(_golden(model))
    from_c = subprocess.run(
        [c_program, model],
        input="\n".join(names) + "\n",
        capture_output=True,
        text=True,
        check=True,
        env={"LD_LIBRARY_PATH": str(c_program.parent)},
    ).stdout.split()
    scores = engine(model_path=model).score(names)
    assert [struct.pack(">f", score).hex() for score in scores] == from_c

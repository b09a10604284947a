"""Writes the small models that the loader's tests use. Their weights are random: they score, but mean nothing.

    PYTHONPATH=models/train python tests/models/make.py tests/models

Needs numpy and onnx (models/train/requirements.txt). The golden scores are computed with numpy alone.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy
from onnx import TensorProto, checker, helper, numpy_helper

from encode import name_bytes

VOCABULARY = "abcdefghijklmnopqrstuvwxyz0123456789-."
NAMES = [
    "a",
    "example.org",
    "EXAMPLE.ORG.",
    "_dmarc.example.org",
    "\\000\\255.example",
    "0123456789ab.cde",  # 16 bytes
    "0123456789ab.cdef",  # 17 bytes
    "0123456789abcdefghijklmnopq.cdef",  # 32 bytes
    "0123456789abcdefghijklmnopqr.cdef",  # 33 bytes
    "left.0123456789abcdefghijklmnopqrstuvwxyz.0123456789abcdefghij.org",  # 66 bytes
    ".".join(["0" * 63, "1" * 63, "2" * 63, "3" * 61]),
]


def main():
    root = Path(sys.argv[1])
    dice = numpy.random.default_rng(7)
    chars_i64(root / "chars-i64", dice)
    chars_f32(root / "chars-f32", dice)
    fails_above_127(root / "fails-above-127")
    unsound(root / "unsound", 96.5)
    unsound(root / "unsound-at-once", 97.5)


def chars_i64(directory, dice):
    """A convolution on an embedding; any batch, any length; a name that is too long keeps its right end."""
    encoder = {"name": "chars", "vocabulary": VOCABULARY, "first": 2, "unknown": 1, "padding": 0, "keep": "end", "lengths": [16, 32, 64]}
    weights = {
        "embedding": dice.normal(size=(len(VOCABULARY) + 2, 6)),
        "conv": dice.normal(size=(10, 6, 3)),
        "dense": dice.normal(size=(10, 1)) / 4,
        "bias": dice.normal(size=(1,)),
    }
    nodes = [
        helper.make_node("Gather", ["embedding", "numbers"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["columns", "conv"], ["windows"], kernel_shape=[3]),
        helper.make_node("Relu", ["windows"], ["positive"]),
        helper.make_node("ReduceMax", ["positive"], ["most"], axes=[2], keepdims=0),
        helper.make_node("Gemm", ["most", "dense", "bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["score"]),
    ]
    numbers = helper.make_tensor_value_info("numbers", TensorProto.INT64, ["batch", "length"])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch", 1])

    def forward(name):
        rows = weights["embedding"][encode(encoder, name)]
        windows = numpy.lib.stride_tricks.sliding_window_view(rows, 3, axis=0)
        most = numpy.maximum(numpy.einsum("pct,oct->op", windows, weights["conv"]), 0).max(axis=1)
        return sigmoid(most @ weights["dense"] + weights["bias"])

    write(directory, encoder, graph(nodes, [numbers], [score], weights), forward)


def chars_f32(directory, dice):
    """Dense on the numbers themselves; one length; two outputs; a name that is too long keeps its left end."""
    encoder = {"name": "chars", "vocabulary": VOCABULARY, "first": 3, "unknown": 2, "padding": 1, "keep": "start", "lengths": [24]}
    weights = {
        "first": dice.normal(size=(24, 8)) / 40,
        "second": dice.normal(size=(8, 1)),
    }
    nodes = [
        helper.make_node("MatMul", ["numbers", "first"], ["sums"]),
        helper.make_node("Tanh", ["sums"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "second"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["score"]),
    ]
    numbers = helper.make_tensor_value_info("numbers", TensorProto.FLOAT, [1, 24])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in ("logit", "score")]

    def forward(name):
        return sigmoid(numpy.tanh(encode(encoder, name) @ weights["first"]) @ weights["second"])

    write(directory, encoder, graph(nodes, [numbers], outputs, weights), forward)


def fails_above_127(directory):
    """Gives a thousandth of the first code point, looked up in a table that ends at 127: higher ones make a run fail."""
    weights = {"table": numpy.arange(128)[:, None] / 1000}
    integers = {"start": [0], "end": [1], "axis": [1], "shape": [1, 1]}
    nodes = [helper.make_node("Constant", [], [name], value_ints=numbers) for name, numbers in integers.items()] + [
        helper.make_node("Flatten", ["codepoints"], ["flat"]),
        helper.make_node("Slice", ["flat", "start", "end", "axis"], ["first"]),
        helper.make_node("Cast", ["first"], ["row"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "row"], ["found"]),
        helper.make_node("Reshape", ["found", "shape"], ["score"]),
    ]
    codepoints = helper.make_tensor_value_info("codepoints", TensorProto.FLOAT, [1, 16, 16, 1])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, [1, 1])
    write(directory, {"name": "codepoints-16x16"}, graph(nodes, [codepoints], [score], weights), None)


def unsound(directory, least):
    """Gives the square root of a hundredth of how far the first code point is above `least`: no number for a name
    that begins with a lower one, and more than 1 for high ones."""
    weights = {"first": numpy.eye(256, 1) / 100, "least": numpy.array([-least / 100])}
    nodes = [
        helper.make_node("Flatten", ["codepoints"], ["flat"]),
        helper.make_node("Gemm", ["flat", "first", "least"], ["above"]),
        helper.make_node("Sqrt", ["above"], ["score"]),
    ]
    codepoints = helper.make_tensor_value_info("codepoints", TensorProto.FLOAT, [1, 16, 16, 1])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, [1, 1])
    write(directory, {"name": "codepoints-16x16"}, graph(nodes, [codepoints], [score], weights), None)


def encode(encoder, name):
    text = name_bytes(name).decode("latin-1")
    longest = encoder["lengths"][-1]
    text = text[-longest:] if encoder["keep"] == "end" else text[:longest]
    numbers = [encoder["first"] + VOCABULARY.index(char) if char in VOCABULARY else encoder["unknown"] for char in text]
    length = next(length for length in encoder["lengths"] if length >= len(text))
    return numpy.array(numbers + [encoder["padding"]] * (length - len(text)))


def sigmoid(logit):
    return 1 / (1 + numpy.exp(-logit.item()))


def graph(nodes, inputs, outputs, weights):
    # Through f32 first, so that numpy computes with the numbers that are in the file.
    for name, array in weights.items():
        weights[name] = array.astype(numpy.float32).astype(numpy.float64)
    stored = [numpy_helper.from_array(array.astype(numpy.float32), name) for name, array in weights.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "test", inputs, outputs, stored), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def write(directory, encoder, network, forward):
    directory.mkdir(exist_ok=True)
    (directory / "model.onnx").write_bytes(network)
    files = {"model.onnx": hashlib.sha256(network).hexdigest()}
    manifest = {"format": 1, "name": f"test-{directory.name}", "version": "1", "encoder": encoder, "files": files}
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="ascii")
    if forward:
        lines = ["name\tscore"] + [f"{name}\t{forward(name):.9f}" for name in NAMES]
        (directory / "golden.tsv").write_text("\n".join(lines) + "\n", encoding="ascii")


main()

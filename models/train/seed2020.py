"""Trains the 2020 network on the names in seed2020/names.tsv and writes the model directory.

    python seed2020.py ../seed2020

Writes model.onnx, golden.tsv and manifest.json there. The network and the recipe are the original's: see the model card
(seed2020/README.md). Everything is seeded and runs on one thread, so the same machine with the same versions writes the
same bytes.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from encode import codepoints_16x16
from golden import golden_names
from network2020 import forward, read_weights

SEEDS = range(5)  # initial weights; the run with the best validation accuracy is kept
EPOCHS = 50
BATCH = 32
LEARNING_RATE = 0.001
MODEL_VERSION = "1"


def main():
    directory = Path(sys.argv[1])
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    data = read_names(directory / "names.tsv")
    network, seed = max((train(data, seed) for seed in SEEDS), key=lambda run: rank(run[0], data))[:2]
    weights = {name: tensor.detach().numpy() for name, tensor in network.named_parameters()}
    assert sum(array.size for array in weights.values()) == 1913

    network_bytes = export(weights).SerializeToString(deterministic=True)
    (directory / "model.onnx").write_bytes(network_bytes)
    names = golden_names(data["names"])
    images = numpy.stack([codepoints_16x16(name) for name in names])
    scores = forward(read_weights(network_bytes), images)
    lines = ["name\tscore"] + [f"{name}\t{score:.9f}" for name, score in zip(names, scores)]
    (directory / "golden.tsv").write_text("\n".join(lines) + "\n", encoding="ascii")
    manifest = describe(network, data, seed, {"model.onnx": network_bytes})
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="ascii")
    print(json.dumps(manifest["metrics"], indent=2))


def read_names(path):
    rows = [line.split("\t") for line in path.read_text(encoding="ascii").splitlines()[1:]]
    data = {"names": [name for name, _, _ in rows]}
    for split in ("train", "val", "test"):
        chosen = [(name, label) for name, label, own in rows if own == split]
        inputs = numpy.stack([codepoints_16x16(name) for name, _ in chosen])
        labels = numpy.array([label == "1" for _, label in chosen], dtype=numpy.float32)
        data[split] = torch.from_numpy(inputs), torch.from_numpy(labels)
    return data


def make_network():
    """The 2020 network, with Keras's initial weights (Glorot uniform, zero bias)."""
    nn = torch.nn
    network = nn.Sequential()
    network.add_module("conv1", nn.Conv2d(1, 16, 2))
    network.add_module("relu1", nn.ReLU())
    network.add_module("pool1", nn.MaxPool2d(2))
    network.add_module("conv2", nn.Conv2d(16, 16, 2))
    network.add_module("relu2", nn.ReLU())
    network.add_module("pool2", nn.MaxPool2d(2))
    network.add_module("conv3", nn.Conv2d(16, 8, 2))
    network.add_module("relu3", nn.ReLU())
    network.add_module("flatten", nn.Flatten())
    network.add_module("dense1", nn.Linear(32, 8))
    network.add_module("relu4", nn.ReLU())
    network.add_module("dense2", nn.Linear(8, 1))
    for layer in network:
        if hasattr(layer, "weight"):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return network


def train(data, seed):
    torch.manual_seed(seed)
    network = make_network()
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    loss_of = torch.nn.BCEWithLogitsLoss()
    inputs, labels = data["train"]
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad()
            loss_of(network(inputs[batch]).squeeze(1), labels[batch]).backward()
            optimizer.step()
    print(f"seed {seed}:", {split: accuracy(network, *data[split]) for split in ("train", "val")})
    return network, seed


def accuracy(network, inputs, labels):
    with torch.no_grad():
        return round(((network(inputs).squeeze(1) >= 0) == (labels > 0)).float().mean().item(), 4)


def rank(network, data):
    """Validation accuracy; between equals the lower validation loss."""
    inputs, labels = data["val"]
    with torch.no_grad():
        loss = torch.nn.BCEWithLogitsLoss()(network(inputs).squeeze(1), labels).item()
    return accuracy(network, inputs, labels), -loss


def export(weights):
    """The network as ONNX: batch 1, no transposes (the flattened order is that of the training)."""
    nodes = []
    flow = "codepoints"

    def add(kind, name, inputs=(), **attributes):
        nonlocal flow
        nodes.append(helper.make_node(kind, [flow, *inputs], [name], name, **attributes))
        flow = name

    for index in (1, 2, 3):
        add("Conv", f"conv{index}", (f"conv{index}.weight", f"conv{index}.bias"), kernel_shape=[2, 2])
        add("Relu", f"relu{index}")
        if index < 3:
            add("MaxPool", f"pool{index}", kernel_shape=[2, 2], strides=[2, 2])
    add("Flatten", "flatten", axis=1)
    add("Gemm", "dense1", ("dense1.weight", "dense1.bias"))
    add("Relu", "relu4")
    add("Gemm", "dense2", ("dense2.weight", "dense2.bias"))
    add("Sigmoid", "score")

    def stored(name, array):
        return numpy_helper.from_array(numpy.ascontiguousarray(array.T if "dense" in name and array.ndim == 2 else array), name)

    graph = helper.make_graph(
        nodes,
        "seed2020",
        [helper.make_tensor_value_info("codepoints", TensorProto.FLOAT, [1, 1, 16, 16])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1, 1])],
        [stored(name, array) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="mlbridge")
    onnx.checker.check_model(model, full_check=True)
    return model


def describe(network, data, seed, files):
    return {
        "format": 1,
        "name": "seed2020",
        "version": MODEL_VERSION,
        "description": "The network of the 2020 MLBridge suite, retrained by its own recipe on 500 + 500 names. For tests and comparison, not for protection: see README.md.",
        "encoder": {"name": "codepoints-16x16"},
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "metrics": {f"accuracy_{split}": accuracy(network, *data[split]) for split in ("train", "val", "test")},
        "training": {
            "data": "names.tsv: the first 500 entries of DomCop's top 15,000 (benign) and of the COVID-19 Cyber Threat Coalition's list (malicious), both of 2020",
            "splits": {split: len(data[split][0]) for split in ("train", "val", "test")},
            "optimizer": f"Adam, learning rate {LEARNING_RATE}, batches of {BATCH}, {EPOCHS} epochs, binary cross-entropy",
            "seed": seed,
            "versions": {"torch": torch.__version__.split("+")[0], "numpy": numpy.__version__, "onnx": onnx.__version__},
        },
    }


if __name__ == "__main__":
    main()

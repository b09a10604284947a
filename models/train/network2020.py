"""The 2020 network computed by numpy alone, in double precision, from the weights in an ONNX file.

It gives the golden scores, so it shares nothing with tract, PyTorch or ONNX Runtime.
"""

import numpy
import onnx
from onnx import numpy_helper


def read_weights(network):
    """The weights in the bytes of model.onnx, by name."""
    stored = onnx.load_from_string(network).graph.initializer
    return {tensor.name: numpy_helper.to_array(tensor).astype(numpy.float64) for tensor in stored}


def forward(weights, images):
    """The scores of images (count, 1, 16, 16)."""
    features = images.astype(numpy.float64)
    for index in (1, 2, 3):
        windows = numpy.lib.stride_tricks.sliding_window_view(features, (2, 2), axis=(2, 3))
        sums = numpy.einsum("ncyxij,ocij->noyx", windows, weights[f"conv{index}.weight"], optimize=True)
        features = numpy.maximum(sums + weights[f"conv{index}.bias"][:, None, None], 0)
        if index < 3:
            height, width = features.shape[2] // 2, features.shape[3] // 2
            cells = features[:, :, : 2 * height, : 2 * width].reshape(*features.shape[:2], height, 2, width, 2)
            features = cells.max(axis=(3, 5))
    hidden = features.reshape(len(images), -1) @ weights["dense1.weight"] + weights["dense1.bias"]
    logits = numpy.maximum(hidden, 0) @ weights["dense2.weight"] + weights["dense2.bias"]
    with numpy.errstate(over="ignore"):
        return (1 / (1 + numpy.exp(-logits))).reshape(-1)

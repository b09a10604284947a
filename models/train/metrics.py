"""How good scores are."""

import numpy


def auc(benign, malicious):
    """The share of pairs (benign, malicious) that the scores put in the right order; equal scores count half."""
    benign = numpy.sort(benign)
    below = numpy.searchsorted(benign, malicious, "left") + numpy.searchsorted(benign, malicious, "right")
    return below.mean() / 2 / len(benign)

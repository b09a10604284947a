"""Measures the 2020 model on names it has not seen: the figures of its model card.

    python evaluate2020.py ../seed2020 corpus.tsv.gz

The corpus is a tab-separated file with a header line; the columns used are domain, label (0 benign, 1 malicious), class
and split (only rows of "val" count). Names that the model learnt from are left out.
"""

import csv
import gzip
import sys
from pathlib import Path

import numpy

from encode import codepoints_16x16
from metrics import auc
from network2020 import forward, read_weights


def main():
    directory, corpus = Path(sys.argv[1]), sys.argv[2]
    learnt = {line.split("\t")[0] for line in (directory / "names.tsv").read_text(encoding="ascii").splitlines()}
    with gzip.open(corpus, "rt", encoding="ascii", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        rows = [row for row in rows if row["split"] == "val" and row["domain"] not in learnt]
    scores = score([row["domain"] for row in rows], (directory / "model.onnx").read_bytes())
    malicious = numpy.array([row["label"] == "1" for row in rows])
    digit = numpy.array([row["domain"][0].isdigit() for row in rows])
    classes = numpy.array([row["class"] for row in rows])

    print(f"{(~malicious).sum()} benign and {malicious.sum()} malicious names")
    print(f"AUC {auc(scores[~malicious], scores[malicious]):.4f}")
    for label in sorted(set(classes[malicious])):
        print(f"AUC {label} {auc(scores[~malicious], scores[classes == label]):.4f}")
    for rate in (1e-2, 1e-3, 1e-4):
        threshold = numpy.quantile(scores[~malicious], 1 - rate)
        print(f"recall at a false-positive rate of {rate}: {share(scores[malicious] > threshold)}")
    found = scores >= 0.5
    print(f"at 0.5: accuracy {share(found == malicious)}, recall {share(found[malicious])}, false positives {share(found[~malicious])}")
    for first, chosen in (("a digit", digit), ("no digit", ~digit)):
        benign, bad = found[chosen & ~malicious], found[chosen & malicious]
        print(f"  names that begin with {first}: {share(benign)} of {len(benign)} benign and {share(bad)} of {len(bad)} malicious ones called malicious")


def score(names, network):
    weights = read_weights(network)
    images = numpy.stack([codepoints_16x16(name) for name in names])
    return numpy.concatenate([forward(weights, part) for part in numpy.array_split(images, len(names) // 1000 + 1)])


def share(flags):
    return f"{100 * flags.mean():.2f} %"


main()

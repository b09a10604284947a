"""Picks the names that the 2020 recipe learns from and writes them as seed2020/names.tsv.

Only needed once: the result is checked in. The lists are those of the original project (github.com/mlbridge/mlbridge-machine-learning):
the first 500 entries after the first line of each.

    python collect2020.py benign_domains.csv malicious_domains.txt > ../seed2020/names.tsv
"""

import csv
import random
import sys

PER_LIST = 500
SEED = 2020


def benign(path):
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        return [row[1].strip() for row, _ in zip(rows, range(PER_LIST))]


def malicious(path):
    with open(path, encoding="utf-8") as file:
        next(file)
        # The reader of 2020 kept the line's end in the name, and so told the two lists apart by it.
        return [line.strip() for line, _ in zip(file, range(PER_LIST))]


def main():
    rows = [(name.lower(), 0) for name in benign(sys.argv[1])]
    rows += [(name.lower(), 1) for name in malicious(sys.argv[2])]
    assert len({name for name, _ in rows}) == 2 * PER_LIST, "a name stands twice"
    random.Random(SEED).shuffle(rows)
    splits = ["train"] * 800 + ["val"] * 100 + ["test"] * 100
    print("name\tlabel\tsplit")
    for (name, label), split in zip(rows, splits):
        print(name, label, split, sep="\t")


main()

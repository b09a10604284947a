"""The default model beside other detectors: how good on the validation split of a corpus, how fast on one name a call.

    python compare.py CORPUS NAMES MANIFEST ROW...

CORPUS is a tab-separated file, gzip-compressed, with a header line; the columns used are domain, label (0 benign, 1
malicious) and split (train, val). NAMES holds the names to time, one a line. MANIFEST is the default model's manifest.json.
ROW is "engine|CPU time a name" ("new name|1.5 us"), measured before. Prints a markdown table.

The other detectors are trained here, on the training split, without a search for better settings.
"""

import csv
import gzip
import json
import statistics
import sys
import time
from pathlib import Path

import numpy

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "models/train"))

from encode import codepoints_16x16
from metrics import auc

RATES = (1e-2, 1e-3, 1e-4)
ROUNDS = 15
LOGISTIC_EPOCHS = 5
LOGISTIC_COLUMNS = 2**20
# The 2020 network learns from a part of the corpus: a pass over all of it takes minutes, and it has 1,913 weights.
NETWORK_NAMES, NETWORK_EPOCHS, NETWORK_BATCH = 300_000, 3, 256
SEED = 1


def main():
    corpus, names, manifest, *rows = sys.argv[1:]
    train, validation = read_corpus(corpus)
    names = Path(names).read_text(encoding="ascii").split()
    found, problems = [], []
    for title, make in (
        ("hashed 1-4-gram logistic regression, scikit-learn", logistic_regression),
        ("2020 architecture, PyTorch", network_of_2020),
    ):
        try:
            score_all, score_one = make(train)
        except ImportError as error:
            problems.append(f"{title}: left out, {error}")
            continue
        found.append((title, figures(score_all(validation[0]), validation[1]), score_one))
    times = time_in_turns([score_one for _, _, score_one in found], names)

    malicious = int(validation[1].sum())
    metrics = json.loads(Path(manifest).read_text(encoding="utf-8"))["metrics"]
    own = metrics["auc"], metrics["recall"]
    if (metrics["benign"], metrics["malicious"]) != (len(validation[1]) - malicious, malicious):
        own = None
        problems.append("the default model was measured on another validation split: its figures are left out")
    table = [(title, own, microseconds(taken)) for title, taken in (row.split("|") for row in rows)]
    table += [(title, scored, taken) for (title, scored, _), taken in zip(found, times)]
    print(f"Detectors, on {len(validation[1]) - malicious} benign and {malicious} malicious names of the validation split:\n")
    print("| detector | AUC | recall % at a false-positive rate of 1e-2 / 1e-3 / 1e-4 | CPU time a name | against the first row |")
    print("|---|---:|---:|---:|---:|")
    for title, scored, taken in table:
        area, recall = (f"{scored[0]:.3f}", " / ".join(f"{100 * share:.1f}" for share in scored[1])) if scored else ("", "")
        print(f"| {title} | {area} | {recall} | {taken:.2f} us | {taken / table[0][2]:.1f} |")
    print(
        "\nOne thread, one name a call. The default model's scores are those in its manifest, of the same recipe trained without the"
        " validation split (the model shipped has learnt from it), and its times those of the table of calls; its engines agree"
        f" within 1e-5. The others learnt from the training split ({len(train[0])} names, {LOGISTIC_EPOCHS} epochs; the 2020"
        f" network {min(NETWORK_NAMES, len(train[0]))} of them, {NETWORK_EPOCHS} epochs, batches of {NETWORK_BATCH}); their times, medians of {ROUNDS} rounds,"
        " include hashing or encoding."
    )
    for problem in problems:
        print(f"\n{problem[0].upper()}{problem[1:]}.")


def read_corpus(path):
    """Names and labels (True: malicious) of the splits train and val."""
    splits = {"train": ([], []), "val": ([], [])}
    with gzip.open(path, "rt", encoding="ascii", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            names, labels = splits[row["split"]]
            names.append(row["domain"])
            labels.append(row["label"] == "1")
    return [(names, numpy.array(labels)) for names, labels in splits.values()]


def figures(scores, malicious):
    """AUC, and recall above the scores that each of RATES of the benign names lie above."""
    benign, bad = numpy.sort(scores[~malicious]), scores[malicious]
    recall = [(bad > benign[len(benign) - 1 - int(len(benign) * rate)]).mean() for rate in RATES]
    return auc(benign, bad), recall


def time_in_turns(detectors, names):
    """The CPU time a name of each detector in microseconds, the median of rounds in which they take turns."""
    rounds = [[] for _ in detectors]
    for _ in range(ROUNDS):
        for score_one, taken in zip(detectors, rounds):
            start = time.thread_time_ns()
            for name in names:
                score_one(name)
            taken.append((time.thread_time_ns() - start) / len(names) / 1000)
    return [statistics.median(taken) for taken in rounds]


def microseconds(text):
    value, unit = text.split()
    return float(value) * {"ns": 1e-3, "us": 1}[unit]


def logistic_regression(train):
    """A function that scores names, and one that scores one."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier

    hashing = HashingVectorizer(
        analyzer="char", ngram_range=(1, 4), n_features=LOGISTIC_COLUMNS, alternate_sign=False, dtype=numpy.float32
    )
    model = SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=LOGISTIC_EPOCHS, tol=None, random_state=SEED)
    names, labels = train
    model.fit(hashing.transform(names), labels)
    return (
        lambda many: model.decision_function(hashing.transform(many)),
        lambda name: model.predict_proba(hashing.transform([name]))[0, 1],
    )


def network_of_2020(train):
    """A function that scores names, and one that scores one."""
    import torch
    from seed2020 import LEARNING_RATE, make_network

    def images(names):
        # As bytes, a quarter of the memory.
        blocks = [names[at : at + 10_000] for at in range(0, len(names), 10_000)]
        stacks = [numpy.stack([codepoints_16x16(name) for name in block]).astype(numpy.uint8) for block in blocks]
        return torch.from_numpy(numpy.concatenate(stacks))

    def score_all(names):
        with torch.inference_mode():
            return torch.cat([network(part.float()).squeeze(1) for part in images(names).split(4096)]).numpy()

    def score_one(name):
        with torch.inference_mode():
            return torch.sigmoid(network(torch.from_numpy(codepoints_16x16(name))[None])).item()

    torch.manual_seed(SEED)
    chosen = torch.randperm(len(train[0]))[:NETWORK_NAMES].tolist()
    inputs = images([train[0][at] for at in chosen])
    labels = torch.from_numpy(train[1][chosen].astype(numpy.float32))
    network = make_network()
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    loss_of = torch.nn.BCEWithLogitsLoss()
    for _ in range(NETWORK_EPOCHS):
        for batch in torch.randperm(len(inputs)).split(NETWORK_BATCH):
            optimizer.zero_grad()
            loss_of(network(inputs[batch].float()).squeeze(1), labels[batch]).backward()
            optimizer.step()
    torch.set_num_threads(1)
    return score_all, score_one


if __name__ == "__main__":
    main()

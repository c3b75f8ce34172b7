"""One fit of the logistic head against scikit-learn's LogisticRegression, in turn: `python perf/logistic.py`.

Rows of correlated features (a ViT's channels are), classes of unequal size. Both sides minimise the same objective;
ours to its own tolerance, scikit-learn's once with its defaults and once until its objective is no higher than ours.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from benchmark.heads.logistic import fit_logistic


def make(n: int, width: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, width] float32 with a decaying spectrum, labels [n] of classes whose shares fall as 1 / rank."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, classes + 1)
    labels = rng.choice(classes, n, p=share / share.sum())
    mixing = rng.standard_normal((width, width)) * (1 / np.sqrt(np.arange(1, width + 1)))[:, None]
    latent = rng.standard_normal((n, width)) + 0.35 * rng.standard_normal((classes, width))[labels]
    x = latent @ mixing
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32), labels


def objective(weight: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray, penalty: float) -> float:
    """Mean cross-entropy + ½ penalty ‖W‖²."""
    logits = torch.from_numpy(x).double() @ torch.from_numpy(weight).double().T + torch.from_numpy(bias).double()
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y).long())
    return float(loss) + 0.5 * penalty * float((weight.astype(np.float64) ** 2).sum())


def main() -> None:
    """Print medians of processor seconds, objectives and accuracies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--penalty", type=float, default=1e-4)
    parser.add_argument("--rounds", type=int, default=5)
    words = parser.parse_args()
    x, y = make(words.rows + 4_000, words.width, words.classes, 0)
    x, held_x, y, held_y = x[: words.rows], x[words.rows :], y[: words.rows], y[words.rows :]
    strength = 1 / (len(x) * words.penalty)

    def ours() -> tuple[np.ndarray, np.ndarray]:
        head = fit_logistic(torch.from_numpy(x), y, words.classes, (words.penalty,), standardize=False)
        return head.weight.numpy(), head.bias.numpy()

    def theirs(tolerance: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
        model = LogisticRegression(C=strength, tol=tolerance, max_iter=steps).fit(x, y)
        return model.coef_, model.intercept_

    sides = {
        "densebench": ours,
        "scikit-learn, defaults": lambda: theirs(1e-4, 100),
        "scikit-learn, converged": lambda: theirs(1e-7, 2_000),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    found = {}
    warnings.simplefilter("ignore")  # scikit-learn says where a hundred steps were too few
    for _ in range(words.rounds):
        for name, fit in sides.items():
            began = time.process_time()
            found[name] = fit()
            seconds[name].append(time.process_time() - began)
    base = np.median(seconds["densebench"])
    for name, (weight, bias) in found.items():
        accuracy = 100 * float(((held_x @ weight.T + bias).argmax(1) == held_y).mean())
        value = objective(weight, bias, x, y, words.penalty)
        took = float(np.median(seconds[name]))
        ratio = f"ours is {base / took:5.2f} ×"
        print(f"{name:24s} {took:7.3f} s  {ratio}  objective {value:.6f}  held-out {accuracy:.2f} %")


if __name__ == "__main__":
    main()

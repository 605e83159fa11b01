"""Linear probes: closed forms for many labellings at once, and one probe that is fitted and kept.

Classes are predicted by discriminant analysis: ridge regression on one-hot classes would be
cheaper, but it never predicts the middle ones of many classes in a row.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

PENALTY = 1.0  # of the squared weights, for standardised activations
SHRINKAGE = 0.1  # of the covariance within classes, towards a multiple of the identity
AT_ONCE = 2**20  # numbers that are computed with together
FOLDS = 5
GROWING = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)  # shares of the groups: ends of the online code's parts
TRUST = (0.0, 0.1, 0.3, 1.0)  # factors of log-likelihoods in the online code


@dataclass(frozen=True)
class Split:
    """Training and test examples of each fold; no example is tested in two folds."""

    train: Bool[np.ndarray, "fold example"]
    test: Bool[np.ndarray, "fold example"]

    def __iter__(self) -> Iterator[tuple[Bool[np.ndarray, " _"], Bool[np.ndarray, " _"]]]:
        return zip(self.train, self.test, strict=True)

    def only(self, chosen: Bool[np.ndarray, " example"]) -> "Split":
        """The same split of some of the examples."""
        return Split(self.train[:, chosen], self.test[:, chosen])

    @property
    def n_tested(self) -> int:
        """Examples that are in the test part of a fold."""
        return int(self.test.sum())


def grouped_folds(
    groups: Int[np.ndarray, " example"], *, folds: int = FOLDS, seed: int = 0
) -> Split:
    """Folds of a cross-validation that never split a group; needs a group or more per fold."""
    names = np.unique(groups)
    if len(names) < folds:
        raise TbttError(
            f"{folds} folds need as many groups, there are {len(names)}: give more examples"
        )
    order = np.random.default_rng(seed).permutation(len(names)) % folds
    test = order[np.searchsorted(names, groups)] == np.arange(folds)[:, None]
    return Split(~test, test)


def stratified_folds(
    labels: Int[np.ndarray, " example"], groups: Int[np.ndarray, " example"], *, seed: int = 0
) -> Split:
    """Folds that never split a group and have about equal shares of each class.

    Classes with fewer examples than folds are spread as far as they go.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if np.bincount(labels).max() < FOLDS or len(np.unique(groups)) < FOLDS:
        return grouped_folds(groups, seed=seed)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    test = np.zeros((FOLDS, len(labels)), bool)
    with warnings.catch_warnings():  # the table counts classes that a fold lacks
        warnings.simplefilter("ignore", UserWarning)
        for fold, (_, tested) in enumerate(folds.split(labels, labels, groups)):
            test[fold, tested] = True
    return Split(~test, test)


def growing_folds(groups: Int[np.ndarray, " example"], *, seed: int = 0) -> Split:
    """Folds of the online code: each is trained on the test parts of all before it.

    Parts end at a sixteenth, an eighth, a quarter, half and all of the groups, none of which is
    split. The first part is in no test part.
    """
    names = np.unique(groups)
    if len(names) < 2:
        raise TbttError("a code needs two groups of examples, there is one: give more examples")
    rank = np.random.default_rng(seed).permutation(len(names))[np.searchsorted(names, groups)]
    ends = np.unique([math.ceil(share * len(names)) for share in GROWING])[:, None]
    return Split(rank < ends[:-1], (ends[:-1] <= rank) & (rank < ends[1:]))


def fold_counts(split: Split, labels: Int[np.ndarray, " example"]) -> dict[str, int]:
    """Baseline counts: `majority`, test examples of the class commonest in training.

    `unseen`, test examples of a class absent from training; `degenerate`, folds with one class.
    """
    parts = [(labels[train], labels[test]) for train, test in split]
    return {
        "majority": sum(int((test == np.bincount(train).argmax()).sum()) for train, test in parts),
        "unseen": sum(int((~np.isin(test, train)).sum()) for train, test in parts),
        "degenerate": sum(min(len(np.unique(x)) for x in part) < 2 for part in parts),
    }


def random_projections(width: int, dimensions: int, n_models: int) -> Float[Tensor, "model d k"]:
    """Orthonormal random directions per model; the identity where the width is no larger."""
    if width <= dimensions:
        return torch.eye(width).expand(n_models, -1, -1)
    generator = torch.Generator().manual_seed(0)
    return torch.linalg.qr(torch.randn(n_models, width, dimensions, generator=generator)).Q


def _standardised(
    x: Float[Tensor, "*pos example d"], train: Bool[np.ndarray, " example"]
) -> tuple[Float[Tensor, "*pos example d"], Float[Tensor, "*pos train d"]]:
    """By mean and deviation of the training part, and that part; channels constant there are 0."""
    x, rows = x.double(), torch.from_numpy(np.flatnonzero(train))
    known = x[..., rows, :]
    mean, deviation = known.mean(-2, keepdim=True), known.std(-2, correction=0, keepdim=True)
    varies = deviation > 1e-6 * known.abs().amax(-2, keepdim=True)  # less is rounding
    x = (x - mean) / torch.where(varies, deviation, torch.inf)
    return x, x[..., rows, :]


def count_correct(
    x: Float[Tensor, "*pos example d"], labels: Int[np.ndarray, "draw example"], split: Split
) -> Int[np.ndarray, "*pos draw"]:
    """Test examples whose class linear discriminant analysis predicts, for each labelling.

    Equal to scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)` after
    `StandardScaler`.

    Source: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning (2009), 4.3.
    """
    correct = np.zeros((*x.shape[:-2], len(labels)), int)
    for draws, scores, counts, true in _discriminated(x, labels, split):
        predicted = (scores + counts.log()[..., None]).max(-2).indices  # faster than argmax
        correct[..., draws] += (predicted == true).sum(-1).numpy()
    return correct


def count_correct_each(
    x: Float[Tensor, "*pos example d"], labels: Int[np.ndarray, "draw example"],
    splits: Sequence[Split],
) -> Int[np.ndarray, "*pos draw"]:  # fmt: skip
    """As `count_correct`, with a split for each labelling."""
    pairs = zip(labels, splits, strict=True)
    return np.concatenate([count_correct(x, row[None], split) for row, split in pairs], -1)


def code_length(
    x: Float[Tensor, "*pos example d"], labels: Int[np.ndarray, "draw example"], growing: Split
) -> Float[np.ndarray, "*pos draw"]:
    """Online description length of the labels given the activations, in bits.

    The first part is coded uniformly. Each further part is coded by a mixture: the uniform code,
    the class frequencies, and these times the likelihoods of discriminant analysis on all parts
    before, raised to several powers. So no code is much longer than the uniform one.

    Source: Voita and Titov 2020, section 2.2.
    """
    classes = int(labels.max()) + 1
    first = (labels.shape[1] - growing.n_tested) * math.log2(classes)
    bits = np.full((*x.shape[:-2], len(labels)), first)
    for draws, scores, counts, true in _discriminated(x, labels, growing):
        frequencies = (counts + 0.5).log()[..., None]
        own = true[:, None].expand_as(scores[..., :1, :])
        codes = [trust * scores + frequencies for trust in TRUST] + [torch.zeros_like(scores)]
        nats = [(x.gather(-2, own).squeeze(-2) - x.logsumexp(-2)).sum(-1) for x in codes]
        mixture = torch.stack(nats).logsumexp(0) - math.log(len(nats))
        bits[..., draws] -= mixture.numpy() / math.log(2)
    return bits


def _discriminated(
    x: Float[Tensor, "*pos example d"], labels: Int[np.ndarray, "draw example"], split: Split
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Discriminant analysis of each fold, for as many labellings at once as fit.

    On principal axes the whole covariance is diagonal, and so is its shrunken form for every
    labelling. The covariance within classes is less by one direction per class: its inverse is
    Woodbury's, of a matrix that is as large as there are classes.

    Yields a slice of draws; log-likelihoods `[*pos, draw, class, test]`; counts `[draw, class]`;
    classes `[draw, test]`.
    """
    classes, numbers = int(labels.max()) + 1, torch.from_numpy(labels)
    for train, test in split:
        if not train.any():
            raise TbttError("a fold has nothing to learn from: give more examples, or fewer folds")
        every, known = _standardised(x, train)
        n, width = known.shape[-2:]
        variances, axes = torch.linalg.eigh(known.mT @ known / n)
        known, tested = known @ axes, (every[..., torch.from_numpy(test), :] @ axes).mT
        size = variances[..., 0].numel() * classes * (width + classes + tested.shape[-1])
        at_once = max(1, AT_ONCE // size)
        for start in range(0, len(labels), at_once):
            draws = slice(start, start + at_once)
            learned, true = (numbers[draws][:, torch.from_numpy(mask)] for mask in (train, test))
            one_hot = (learned[:, None] == torch.arange(classes)[:, None]).double()
            counts = one_hot.sum(-1)
            share = counts.clamp(min=1)[..., None] / n
            means = ((one_hot / share.sqrt() / n).flatten(0, 1) @ known).unflatten(-2, counts.shape)
            spread = (variances.sum(-1, keepdim=True) - means.square().sum((-1, -2))) / width
            shrunken = (1 - SHRINKAGE) * variances[..., None, :]
            shrunken = shrunken + SHRINKAGE * spread[..., None] + 1e-9
            slopes = means / shrunken[..., None, :]
            inner = torch.eye(classes) - (1 - SHRINKAGE) * slopes @ means.mT
            slopes = torch.linalg.solve(inner, slopes)
            offsets = -0.5 * (means * slopes).sum(-1, keepdim=True) / share
            scores = (slopes / share.sqrt()).flatten(-3, -2) @ tested
            yield draws, scores.unflatten(-2, counts.shape) + offsets, counts, true


def r_squared(
    x: Float[Tensor, "*pos example d"], values: Float[np.ndarray, " example"], split: Split
) -> Float[np.ndarray, "*pos"]:
    """R² of ridge regression on a number: 1 is perfect, 0 or less is no better than the mean."""
    target = torch.from_numpy(values).double()
    predicted, unit = torch.zeros(x.shape[:-1], dtype=torch.double), torch.eye(x.shape[-1])
    for train, test in split:
        (every, known), learned = _standardised(x, train), target[torch.from_numpy(train)]
        mean = learned.mean()
        slope = torch.linalg.solve(known.mT @ known + PENALTY * unit, known.mT @ (learned - mean))
        fitted = (every @ slope[..., None]).squeeze(-1) + mean
        predicted = torch.where(torch.from_numpy(test), fitted, predicted)
    tested = torch.from_numpy(split.test.any(0))
    predicted, target = predicted[..., tested], target[tested]
    variation = (target - target.mean()).square().sum()
    return (1 - (predicted - target).square().sum(-1) / variation).numpy()


def fit_probe(activations: Float[np.ndarray, "example d"], labels: np.ndarray) -> "Pipeline":
    """A fitted multinomial logistic regression on standardised activations, as a pipeline.

    It has `predict`, `score` and, as `probe[-1].coef_`, its directions. It needs two classes.

    >>> rng = np.random.default_rng(0)
    >>> carry = rng.random(100) < 0.5
    >>> probe = fit_probe(np.outer(carry, np.ones(4)) + rng.normal(0, 0.1, (100, 4)), carry)
    >>> probe.predict(np.array([[0.0] * 4, [1.0] * 4]))
    array([False,  True])
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(labels)) < 2:
        raise TbttError(f"a probe needs two classes, every label is {np.asarray(labels)[0]}")
    model = LogisticRegression(C=1 / PENALTY, max_iter=1_000)
    return make_pipeline(StandardScaler(), model).fit(activations, labels)

"""Linear probes: one that is fitted and kept, and closed forms for many labels at once.

The closed forms, of standardised activations, are linear discriminant analysis for classes and
ridge regression for numbers. (Ridge regression on one-hot classes would be cheaper still, but of
many classes in a row it never says the middle ones.)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tbtt_interp.errors import TbttError
from tbtt_interp.stats import Rate

PENALTY = 1.0  # of the squared weights, for standardised activations
SHRINKAGE = 0.1  # of the covariance within classes, towards a multiple of the identity
AT_ONCE = 2**23  # numbers in the covariances that are solved together
FOLDS = 5
GROWING = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)  # of the groups, learned before each part is sent
TRUST = (0.0, 0.1, 0.3, 1.0)  # factors of log-likelihoods in the online code


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which examples a fold learns from, and which it is asked.

    Attributes:
        train, test: a row a fold; no example is asked by two folds.
    """

    train: Bool[np.ndarray, "fold example"]
    test: Bool[np.ndarray, "fold example"]

    def only(self, chosen: Bool[np.ndarray, " example"]) -> "Split":
        """The same split of a part of the examples."""
        return Split(train=self.train[:, chosen], test=self.test[:, chosen])

    @property
    def asked(self) -> Bool[np.ndarray, " example"]:
        """The examples that some fold is asked."""
        return np.asarray(self.test.any(0))


def grouped_folds(
    groups: Int[np.ndarray, " example"], *, folds: int = FOLDS, seed: int = 0
) -> Split:
    """Cross-validation in which a group is all learned from or all asked.

    Raises:
        TbttError: if there are fewer groups than folds.
    """
    names = np.unique(groups)
    if len(names) < folds:
        raise TbttError(
            f"{folds} folds need as many groups, there are {len(names)}: give more examples"
        )
    order = np.random.default_rng(seed).permutation(len(names)) % folds
    fold = order[np.searchsorted(names, groups)]
    test = fold == np.arange(folds)[:, None]
    return Split(train=~test, test=test)


def growing_folds(groups: Int[np.ndarray, " example"], *, seed: int = 0) -> Split:
    """Folds that each learn what all before them were asked, of a sixteenth, an eighth, and so on.

    A group is never in two of them, and the first is asked by none.
    """
    names = np.unique(groups)
    if len(names) < 2:
        raise TbttError("a code needs two groups of examples, there is one: give more examples")
    rank = np.random.default_rng(seed).permutation(len(names))[np.searchsorted(names, groups)]
    ends = np.unique([math.ceil(share * len(names)) for share in GROWING])[:, None]
    return Split(train=rank < ends[:-1], test=(ends[:-1] <= rank) & (rank < ends[1:]))


def unseen_classes(split: Split, labels: Int[np.ndarray, " example"]) -> int:
    """How many examples are asked whose class their fold has not learned, and so cannot answer."""
    return sum(
        int((~np.isin(labels[test], labels[train])).sum())
        for train, test in zip(split.train, split.test, strict=True)
    )


def degenerate_folds(split: Split, labels: Int[np.ndarray, " example"]) -> int:
    """How many folds learn or are asked one class only, and so tell nothing apart."""
    return sum(
        min(len(np.unique(labels[side])) for side in (train, test)) < 2
        for train, test in zip(split.train, split.test, strict=True)
    )


def project(
    activations: Float[Tensor, "seed example d"], dimensions: int, *, seed: int = 0
) -> Float[Tensor, "seed example k"]:
    """A random projection of each seed's activations, for sizes to be compared in equal dimensions.

    Onto orthonormal directions, drawn anew for each seed. What has no more dimensions stays.
    """
    width = activations.shape[2]
    if width <= dimensions:
        return activations
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(len(activations), width, dimensions, generator=generator)
    return activations @ torch.linalg.qr(drawn).Q.to(activations.dtype)


def _standardised(
    activations: Float[Tensor, "seed example d"], train: Bool[np.ndarray, " example"]
) -> Float[Tensor, "seed example d"]:
    """By mean and deviation of what is learned from; what is constant there becomes 0."""
    x = activations.double()
    learned = x[:, torch.from_numpy(train)]
    mean, deviation = learned.mean(1, keepdim=True), learned.std(1, correction=0, keepdim=True)
    # rounding is no variance
    varies = deviation > 1e-6 * learned.abs().amax(1, keepdim=True)
    return (x - mean) / torch.where(varies, deviation, torch.inf)


def count_right(
    activations: Float[Tensor, "seed example d"],
    labels: Int[np.ndarray, "row draw example"],
    split: Split,
    *,
    shrinkage: float = SHRINKAGE,
) -> Int[Tensor, "seed draw"]:
    """Of how many asked examples linear discriminant analysis says the class, for each labelling.

    A class that a fold has not learned is never said. Equal to scikit-learn's
    `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=…)` after `StandardScaler`.

    Args:
        labels: a row a seed, or one for all of them.
    Source: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning (2009), 4.3.
    """
    right = torch.zeros(len(activations), labels.shape[1], dtype=torch.long)
    for part, scores, counts, asked in _discriminated(activations, labels, split, shrinkage):
        said = (scores + counts.log()[:, :, None]).argmax(-1)
        right[:, part] += (said == asked).sum(-1)
    return right


def class_probabilities(
    known: Float[Tensor, "example d"],
    labels: Int[np.ndarray, " example"],
    asked: Float[Tensor, "other d"],
    *,
    shrinkage: float = SHRINKAGE,
) -> Float[Tensor, "other class"]:
    """How likely each class is, by the discriminant analysis of `count_right`.

    >>> known = torch.tensor([[0.0], [0.1], [1.0], [1.1]])
    >>> found = class_probabilities(known, np.array([0, 0, 1, 1]), torch.tensor([[0.0], [0.9]]))
    >>> found.argmax(-1)
    tensor([0, 1])
    """
    train = np.arange(len(known) + len(asked)) < len(known)
    padded = np.concatenate([labels, np.zeros(len(asked), int)])  # of whom it is not known
    split = Split(train=train[None], test=~train[None])
    found = _discriminated(torch.cat([known, asked])[None], padded[None, None], split, shrinkage)
    ((_, scores, counts, _),) = found
    return (scores + counts.log()[:, :, None]).softmax(-1)[0, 0]


def code_length(
    activations: Float[Tensor, "seed example d"],
    labels: Int[np.ndarray, "row draw example"],
    growing: Split,
    *,
    shrinkage: float = SHRINKAGE,
) -> Float[Tensor, "seed draw"]:
    """Bits to send the labels to one who has the activations: minimum description length.

    The online code: what no fold asks is sent at the uniform code's length, and each next part by
    the discriminant analysis of all before it. How far to trust that is part of the code: each part
    is sent by the mean of a few codes: the uniform one, the classes' frequencies, and these with
    more and more of the likelihoods. So no code is much longer than the uniform one.

    Args:
        growing: folds of `growing_folds`, each learning what those before it were asked.
    Source: Voita and Titov 2020, section 2.2.
    """
    classes = int(labels.max()) + 1
    first = labels.shape[2] - int(growing.asked.sum())
    bits = torch.full((len(activations), labels.shape[1]), first * math.log2(classes)).double()
    for part, scores, counts, asked in _discriminated(activations, labels, growing, shrinkage):
        frequencies = (counts + 0.5).log()[:, :, None]
        said = [(trust * scores + frequencies).log_softmax(-1) for trust in TRUST]
        said.append(torch.full_like(scores, -math.log(classes)))
        nats = torch.stack([each.gather(-1, asked[..., None]).sum((-1, -2)) for each in said])
        bits[:, part] -= (nats.logsumexp(0) - math.log(len(said))) / math.log(2)
    return bits


def _discriminated(
    activations: Float[Tensor, "seed example d"],
    labels: Int[np.ndarray, "row draw example"],
    split: Split,
    shrinkage: float,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Per fold and part of the labellings: which these are, what is asked of them, and the answers.

    That is, log-likelihoods, `[seed, part, asked, class]`; how many of each class were learned,
    `[seed, part, class]`; and the true classes, `[seed, part, asked]`.
    """
    classes = int(labels.max()) + 1
    drawn = torch.from_numpy(labels).expand(len(activations), -1, -1)
    for train, test in zip(split.train, split.test, strict=True):
        if not train.any():
            raise TbttError("a fold has nothing to learn from: give more examples, or fewer folds")
        x = _standardised(activations, train)
        width = x.shape[2]
        x = x[:, :, (x != 0).any(1).any(0)]  # what is constant says nothing
        known, asked = x[:, torch.from_numpy(train)], x[:, torch.from_numpy(test)]
        # beyond what the examples span, every class has the same
        if known.shape[2] > known.shape[1]:
            basis = torch.linalg.svd(known, full_matrices=False).Vh.mT
            known, asked = known @ basis, asked @ basis
        each = max(1, AT_ONCE // (len(x) * known.shape[2] ** 2 + 1))
        for part in torch.arange(labels.shape[1]).split(each):
            learned, sought = (drawn[:, part][..., torch.from_numpy(m)] for m in (train, test))
            yield part, *_discriminant(known, asked, learned, classes, width, shrinkage), sought


def _discriminant(
    known: Float[Tensor, "seed learned d"],
    asked: Float[Tensor, "seed asked d"],
    labels: Int[Tensor, "seed draw learned"],
    classes: int,
    width: int,
    shrinkage: float,
) -> tuple[Float[Tensor, "seed draw asked class"], Float[Tensor, "seed draw class"]]:
    """Log-likelihoods if each class is normal with one covariance, and the sizes of the classes."""
    one_hot = torch.nn.functional.one_hot(labels, classes).double()
    counts = one_hot.sum(2)
    sums = torch.einsum("smnk,snd->smkd", one_hot, known)
    means = sums / counts.clamp(min=1)[..., None]
    between = means.mT @ sums
    within = ((known.mT @ known)[:, None] - between) / known.shape[1]
    spread = within.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] / width
    unit = torch.eye(known.shape[2], dtype=torch.double)
    within = (1 - shrinkage) * within + (shrinkage * spread + 1e-9) * unit
    slopes = torch.cholesky_solve(means.mT, torch.linalg.cholesky(within))
    offsets = -0.5 * (means.mT * slopes).sum(-2)
    return asked[:, None] @ slopes + offsets[:, :, None], counts


def explained(
    activations: Float[Tensor, "seed example d"],
    values: Float[np.ndarray, "row example"],
    split: Split,
    *,
    penalty: float = PENALTY,
) -> Float[Tensor, " seed"]:
    """R² of ridge regression on a number: 1 is perfect, 0 or less is no better than the mean.

    Args:
        values: a row a seed, or one for all of them.
    """
    target = torch.from_numpy(values).double().expand(len(activations), -1)
    said = torch.zeros_like(target)
    unit = penalty * torch.eye(activations.shape[2], dtype=torch.double)
    for train, test in zip(split.train, split.test, strict=True):
        x, learned = _standardised(activations, train), torch.from_numpy(train)
        known, mean = x[:, learned], target[:, learned].mean(1, keepdim=True)
        away = (target[:, learned] - mean)[..., None]
        slope = torch.linalg.solve(known.mT @ known + unit, known.mT @ away)
        said = torch.where(torch.from_numpy(test), (x @ slope).squeeze(-1) + mean, said)
    asked = torch.from_numpy(split.asked)
    said, target = said[:, asked], target[:, asked]
    about = target - target.mean(1, keepdim=True)
    return 1 - (said - target).square().sum(1) / about.square().sum(1)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A fitted linear probe.

    Attributes:
        mean, scale: by which activations are standardised before.
        weights, bias: of each class, in standardised activations.
        classes: the labels by number.
    """

    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    weights: Float[np.ndarray, "class d"]
    bias: Float[np.ndarray, " class"]
    classes: np.ndarray

    def predict(self, activations: Float[np.ndarray, "example d"]) -> np.ndarray:
        """The likeliest label of each."""
        scores = (activations - self.mean) / self.scale @ self.weights.T + self.bias
        return np.asarray(self.classes)[scores.argmax(1)]

    def score(self, activations: Float[np.ndarray, "example d"], labels: np.ndarray) -> Rate:
        """How many labels it gets right."""
        right = np.equal(self.predict(activations), labels)
        return Rate(hits=int(np.sum(right)), total=len(labels))


def fit_probe(
    activations: Float[np.ndarray, "example d"], labels: np.ndarray, *, penalty: float = PENALTY
) -> Probe:
    """Multinomial logistic regression by scikit-learn, on standardised activations.

    Raises:
        TbttError: if there is only one class.

    >>> rng = np.random.default_rng(0)
    >>> carry = rng.random(100) < 0.5
    >>> probe = fit_probe(np.outer(carry, np.ones(4)) + rng.normal(0, 0.1, (100, 4)), carry)
    >>> probe.score(np.array([[0.0] * 4, [1.0] * 4]), np.array([False, True]))
    2/2
    """
    from sklearn.linear_model import LogisticRegression

    labels = np.asarray(labels)
    if len(np.unique(labels)) < 2:
        raise TbttError(f"a probe needs two classes, every label is {labels[0]}")
    mean, scale = activations.mean(0), activations.std(0)
    scale = np.where(scale > 1e-6 * np.abs(activations).max(0), scale, np.inf)
    model = LogisticRegression(C=1 / penalty, max_iter=1_000)
    model.fit((activations - mean) / scale, labels)
    weights, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(weights) == 1:  # scikit-learn keeps the second class's alone
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return Probe(mean=mean, scale=scale, weights=weights, bias=bias, classes=model.classes_)

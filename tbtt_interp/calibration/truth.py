"""What is so in planted models.

Other code of this folder decides which models are drawn; a new field here changes none of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MID, POST = "resid_mid", "resid_post"
PRE_0, MID_0, POST_0, MID_1 = "0.resid_pre", "0.resid_mid", "0.resid_post", "1.resid_mid"
UNKNOWN = math.nan  # the size of an effect that is there, and whose size has no closed form


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is so in planted models; what is not named here is not known, and not scored.

    Attributes:
        carries: for each operand, layer, head and position, the share of the answer's logit
            difference that this head's z carries; heads not named carry 0 of a named operand.
        decoded: by feature and stream of the last layer, the accuracy of the best linear probe
            where it reads more than its nulls; 0 where it does not.
        used: likewise, whether the answer depends on the feature's linear code.
        used_nonlinearly: features that the answer depends on, and not by their linear code.
        written: shares of the logit difference written by attention to b, and by the MLP.
        number_line: the share of a's variance after attention that is a line.
        additive: by stream or "logits", the share of the variance over the grid that is
            f(a) + g(b); 0 is a table drawn at random.
        answered: the share of answers that are known.
        order: the share of lines whose next line's first operand is known.
        preceding: the share of answers that are known after their prompt's own preceding line, and
            not after another; 0 where the line before makes no difference.
        lens: by layer and stream, the share of answers that the unembedding reads there; 0 where
            it reads no more of them than from another example.
        rule: of the loss that erasing the last layer's middle stream adds, the share that the
            operands' main directions save ("restricted") and cost ("excluded").
        attends: by kind of head, layer and head, its mean attention on the keys of that kind; 0
            where that is what uniform attention has.
        latent: by measure of `latent_answers` and stream of the last layer, the share of wrong
            held-out answers.
    """

    carries: Mapping[tuple[str, int, int, int], float] = field(default_factory=dict)
    decoded: Mapping[tuple[str, str], float] = field(default_factory=dict)
    used: Mapping[tuple[str, str], float] = field(default_factory=dict)
    used_nonlinearly: Sequence[tuple[str, str]] = ()
    written: Mapping[str, float] = field(default_factory=dict)
    number_line: float | None = None
    additive: Mapping[str, float] = field(default_factory=dict)
    answered: float | None = None
    order: float | None = None
    preceding: float | None = None
    lens: Mapping[str, float] = field(default_factory=dict)
    rule: Mapping[str, float] = field(default_factory=dict)
    attends: Mapping[tuple[str, int, int], float] = field(default_factory=dict)
    latent: Mapping[tuple[str, str], float] = field(default_factory=dict)

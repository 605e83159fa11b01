"""Interventions on training: what a recipe changes beside data, size and schedule.

All but permuted answers leave the gradient alone. They scale initial weights or learning rates,
limit weight decay or norms, map rows of the embedding after each AdamW step, or move parts between
models. Most have a strength, or a control that changes as much without the supposed cause.
"""

import math
from dataclasses import dataclass, fields

from tbtt_interp.bounds import SIZES, STEPS, check_whole
from tbtt_interp.errors import TbttError, unknown

OF_DIGITS = ("digits", "rank", "axes", "rows", "scale", "order", "graft", "smooth")
CODES = ("free", "rank", "line", "arc", "orthogonal", "graft")


@dataclass(frozen=True, kw_only=True)
class Changes:
    """A recipe's table `[changes]`; the defaults change nothing."""

    rate_embed: float = 1.0  # factors of the learning rate: W_E and W_pos
    rate_attention: float = 1.0  # attention's matrices
    rate_mlp: float = 1.0  # the MLP's matrices
    decay_from: int = 0  # weight decay acts from this step
    decay_until: int = 0  # and stops before this one; 0 never stops
    initial_scale: float = 1.0  # factor of the initial matrices
    norm: str = "free"  # or "clamp at fit": a model's norm stays at most what it was at its fit
    rate: str = "scheduled"  # or "lowest at fit": the lowest learning rate from a model's fit on
    digits: str = "free"  # code of the digits' rows of W_E
    rank: int = 2  # dimensions to which code "rank" confines rows
    axes: str = "first"  # of these: the first channels, or a "random" subspace per seed
    rows: str = "digits"  # that code "rank" confines: digits, others or all
    scale: float = 1.5  # of the codes line, arc and orthogonal
    order: str = "true"  # of the digits in line, arc, graft and smooth; "random" per seed is a sham
    graft: str = ""  # RUN@STEP whose digits' rows are copied, by a random rotation per seed
    frozen: bool = True  # whether grafted rows are kept, or are a start alone
    smooth: float = 0.0  # decay of the digits' second differences, as weight decay
    transplant: str = ""  # part of another run's models that a forked run starts with
    donor: str = ""  # RUN@STEP of the transplant
    answers: str = "true"  # or "permuted" among the prompts, per seed

    def __post_init__(self) -> None:
        choices = {
            "norm": ("free", "clamp at fit"), "rate": ("scheduled", "lowest at fit"),
            "digits": CODES, "axes": ("first", "random"), "rows": ("digits", "others", "all"),
            "order": ("true", "random"), "transplant": ("", "digits", "attention", "mlp"),
            "answers": ("true", "permuted"),
        }  # fmt: skip
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in allowed:
                raise unknown(f"changes.{name}", value, [choice for choice in allowed if choice])
        for name in ("rate_embed", "rate_attention", "rate_mlp", "initial_scale", "scale"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise TbttError(f"changes.{name} must be above 0, got {value}")
        if not 0 <= self.smooth < math.inf:
            raise TbttError(f"changes.smooth must be 0 or more, got {self.smooth}")
        check_whole("changes.rank", self.rank, 1, SIZES["d_model"])
        for name in ("decay_from", "decay_until"):
            check_whole(f"changes.{name}", getattr(self, name), 0, STEPS)
        if self.decay_until and self.decay_until <= self.decay_from:
            what = f"changes.decay_until is {self.decay_until}, decay_from {self.decay_from}"
            raise TbttError(f"{what}: give a later decay_until, or 0 for the end")
        self._check_pairs()

    def _check_pairs(self) -> None:
        """Refuses keys that would have no effect."""
        code, given = self.digits, self.table()
        needs = {
            "changes.digits 'rank'": ("rank axes rows", code == "rank"),
            "digits on a line, on an arc or orthogonal":
                ("scale", code in ("line", "arc", "orthogonal")),
            "digits on a line, an arc or grafted, or changes.smooth":
                ("order", code in ("line", "arc", "graft") or self.smooth > 0),
            "changes.digits 'graft'": ("graft frozen", code == "graft"),
            "changes.transplant": ("donor", bool(self.transplant)),
        }  # fmt: skip
        for what, (names, is_met) in needs.items():
            if not is_met and (unused := [name for name in names.split() if name in given]):
                raise TbttError(f"changes.{unused[0]} is for {what}: set that too, or leave it out")
        if code == "graft" and not self.graft:
            raise TbttError("give changes.graft = 'RUN@STEP', the run and step of the digits")
        if self.transplant and not self.donor:
            raise TbttError("give changes.donor = 'RUN@STEP', the run and step of the transplant")
        if self.smooth and self.digits not in ("free", "rank"):
            raise TbttError("changes.smooth has no effect on frozen or grafted digits: drop it")

    @property
    def needs_fit(self) -> bool:
        """Whether something happens when a model has fitted."""
        return self.norm != "free" or self.rate != "scheduled"

    def table(self) -> dict[str, bool | int | float | str]:
        """What differs from the defaults."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) != f.default}

"""The acceptance rules, as pure functions. Randomness is an argument.

p: the target's distribution at each drafted position and the one after, [k + 1, vocab]
q: the distributions that the drafted tokens were drawn from, [k, vocab]
accepted: drafted tokens that stand; correction: the target's token where the draft fell;
bonus: the target's token after a draft that stood as a whole
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """accepted: how many drafted tokens stand; tokens: those and the correction or bonus after them. stuck:
    the target has no token there, so `tokens` are the accepted ones alone. path: of a tree, the numbers of
    those that stand; empty for a chain, of which the first do."""

    accepted: int
    tokens: tuple[int, ...]
    stuck: bool = False
    path: tuple[int, ...] = ()

    @property
    def straight(self) -> int:
        """How many of those that stand are the first tokens of the draft."""
        if not self.path:
            return self.accepted
        return next((n for n, at in enumerate(self.path) if at != n), self.accepted)


def coupled(target: Sequence[int], draft: Sequence[int], parents: Sequence[int] = ()) -> Verdict:
    """Keep the longest path of `draft` [k] that agrees with the target's own tokens, up to k + 1.

    `target[0]` must be what plain decoding would choose next, and `target[i + 1]` what it would choose after
    the path to `draft[i]`; it uses the same noise there, so the result is token for token the plain one,
    whatever the draft is. It is negative where plain decoding would find none; where it ends early, the
    target is not asked there. parents: of a tree, see `outrider.drafting.base.Draft`."""
    at, path, tokens = -1, list[int](), list[int]()
    while at + 1 < len(target) and (token := target[at + 1]) >= 0:
        tokens.append(token)
        if parents:
            at = _child(at, token, draft, parents)
        elif at + 1 < len(draft) and draft[at + 1] == token:
            at += 1
        else:
            at = -1
        if at < 0:
            return Verdict(len(path), tuple(tokens), path=tuple(path) if parents else ())
        path.append(at)
    return Verdict(len(path), tuple(tokens), stuck=True, path=tuple(path) if parents else ())


def _child(at: int, token: int, draft: Sequence[int], parents: Sequence[int]) -> int:
    """The number of the drafted token that follows this one and is `token`; -1 if there is none."""
    of_parent = zip(parents, draft, strict=True)
    return next((n for n, (parent, found) in enumerate(of_parent) if parent == at and found == token), -1)


def standard(
    p: Shares, q: Shares, draft: Sequence[int], uniforms: Shares, gumbel: NDArray[np.float32]
) -> Verdict:
    """Speculative sampling (Leviathan et al., 2023, algorithm 1; Chen et al., 2023).

    Token i stands with probability min(1, p_i / q_i); the first that falls is replaced by a sample of
    the residual max(p - q, 0). uniforms: [k] in [0, 1); gumbel: [k + 1, vocab], independent of both the
    uniforms and the draft. Every returned token is distributed as the target's.
    """
    for i, token in enumerate(draft):
        if uniforms[i] * q[i, token] >= p[i, token]:
            return Verdict(i, (*draft[:i], _draw(_residual(p[i], q[i]), gumbel[i])))
    return Verdict(len(draft), (*draft, _draw(p[len(draft)], gumbel[len(draft)])))


def block(
    p: Shares, q: Shares, draft: Sequence[int], uniforms: Shares, gumbel: NDArray[np.float32]
) -> Verdict:
    """Block verification (Sun et al., 2025, ICLR, algorithm 2): the draft is judged as a whole.

    Arguments and distribution of the result as for `standard`; in expectation it never accepts fewer.
    `weight` is the paper's p_i: the chance, capped at 1 on the way, that the target wrote the prefix over
    the chance that the draft did.
    """
    k = len(draft)
    weights = [1.0]
    for i, token in enumerate(draft):
        weights.append(min(1.0, weights[-1] * float(p[i, token] / q[i, token])))

    accepted = 0
    for i in range(1, k + 1):
        if i == k:
            keep = weights[k]
        else:
            surplus = float((weights[i] * p[i] - q[i]).clip(min=0).sum())
            total = surplus + 1.0 - weights[i]
            keep = surplus / total if total > 0 else 0.0
        if float(uniforms[i - 1]) < keep:
            accepted = i

    rest = p[k] if accepted == k else _residual(weights[accepted] * p[accepted], q[accepted])
    return Verdict(accepted, (*draft[:accepted], _draw(rest, gumbel[accepted])))


def _residual(p: Shares, q: Shares) -> Shares:
    """max(p - q, 0), unnormalised; p itself where rounding left nothing of it."""
    rest = (p - q).clip(min=0)
    return rest if rest.any() else p


def _draw(weights: Shares, gumbel: NDArray[np.float32]) -> int:
    """A sample of the distribution proportional to `weights` [vocab], by the Gumbel-max trick."""
    with np.errstate(divide="ignore"):
        return int(np.argmax(np.log(weights) + gumbel))

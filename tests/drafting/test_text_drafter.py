"""The seam between two vocabularies, with a draft model that knows the whole text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from outrider.cache.pool import BlockPool
from outrider.cache.table import BlockTable
from outrider.drafting import text, text_drafter
from outrider.drafting.text import Transcript, Translation
from outrider.drafting.text_drafter import TextDrafter
from outrider.models.runner import DraftRunner
from outrider.ops.budget import Budget, Meter, Price
from outrider.ops.lane import Grown, Lane
from outrider.ops.span import Span
from outrider.params import SamplingParams
from outrider.verification.accept import coupled
from outrider.verification.rules import RULES
from tests.drafting.test_text import of_kind, translation
from tests.tokenizers_of_kinds import TEXTS

TEXT = " ".join(TEXTS) * 2
PAIRS = (
    ("gpt", "qwen"),
    ("qwen", "gpt"),
    ("gpt", "bytes"),
    ("bytes", "gpt"),
    ("llama, prepend", "qwen"),
    ("qwen", "llama, first"),
    ("neox", "mistral"),
)
Rounds = list[list[tuple[int, int, int]]]
"""Of each request: how many tokens were drafted, how many stood, and how many are of whole words."""
FREE = Price(row=-1.0, token=-1.0, least=0, sure=(1.0,))


class Told:
    """What drafting reads of a request whose target will say a text."""

    def __init__(self, whole: list[int], prompt: int) -> None:
        self.whole = whole
        self.tokens = whole[:prompt]
        self.params = SamplingParams()
        self.sampler = SimpleNamespace(edits=())


@dataclass
class Knowing:
    """A draft model that drafts how a text goes on, and has a cache: a token at each place of each block.

    It fails where what lies in the cache is not the text that it is asked about. sure: of each token.
    """

    translation: Translation
    texts: Sequence[str]
    window: int | None = None
    prefix_caching: bool = True
    sure: float = 0.5
    blocks: dict[tuple[int, int], int] = field(default_factory=dict)
    rows: int = 0
    most: int = 10**6

    def __post_init__(self) -> None:
        self.pool = BlockPool(400, 0, self.window)
        self.model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=self.most))

    def table(self, salt: str | None) -> BlockTable:
        assert salt is None
        return BlockTable([self.pool], 4, prefix_caching=self.prefix_caching)

    def learn(self, tokens: Sequence[int]) -> None:
        """It has all words."""

    def readable(self, tokens: Sequence[int]) -> Sequence[int]:
        return tokens

    def close(self) -> None:
        self.blocks.clear()

    def draft(self, lanes: Sequence[Lane | Span]) -> list[Grown]:
        return [
            grown
            for lane in lanes
            for grown in [self._read(lane.span, lane) if isinstance(lane, Lane) else self._read(lane, None)]
            if grown is not None
        ]

    def _read(self, span: Span, lane: Lane | None) -> Grown | None:
        for place, token in enumerate(span.tokens, span.start):
            self._write(span, place, token)
        self.rows += len(span.tokens)
        if lane is None:
            return None
        end = span.start + len(span.tokens)
        first = 0 if self.window is None else max(0, end - self.window)
        seen = [self.blocks[span.tables[0][place // 4], place % 4] for place in range(first, end)]
        meter, on = Meter(lane.budget), list[int]()
        for token in self._goes_on(seen, whole=first == 0):
            if not meter.takes(self.sure):
                break
            on.append(token)
            if not meter.goes_on():
                break
        for place, token in enumerate(on[:-1], end):
            self._write(span, place, token)
        return Grown(tuple(on), confidences=(self.sure,) * len(on) if lane.budget.price else ())

    def _write(self, span: Span, place: int, token: int) -> None:
        assert span.tables[0][place // 4] >= 0, "the block was given back"
        self.blocks[span.tables[0][place // 4], place % 4] = token

    def _goes_on(self, seen: Sequence[int], *, whole: bool) -> list[int]:
        """The tokens after those that are seen, which are all or the last ones."""
        draft = self.translation.draft
        said = b"".join(map(draft.bytes_of, seen[1:] if whole and draft.begins is not None else seen))
        if whole and draft.opens(first=True):
            said = said.removeprefix(b" ")
        for each in map(str.encode, self.texts):
            at = len(said) if whole and each.startswith(said) else -1
            if not whole and said in each:
                at = each.index(said) + len(said)
            if at >= 0:
                return [token for token, _ in draft.pieces(each[at:])]
        raise AssertionError(f"{said!r} is in the cache, and no text goes so")


def drafter_of(model: Knowing, max_rows: int = 64) -> TextDrafter:
    make = cast("Callable[[], DraftRunner]", lambda: model)
    return TextDrafter(make, RULES["coupled"], model.translation, max_rows=max_rows)


def said(target: str, texts: Sequence[str], prompt: int) -> list[Any]:
    """Requests whose target will say these texts; the last characters are never asked for."""
    return [Told(of_kind(target).tokenizer.encode(each), prompt) for each in texts]


def run(drafter: TextDrafter, requests: Sequence[Any], length: int, price: Price | None = None) -> Rounds:
    """Rounds until all have nearly said their texts."""
    rounds: Rounds = [[] for _ in requests]
    while active := [r for r in requests if len(r.tokens) + 3 * length + 8 < len(r.whole)]:
        drafts = drafter.draft(active, [Budget(length, price)] * len(active))
        verdicts = [
            coupled(r.whole[len(r.tokens) :][: len(draft.tokens) + 1], draft.tokens)
            for r, draft in zip(active, drafts, strict=True)
        ]
        drafter.observe(active, verdicts)
        for request, draft, verdict in zip(active, drafts, verdicts, strict=True):
            assert not draft.confidences or len(draft.confidences) == len(draft.tokens)
            rounds[requests.index(request)].append(
                (len(draft.tokens), verdict.accepted, whole_words(drafter, draft.tokens))
            )
            request.tokens += verdict.tokens
            assert not draft.tokens or drafter.behind(request) < len(verdict.tokens)
    return rounds


def whole_words(drafter: TextDrafter, tokens: Sequence[int]) -> int:
    """The tokens before the last word, which may not be whole. A run of spaces is no word."""
    said = [drafter._translation.target.bytes_of(token) for token in tokens]
    begin = [
        n for n in range(1, len(said)) if said[n][:1] == b" " and said[n].strip() and said[n - 1].strip()
    ]
    return max(begin, default=0)


def acceptance(rounds: Rounds) -> tuple[float, float]:
    """Tokens that stood of those that were drafted, and drafted ones a round. All whole words stood."""
    all_of_them = [each for one in rounds for each in one]
    assert [each for each in all_of_them if each[1] < each[2]] == []
    drafted = sum(each for each, _, _ in all_of_them)
    return sum(stood for _, stood, _ in all_of_them) / max(1, drafted), drafted / len(all_of_them)


@pytest.mark.parametrize(("target", "draft"), PAIRS)
@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_draft_model_that_knows_the_text_is_always_right(target: str, draft: str, length: int) -> None:
    """In whole words, and in all that it says if its tokens are the longer ones."""
    model = Knowing(translation(target, draft), [TEXT])
    share, drafted = acceptance(run(drafter_of(model), said(target, [TEXT], 5), length))
    assert share >= {("bytes", "gpt"): 1.0, ("qwen", "gpt"): 0.98}.get((target, draft), 0.35)
    assert drafted >= length - 0.1


def test_what_it_computes() -> None:
    """Each token is computed about once, and not the text again each time."""
    model = Knowing(translation("gpt", "qwen"), [TEXT])
    (request,) = said("gpt", [TEXT], 5)
    run(drafter_of(model), [request], 4)
    length = len(of_kind("qwen").tokenizer.encode(TEXT))
    assert model.rows <= length


@pytest.mark.parametrize(("target", "draft"), PAIRS)
@pytest.mark.parametrize("window", [None, 8])
def test_several_requests(target: str, draft: str, window: int | None) -> None:
    """With beginnings in common, which they share in the cache, and windows behind which it is given back."""
    texts = [
        TEXT,
        TEXT[: len(TEXT) // 2] + "and others",
        TEXT[40:],
        TEXT[:90].replace("quick", "slow") + TEXT,
    ]
    model = Knowing(translation(target, draft), texts, window=window)
    drafter = drafter_of(model, max_rows=24)
    requests = said(target, texts, 30)
    share, _ = acceptance(run(drafter, requests, 3))
    assert share >= 0.5
    for request in requests:
        drafter.end(request)
    assert model.pool.num_free == model.pool.num_blocks


def test_prompts_that_are_shared_are_not_computed_again() -> None:
    model = Knowing(translation("gpt", "qwen"), [TEXT])
    drafter = drafter_of(model, max_rows=200)
    for number in range(2):
        (request,) = said("gpt", [TEXT], 60)
        before = model.rows
        for _ in range(2):  # what is settled can be shared once it is looked at again
            (draft,) = drafter.draft([request], [Budget(3)])
            assert draft.tokens
        assert (model.rows - before < 20) == (number == 1)
        drafter.end(request)


def test_a_request_that_was_forgotten_begins_anew() -> None:
    model = Knowing(translation("llama, prepend", "gpt"), [TEXT], prefix_caching=False)
    drafter = drafter_of(model)
    (request,) = said("llama, prepend", [TEXT], 20)
    (before,) = drafter.draft([request], [Budget(3)])
    assert drafter.behind(request) == 0
    drafter.end(request)
    assert drafter.behind(request) == len(request.tokens) - 1
    assert drafter.draft([request], [Budget(3)]) == [before]
    drafter.rest()
    assert drafter.behind(request) == len(request.tokens) - 1
    assert drafter.draft([request], [Budget(3)]) == [before]


def test_a_long_prompt_is_read_in_several_steps() -> None:
    model = Knowing(translation("gpt", "qwen"), [TEXT])
    drafter = drafter_of(model, max_rows=10)
    (request,) = said("gpt", [TEXT], 40)
    behind, empty = [], 0
    while not (draft := drafter.draft([request], [Budget(2)])[0]).tokens:
        behind.append(drafter.behind(request))
        empty += 1
    assert empty >= 2
    assert behind == sorted(behind, reverse=True)
    assert behind[0] > behind[-1]
    assert list(draft.tokens) == request.whole[40:42]


def test_a_text_at_the_end_of_the_draft_models_context() -> None:
    model = Knowing(translation("gpt", "bytes"), [TEXT], most=30)
    drafter = drafter_of(model)
    (request,) = said("gpt", [TEXT], 4)
    drafts = []
    for _ in range(12):
        (draft,) = drafter.draft([request], [Budget(2)])
        drafts.append(draft.tokens)
        request.tokens.append(request.whole[len(request.tokens)])
    assert drafts[0]
    assert not drafts[-1]


def test_how_sure_it_is_of_a_token_of_the_target() -> None:
    """As sure as of all tokens that it drafted for it."""
    model = Knowing(translation("gpt", "bytes"), [TEXT], sure=0.5)
    (request,) = said("gpt", [TEXT], 6)
    (draft,) = drafter_of(model).draft([request], [Budget(4, FREE)])
    lengths = [len(of_kind("gpt").tokenizer.decode(token)) for token in draft.tokens]
    assert draft.confidences == pytest.approx([0.5**length for length in lengths])
    assert draft.probs is None


def test_it_stops_where_another_token_does_not_pay() -> None:
    model = Knowing(translation("gpt", "qwen"), [TEXT], sure=0.5)
    (request,) = said("gpt", [TEXT], 6)
    drafter = drafter_of(model)
    dear = Price(row=-1.0, token=0.3, least=0, sure=(0.5,), reached=(0.5,))
    (draft,) = drafter.draft([request], [Budget(8, dear)])
    # With 0.5 a token the second is reached with 0.25, which is less than it costs.
    assert len(draft.tokens) <= 2


# Planted faults


def test_a_cache_that_is_kept_one_token_too_far_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = text_drafter._agreeing
    monkeypatch.setattr(text_drafter, "_agreeing", lambda ours, theirs: sound(ours, theirs) + 1)
    with pytest.raises(AssertionError, match="is in the cache, and no text goes so"):
        run(drafter_of(Knowing(translation("gpt", "qwen"), [TEXT])), said("gpt", [TEXT], 5), 3)


def test_a_draft_that_begins_a_byte_too_late_never_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = Translation._behind
    monkeypatch.setattr(Translation, "_behind", lambda self, seam, text: sound(self, seam, text[1:]))
    rounds = run(drafter_of(Knowing(translation("gpt", "qwen"), [TEXT])), said("gpt", [TEXT], 5), 3)
    assert sum(stood for _, stood, _ in rounds[0]) < 0.02 * sum(count for count, _, _ in rounds[0])


def test_a_text_that_is_never_spelt_anew_drafts_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is read counts as settled: the draft model reads pieces that it would not have written."""
    monkeypatch.setattr(text, "_beginning", lambda said, pieces: (len(pieces), len(said)))
    transcript = Transcript(translation("bytes", "gpt"))
    for token in of_kind("bytes").tokenizer.encode("the other thing"):
        transcript.add([token])
    assert transcript.tokens != of_kind("gpt").tokenizer.encode("the other thing")

"""Text of tokens one by one, where a token's text depends on its place: spaces in front, and bytes."""

from __future__ import annotations

from itertools import chain

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE, WordPiece

from outrider.engine.detokenizer import Detokenizer
from outrider.models.tokenizer import Tokenizer

SPACE = "\u2581"
PIECES = [SPACE, f"{SPACE}the", f"{SPACE}{SPACE}", "e", "\u00e9", f"a{SPACE}b", "<0xE2>", "<0x96>", "<0x81>"]
BYTES = [6, 7, 8]
"""One character."""


def of(model: BPE | WordPiece, decoder: decoders.Decoder) -> Tokenizer:
    backend = Backend(model)
    backend.decoder = decoder
    backend.add_special_tokens([AddedToken("<end>", special=True)])
    return Tokenizer(backend, {})


SENTENCES = of(
    BPE({piece: number for number, piece in enumerate(PIECES)}, [], byte_fallback=True),
    decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    ),
)
WORDS = of(
    WordPiece({word: number for number, word in enumerate(["a", "word", "##s", "##ly", "."])}, unk_token="a"),
    decoders.WordPiece(cleanup=False),
)


@given(st.sampled_from([SENTENCES, WORDS]), st.data(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_as_a_whole(tokenizer: Tokenizer, data: st.DataObject, skip: bool) -> None:
    single = [n for n in range(tokenizer.backend.get_vocab_size()) if tokenizer is WORDS or n not in BYTES]
    units = [[n] for n in single] + ([BYTES] if tokenizer is SENTENCES else [])
    drawn = st.lists(st.sampled_from(units), max_size=20)
    first = single[1]  # it is text in any case
    prompt = [first, *chain(*data.draw(drawn)), first]
    tokens = [*chain(*data.draw(drawn))]
    detokenizer = Detokenizer(tokenizer, prompt, skip_special_tokens=skip)
    text = "".join(map(detokenizer.push, tokens)) + detokenizer.flush()
    assert tokenizer.decode(prompt, skip) + text == tokenizer.decode([*prompt, *tokens], skip)

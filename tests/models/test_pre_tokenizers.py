"""Every pre-tokenizer splits a text as the models that it is named after do.

What is expected was found with another engine (the package regex) from the chain in the tokenizer.json of a
model that has that pre-tokenizer, or from llama.cpp's expressions where that file is not known.
"""

from __future__ import annotations

import pytest
from tokenizers import decoders

from outrider.models.pre_tokenizers import PRE_TOKENIZERS
from tests.models.gguf_vocabularies import TEXTS, unlikely_texts

HELLO, WORLD, MIR = "\u4f60\u597d", "\u4e16\u754c", "\u043c\u0438\u0440"
NAMASTE = "\u0928\u092e\u0938\u094d\u0924\u0947"  # letters with marks between

SPLITS = {
    "default": "I|'|m| a| |$|5|<|6| x| |123|456|7½8| |3|.|14|\n\n| b|!",
    "llama-bpe": "DON|'T| fooBar| |123|45| x|=|42|;\n\n|\t|\tyes| | no| été| !!",
    "dbrx": "DON|'T| |123|45|;\n\n|\t|\tyes| | no",
    "chatglm-bpe": "DON|'T| |123|45|;\n\n|\t|\tyes| | no",
    "jais-2": "it|'S| |123|45| a|\n|    |  | b|  | c",
    "minicpm5": "it|'S| |123|45| x| |½6|!!\n",
    "qwen2": "DON|'T| |1|2|3| x|=|4|2|;\n\n|\t|\tyes| | no| (|hi|)| !!",
    "qwen35": f"DON|'T| |1|2| {NAMASTE}| !!\n",
    "stablelm2": "DON|'T| |1|2|3|;\n\n|\t|\tyes",
    "laguna": "a| b|\n\n| | c|!|\n\n|d| | e|\n\r|f",
    "ufakzeka": "Ankara|'da| |1|2| x|!\n",
    "seed-coder": "it|'S| |1|2| x|;!|\n\n| y",
    "bailingmoe": "it|'D| |1|2| x|;!\n\n| | y|\n| z",
    "exaone-moe": "it|'S| a b cd| |1|2| x|;!//\n|\n| y",
    "gpt-2": "it|'s| IT|'|S| 1234| x|_|y|!!|\n\n | z|  ",
    "mpt": "it|'s| IT|'|S| 1234| x|_|y|!!|\n\n | z|  ",
    "starcoder": "it|'s| |1|2|3|4| a|1|b|2| x|!|\n\n | z",
    "command-r": "it|'s| |1|2|3|4| a|1|b|2| x|!|\n\n | z",
    "gpt-4o": f"don'T| foo|Bar|BAZ| XMLHttp| |123|45| a|//|b|\n|/| {NAMASTE}",
    "minimax-m2": "don'T| foo|Bar| |123|45| a|//\n/|b",
    "tiny_aya": "don't| |1|234|567| a| |12|,|345| foo|Bar",
    "tekken": "don|'t| foo|Bar|BAZ| |1|2|3| a|//|b|\n|/",
    "kimi-k2": f"HTML|{WORLD}| Hello|{WORLD}|foo|Bar\u3067\u3059| |123|45| a|//\n|/",
    "superbpe": "by the way |1|234|567| x |12",
    "deepseek-llm": f"Hi| | there|\n|\n| x|=|1| |2|3| |{HELLO}|\uff0c|{MIR}|  ",
    "deepseek-coder": f"def| f|(|x|):|\n|\treturn| |1|2| |{HELLO}|..",
    "deepseek-v3": f"_foo| don|'t| |123|45| |{HELLO}|abc| |\u3072\u3089| x|+=|1|;\n\n| y",
    "spark2_5": f"_foo| |1|2|3|4|5| |{HELLO}|abc| x|;|\n|\n| y",
    "youtu": f"\uc548\ub155|Hello|{HELLO}|\uff0c|\u3105| foo|Bar's| |1|2|!\n",
    "afmoe": f"1|234|567| |{HELLO}|abc| _|foo| |12|!",
    "bloom": "Hello|,| wörld| (|ok|)| 12345|!\n| x",
    "viking": "Hello|,| wörld| |1|2|3|!",
    "chameleon": "it|'|s| |1|2| |(|a|)|    |b|\t|IMGIMGABZ",
}
RULES = {words: name for name, words in reversed(PRE_TOKENIZERS.items())}  # the first name of each


def split(name: str, text: str) -> list[str]:
    pieces = [piece for piece, _ in PRE_TOKENIZERS[name].build().pre_tokenize_str(text)]
    return [decoders.ByteLevel().decode([piece]) for piece in pieces]


@pytest.mark.parametrize("name", SPLITS)
def test_splits(name: str) -> None:
    expected = SPLITS[name].split("|")
    assert split(name, "".join(expected)) == expected


def test_falcon_splits_within_characters() -> None:
    """Its digits are looked for after bytes are written as characters, some of which are numbers: the second
    byte of a letter here is written as one quarter."""
    words = PRE_TOKENIZERS["falcon"].build()
    text = f"x<y!! $12 12345 (a) {MIR} \u00bd7"
    assert "|".join(piece for piece, _ in words.pre_tokenize_str(text)) == (
        "x|<|y|!!|\u0120|$|12|\u0120|123|45|\u0120|(|a|)|\u0120\u00d0|\u00bc|\u00d0\u00b8\u00d1\u0122|"
        "\u0120\u00c2|\u00bd7"
    )


def test_the_rules_above_are_all_of_them() -> None:
    tested = {PRE_TOKENIZERS[name] for name in (*SPLITS, "falcon")}
    left = [name for words, name in RULES.items() if words.steps not in {rule.steps for rule in tested}]
    assert left == []


@pytest.mark.parametrize("name", RULES.values())
def test_no_text_loses_characters(name: str) -> None:
    words = PRE_TOKENIZERS[name].build()
    for text in (*TEXTS, *unlikely_texts(50)):
        pieces = [piece for piece, _ in words.pre_tokenize_str(text)]
        assert decoders.ByteLevel().decode(pieces) == text


@pytest.mark.parametrize(
    ("names", "same"),
    [
        ("llama3 llama-v3 falcon3 falcon-h1 pixtral lfm2", "llama-bpe"),
        ("glm4", "chatglm-bpe"),
        ("smaug-bpe", "dbrx"),
        ("deepseek-r1-qwen", "qwen2"),
        ("hunyuan grok-2 megrez solar-open", "stablelm2"),
        ("refact smollm codeshell exaone minerva-7b", "starcoder"),
        ("phi-2 jais exaone4 trillion granite-docling a.x-4.0 jina-v2-es jina-v2-code", "gpt-2"),
        ("olmo", "mpt"),
        ("llama4", "gpt-4o"),
        ("hunyuan-dense", "deepseek-v3"),
        ("poro-chat gpt3-finnish", "bloom"),
        ("bailingmoe2 llada-moe", "bailingmoe"),
    ],
)
def test_names_of_one_rule(names: str, same: str) -> None:
    for name in names.split():
        assert PRE_TOKENIZERS[name] == PRE_TOKENIZERS[same]


def test_flags() -> None:
    """As in the models' files: of these alone BOS is llama.cpp's word."""
    flags = {
        name: (words.bos, words.ignore_merges, words.nfc)
        for name, words in PRE_TOKENIZERS.items()
        if name in ("llama-bpe", "tekken", "chameleon", "gpt-4o", "glm4", "qwen2", "qwen35", "mpt", "gpt-2")
    }
    assert flags == {
        "llama-bpe": (True, True, False),
        "tekken": (True, True, False),
        "chameleon": (True, False, False),
        "gpt-4o": (False, True, False),
        "glm4": (False, True, False),
        "qwen2": (False, False, True),
        "qwen35": (False, False, True),
        "mpt": (False, False, True),
        "gpt-2": (False, False, False),
    }

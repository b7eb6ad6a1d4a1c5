"""How a text is split before the merges of a byte-level BPE, by the name that a GGUF file gives it.

The names (`tokenizer.ggml.pre`), and whether a text begins with BOS unless the file says otherwise, are those
of llama.cpp (src/llama-vocab.cpp). The splits are those of the models' own tokenizer.json where that is
known, since llama.cpp's are written for an engine without Unicode classes; else they are llama.cpp's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import Regex, pre_tokenizers

Step = str | Callable[[], Any]


@dataclass(frozen=True)
class PreTokenizer:
    """steps: each splits the pieces of the one before; one that is a string is a regular expression, and its
    matches and what lies between become pieces. ignore_merges: a piece that is a token is that token,
    whatever the merges make of it; bos: a text begins with BOS; nfc: a text is normalised first (NFC)."""

    steps: tuple[Step, ...]
    ignore_merges: bool = False
    bos: bool = False
    nfc: bool = False

    def build(self) -> Any:
        """The splits, and bytes written as the characters that a byte-level vocabulary has for them."""
        steps = [_isolated(step) if isinstance(step, str) else step() for step in self.steps]
        return pre_tokenizers.Sequence(steps if _bytes in self.steps else [*steps, _bytes()])


def _isolated(pattern: str) -> Any:
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


def _bytes() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _each_digit() -> Any:
    return pre_tokenizers.Digits(individual_digits=True)


def _digits() -> Any:
    return pre_tokenizers.Digits(individual_digits=False)


def _punctuation_runs() -> Any:
    return pre_tokenizers.Punctuation("contiguous")


def _punctuation() -> Any:
    return pre_tokenizers.Punctuation("isolated")


def _newlines_begin() -> Any:
    return pre_tokenizers.Split(Regex(r"(?:\r?\n)+(?!\r?\n)"), behavior="merged_with_next")


# Parts of the expressions. SHORT: English contractions; LINES: what follows words, digits and marks.
SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
LINES = r"\s*[\r\n]+"
SPACES = r"\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
HAN_LESS_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
HAN_LESS_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
# Looking ahead from the first digit alone, or a long number would take the square of its length.
THREES_FROM_THE_RIGHT = r"(?<!\p{N})\p{N}{1,2}(?=(?:\p{N}{3})+(?!\p{N}))|\p{N}{3}|\p{N}+"


def _cased(upper: str, lower: str, end: str) -> str:
    """Words that begin a new one where a capital follows a small letter."""
    before = r"[^\r\n\p{L}\p{N}]?"
    return f"{before}{upper}*{lower}+{end}|{before}{upper}+{lower}*{end}"


GPT_2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{SPACES}"
LLAMA_3 = rf"{SHORT}|{WORD}|\p{{N}}{{1,3}}|{MARKS}|{LINES}|{SPACES}"
QWEN_2 = rf"{SHORT}|{WORD}|\p{{N}}|{MARKS}|{LINES}|{SPACES}"
QWEN_3_5 = (
    rf"{SHORT}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|"
    rf"{LINES}|{SPACES}"
)
UFAKZEKA = rf"{WORD}|\p{{N}}|{MARKS}|{LINES}|{SPACES}"
MINICPM_5 = rf"{SHORT}|{WORD}|\p{{N}}+|{MARKS}|{LINES}|{SPACES}"
SEED_CODER = rf"{SHORT}|{WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{LINES}|{SPACES}"
BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|"
    rf"{SPACES}"
)
EXAONE_MOE = (
    rf"{SHORT}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}|"
    rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|{SPACES}"
)
JAIS_2_SPACES = "|".join(
    rf"\s{{{count}}}(?!\S)" for count in ("512", "256", "128", "64", "32", "16", "8", "4")
)
JAIS_2 = rf"{SHORT}|{WORD}|\p{{N}}{{1,3}}|{MARKS}|{LINES}|{JAIS_2_SPACES}|\s{{1,2}}(?!\S)|\s{{1}}"
GPT_4O = (
    rf"{_cased(UPPER, LOWER, SHORT + '?')}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{LINES}|{SPACES}"
)
TEKKEN = rf"{_cased(UPPER, LOWER, '')}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{LINES}|{SPACES}"
KIMI = (
    rf"[\p{{Han}}]+|{_cased(HAN_LESS_UPPER, HAN_LESS_LOWER, SHORT + '?')}|\p{{N}}{{1,3}}|"
    rf"{MARKS}|{LINES}|{SPACES}"
)
BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
HAN_AND_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
ASIAN = (
    "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf"
    "\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
YOUTU = (
    "[\uac00-\ud7a3\u3131-\u318e]+|"
    "[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+|"
    f"[\u3105-\u312f]+|{HAN_AND_KANA}"
)
YOUTU_WORDS = rf"{_cased(UPPER, LOWER, SHORT + '?')}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{LINES}|{SPACES}"
DEEPSEEK_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
    r" ?[\p{P}\p{S}]+"
)
DEEPSEEK_3 = rf"{DEEPSEEK_WORDS}[\r\n]*|{LINES}|{SPACES}"
SPARK = rf"{DEEPSEEK_WORDS}|[\r\n]|{SPACES}"
DEEPSEEK_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
DEEPSEEK_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5"
    "\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba"
    "\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45"
    "\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe"
    "\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102"
    "\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    "\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17"
    "\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb"
    "\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{DEEPSEEK_LETTERS}]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    DEEPSEEK_CJK,
    _each_digit,
)
DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, _each_digit)
CHAMELEON = (
    "<sentinel:[0-9]+>",
    "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
    r"([\t\n]|    |  )",
    _each_digit,
    _punctuation,
    GPT_2,
)
UNKNOWN = PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", GPT_2, r"\p{N}+", "[0-9][0-9][0-9]"))
"""What llama.cpp takes for a file that names no pre-tokenizer, or "default"."""

WORDS = PreTokenizer((GPT_2,))
DIGITS_APART = PreTokenizer((_each_digit, GPT_2))
LLAMA = PreTokenizer((LLAMA_3,), ignore_merges=True, bos=True)
QWEN = PreTokenizer((QWEN_2,), nfc=True)
QWEN_LIKE = PreTokenizer((QWEN_2,))
O200K = PreTokenizer((GPT_4O,))
DEEPSEEK = PreTokenizer((r"\p{N}{1,3}", HAN_AND_KANA, DEEPSEEK_3))
BAILING_MOE = PreTokenizer((BAILING,))
COHERE = PreTokenizer((r"\d{1,3}(?=(?:\d{3})*\b)", GPT_4O))
BLOOM_LIKE = PreTokenizer((BLOOM,))

_BY_NAMES: dict[str, PreTokenizer] = {
    "default": UNKNOWN,
    "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano": LLAMA,
    "dbrx smaug-bpe": PreTokenizer((LLAMA_3,)),
    "chatglm-bpe glm4": PreTokenizer((LLAMA_3,), ignore_merges=True),
    "jais-2": PreTokenizer((JAIS_2,)),
    "minicpm5": PreTokenizer((r"\p{N}{1,3}", MINICPM_5), ignore_merges=True),
    "qwen2 deepseek-r1-qwen f2llmv2": QWEN,
    "qwen35": PreTokenizer((QWEN_3_5,), nfc=True),
    "stablelm2 hunyuan solar-open megrez kormo grok-2": QWEN_LIKE,
    "laguna": PreTokenizer((_newlines_begin, QWEN_2)),
    "ufakzeka": PreTokenizer((UFAKZEKA,)),
    "seed-coder": PreTokenizer((SEED_CODER,)),
    "bailingmoe bailingmoe2 llada-moe": BAILING_MOE,
    "exaone-moe": PreTokenizer((EXAONE_MOE,)),
    "gpt-2 phi-2 jais gigachat a.x-4.0 mellum exaone4 trillion granite-docling": WORDS,
    "modern-bert roberta-bpe jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code": WORDS,
    "mpt olmo": PreTokenizer((GPT_2,), nfc=True),
    "starcoder refact smollm codeshell exaone minerva-7b mellum2": DIGITS_APART,
    "command-r": PreTokenizer((_each_digit, GPT_2), nfc=True),
    "falcon": PreTokenizer((_punctuation_runs, GPT_2, _bytes, _digits, "[0-9][0-9][0-9]")),
    "gpt-4o llama4": PreTokenizer((GPT_4O,), ignore_merges=True),
    "kanana2 talkie minimax-m2": O200K,
    "granite-embed-multi-97m": PreTokenizer((GPT_4O,), ignore_merges=True),
    "tiny_aya cohere2moe": COHERE,
    "tekken": PreTokenizer((TEKKEN,), ignore_merges=True, bos=True),
    "kimi-k2": PreTokenizer((KIMI,)),
    "superbpe": PreTokenizer((r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
    "deepseek-llm": PreTokenizer(DEEPSEEK_LLM),
    "deepseek-coder": PreTokenizer(DEEPSEEK_CODER),
    "deepseek-v3 hunyuan-dense joyai-llm hy_v4": DEEPSEEK,
    "spark2_5": PreTokenizer((r"\p{N}{1,3}", HAN_AND_KANA, SPARK, _each_digit)),
    "youtu": PreTokenizer((YOUTU, YOUTU_WORDS), ignore_merges=True),
    "afmoe": PreTokenizer((THREES_FROM_THE_RIGHT, ASIAN, DEEPSEEK_3)),
    "bloom gpt3-finnish poro-chat": BLOOM_LIKE,
    "viking": PreTokenizer((BLOOM, _each_digit)),
    "chameleon": PreTokenizer(CHAMELEON, bos=True),
}
PRE_TOKENIZERS = {name: words for names, words in _BY_NAMES.items() for name in names.split()}

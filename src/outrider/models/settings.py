"""The settings of a model, each read with its type; what is not read must change nothing.

Values go by Hugging Face's names. A GGUF file's metadata is turned into the same names (`gguf_settings.py`),
so that a family is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from outrider.errors import ModelError
from outrider.messages import shown
from outrider.models.key_tables import NEUTRAL, is_harmless, is_off
from outrider.models.rope import HARMLESS as HARMLESS_OF_ROPE
from outrider.models.rope import RopeSettings, check_rope, is_number, rotary
from outrider.ops.shapes import Activation, Rope, Temperature

SIZES = {
    "vocab_size": 2**24,
    "hidden_size": 2**20,
    "intermediate_size": 2**20,
    "num_hidden_layers": 2**12,
    "num_attention_heads": 2**12,
    "num_key_value_heads": 2**12,
    "head_dim": 2**12,
}
MOST = 2**31 - 1
"""The most that each size may be: many times what models have, and few enough to loop over or to compute with
before any tensor has been looked at."""
ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
FULL, SLIDING = "full_attention", "sliding_attention"
"""Types of layers."""
PLACES_OF_ROPE = ("rope_scaling", "rope_parameters")
T = TypeVar("T")


class Settings:
    """Values by name, asked for one by one. Raises ModelError, naming `source`, for a value of a wrong type
    or out of range, and for one that is missing and has no default.

    positions: that requests of this engine may have at most; None: what the model says.
    """

    def __init__(self, values: Mapping[str, Any], source: str, positions: int | None = None) -> None:
        self._values = values
        self.source = source
        self._positions = positions
        self._asked: set[str] = set()

    def error(self, key: str, right: str) -> ModelError:
        """For the value of a key. right: what it has to be."""
        return ModelError(f"{self.source}: {key} = {shown(self._values.get(key))}; it has to be {right}")

    def has(self, key: str) -> bool:
        """Whether there is such a key, be its value null."""
        return key in self._values

    def get(self, key: str) -> Any:
        """The value as it stands; None where there is none."""
        self._asked.add(key)
        return self._values.get(key)

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number from 1 on. Null is as good as missing where there is a default."""
        most = SIZES.get(key, MOST)
        return self._read(
            key, default, lambda v: is_whole(v) and 1 <= v <= most, f"at least 1 and at most {most}"
        )

    def optional_size(self, key: str) -> int | None:
        """The same, where null and missing mean that there is none."""
        return None if self.get(key) is None else self.size(key)

    def size_of(self, *keys: str, default: int | None = None) -> int:
        """A size that goes by several names, which have to agree."""
        found = {key: self.size(key) for key in keys if self.get(key) is not None}
        if len({*found.values()}) > 1:
            said = " and ".join(f"{key} = {value}" for key, value in found.items())
            raise ModelError(f"{self.source}: {said} mean the same; give one of them")
        return next(iter(found.values())) if found else self.size(keys[0], default)

    def always(self, key: str, value: Any) -> None:
        """A setting that the architecture leaves no choice of. Null and missing are as good."""
        if self.get(key) is not None and not is_same(self.get(key), value):
            raise self.error(key, f"{shown(value)}, as all models of this architecture have it")

    def some_layers(self, key: str, count: int) -> frozenset[int]:
        """Some of `count` layers, by number; null and missing mean none."""
        found = self.get(key) or []
        if not isinstance(found, list) or not all(is_whole(one) and 0 <= one < count for one in found):
            raise self.error(key, f"a list of numbers of layers, of which there are {count}")
        return frozenset(found)

    def number(self, key: str, default: float, *, most: float = 1e30) -> float:
        """A number greater than 0."""
        value = self._read(
            key,
            default,
            lambda v: is_number(v) and 0 < v <= most,
            "greater than 0" + (f" and at most {most:g}" if most < 1e30 else ""),
            nullable=False,
        )
        return float(value)

    def optional_number(self, key: str) -> float | None:
        """The same, where null and missing mean that there is none."""
        return None if self.get(key) is None else self.number(key, 0)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        return self._read(key, default, lambda v: isinstance(v, bool), "true or false", nullable=False)

    def activation(self, key: str = "hidden_act", *, default: str = "silu") -> Activation:
        """The function of a gated feed-forward, which has to be the architecture's, as `default` is."""
        value = self.get(key) or default
        found = ACTIVATIONS.get(value) if isinstance(value, str) else None
        if found is None or found != ACTIVATIONS[default]:
            raise ModelError(
                f"{self.source}: activation {shown(value)} is not supported; supported is {default!r}"
            )
        return found

    def windows(self, layers: int, slides: Callable[[int], bool] | None = None) -> list[int | None]:
        """The positions that a row sees in each layer; None: all.

        slides: whether a layer has the window, by the architecture, where `layer_types` does not say it;
        None: no layer of the architecture has one.
        """
        used = self.get("use_sliding_window") is not False
        none = not used and self.get("sliding_window") == 0  # as transformers writes it
        names = ("sliding_window_size",) if none else ("sliding_window", "sliding_window_size")
        given = {self.optional_size(name) for name in names} - {None}
        if len(given) > 1:
            raise self.error("sliding_window_size", "the same as sliding_window")
        window = given.pop() if used and given else None

        def usual(layer: int) -> str:
            return SLIDING if window is not None and slides is not None and slides(layer) else FULL

        types = self.layer_types(layers, (FULL, SLIDING) if slides is not None else (FULL,), usual)
        if window is not None and slides is None:
            raise self.error("sliding_window", "null; layers of this architecture see all positions")
        if window is None and SLIDING in types:
            raise self.error("sliding_window", f"a number, since layer_types has {SLIDING!r}")
        return [window if kind == SLIDING else None for kind in types]

    def layer_types(self, layers: int, known: Sequence[str], usual: Callable[[int], str]) -> list[str]:
        """What each layer is, of the known types; usual: by the architecture, where the settings do not say
        it."""
        types = self.get("layer_types") or [usual(layer) for layer in range(layers)]
        if not isinstance(types, list) or len(types) != layers or any(kind not in known for kind in types):
            raise self.error("layer_types", f"a list of {' or '.join(map(repr, known))} for {layers} layers")
        return types

    def turning(self, layers: int, every: int) -> list[bool]:
        """Which layers have a rope: those that `no_rope_layers` marks, or all but every n-th."""
        every = self.size("no_rope_layer_interval", every)
        marks = self.get("no_rope_layers") or [int((layer + 1) % every != 0) for layer in range(layers)]
        if not isinstance(marks, list) or len(marks) < layers or any(mark not in (0, 1) for mark in marks):
            raise self.error("no_rope_layers", f"a list of 0 and 1 for {layers} layers")
        return [bool(mark) for mark in marks[:layers]]

    def rope(
        self,
        head_dim: int,
        *,
        theta: float = 10000.0,
        partial: float | None = None,
        interleaved: bool = False,
        of: str | None = None,
        theta_key: str = "rope_theta",
        others: Collection[str] = (),
    ) -> Rope:
        """The rotary embedding of heads of `head_dim` dimensions.

        theta: the base, where the settings name none. partial: the share of dimensions that turns, where the
        settings name none; None: all do, and the settings may not say otherwise. of: the type of layers whose
        settings are meant, where each has its own; settings that name no type are those of 'full_attention'.
        others: settings among the rope's that the family reads by itself.
        """
        parameters = self.rope_parameters(of, others)
        base = self.get(theta_key)
        if base is not None and not (is_number(base) and 0 < base < 1e30):
            raise self.error(theta_key, "a number greater than 0")
        inner = parameters.get("rope_theta")
        if base is not None and inner is not None and inner != base:
            raise ModelError(
                f"{self.source}: {theta_key} = {shown(base)}, and {shown(inner)} in the rope's "
                "parameters; give one"
            )
        proportional = parameters.get("rope_type") == "proportional"  # all dimensions turn, some by nothing
        share = None if proportional else parameters.get("partial_rotary_factor")
        if partial is not None:
            share = self.optional_number("partial_rotary_factor") or share or partial
        if share is not None and (share > 1 or (partial is None and share != 1)):
            right = "at most 1" if partial is not None else "1"
            raise ModelError(
                f"{self.source}: partial_rotary_factor = {shown(share)} is not supported; it has to "
                f"be {right}"
            )
        dims = int(head_dim * (share or 1) + 1e-9)  # of a quotient, too, that was rounded down
        if dims < 2 or dims % 2:
            raise ModelError(f"{self.source}: {dims} of {head_dim} dimensions turn; they have to be even")
        most = self.size("max_position_embeddings", 2048)
        original = self.optional_size("original_max_position_embeddings")
        if original is not None:
            parameters = {**parameters, "original_max_position_embeddings": original}
        settings = RopeSettings(
            parameters, dims, float(inner or base or theta), most, self._positions or most
        )
        return rotary(settings, self.source, interleaved=interleaved)

    def temperature(self, beta: Any, length: Any) -> Temperature | None:
        """The growth of scores by settings of the rope's; None where no request reaches so far that it
        begins."""
        if beta is None or (self._positions or self.size("max_position_embeddings", 2048)) <= (length or 0):
            return None
        if not (is_number(beta) and 0 < beta < 1e30 and is_whole(length) and length > 0):
            raise ModelError(
                f"{self.source}: scores that grow by {shown(beta)} from position {shown(length)} on are not "
                "supported; both have to be numbers greater than 0"
            )
        return Temperature(float(beta), length)

    def check_rest(self) -> None:
        """Refuse what was not asked for and may change an answer: a known key has to have a value that does
        not, and one that nobody knows has to be off."""
        unknown = []
        for key, value in self._values.items():
            if key in self._asked or is_harmless(key) or value is None:
                continue
            if key not in NEUTRAL and not is_off(value):
                unknown.append(f"{shown(key)} = {shown(value)}")
            elif key in NEUTRAL and not any(_is_neutral(value, neutral) for neutral in NEUTRAL[key]):
                allowed = " or ".join(map(shown, NEUTRAL[key])) or "null"
                raise ModelError(
                    f"{self.source}: {key} = {shown(value)} is not supported; supported is {allowed}"
                )
        if unknown:
            more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            raise ModelError(
                f"{self.source}: config.json has {', '.join(unknown[:3])}{more}, which is not known and may "
                "change what the model computes; remove it from the file if it is only a note"
            )

    def rope_parameters(self, of: str | None = None, others: Collection[str] = ()) -> dict[str, Any]:
        """The settings of scaling, which may stand in two places if they agree. of, others: see `rope`."""
        places = {name: value for name in PLACES_OF_ROPE if (value := self.get(name)) not in (None, {})}
        for name, value in places.items():
            if not isinstance(value, Mapping):
                raise self.error(name, "an object or null")
            nested = [key for key, inner in value.items() if isinstance(inner, Mapping)]
            if nested and of is None:
                raise self.error(name, "an object of numbers, for all layers")
            if nested:
                value = value.get(of) or {}
            elif of not in (None, "full_attention"):
                value = {}
            check_rope({key: v for key, v in value.items() if key not in others}, self.source)
            places[name] = value
        first, *more = [value for value in places.values() if value] or [{}]
        if any(other != first for other in more):
            raise ModelError(f"{self.source}: rope_scaling and rope_parameters differ; give one of them")
        return {key: v for key, v in first.items() if v is not None and key not in HARMLESS_OF_ROPE}

    def _read(
        self,
        key: str,
        default: T | None,
        accepts: Callable[[Any], bool],
        right: str,
        *,
        nullable: bool = True,
    ) -> T:
        value = self.get(key)
        if value is None and default is not None and (nullable or key not in self._values):
            return default
        if value is None and key not in self._values:
            raise ModelError(f"{self.source}: {key} is missing; it has to be {right}")
        if not accepts(value):
            raise self.error(key, right)
        found: T = value
        return found


def is_whole(value: Any) -> bool:
    """Whether a value from JSON is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_neutral(value: Any, neutral: Any) -> bool:
    """The same, or a list of nothing else."""
    return is_same(value, neutral) or (
        isinstance(value, list) and all(is_same(one, neutral) for one in value)
    )


def is_same(a: Any, b: Any) -> bool:
    """Equal, where no flag is a number."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def stop_tokens(named: Mapping[str, Any], vocab: int, source: str) -> tuple[int, ...]:
    """All ids that end an output. named: what each key holds: an id, a list of ids, or None.

    Raises ModelError, naming the key, for what is not an id below `vocab`.
    """
    ids: set[int] = set()
    for key, value in named.items():
        for token in value if isinstance(value, list | tuple) else [] if value is None else [value]:
            if not is_whole(token) or not 0 <= token < vocab:
                raise ModelError(
                    f"{source}: {key} = {shown(value)}; token ids are whole numbers from 0 to {vocab - 1}"
                )
            ids.add(token)
    return tuple(sorted(ids))


def known_or_none(value: Any, known: Collection[str]) -> bool:
    """Whether a value is null or one of the known ones."""
    return value is None or (isinstance(value, str) and value in known)

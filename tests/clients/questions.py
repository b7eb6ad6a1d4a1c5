"""What the clients ask. Values of arguments are few, so that a small model comes to their end."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

City = Literal["Paris", "London", "Taipei"]
QUESTION = "Repeat the words: red green blue, red green blue, red green"
WEATHER = "What is the weather like in Paris today?"
MESSAGES: Any = [{"role": "user", "content": QUESTION}]
ASK_WEATHER: Any = [{"role": "user", "content": WEATHER}]
LIMIT = 24  # tokens
LIMIT_OF_JSON = 120
"""Of calls and objects, which end before."""

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Paris", "London", "Taipei"]},
        "days": {"enum": [1, 2, 3]},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL: Any = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": PARAMETERS},
}
OTHER: Any = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "London"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Weather(BaseModel):
    """A forecast."""

    model_config = ConfigDict(extra="forbid")
    city: City
    days: Literal[1, 2, 3]
    sunny: bool
    note: str = Field(max_length=12)


def arguments_fit(name: str, arguments: str | dict[str, Any]) -> bool:
    """Whether a call is one of those that the tools allow."""
    given = json.loads(arguments) if isinstance(arguments, str) else arguments
    if name == "get_time":
        return set(given) == {"city"} and given["city"] in ("Paris", "London")
    return (
        name == "get_weather"
        and set(given) == {"city", "days"}
        and given["city"] in ("Paris", "London", "Taipei")
        and given["days"] in (1, 2, 3)
    )

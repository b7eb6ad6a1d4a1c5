"""How clients say what an answer has to fit: OpenAI's `response_format`, and vLLM's `structured_outputs`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from outrider.params import StructuredOutputs
from outrider.serving.bodies import Body, Schema, Text


class Structured(Body):
    """vLLM's form of what an answer has to fit: exactly one of these."""

    place = "structured_outputs."

    json_schema: Annotated[Schema | None, Field(alias="json")] = None
    json_object: Literal[True] | None = None
    regex: Text | None = None
    choice: list[Text] | None = None
    grammar: Text | None = None

    def for_params(self) -> StructuredOutputs:
        given: dict[str, Any] = {
            "json": self.json_schema,
            "json_object": self.json_object,
            "regex": self.regex,
        }
        given |= {"choice": self.choice, "grammar": self.grammar}
        return StructuredOutputs(**{name: value for name, value in given.items() if value is not None})


class TextFormat(Body):
    place = "response_format."

    type: Literal["text"]

    def for_params(self) -> StructuredOutputs | None:
        return None


class JsonObjectFormat(Body):
    place = "response_format."

    type: Literal["json_object"]

    def for_params(self) -> StructuredOutputs | None:
        return StructuredOutputs(json_object=True)


class JsonSchema(Body):
    """strict: is always so, whatever is asked for."""

    place = "response_format.json_schema."

    name: Annotated[Text, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    definition: Annotated[dict[str, Any], Field(alias="schema")]
    description: Text | None = None
    strict: bool | None = None


class JsonSchemaFormat(Body):
    place = "response_format."

    type: Literal["json_schema"]
    json_schema: JsonSchema

    def for_params(self) -> StructuredOutputs | None:
        given: dict[str, Any] = {"json": self.json_schema.definition}
        return StructuredOutputs(**given)


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
"""OpenAI's form of what an answer has to fit."""

"""Answers of a form: a choice, a regular expression, a JSON schema and a grammar."""

import json
from enum import StrEnum

from pydantic import BaseModel

from outrider.compat.vllm import LLM, SamplingParams
from outrider.compat.vllm.sampling_params import StructuredOutputsParams


class Kind(StrEnum):
    river = "river"
    lake = "lake"


class Water(BaseModel):
    kind: Kind
    salty: bool


GRAMMAR = """
root ::= "SELECT " column " FROM " table
column ::= "name" | "length"
table ::= "rivers" | "lakes"
"""
FORMS = {
    "Is this friendly or rude: thank you!": StructuredOutputsParams(choice=["friendly", "rude"]),
    "An address at example.com: ": StructuredOutputsParams(regex=r"[a-z]{2,8}@example\.com"),
    "The Rhine as JSON: ": StructuredOutputsParams(json=Water.model_json_schema()),
    "All names of rivers in SQL: ": StructuredOutputsParams(grammar=GRAMMAR),
}


def main(model: str = "smollm2") -> None:
    llm = LLM(model=model, max_model_len=256)
    params = [
        SamplingParams(temperature=0, max_tokens=48, structured_outputs=form) for form in FORMS.values()
    ]
    outputs = llm.generate(list(FORMS), params)
    for output in outputs:
        print(f"{output.prompt} {output.outputs[0].text}")
    print(Water(**json.loads(outputs[2].outputs[0].text)))


if __name__ == "__main__":
    main()

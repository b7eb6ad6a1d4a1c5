"""Stream a chat answer, with the tokens that a draft contributed in brackets."""

import sys

from outrider import LLM, SamplingParams

llm = LLM(model="smollm2", speculative_config={"method": "ngram", "num_speculative_tokens": 4})
question = "List the days of the week, then list them again in reverse order."
prompt = llm.chat_prompt([{"role": "user", "content": question}])

for increment in llm.stream(prompt, SamplingParams(temperature=0, max_tokens=96)):
    for piece in increment.pieces:
        sys.stdout.write(f"[{piece.text}]" if piece.origin == "draft" else piece.text)
    sys.stdout.flush()
sys.stdout.write("\n")

"""Answer one conversation, and many at a time: python -m examples.vllm.chat --max-model-len 1024"""

from outrider.compat.vllm import LLM, EngineArgs
from outrider.compat.vllm.utils import FlexibleArgumentParser

CONVERSATION = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hello! What can I do for you?"},
    {"role": "user", "content": "Name three rivers in Europe."},
]
TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"


def main(arguments: list[str] | None = None) -> None:
    parser = FlexibleArgumentParser(description=__doc__)
    EngineArgs.add_cli_args(parser.add_argument_group("engine"))
    parser.set_defaults(model="smollm2")
    parser.add_argument("--max-tokens", type=int, default=32)
    options = vars(parser.parse_args(arguments))
    max_tokens = options.pop("max_tokens")

    llm = LLM(**options)
    sampling_params = llm.get_default_sampling_params()
    sampling_params.max_tokens, sampling_params.temperature = max_tokens, 0.0

    (output,) = llm.chat(CONVERSATION, sampling_params, use_tqdm=False)
    print(output.outputs[0].text)

    tokenizer = llm.get_tokenizer()
    text = tokenizer.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True)
    print(f"the model reads {len(output.prompt_token_ids)} tokens: {text!r}")

    outputs = llm.chat([CONVERSATION[:2], CONVERSATION], sampling_params, chat_template=TEMPLATE)
    for output in outputs:
        print(output.outputs[0].text)


if __name__ == "__main__":
    main()

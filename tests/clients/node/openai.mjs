// OpenAI's client for Node: chat, streams, Responses, and its loop of calls and results.
import OpenAI from "openai";

const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "What is the weather like in Paris today?" }];
const asked = { model, messages, temperature: 0, max_tokens: 24 };

const whole = await client.chat.completions.create(asked);
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
  streamed += chunk.choices[0].delta.content ?? "";
}

const called = [];
const parameters = {
  type: "object",
  properties: { city: { enum: ["Paris", "London", "Taipei"] } },
  required: ["city"],
  additionalProperties: false,
};
const tool = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather of a city.",
    parameters,
    parse: JSON.parse,
    function: ({ city }) => {
      called.push(city);
      return "sunny, 20 degrees";
    },
  },
};
const runs = { ...asked, max_tokens: 80, tools: [tool], tool_choice: "required", parallel_tool_calls: false };
for (const stream of [false, true]) {
  const runner = client.chat.completions.runTools({ ...runs, stream }, { maxChatCompletions: 1 });
  await runner.done();
}

const responses = { model, input: messages[0].content, temperature: 0, max_output_tokens: 24 };
const response = await client.responses.create(responses);
const events = client.responses.stream(responses);
const last = await events.finalResponse();

console.log(
  JSON.stringify({
    text: whole.choices[0].message.content,
    streamed,
    called,
    response: response.output_text,
    streamedResponse: last.output_text,
  }),
);

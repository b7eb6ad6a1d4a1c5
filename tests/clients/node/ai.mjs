// The AI SDK with its provider for whatever speaks OpenAI's API: texts, streams, objects and tools.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [url, name] = process.argv.slice(2);
const provider = createOpenAICompatible({ name: "outrider", baseURL: `${url}/v1`, supportsStructuredOutputs: true });
const model = provider(name);
const prompt = "What is the weather like in Paris today?";
const asked = { model, prompt, temperature: 0, maxRetries: 0 };

const whole = await generateText({ ...asked, maxOutputTokens: 24 });
let streamed = "";
for await (const piece of streamText({ ...asked, maxOutputTokens: 24 }).textStream) {
  streamed += piece;
}

const city = z.enum(["Paris", "London", "Taipei"]);
let called;
const tools = {
  get_weather: tool({
    description: "The weather of a city.",
    inputSchema: z.strictObject({ city }),
    execute: async (given) => {
      called.push(given.city);
      return "sunny, 20 degrees";
    },
  }),
};
const runs = { ...asked, tools, toolChoice: "required", maxOutputTokens: 80, stopWhen: stepCountIs(1) };
const rounds = [];
for (const run of [() => generateText(runs), () => streamText(runs).consumeStream()]) {
  called = [];
  await run();
  rounds.push(called);
}

const schema = z.strictObject({ city, days: z.literal([1, 2, 3]) });
const object = await generateText({ ...asked, maxOutputTokens: 80, output: Output.object({ schema }) });

console.log(JSON.stringify({ text: whole.text, streamed, called: rounds, object: object.output }));

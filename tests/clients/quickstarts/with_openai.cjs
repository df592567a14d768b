// The quick start of `openai` for Node: chats, streams, tools, answers of a type. The fake engine is scripted in its own words.
"use strict";

const assert = require("node:assert/strict");
const { test } = require("node:test");
const OpenAI = require("openai");
const { zodFunction, zodResponseFormat } = require("openai/helpers/zod");
const { z } = require("zod");

const client = new OpenAI({ baseURL: `${process.env.SLMOPS_TEST_URL}/v1`, apiKey: "unused", maxRetries: 0 });
const model = "smollm2-135m";
const user = (content) => [{ role: "user", content }];
const hello = user("[[reply: Hello there]]");
const weather = "21 degrees in Paris";
const askWeather = user('[[reply: {"tool_calls": [{"name": "get_weather", "arguments": {"city": "Paris"}}]}]]');
const getWeather = zodFunction({
  name: "get_weather",
  description: "The weather of a city.",
  parameters: z.object({ city: z.string() }),
  function: ({ city }) => (assert.equal(city, "Paris"), weather),
});
const City = z.object({ name: z.string(), inhabitants: z.number().int() });
const paris = { name: "Paris", inhabitants: 2100000 };
const describeParis = user('[[reply: {"name": "Paris", "inhabitants": 2100000}]]');

test("chat", async () => {
  const answer = await client.chat.completions.create({ model, messages: hello });
  assert.equal(answer.choices[0].message.content, "Hello there");
  assert.equal(answer.choices[0].finish_reason, "stop");
});

test("stream", async () => {
  const pieces = [];
  for await (const chunk of await client.chat.completions.create({ model, messages: hello, stream: true })) {
    pieces.push(chunk.choices[0].delta.content ?? "");
  }
  assert.equal(pieces.join(""), "Hello there");
  assert.ok(pieces.length > 1);
});

test("error", async () => {
  await assert.rejects(client.chat.completions.create({ model, messages: hello, temperature: 9 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "temperature");
    return true;
  });
});

for (const choice of ["auto", "required"]) {
  test(`tools, ${choice}`, async () => {
    const answer = await client.chat.completions.parse({ model, messages: askWeather, tools: [getWeather], tool_choice: choice });
    assert.equal(answer.choices[0].finish_reason, "tool_calls");
    const { message } = answer.choices[0];
    const [call] = message.tool_calls;
    assert.deepEqual(call.function.parsed_arguments, { city: "Paris" });
    const messages = [...askWeather, message, { role: "tool", tool_call_id: call.id, content: weather }];
    const final = await client.chat.completions.create({ model, messages, tools: [getWeather] });
    assert.ok(final.choices[0].message.content.includes(weather));
  });
}

for (const stream of [false, true]) {
  test(`tools, run by the client${stream ? ", streamed" : ""}`, async () => {
    const runner = client.chat.completions.runTools({ model, messages: askWeather, tools: [getWeather], stream });
    assert.ok((await runner.finalContent()).includes(weather));
  });
}

test("structured output", async () => {
  const format = { response_format: zodResponseFormat(City, "city") };
  const answer = await client.chat.completions.parse({ model, messages: describeParis, ...format });
  assert.deepEqual(answer.choices[0].message.parsed, paris);
});

test("structured output, streamed", async () => {
  const format = { response_format: zodResponseFormat(City, "city") };
  const stream = client.chat.completions.stream({ model, messages: describeParis, ...format });
  assert.deepEqual((await stream.finalChatCompletion()).choices[0].message.parsed, paris);
});

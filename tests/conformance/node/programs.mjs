// Programs of OpenAI's and Anthropic's Node SDKs, unmodified, against the server at the URL of the
// first argument. Each asks its question once in each of the forms that the second argument lists
// ("body,stream"), in that order. Prints what the programs got: [[name, form, value], ...].

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const [url, forms] = process.argv.slice(2);
const options = { apiKey: "sk-a-key-of-a-test", maxRetries: 0, timeout: 10_000 };
const openai = new OpenAI({ ...options, baseURL: `${url}/v1` });
const anthropic = new Anthropic({ ...options, baseURL: url });

const schema = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "number" } },
  required: ["city", "days"],
  additionalProperties: false,
};
const look = { name: "look_outside", description: "Tells the weather." };
const chatTools = [{ type: "function", function: { ...look, parameters: schema } }];
const responsesTools = [{ type: "function", ...look, parameters: schema, strict: true }];
const messagesTools = [{ ...look, input_schema: schema }];
const words = 'Naïve café: what is a cache? ☕\n\tTwo lines, "quotes" and \\ back\\slashes.';
const weather = "The weather in two cities?";

// --- one call each, as a body or by the SDK's stream helper --------------------------------------

function chat(text, more = {}) {
  const asked = { model: "gpt-4o", messages: [{ role: "user", content: text }], ...more };
  return (form) =>
    form === "body"
      ? openai.chat.completions.create(asked)
      : openai.chat.completions.stream(asked).finalChatCompletion();
}

function response(text, more = {}) {
  const asked = { model: "gpt-4o", input: text, ...more };
  return (form) =>
    form === "body"
      ? openai.responses.create(asked)
      : openai.responses.stream(asked).finalResponse();
}

function message(text, more = {}) {
  const messages = [{ role: "user", content: text }];
  const asked = { model: "claude-sonnet-5-5", max_tokens: 1024, messages, ...more };
  return (form) =>
    form === "body"
      ? anthropic.messages.create(asked)
      : anthropic.messages.stream(asked).finalMessage();
}

// --- streams without a helper, and the helper that calls tools -----------------------------------

async function rawChat(form) {
  const asked = { model: "gpt-4o", messages: [{ role: "user", content: "Raw." }] };
  if (form === "body") return (await openai.chat.completions.create(asked)).choices[0].message.content;
  let text = "";
  const stream = await openai.chat.completions.create({ ...asked, stream: true });
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  return text;
}

async function rawResponse(form) {
  const asked = { model: "gpt-4o", input: "Raw." };
  if (form === "body") return (await openai.responses.create(asked)).output_text;
  let text = "";
  for await (const event of await openai.responses.create({ ...asked, stream: true }))
    if (event.type === "response.output_text.delta") text += event.delta;
  return text;
}

async function rawMessage(form) {
  const messages = [{ role: "user", content: "Raw." }];
  const asked = { model: "claude-sonnet-5-5", max_tokens: 1024, messages };
  if (form === "body") return (await anthropic.messages.create(asked)).content[0].text;
  let text = "";
  for await (const event of await anthropic.messages.create({ ...asked, stream: true }))
    if (event.type === "content_block_delta") text += event.delta.text;
  return text;
}

async function completion(form) {
  const asked = { model: "gpt-3.5-turbo-instruct", prompt: words, max_tokens: 99 };
  if (form === "body") return (await openai.completions.create(asked)).choices[0].text;
  let text = "";
  for await (const chunk of await openai.completions.create({ ...asked, stream: true }))
    text += chunk.choices[0]?.text ?? "";
  return text;
}

async function toolLoop(form) {
  const called = [];
  const tell = (given) => {
    called.push(given);
    return "Rain.";
  };
  const own = { ...chatTools[0].function, parse: JSON.parse, function: tell };
  const runner = openai.chat.completions.runTools({
    model: "gpt-4o",
    messages: [{ role: "user", content: `${weather} Loop.` }],
    tools: [{ type: "function", function: own }],
    stream: form === "stream",
  });
  return { said: await runner.finalContent(), called };
}

const thinking = { reasoning: { effort: "low", summary: "auto" } };
const programs = {
  "chat words": chat(words),
  "chat several": chat("Say it in two ways.", { n: 2 }),
  "chat tools": chat(weather, { tools: chatTools }),
  "chat logprobs": chat("How sure?", { logprobs: true, top_logprobs: 2 }),
  "chat raw": rawChat,
  "chat loop": toolLoop,
  "responses words": response(words),
  "responses unkept": response(words, { store: false }),
  "responses tools": response(weather, { tools: responsesTools }),
  "responses thinking": response("Think.", thinking),
  "responses thinking tools": response(weather, { ...thinking, tools: responsesTools }),
  "responses raw": rawResponse,
  "messages words": message(words),
  "messages tools": message(weather, { tools: messagesTools }),
  "messages thinking": message("Think.", { thinking: { type: "adaptive" } }),
  "messages raw": rawMessage,
  completions: completion,
  embeddings: async () => {
    const asked = { model: "text-embedding-3-small", input: ["one", "two ☕"], dimensions: 8 };
    return (await openai.embeddings.create(asked)).data;
  },
};

const got = [];
for (const [name, ask] of Object.entries(programs))
  for (const form of forms.split(",")) got.push([name, form, await ask(form)]);
console.log(JSON.stringify(got));

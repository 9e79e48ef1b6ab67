// The npm package openai (in the folder of argument 1) asks the server at argument 2, with argument 3 as its key: a chat, the
// same streamed, a refusal and a wrong key. Writes what came of it as JSON.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, baseURL, apiKey] = process.argv.slice(2);
const entry = createRequire(folder + "/").resolve("openai");
const { default: OpenAI } = await import(pathToFileURL(entry));
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const asked = {
    model: "any",
    messages: [{ role: "user", content: "Tell me a story." }],
    max_tokens: 8,
    seed: 4,
    autodeco: true,
};

// The answers below all continue the same cached prompt: one that is read anew is rounded otherwise.
await client.chat.completions.create(asked);
const whole = await client.chat.completions.create({ ...asked, logprobs: true });
const streamed = { text: "", values: [], settings: null };
const stream = await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
    streamed.settings = chunk.autodeco_settings ?? streamed.settings;
    streamed.usage = chunk.usage ?? streamed.usage;
    for (const choice of chunk.choices) {
        streamed.text += choice.delta.content ?? "";
        if (choice.autodeco) streamed.values.push(choice.autodeco);
    }
}
const failure = async (promise) => promise.then(() => null, (error) => ({ name: error.constructor.name, message: error.message }));
const refused = await failure(client.chat.completions.create({ ...asked, autodeco: { heads: "upper" } }));
const stranger = new OpenAI({ baseURL, apiKey: "other", maxRetries: 0 });
const unknown = await failure(stranger.chat.completions.create(asked));
console.log(JSON.stringify({ whole, streamed, refused, unknown }));

// node one_call.mjs domestic|international ADDRESS [https://] <elements.json: one call, printed as JSON.

import { readFileSync } from "node:fs";

import { available, domestic, international } from "./clients.mjs";

if (!available) {
  console.error("the Node SDKs");
  process.exit(3);
}
const [client, address, protocol] = process.argv.slice(2);
const elements = JSON.parse(readFileSync(0, "utf8"));
const answer = await { domestic, international }[client].call(address, elements, { protocol });
console.log(JSON.stringify(answer));

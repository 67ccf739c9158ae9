// Encrypted elements from Node, sent by Tencent's own SDK and by fetch.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { aes, sm4 } from "./envelope.mjs";
import { sample, scenario, skip, startSandbox } from "./sandbox.mjs";

const NAMES = ["Phone", "IdCard", "BankCard", "Name"];
const ENVELOPES = 1000;

let sandbox;
let keys;

before(async () => {
  if (skip) return;
  sandbox = await startSandbox();
  keys = await (await fetch(`${sandbox.url}/encryption-keys`)).json();
});
after(() => sandbox?.stop());

const snake = { Name: "name", BankCard: "bank_card", Phone: "phone", IdCard: "id_card" };

/** The same request as the AceData wire has it. */
function onAceData({ Encryption: e, ...elements }) {
  return {
    ...Object.fromEntries(Object.entries(elements).map(([name, text]) => [snake[name], text])),
    encryption: [
      {
        algorithm: e.Algorithm,
        iv: e.Iv,
        encrypt_list: e.EncryptList.map((name) => snake[name]),
        ciphertext_blob: e.CiphertextBlob,
        tag_list: e.TagList ?? [],
      },
    ],
  };
}

async function ask(body) {
  const reply = await fetch(`${sandbox.url}/identity/bankcard/check-4e`, {
    method: "POST",
    headers: { authorization: `Bearer ${scenario.public.bearer}`, "content-type": "application/json" },
    body: JSON.stringify(onAceData(body)),
  });
  return [reply.status, await reply.json()];
}

for (const [name, seal] of Object.entries({ "AES-256-CBC": aes, "SM4-GCM": sm4 })) {
  test(`${ENVELOPES} ${name} envelopes made with Node's own crypto open`, { skip }, async () => {
    for (let turn = 0; turn < ENVELOPES; turn++) {
      const list = NAMES.filter((_, at) => (turn + 1) & (1 << at) || turn % 16 === 15);
      const [status, body] = await ask(seal(keys, sample, list));
      assert.deepEqual([status, body.result], [200, "0"], `${turn} ${list}: ${JSON.stringify(body)}`);
    }
  });
}

test("the Node example of the documentation", { skip }, async () => {
  const page = readFileSync(fileURLToPath(new URL("../../../docs/encryption.md", import.meta.url)), "utf8");
  const [, snippet] = page.match(/<!-- run: node -->\n```js\n([\s\S]*?)```/);
  const file = join(sandbox.folder, "snippet.mjs");
  writeFileSync(file, snippet);
  const { encrypted } = await import(pathToFileURL(file).href);
  const [status, body] = await ask(encrypted(keys, sample, ["Name", "IdCard"]));
  assert.deepEqual([status, body.result], [200, "0"], JSON.stringify(body));
});

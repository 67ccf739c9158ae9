// The package with the real SDK, under node:test, and what it says when something is wrong.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import * as hooks from "node:test";

import { PUBLIC, startSandbox, useSandbox } from "../index.js";

const { test } = hooks;
const here = new URL(".", import.meta.url).pathname;
const root = join(here, "../../..");
const binary = process.env.CARD4E_BIN ?? join(root, "target/release/card4e");
const clients = process.env.CARD4E_NODE_CLIENTS ?? join(root, ".test-env/node");
const require = createRequire(join(clients, "/"));
const isReady = existsSync(binary) && existsSync(join(clients, "node_modules"));
const skip = isReady || process.env.CARD4E_REQUIRE_ALL === "1" ? false : "the server or the SDK is missing (./test installs it)";

if (!skip) process.env.CARD4E_BIN = binary;
const card4e = skip ? null : useSandbox({ hooks });
const PASSES = { Name: "韦小宝", BankCard: "6225768888888888", Phone: "16137688175", IdCard: "11204416541220243X" };

/** As an application does it with Tencent's SDK. */
async function verify(elements = {}) {
  const { faceid } = require("tencentcloud-sdk-nodejs");
  const client = new faceid.v20180301.Client(card4e.tencent);
  return (await client.BankCard4EVerification({ ...PASSES, ...elements })).Result;
}

test("a pass is asked and charged once", { skip }, async () => {
  assert.equal(await verify(), "0");
  const [entry] = await card4e.assertAsked({ outcome: "PASS", wire: "tencent" });
  assert.equal(entry.charged, "1");
  assert.ok(!JSON.stringify(entry).includes("韦小宝"));
  assert.equal(await card4e.charges(), 1);
});

test("each test begins anew", { skip }, async () => {
  assert.deepEqual(await card4e.journal(), []);
  assert.equal(await card4e.charges(), 0);
});

test("cards and answers on demand", { skip }, async () => {
  assert.equal(await verify({ BankCard: await card4e.card("CARD_LOST") }), "-13");
  await card4e.answerNext("SOURCE_BUSY", -13);
  assert.deepEqual([await verify(), await verify(), await verify()], ["-18", "-13", "0"]);
  await assert.rejects(card4e.card("LOST"), /no bankcard-4e is answered LOST; there is .*CARD_LOST/);
});

test("errors of the wire", { skip }, async () => {
  await card4e.fault({ error: "UnauthorizedOperation.Arrears" });
  await assert.rejects(verify(), { code: "UnauthorizedOperation.Arrears" });
  await card4e.shiftClock(3600);
  await assert.rejects(verify(), { code: "AuthFailure.SignatureExpire" });
  assert.equal(await card4e.charges(), 0);
});

test("the AceData wire, with fetch", { skip }, async () => {
  const { url, headers } = card4e.acedata;
  await card4e.addAccount({ bank_card: "6217000000009999", name: "张三", id_number: "990101199001010019", phone: "16100009999" });
  const body = JSON.stringify({ name: "张三", bank_card: "6217000000009999", id_card: "990101199001010019", phone: "16100009999" });
  const reply = await fetch(url, { method: "POST", headers, body });
  assert.deepEqual(await reply.json(), { result: "0", description: "Authentication passed" });
  assert.equal(card4e.environment.ACEDATACLOUD_API_TOKEN, PUBLIC.token);
});

test("what an assertion says", { skip }, async () => {
  await verify();
  await assert.rejects(card4e.assertAsked({ outcome: "CARD_LOST" }), /0 requests with .*CARD_LOST.*, expected 1; asked was\n.*PASS charged 1/s);
});

test("a program that is not there, and one that does not start", { skip }, async () => {
  await assert.rejects(startSandbox({ binary: "/nowhere/card4e" }), /set CARD4E_BIN/);
  await assert.rejects(startSandbox({ args: ["--no-such-thing"] }), /unexpected argument/);
});

test("hooks that are not there", { skip }, () => {
  assert.throws(() => useSandbox({ hooks: {} }), /pass the hooks of your runner/);
});

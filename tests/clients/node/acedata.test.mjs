// Node's own fetch against the AceData wire, as in the documentation's tutorial; it accepts */*.

import assert from "node:assert/strict";
import { after, before, beforeEach, describe, it } from "node:test";

import { mismatch, sample, scenario, skip, startSandbox, uuid4 } from "./sandbox.mjs";

let sandbox;
before(async () => { if (!skip) sandbox = await startSandbox(); });
after(() => sandbox?.stop());
beforeEach(() => sandbox?.reset());

const guide = { name: "胡印福", phone: "***", id_card: "***", bank_card: "***" };

function body({ Name, Phone, IdCard, BankCard }) {
  return { name: Name, phone: Phone, id_card: IdCard, bank_card: BankCard };
}

function check(elements, { token = scenario.public.bearer, ...headers } = {}) {
  return fetch(`${sandbox.url}/identity/bankcard/check-4e`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json", ...headers },
    body: JSON.stringify(elements),
    redirect: "error",
    signal: AbortSignal.timeout(20_000),
  });
}

async function refused(reply, status, code) {
  assert.equal(reply.status, status);
  const answer = await reply.json();
  assert.equal(answer.error.code, code);
  assert.ok(answer.error.message);
  assert.match(answer.trace_id, uuid4);
  assert.equal(reply.headers.get("x-trace-id"), answer.trace_id);
  return answer.error;
}

describe("fetch", { skip, timeout: 60_000 }, () => {
  it("the guide as printed", async () => {
    const reply = await check(guide);
    assert.equal(reply.status, 200);
    assert.deepEqual(await reply.json(), { result: "0", description: "Authentication passed" });
  });

  it("pass and mismatch, charged once each", async () => {
    const charges = await sandbox.charges(async () => {
      assert.equal((await (await check(body(sample))).json()).result, "0");
      assert.equal((await (await check(body(mismatch))).json()).result, "-4");
    });
    assert.equal(charges, 2);
  });

  for (const code of scenario.codes) {
    it(`Tencent's ${code.tencent} is ${code.acedata} here`, async () => {
      for (const [language, text] of [["en", code.acedata_en], ["zh-CN", code.acedata_zh]]) {
        const reply = await check(body({ ...sample, BankCard: code.card }), {
          "accept-language": language,
        });
        assert.deepEqual(await reply.json(), { result: code.acedata, description: text });
        assert.equal(Number(reply.headers.get("x-charged")) > 0, code.charged);
      }
    });
  }

  it("bad token", async () => refused(await check(guide, { token: "0".repeat(32) }), 401, "invalid_token"));

  for (const member of Object.keys(guide)) {
    it(`missing ${member}`, async () => {
      const { [member]: _, ...elements } = body(sample);
      const error = await refused(await check(elements), 400, "bad_request");
      assert.ok(error.message.includes(member), error.message);
    });
  }

  for (const [name, status, code] of [
    ["not-activated", 400, "token_mismatched"],
    ["arrears", 403, "used_up"],
    ["suspended", 403, "disabled"],
    ["unconfirmed", 403, "disabled"],
  ]) {
    it(`account: ${name}`, async () => {
      const { bearer } = await sandbox.application(name);
      await refused(await check(guide, { token: bearer }), status, code);
    });
  }

  it("the rate limit, really flooded", async () => {
    const { bearer } = await sandbox.application("rate-limited");
    const replies = await Promise.all(Array.from({ length: 12 }, () => check(guide, { token: bearer })));
    const statuses = replies.map((reply) => reply.status);
    assert.deepEqual(new Set(statuses), new Set([200, 429]));
    const last = replies.find((reply) => reply.status === 429);
    assert.ok(Number(last.headers.get("retry-after")) >= 1);
    await refused(last, 429, "too_many_requests");
  });

  it("one key, one charge", async () => {
    const charges = await sandbox.charges(async () => {
      for (let n = 0; n < 3; n++) {
        const reply = await check(body(mismatch), { "idempotency-key": "order-4711" });
        assert.equal((await reply.json()).result, "-4");
      }
    });
    assert.equal(charges, 1);
  });
});

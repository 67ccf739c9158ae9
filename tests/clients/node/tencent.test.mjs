// The story for the two Tencent SDKs for Node: pass, mismatch, every code, every mapped error.

import assert from "node:assert/strict";
import { after, before, beforeEach, describe, it } from "node:test";

import { domestic, international, skip } from "./clients.mjs";
import { mismatch, sample, scenario, startSandbox, uuid4 } from "./sandbox.mjs";

let sandbox;
before(async () => { if (!skip) sandbox = await startSandbox(); });
after(() => sandbox?.stop());
beforeEach(() => sandbox?.reset());

/** The SDK's own exception carries our code and our RequestId, and nothing was charged. */
async function refused(client, code, elements = sample, options = {}) {
  let caught;
  const charges = await sandbox.charges(async () => {
    await assert.rejects(client.call(sandbox.address, elements, options), (error) => {
      caught = error;
      return true;
    });
  });
  assert.equal(caught.constructor.name, "TencentCloudSDKHttpException");
  assert.equal(caught.code, code, String(caught));
  assert.match(caught.getRequestId(), uuid4);
  assert.ok(caught.getMessage());
  assert.equal(charges, 0);
  return caught;
}

// What each says when nothing is set: the domestic client sends no language, the other English.
const clients = [
  { client: domestic, language: "zh", signatures: ["TC3-HMAC-SHA256", "HmacSHA256", "HmacSHA1"] },
  { client: international, language: "en", signatures: ["HmacSHA256", "HmacSHA1", "TC3-HMAC-SHA256"] },
];

for (const { client, language, signatures } of clients) {
  describe(client.name, { skip, timeout: 120_000 }, () => {
    it("passes", async () => {
      const charges = await sandbox.charges(async () => {
        const answer = await client.call(sandbox.address, sample);
        assert.equal(answer.result, "0");
        assert.equal(answer.description, scenario.codes[0][`tencent_${language}`]);
        assert.match(answer.requestId, uuid4);
      });
      assert.equal(charges, 1);
    });

    it("tells a mismatch", async () => {
      const charges = await sandbox.charges(async () => {
        const answer = await client.call(sandbox.address, mismatch);
        assert.equal(answer.result, "-6");
      });
      assert.equal(charges, 1);
    });

    for (const code of scenario.codes) {
      it(`code ${code.tencent} by its magic card`, async () => {
        const elements = { Name: "任", BankCard: code.card, Phone: "1", IdCard: "1" };
        const charges = await sandbox.charges(async () => {
          const answer = await client.call(sandbox.address, elements);
          assert.equal(answer.result, code.tencent);
          assert.equal(answer.description, code[`tencent_${language}`]);
        });
        assert.equal(charges, code.charged ? 1 : 0);
      });
    }

    for (const signMethod of signatures) {
      for (const method of ["POST", "GET"]) {
        it(`signs by ${signMethod} over ${method}`, async () => {
          const options = { signMethod, method };
          assert.equal((await client.call(sandbox.address, sample, options)).result, "0");
          assert.equal((await client.call(sandbox.address, mismatch, options)).result, "-6");
          await refused(client, "AuthFailure.SignatureFailure", sample, {
            ...options,
            secretKey: "wrong",
          });
        });

        it(`a temporary key by ${signMethod} over ${method}`, async () => {
          const application = await sandbox.application("temporary");
          const options = { signMethod, method, application };
          assert.equal((await client.call(sandbox.address, sample, options)).result, "0");
          await refused(client, "AuthFailure.TokenFailure", sample, { ...options, token: "wrong" });
          await refused(client, "AuthFailure.TokenFailure", sample, { ...options, token: null });
        });
      }
    }

    it("unknown key", () =>
      refused(client, "AuthFailure.SecretIdNotFound", sample, { secretId: "AKIDunknown" }));

    it("wrong secret", () =>
      refused(client, "AuthFailure.SignatureFailure", sample, { secretKey: "wrong" }));

    it("a clock a thousand seconds off", async () => {
      await sandbox.control("PUT", "clock", { mode: "shifted", seconds: 1000 });
      await refused(client, "AuthFailure.SignatureExpire");
    });

    for (const member of Object.keys(sample)) {
      it(`missing ${member}`, async () => {
        const { [member]: _, ...elements } = sample;
        const error = await refused(client, "MissingParameter", elements);
        assert.ok(error.getMessage().includes(`\`${member}\``), error.getMessage());
      });
    }

    for (const [name, code] of [
      ["not-activated", "UnauthorizedOperation.Nonactivated"],
      ["arrears", "UnauthorizedOperation.Arrears"],
      ["suspended", "UnauthorizedOperation.ChargeStatusException"],
      ["unconfirmed", "UnauthorizedOperation.NonAuthorize"],
    ]) {
      it(`account: ${name}`, async () => {
        await refused(client, code, sample, { application: await sandbox.application(name) });
      });
    }

    it("the rate limit, really flooded", async () => {
      const application = await sandbox.application("rate-limited");
      const calls = Array.from({ length: 12 }, () =>
        client.call(sandbox.address, sample, { application }).then(
          (answer) => answer.result,
          (error) => error.code,
        ));
      const said = await Promise.all(calls);
      assert.deepEqual(new Set(said), new Set(["0", "RequestLimitExceeded"]));

      await sandbox.reset();
      await sandbox.control("PUT", "clock", { mode: "frozen", now: Math.floor(Date.now() / 1000) });
      for (let n = 0; n < 2; n++) await client.call(sandbox.address, sample, { application });
      const error = await refused(client, "RequestLimitExceeded", sample, { application });
      assert.ok(error.getMessage().includes("`2`"), error.getMessage());
    });

    it("a lost answer is asked again with a key, and charged once", async () => {
      await sandbox.fault({ status: 502, when: "after" });
      const headers = { "Idempotency-Key": "order-4711" };
      const charges = await sandbox.charges(async () => {
        await assert.rejects(client.call(sandbox.address, mismatch, { headers }), { httpCode: 502 });
        assert.equal((await client.call(sandbox.address, mismatch, { headers })).result, "-6");
      });
      assert.equal(charges, 1);
    });

    it("fifty calls at once", async () => {
      const calls = Array.from({ length: 50 }, () => client.call(sandbox.address, sample));
      const answers = await Promise.all(calls);
      assert.equal(new Set(answers.map((answer) => answer.requestId)).size, 50);
    });
  });
}

describe("tencentcloud-sdk-nodejs only", { skip, timeout: 60_000 }, () => {
  it("languages", async () => {
    for (const code of scenario.codes) {
      for (const [language, text] of [["zh-CN", code.tencent_zh], ["en-US", code.tencent_en]]) {
        const answer = await domestic.call(
          sandbox.address, { ...sample, BankCard: code.card }, { language });
        assert.equal(answer.description, text);
      }
    }
  });

  it("its error carries our X-TC-TraceId", async () => {
    const headers = { "X-TC-TraceId": "0b7e6a0c-7f0e-4a3b-9b52-0a4d6b1f7c11" };
    const error = await refused(domestic, "AuthFailure.SecretIdNotFound", sample, {
      secretId: "AKIDunknown",
      headers,
    });
    assert.equal(error.getTraceId(), headers["X-TC-TraceId"]);
  });
});

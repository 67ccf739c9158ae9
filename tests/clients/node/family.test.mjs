// Every action through the two Tencent SDKs for Node: the domestic one by its own methods, the
// international one, which has no classes for most of them, by its generic request.

import assert from "node:assert/strict";
import { after, before, beforeEach, describe, it } from "node:test";

import { domestic, international, skip } from "./clients.mjs";
import { startSandbox, uuid4 } from "./sandbox.mjs";

let sandbox;
before(async () => { if (!skip) sandbox = await startSandbox(); });
after(() => sandbox?.stop());
beforeEach(() => sandbox?.reset());

const Name = "韦小宝", IdCard = "11204416541220243X", Phone = "16137688175";
const card = "6225768888888888", other = "6226090210146748";
const person = { IdCard, Name, Phone };
const samples = [
  ["BankCard4EVerification", { ...person, BankCard: other }, "-6"],
  ["BankCardVerification", { IdCard, Name, BankCard: other }, "0"],
  ["BankCardVerification", { IdCard, Name, BankCard: card }, "-1"],
  ["BankCard2EVerification", { Name, BankCard: card }, "0"],
  ["BankCard2EVerification", { Name, BankCard: other }, "-4"],
  ["CheckBankCardInformation", { BankCard: card }, "0", { AccountType: 2 }],
  ["CheckBankCardInformation", { BankCard: "6200000000100003" }, "-1", { AccountBank: "", AccountType: -1 }],
  ["IdCardVerification", { IdCard, Name }, "0"],
  ["IdCardVerification", { IdCard: "440305199505132561", Name: "刘洋" }, "-1"],
  ["PhoneVerification", person, "0"],
  ["PhoneVerificationCMCC", person, "0"],
  ["PhoneVerificationCUCC", person, "0"],
  ["PhoneVerificationCTCC", person, "0"],
  ["CheckPhoneAndName", { Mobile: Phone, Name }, "0"],
  ["CheckPhoneAndName", { Mobile: "16100000001", Name }, "1"],
];

for (const client of [domestic, international]) {
  describe(client.name, { skip, timeout: 120_000 }, () => {
    for (const [action, members, result, more] of samples) {
      it(`${action} answers ${result}`, async () => {
        let answer;
        const charges = await sandbox.charges(async () => {
          answer = await client.call(sandbox.address, members, { action });
        });
        assert.equal(answer.result, result);
        assert.match(answer.requestId, uuid4);
        assert.equal(charges, 1);
        for (const [name, value] of Object.entries(more ?? {})) assert.equal(answer.reply[name], value);
      });
    }
  });
}

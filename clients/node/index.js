// One `card4e sandbox` process, what a client needs to reach it, and its control interface. No dependencies.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, openSync, closeSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

// The same in every sandbox, for ever: they open nothing else.
export const PUBLIC = Object.freeze({
  secretId: "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE",
  secretKey: "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE",
  token: "4e".repeat(16),
});

const START_MS = 30_000;
const CONTROL_MS = 10_000;

/** Starts a sandbox on a free port. `binary`: by default CARD4E_BIN, or card4e on the PATH. */
export async function startSandbox({ binary, args = [] } = {}) {
  const program = binary ?? process.env.CARD4E_BIN ?? "card4e";
  const folder = mkdtempSync(join(tmpdir(), "card4e-sandbox-"));
  const [ready, log] = [join(folder, "ready"), join(folder, "log")];
  const out = openSync(log, "w");
  const child = spawn(program, ["sandbox", "--listen", "127.0.0.1:0", "--ready-file", ready, ...args], {
    stdio: ["ignore", out, out],
    // A sandbox that is killed leaves its data there.
    env: { ...process.env, TMPDIR: folder },
  });
  closeSync(out);
  let broken;
  child.once("error", (error) => (broken = error));
  const sandbox = new Sandbox(child, folder);
  try {
    for (const end = Date.now() + START_MS; ; await sleep(5)) {
      const address = existsSync(ready) ? readFileSync(ready, "utf8").trim() : "";
      if (address) return Object.assign(sandbox, { address, url: `http://${address}` });
      if (broken) throw new Error(`there is no program ${program} that runs (${broken.code}): install card4e, or set CARD4E_BIN to where it is`);
      if (child.exitCode !== null) throw new Error(`the sandbox ended with ${child.exitCode}:\n${readFileSync(log, "utf8")}`);
      if (Date.now() > end) throw new Error(`the sandbox did not answer within ${START_MS} ms:\n${readFileSync(log, "utf8")}`);
    }
  } catch (error) {
    await sandbox.stop();
    throw error;
  }
}

/**
 * A sandbox for a test file: started before its tests, reset before each, stopped after them. Takes the hooks of the
 * runner, or finds them where vitest (`globals: true`) and jest put them. What it gives back works from the first hook on.
 */
export function useSandbox({ hooks = globalThis, ...options } = {}) {
  const beforeAll = hooks.beforeAll ?? hooks.before;
  const afterAll = hooks.afterAll ?? hooks.after;
  if (!beforeAll || !afterAll || !hooks.beforeEach) {
    throw new Error('pass the hooks of your runner: import * as hooks from "vitest" (or "node:test"); useSandbox({ hooks })');
  }
  const started = {};
  beforeAll(async () => {
    started.sandbox = await startSandbox(options);
  });
  hooks.beforeEach(() => started.sandbox.reset());
  afterAll(() => started.sandbox?.stop());
  return new Proxy(started, {
    get: (_, name) => {
      if (!started.sandbox) throw new Error("the sandbox is there from beforeAll on: use it within a test");
      const value = Reflect.get(started.sandbox, name);
      return typeof value === "function" ? value.bind(started.sandbox) : value;
    },
  });
}

/** A running sandbox. `address` is `127.0.0.1:PORT`, `url` the same with its scheme. */
export class Sandbox {
  #child;
  #folder;
  #chargesAtReset = 0;

  constructor(child, folder) {
    this.#child = child;
    this.#folder = folder;
    // A runner that is ended must not leave a server behind.
    this.onExit = () => child.kill("SIGKILL");
    process.once("exit", this.onExit);
  }

  /** Ends this process and removes what it wrote. */
  async stop() {
    const child = this.#child;
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      const ended = new Promise((done) => child.once("exit", done));
      child.kill("SIGTERM");
      const hard = setTimeout(() => child.kill("SIGKILL"), 10_000);
      await ended;
      clearTimeout(hard);
    }
    process.removeListener("exit", this.onExit);
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** What `new Client(…)` of tencentcloud-sdk-nodejs takes. */
  get tencent() {
    const { secretId, secretKey } = PUBLIC;
    return {
      credential: { secretId, secretKey },
      region: "",
      profile: { httpProfile: { endpoint: this.address, protocol: "http://" } },
    };
  }

  /** What a request of the AceData wire needs. */
  get acedata() {
    const headers = { authorization: `Bearer ${PUBLIC.token}`, "content-type": "application/json" };
    return { url: `${this.url}/identity/bankcard/check-4e`, token: PUBLIC.token, headers };
  }

  /** Variables that SDKs and command lines read, and CARD4E_ENDPOINT for code that asks for one. */
  get environment() {
    return {
      TENCENTCLOUD_SECRET_ID: PUBLIC.secretId,
      TENCENTCLOUD_SECRET_KEY: PUBLIC.secretKey,
      ACEDATACLOUD_API_TOKEN: PUBLIC.token,
      ACEDATACLOUD_API_BASE_URL: this.url,
      CARD4E_ENDPOINT: this.address,
      CARD4E_URL: this.url,
    };
  }

  /** Everything as at the start: accounts, balances, limits, clock, faults, journal. */
  async reset() {
    await this.control("POST", "reset");
    this.#chargesAtReset = (await this.control("GET", "ledger")).charges;
  }

  /** The next questions are answered so, in this order: names (`CARD_LOST`) or four-element codes (`-13`). */
  answerNext(...outcomes) {
    return this.control("POST", "faults", { sequence: outcomes.map((outcome) => ({ outcome: String(outcome) })) });
  }

  /** A fault rule: `effect` such as `{ error: "InternalError" }`, `{ delay_ms: 500 }`, `{ drop: "after" }`. */
  fault(effect, rule = {}) {
    return this.control("POST", "faults", { count: 1, ...rule, effect });
  }

  /** An account of record: bank_card, name, id_number, phone, status. */
  addAccount(account) {
    return this.control("POST", "accounts", account);
  }

  /** The card number (of actions without a card, the identity number or mobile) that is always answered so. */
  async card(outcome, action = "bankcard-4e") {
    const listed = (await this.control("GET", "cards")).actions[action] ?? [];
    const found = listed.find((entry) => entry.outcome === outcome);
    if (found) return found.bank_card ?? found.id_card ?? found.phone;
    throw new Error(`no ${action} is answered ${outcome}; there is ${listed.map((entry) => entry.outcome).join(", ")}`);
  }

  /** The sandbox's clock goes so many seconds ahead of the machine's. */
  shiftClock(seconds) {
    return this.control("PUT", "clock", { mode: "shifted", seconds });
  }

  /** Stops the sandbox's clock, at this Unix time or the present. */
  freezeClock(now = Math.floor(Date.now() / 1000)) {
    return this.control("PUT", "clock", { mode: "frozen", now });
  }

  /** The requests since the last reset, oldest first; elements are masked. */
  async journal() {
    return (await this.control("GET", "journal?limit=1000")).entries.reverse();
  }

  /** The journal's requests that have these members, for example `{ outcome: "PASS" }` or `{ error: "used_up" }`. */
  async asked(expected = {}) {
    const wanted = Object.entries(expected);
    return (await this.journal()).filter((entry) => wanted.every(([key, value]) => entry[key] === value));
  }

  /** Fails unless exactly so many requests have these members. */
  async assertAsked(expected = {}, times = 1) {
    const found = await this.asked(expected);
    if (found.length !== times) {
      const lines = (await this.journal()).map((entry) => `  ${entry.action} ${entry.outcome ?? entry.error} charged ${entry.charged}`);
      throw new Error(`${found.length} requests with ${JSON.stringify(expected)}, expected ${times}; asked was\n${lines.join("\n") || "  nothing"}`);
    }
    return found;
  }

  /** Charged answers since the last reset. */
  async charges() {
    return (await this.control("GET", "ledger")).charges - this.#chargesAtReset;
  }

  /** Calls `/_sandbox/WHAT`; its JSON. */
  async control(method, what, body) {
    const reply = await fetch(`${this.url}/_sandbox/${what}`, {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
      headers: body === undefined ? {} : { "content-type": "application/json" },
      signal: AbortSignal.timeout(CONTROL_MS),
    });
    const text = await reply.text();
    if (!reply.ok) throw new Error(`${method} /_sandbox/${what}: ${reply.status} ${text}`);
    return JSON.parse(text);
  }
}

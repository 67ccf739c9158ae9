// A sandbox of our own for a test file, and the hands to steer it.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, "..", "..", "..");

export const scenario = JSON.parse(readFileSync(join(here, "..", "scenario.json"), "utf8"));
export const sample = scenario.sample;
export const mismatch = { ...sample, BankCard: scenario.mismatch_card };
export const uuid4 = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

const binary = process.env.CARD4E_BIN ?? join(root, "target", "release", "card4e");
export const requireAll = process.env.CARD4E_REQUIRE_ALL === "1";

/** The reason to skip every test, or false; where everything must run, nothing is skipped. */
export const skip = existsSync(binary) || requireAll
  ? false
  : `the server ${binary} is missing (cargo build --release)`;

/** Starts `card4e sandbox` on a port the system picks; `stop` ends that process and no other. */
export async function startSandbox() {
  if (!existsSync(binary)) throw new Error(`the server ${binary} is missing (cargo build --release)`);
  const folder = mkdtempSync(join(tmpdir(), "card4e-node-"));
  const ready = join(folder, "ready");
  const log = openSync(join(folder, "log"), "w");
  const child = spawn(binary, ["sandbox", "--listen", "127.0.0.1:0", "--ready-file", ready], {
    stdio: ["ignore", log, log],
    cwd: folder,
  });
  const sandbox = new Sandbox(child, folder);
  try {
    for (const end = Date.now() + 30_000; ; await sleep(10)) {
      const said = existsSync(ready) ? readFileSync(ready, "utf8").trim() : "";
      if (said) {
        sandbox.address = said.replace(/^http:\/\//, "").replace(/\/$/, "");
        sandbox.url = `http://${sandbox.address}`;
        return sandbox;
      }
      if (child.exitCode !== null || Date.now() > end) {
        throw new Error(`the sandbox did not start:\n${readFileSync(join(folder, "log"), "utf8")}`);
      }
    }
  } catch (error) {
    await sandbox.stop();
    throw error;
  }
}

class Sandbox {
  constructor(child, folder) {
    this.child = child;
    this.folder = folder;
    // A test runner that is killed must not leave a server behind.
    this.onExit = () => child.kill("SIGKILL");
    process.once("exit", this.onExit);
  }

  async stop() {
    const { child } = this;
    if (child.exitCode === null && child.signalCode === null) {
      const ended = new Promise((done) => child.once("exit", done));
      child.kill("SIGTERM");
      const hard = setTimeout(() => child.kill("SIGKILL"), 10_000);
      await ended;
      clearTimeout(hard);
    }
    process.removeListener("exit", this.onExit);
    rmSync(this.folder, { recursive: true, force: true });
  }

  async control(method, path, body) {
    const reply = await fetch(`${this.url}/_sandbox/${path}`, {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
      headers: body === undefined ? {} : { "content-type": "application/json" },
      signal: AbortSignal.timeout(10_000),
    });
    const text = await reply.text();
    if (!reply.ok) throw new Error(`${method} /_sandbox/${path}: ${reply.status} ${text}`);
    return text ? JSON.parse(text) : null;
  }

  reset() {
    return this.control("POST", "reset");
  }

  fault(effect, rule = {}) {
    return this.control("POST", "faults", { count: 1, ...rule, effect });
  }

  ledger() {
    return this.control("GET", "ledger");
  }

  async application(name) {
    if (name === "public") return { token: null, ...scenario.public };
    const listed = await this.control("GET", "credentials");
    const found = (Array.isArray(listed) ? listed : listed.credentials).find((a) => a.name === name);
    if (!found) throw new Error(`no application ${name}`);
    return found;
  }

  /** Runs `work` and gives back how many charges it added. */
  async charges(work) {
    const before = await this.ledger();
    await work();
    const after = await this.ledger();
    return after.charges - before.charges;
  }
}

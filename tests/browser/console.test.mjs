// The console in Debian's Chromium: from a guest to a charged answer, the code of the page run as it is copied,
// an order, the signature debugger; every page at two widths, without horizontal scroll, checked by axe-core.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

const here = new URL(".", import.meta.url).pathname;
const folder = process.env.CARD4E_BROWSER ?? join(here, "../../.test-env/browser");
const require = createRequire(join(folder, "/"));
const strict = process.env.CARD4E_REQUIRE_ALL === "1";
const shots = process.env.CARD4E_SHOTS ?? join(folder, "shots");

const found = (...names) => names.map((name) => ["/usr/bin", "/usr/local/bin"].map((dir) => join(dir, name)).find(existsSync)).find(Boolean);
const chromium = found("chromium", "chromium-browser", "google-chrome");

const binary = resolve(process.env.CARD4E_BIN ?? join(here, "../../target/release/card4e"));

let server, url, browser, axe, work;
const OPERATOR = "platform-v1-" + "4e".repeat(32);
const API = "/documents/identity-bankcard-check-4e";

before(async () => {
  assert.ok(chromium || !strict, "Chromium is missing (./test installs it)");
  const { chromium: engine } = require("playwright-core");
  axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
  work = mkdtempSync(join(tmpdir(), "card4e-browser-"));
  mkdirSync(shots, { recursive: true });
  const ready = join(work, "ready");
  server = spawn(binary, ["sandbox", "--listen", "127.0.0.1:0", "--ready-file", ready], { stdio: "ignore" });
  for (let waited = 0; !existsSync(ready); waited += 20) {
    assert.ok(waited < 30_000 && server.exitCode === null, "no sandbox");
    await sleep(20);
  }
  url = `http://${readFileSync(ready, "utf8").trim()}`;
  browser = await engine.launch({ executablePath: chromium, args: ["--no-sandbox"] });
});

after(async () => {
  await browser?.close();
  server?.kill();
  if (work) rmSync(work, { recursive: true });
});

/** A page that fails the test when a script of ours does. */
async function visit(options = {}) {
  const context = await browser.newContext({ locale: "en-US", permissions: ["clipboard-read", "clipboard-write"], ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("console", (line) => line.type() === "error" && wrong.push(line.text()));
  return { page, wrong };
}

/** Both widths, a screenshot of each, and nothing serious found. */
async function look(page, name) {
  for (const width of [1440, 375]) {
    await page.setViewportSize({ width, height: 900 });
    const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(over <= 0, `${name} at ${width} px scrolls sideways by ${over}`);
    await page.screenshot({ path: join(shots, `${name}-${width}.png`), fullPage: true });
  }
  await page.setViewportSize({ width: 1440, height: 900 });
  await page.evaluate(axe);
  const violations = await page.evaluate(async () => (await axe.run()).violations);
  const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
  assert.deepEqual(serious.map(({ id, nodes }) => `${id}: ${nodes[0].html}`), [], name);
}

async function register(page, name, next) {
  await page.goto(`${url}/auth/register?next=${next}`);
  await page.fill("[name=name]", name);
  await page.fill("[name=login]", `${name}@example.com`);
  await page.fill("[name=password]", "correct horse battery");
  await page.check("[name=terms]");
  await page.click("form.panel button.primary");
}

async function operator(options = {}) {
  const { page, wrong } = await visit({ bypassCSP: true, ...options });
  await page.goto(`${url}/auth/login?next=/console/operator`);
  await page.click("summary");
  await page.fill("details input[type=password]", OPERATOR);
  await page.click("details form button");
  return { page, wrong };
}

const PAGES = {
  home: "/", service: "/service/identity", api: API, information: "/documents/identity-bankcard-check-1e",
  mobile: "/documents/identity-phone-check-3e", explorer: "/documents/explorer", login: "/auth/login",
  register: "/auth/register", reset: "/auth/reset", support: "/support", terms: "/terms", search: "/documents/search?q=lost", sandbox: "/console/sandbox",
};

for (const [theme, locale] of [["light", "en-US"], ["dark", "zh-CN"]]) {
  test(`a guest's pages, ${theme}, ${locale}`, async () => {
    const { page, wrong } = await visit({ bypassCSP: true, colorScheme: theme, locale });
    for (const [name, path] of Object.entries(PAGES)) {
      await page.goto(url + path);
      await look(page, `${name}-${theme}`);
    }
    assert.deepEqual(wrong, []);
  });
}

// The tool each language needs and the words around a file of its code; a tool that is missing is a named skip, or
// a failure. The clients' own environments have the SDKs.
const venv = process.env.CARD4E_VENV ?? join(here, "../../.test-env/venv");
const packages = process.env.CARD4E_NODE_CLIENTS ?? join(here, "../../.test-env/node");
const python = join(venv, "bin/python");
const there = (path) => (existsSync(path) ? path : undefined);
const RUN = {
  curl: [found("curl"), "sh", "main.sh"],
  python: [found("python3"), "python3", "main.py"],
  requests: [there(python), python, "main.py"],
  node: [process.execPath, process.execPath, "main.js"],
  go: [found("go"), "go", "run", "main.go"],
  java: [found("javac"), "java", "Main.java"],
  php: [found("php"), "php", "main.php"],
  ruby: [found("ruby"), "ruby", "main.rb"],
  "tc-curl": [found("openssl"), "sh", "main.sh"],
  "tc-python": [there(python), python, "main.py"],
  "tc-node": [there(join(packages, "node_modules")), process.execPath, "main.js"],
  tccli: [there(join(venv, "bin/tccli")), "sh", "main.sh"],
};
const environment = () => ({
  PATH: `${process.env.PATH}:${join(venv, "bin")}`, HOME: work, GOFLAGS: "-mod=mod", GO111MODULE: "off", LANG: "C.UTF-8",
  NODE_PATH: join(packages, "node_modules"), GOCACHE: join(work, "go-cache"), no_proxy: "*",
});

/** Copies the code of a language from the page and runs it; what it printed. */
async function runs(page, language, of = (code) => code) {
  const [, tool, ...words] = RUN[language];
  await page.click(`label[for=s-${language}]`);
  await page.click(`[data-copy="#c-${language}"]`);
  const code = of(await page.evaluate(() => navigator.clipboard.readText()));
  writeFileSync(join(work, words.at(-1)), code);
  const ran = spawnSync(tool, words, { cwd: work, env: environment(), encoding: "utf8", timeout: 120_000 });
  return { code, said: ran.stdout + ran.stderr };
}

/** Runs the test of a language, unless what it needs is not there. */
async function each(t, languages, test) {
  for (const language of languages) {
    await t.test(`code: ${language}`, async (t) => {
      if (!RUN[language][0]) {
        assert.ok(!strict, `what runs ${language} is missing (./test installs it)`);
        return t.skip("what runs it is missing");
      }
      await test(language);
    });
  }
}

test("guest, acquire, try, usage, code, order, balance", async (t) => {
  const { page, wrong } = await visit();
  await page.goto(url + API);
  await page.click(`a.primary[href^="/auth/login"]`);
  await page.click(`a[href^="/auth/register"]`);
  const next = new URL(page.url()).searchParams.get("next");
  assert.equal(next, API, "and back to the page");
  await register(page, "shop", encodeURIComponent(next));
  assert.equal(page.url(), url + API);
  await page.check("[name=terms]");
  await page.click("form[action='/console/acquire'] button");
  const key = await page.inputValue("#token");
  assert.match(key, /^[0-9a-f]{32}$/);

  await page.click("#send");
  await page.waitForFunction(() => document.querySelector("#answer-line").textContent);
  assert.match(await page.textContent("#answer-line"), /^HTTP 200 · [\d.]+ ms · charged 1 · balance 9$/);
  assert.deepEqual(JSON.parse(await page.textContent("#answer-body")).result, "0");
  await page.fill("[data-member=bank_card]", "6200000000130000");
  await page.click("#send");
  await page.waitForFunction(() => document.querySelector("#answer-body").textContent.includes("-11"));

  const isTencent = (language) => language.startsWith("tc");
  await each(t, Object.keys(RUN).filter((language) => !isTencent(language)), async (language) => {
    const { code, said } = await runs(page, language);
    assert.ok(code.includes(key) && code.includes("6200000000130000"), "the key and the form's values");
    assert.match(said, /-11.*lost/s);
  });
  const shown = await page.$$eval("[data-snippet]", (all) => all.map(({ dataset }) => [dataset.snippet, "run" in dataset]));
  const claimed = shown.filter(([, isRun]) => isRun).map(([id]) => id);
  assert.deepEqual(claimed.sort(), Object.keys(RUN).sort(), "the page marks the others as not run");
  assert.equal(await page.locator(".tab strong").count(), shown.length - claimed.length);

  await sleep(600);
  await page.goto(`${url}/console/usages`);
  assert.ok((await page.textContent("main")).includes("CARD_LOST"));
  await page.locator("a[href^='/console/usages/']:not(.button)").last().click();
  const one = await page.textContent("main");
  assert.ok(one.includes("PASS") && !one.includes("6225768888888888"), "masked");
  assert.deepEqual(wrong, []);

  const admin = await operator();
  await admin.page.fill("[name=title]", "Hundred");
  await admin.page.fill("form[action$='/package'] [name=amount]", "100");
  await admin.page.fill("form[action$='/package'] [name=price]", "9.9");
  await admin.page.click("form[action$='/package'] button");
  await page.goto(`${url}/service/identity`);
  await page.click("form[action='/console/orders'] button");
  assert.ok((await page.textContent("tbody")).includes("Pending"));
  await admin.page.goto(`${url}/console/operator`);
  await look(admin.page, "operator");
  await admin.page.click("table a >> text=shop");
  await look(admin.page, "operator-account");
  await admin.page.goto(`${url}/console/operator`);
  await admin.page.click("form[action$='/finish'] button");
  assert.ok((await admin.page.textContent(".notice")).includes("finished"));
  await page.goto(`${url}/console/applications`);
  const before = Number(await page.textContent(".facts dd"));
  assert.ok(before > 90, `the balance has grown: ${before}`);

  await page.goto(`${url}/console/applications`);
  await page.fill("form[action='/console/keys'] [name=limit]", "100");
  await page.selectOption("[name=kind]", "Signature");
  await page.click("form[action='/console/keys'] button");
  const [secretId] = (await page.textContent(".notice")).match(/AKID\w+/);
  const secretKey = await page.textContent("#secret");
  // Every action has the same page; this one asks of which bank a card is.
  for (const [path, expected] of [[API, /-13.*挂失/s], ["/documents/identity-bankcard-check-1e", /"Result":"-?[0-9]+".*"RequestId"/]]) {
    await page.goto(url + path);
    await page.fill("[data-member=bank_card]", "6200000000130000");
    const keyed = (code) => code.replaceAll("'SecretId'", `'${secretId}'`).replaceAll('"SecretId"', `"${secretId}"`)
      .replaceAll("'SecretKey'", `'${secretKey}'`).replaceAll('"SecretKey"', `"${secretKey}"`)
      .replace("--secretId SecretId --secretKey SecretKey", `--secretId ${secretId} --secretKey ${secretKey}`);
    const languages = path === API ? Object.keys(RUN).filter(isTencent) : ["tc-curl"];
    await each(t, languages, async (language) => {
      const { said } = await runs(page, language, keyed);
      assert.match(said, expected);
    });
  }
  assert.deepEqual(admin.wrong, []);
});

test("a visitor's own pages", async () => {
  const { page, wrong } = await visit({ bypassCSP: true });
  await register(page, "looker", API);
  await page.check("[name=terms]");
  await page.click("form[action='/console/acquire'] button");
  await look(page, "acquired");
  await page.click("#send");
  await page.waitForFunction(() => document.querySelector("#answer-line").textContent);
  await look(page, "tried");
  await sleep(600);
  for (const name of ["applications", "platform-tokens", "usages", "orders"]) {
    await page.goto(`${url}/console/${name}`);
    await look(page, name);
  }
  assert.deepEqual(wrong, []);
});

test("the signature of the page is right, and the debugger names the line that is not", async () => {
  const { page } = await operator();
  await page.goto(`${url}/documents/explorer`);
  await page.waitForSelector("#steps li:nth-child(9)");
  const step = (at) => page.textContent(`#steps li:nth-child(${at}) pre`);
  writeFileSync(join(work, "signed.sh"), await step(9));
  const ran = spawnSync("sh", ["signed.sh"], { cwd: work, encoding: "utf8" });
  assert.equal(JSON.parse(ran.stdout).Response.Result, "0", ran.stdout + ran.stderr);

  const stamp = await page.inputValue("[name=timestamp]");
  const request = (signature) => `POST / HTTP/1.1\nHost: ${new URL(url).host}\nContent-Type: application/json\nX-TC-Action: BankCard4EVerification\nX-TC-Version: 2018-03-01\nX-TC-Timestamp: ${stamp}\nAuthorization: ${signature}\n\n`;
  const [body, canonical, authorization] = [await step(1), await step(2), await step(8)];
  await page.fill("[name=request]", request(authorization) + body);
  await page.click("#debugger button.primary");
  assert.ok((await page.textContent("#debugger .notice")).includes("right"));
  await page.fill("[name=request]", request(authorization.replace(/.{64}$/, "0".repeat(64))) + body);
  await page.fill("[name=canonical]", canonical.replace("application/json", "application/json; charset=utf-8"));
  await page.click("#debugger button.primary");
  assert.ok((await page.textContent("#debugger .notice")).includes("line 4"));
  assert.equal((await page.textContent("tr.differs td")).trim(), "4");
});

test("every call of the Tencent wire is signed with its own members", async () => {
  const { page, wrong } = await visit();
  await page.goto(`${url}/documents/explorer?call=IdCardVerification`);
  await page.waitForSelector("#steps li:nth-child(9)");
  const calls = await page.$$eval("[name=call] option", (all) => all.map(({ value }) => value));
  assert.ok(calls.length >= 10, calls.join());
  assert.equal(await page.inputValue("[name=call]"), "IdCardVerification");
  for (const call of calls) {
    await page.selectOption("[name=call]", call);
    await page.waitForFunction((call) => document.querySelector("#steps li:nth-child(9) pre").textContent.includes(`x-tc-action: ${call}'`), call);
    writeFileSync(join(work, "signed.sh"), await page.textContent("#steps li:nth-child(9) pre"));
    const { Response } = JSON.parse(spawnSync("sh", ["signed.sh"], { cwd: work, encoding: "utf8" }).stdout);
    assert.ok(Response.Result !== undefined, `${call}: ${JSON.stringify(Response)}`);
  }
  assert.deepEqual(wrong, []);
});

test("without a script everything but Try works, and with the keyboard alone", async () => {
  const { page } = await visit({ javaScriptEnabled: false });
  await register(page, "plain", API);
  await page.check("[name=terms]");
  await page.click("form[action='/console/acquire'] button");
  assert.ok(await page.isDisabled("#send"));
  await page.click("label[for=s-python]");
  assert.ok(await page.isVisible("#c-python") && !(await page.isVisible("#c-curl")));
  await page.goto(`${url}/auth/login`);
  await page.keyboard.press("Tab");
  assert.equal(await page.locator(":focus").textContent(), "Skip to the content");
});

test("the operator imports a file, finds an account, checks the audit, sees how the server is", async () => {
  const { page, wrong } = await operator();
  await page.goto(`${url}/console/operator/data`);
  const file = join(work, "accounts.csv");
  assert.equal(spawnSync(binary, ["synth", "--accounts", "1200", "--out", file]).status, 0);
  const rows = readFileSync(file, "utf8").trimEnd().split("\n");
  const [, , , [card]] = rows.map((row) => row.split(","));
  rows[701] = rows[701].replace(/^\d+/, "not a card");
  rows[702] = "one,too,few";
  writeFileSync(file, `\uFEFF${rows.join("\r\n")}\r\n`);
  await page.setInputFiles("[name=file]", file);
  await page.click("#import button.primary");
  await page.waitForFunction(() => document.querySelector("#import-line").textContent.startsWith("Done"));
  assert.equal(await page.textContent("#import-line"), "Done · 1200 rows · 1198 done · 0 to delete were not there · 2 rejected");
  assert.match(await page.textContent("#import-rejected"), /line 703: not as many values.*line 702: bank_card/s);
  await look(page, "operator-data");
  await page.fill("[name=card]", card);
  await page.click("form[action$='/lookup'] button");
  assert.match(await page.textContent(".notice"), /status: normal/);
  await page.goto(`${url}/console/operator/data?issuer=622848`);
  assert.ok((await page.textContent("main table")).includes("Agricultural"));
  await look(page, "operator-issuers");

  await page.goto(`${url}/console/operator/audit`);
  await page.click("form[action$='/check'] button");
  await page.waitForFunction(() => document.querySelector("#live").textContent.includes("holds"));
  assert.ok((await page.textContent("main table")).includes("account looked up"));
  await look(page, "operator-audit");
  await page.goto(`${url}/console/operator/health`);
  await look(page, "operator-health");

  const dark = await operator({ colorScheme: "dark", locale: "zh-CN" });
  for (const path of ["", "/account/2", "/data?issuer=6228", "/audit", "/health"]) {
    await dark.page.goto(`${url}/console/operator${path}`);
    await look(dark.page, `operator${path.replace(/\W/g, "-")}-dark`);
  }
  assert.deepEqual([...wrong, ...dark.wrong], []);
});

test("a password is changed, and one that was forgotten is chosen anew", async () => {
  const { page, wrong } = await visit({ bypassCSP: true });
  await register(page, "forgetful", "/console/account");
  await look(page, "account");
  await page.fill("[name=old]", "correct horse battery");
  await page.fill("[name=new]", "staple correct horse");
  await page.click("form[action$='/password'] button");
  assert.equal(page.url(), `${url}/console/account`, "still logged in");
  const admin = await operator();
  await admin.page.fill("form[action='/console/operator'] [name=name]", "forgetful");
  await admin.page.click("form[action='/console/operator'] button");
  await admin.page.click("table a >> text=forgetful");
  await admin.page.click("form[action$='/reset'] button");
  await page.goto(await admin.page.textContent("#secret"));
  await page.fill("[name=password]", "battery staple correct");
  await page.click("form.panel button");
  assert.equal(page.url(), `${url}/console/applications`);
  assert.deepEqual([...wrong, ...admin.wrong], []);
});

test("refused requests are on the usage page", async () => {
  const { page, wrong } = await visit({ bypassCSP: true });
  await register(page, "refused", API);
  await page.check("[name=terms]");
  await page.click("form[action='/console/acquire'] button");
  const key = await page.inputValue("#token");
  const reply = await fetch(`${url}/identity/bankcard/check-4e`, { method: "POST", headers: { authorization: `Bearer ${key}` }, body: "{}" });
  assert.equal(reply.status, 400);
  await sleep(700);
  await page.goto(`${url}/console/usages`);
  assert.match(await page.textContent("main"), /Refused, by code.*bad_request.*refused: bad_request/s);
  await look(page, "usages-refused");
  await page.locator("a[href^='/console/usages/']:not(.button)").last().click();
  assert.match(await page.textContent("main"), /Refused with\s*bad_request/);
  await look(page, "usage-refused");
  assert.deepEqual(wrong, []);
});

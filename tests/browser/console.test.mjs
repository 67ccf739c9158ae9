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
  const binary = resolve(process.env.CARD4E_BIN ?? join(here, "../../target/release/card4e"));
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

async function operator() {
  const { page, wrong } = await visit({ bypassCSP: true });
  await page.goto(`${url}/auth/login?next=/console/operator`);
  await page.click("summary");
  await page.fill("details input[type=password]", OPERATOR);
  await page.click("details form button");
  return { page, wrong };
}

const PAGES = {
  home: "/", service: "/service/identity", api: API, explorer: "/documents/explorer", login: "/auth/login",
  register: "/auth/register", support: "/support", terms: "/terms", search: "/documents/search?q=lost", sandbox: "/console/sandbox",
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

// The words each language needs around a file of code; what is missing here is a named skip, or a failure.
const RUN = {
  curl: ["curl", "sh"],
  python: ["python3", "python3", "main.py"],
  node: ["node", process.execPath, "main.js"],
  go: ["go", "go", "run", "main.go"],
  java: ["javac", "java", "Main.java"],
  php: ["php", "php", "main.php"],
  ruby: ["ruby", "ruby", "main.rb"],
};
const FILE = { curl: "main.sh", python: "main.py", node: "main.js", go: "main.go", java: "Main.java", php: "main.php", ruby: "main.rb" };

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

  for (const [language, [tool, ...command]] of Object.entries(RUN)) {
    await t.test(`code: ${language}`, async (t) => {
      if (!found(tool) && tool !== "node") {
        assert.ok(!strict, `${tool} is missing (./test installs it)`);
        return t.skip(`${tool} is missing`);
      }
      await page.click(`label[for=s-${language}]`);
      await page.click(`[data-copy="#c-${language}"]`);
      const code = await page.evaluate(() => navigator.clipboard.readText());
      assert.ok(code.includes(key) && code.includes("6200000000130000"), "the key and the form's values");
      writeFileSync(join(work, FILE[language]), code);
      const environment = { PATH: process.env.PATH, HOME: work, GOFLAGS: "-mod=mod", GO111MODULE: "off", LANG: "C.UTF-8" };
      const ran = spawnSync(command[0], language === "curl" ? ["main.sh"] : command.slice(1), { cwd: work, env: environment, encoding: "utf8", timeout: 120_000 });
      assert.match(ran.stdout, /-11.*lost/s, ran.stderr);
    });
  }
  for (const id of await page.$$eval("[data-snippet]", (all) => all.map((one) => one.dataset.snippet))) {
    if (!RUN[id]) await t.test(`code: ${id}`, { skip: "shown, not run here" }, () => {});
  }

  await sleep(600);
  await page.goto(`${url}/console/usages`);
  assert.ok((await page.textContent("tbody")).includes("CARD_LOST"));
  await page.click("tbody tr:last-child a");
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
  await admin.page.click("form[action$='/finish'] button");
  assert.ok((await admin.page.textContent(".notice")).includes("finished"));
  await page.goto(`${url}/console/applications`);
  const before = Number(await page.textContent(".facts dd"));
  assert.ok(before > 90, `the balance has grown: ${before}`);
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

// Takes the README's picture of the console: node tests/browser/picture.mjs [FILE], after ./test has installed the browser.
// A visitor has acquired the service and tried it: form, answer and code are on one screen.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const here = new URL(".", import.meta.url).pathname;
const file = resolve(process.argv[2] ?? join(here, "../../docs/console.png"));
const require = createRequire(join(process.env.CARD4E_BROWSER ?? join(here, "../../.test-env/browser"), "/"));
const binary = resolve(process.env.CARD4E_BIN ?? join(here, "../../target/release/card4e"));
const work = mkdtempSync(join(tmpdir(), "card4e-picture-"));
const ready = join(work, "ready");
const server = spawn(binary, ["sandbox", "--listen", "127.0.0.1:0", "--ready-file", ready], { stdio: "ignore" });
let browser;
try {
  while (!existsSync(ready) || !readFileSync(ready, "utf8")) await sleep(20);
  const url = `http://${readFileSync(ready, "utf8").trim()}`;
  const executablePath = ["/usr/bin/chromium", "/usr/bin/google-chrome"].find(existsSync);
  browser = await require("playwright-core").chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const page = await browser.newPage({ locale: "en-US", colorScheme: "light", viewport: { width: 1240, height: 940 } });
  const api = "/documents/identity-bankcard-check-4e";
  await page.goto(`${url}/auth/register?next=${api}`);
  await page.fill("[name=name]", "shop");
  await page.fill("[name=login]", "shop@example.com");
  await page.fill("[name=password]", "correct horse battery");
  await page.check("[name=terms]");
  await page.click("form.panel button.primary");
  await page.check("[name=terms]");
  await page.click("form[action='/console/acquire'] button");
  await page.goto(url + api); // the key is shown once: not in the picture
  await page.click("label[for=s-tc-python]");
  await page.click("#send");
  await page.waitForFunction(() => document.querySelector("#answer-body").textContent.includes("result"));
  await page.evaluate(() => document.querySelector("#answer-body").scrollIntoView({ block: "end" }));
  await page.screenshot({ path: file });
  console.log(`${file}: ${Math.round(statSync(file).size / 1024)} KiB`);
} finally {
  await browser?.close();
  server.kill();
  rmSync(work, { recursive: true, force: true });
}

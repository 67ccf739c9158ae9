// What needs a script: copying, the code that follows the form, Try, the signature steps, live panels.
const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const zh = document.documentElement.lang.startsWith("zh");
const say = (en, chinese) => (zh ? chinese : en);

for (const button of all("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const from = $(button.dataset.copy);
    await navigator.clipboard.writeText(from.value ?? from.textContent);
    const was = button.textContent;
    button.textContent = say("Copied", "已复制");
    setTimeout(() => (button.textContent = was), 1500);
  });
}

const form = $("#try");
if (form) {
  const members = () =>
    Object.fromEntries(all("[data-member]", form).map((input) => [input.dataset.member, input.value]));
  // Nothing that could end a literal of any language stands in the JSON text as it is.
  const literal = (value) => JSON.stringify(value).replace(/['`$\\<>&](?!")/g, (c) =>
    c === "\\" ? c : "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
  const names = Object.fromEntries(all("[data-member]", form).map((input) => [input.dataset.member, input]));
  const update = () => {
    const body = "{" + Object.entries(members()).map(([k, v]) => `"${k}":${literal(v)}`).join(",") + "}";
    for (const span of all("[data-body]")) span.textContent = body;
    for (const span of all("[data-value]")) {
      const value = literal(names[span.dataset.value]?.value ?? "");
      span.textContent = value.slice(1, -1);
    }
  };
  for (const input of Object.values(names)) input.addEventListener("input", update);
  if (location.search) update();

  const send = $("#send");
  const key = form.elements.credential;
  if (send && key && key.options.length) {
    send.disabled = false;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      send.disabled = true;
      const panel = $("#answer");
      const asked = { alias: form.dataset.alias, credential: key.value, members: members() };
      const headers = { "content-type": "application/json", "x-csrf-token": form.dataset.csrf };
      try {
        const reply = await fetch("/console/try", { method: "POST", headers, body: JSON.stringify(asked) });
        const told = await reply.json();
        panel.hidden = false;
        if (!reply.ok) throw new Error(told.error);
        const charged = told.headers["x-charged"];
        const left = told.headers["x-credits-remaining"];
        const line = [`HTTP ${told.status}`, `${told.milliseconds.toFixed(1)} ms`];
        if (charged !== undefined) line.push(charged === "0" ? say("free", "未计费") : say(`charged ${charged}`, `计费 ${charged}`));
        if (left !== undefined) line.push(say(`balance ${left}`, `余额 ${left}`));
        if (told.status >= 400) line.push(panel.dataset.support);
        $("#answer-line").textContent = line.join(" · ");
        $("#answer-body").textContent = pretty(told.body);
        $("#answer-headers").textContent = Object.entries(told.headers).map((pair) => pair.join(": ")).join("\n");
        const id = told.headers["x-trace-id"] ?? request_id(told.body);
        $("#answer-usage").href = id && told.status < 400 ? `/console/usages/${id}` : "/console/usages";
      } catch (error) {
        panel.hidden = false;
        $("#answer-line").textContent = error.message;
        $("#answer-body").textContent = panel.dataset.support;
      }
      send.disabled = false;
    });
  }
}

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}
function request_id(text) {
  try { return JSON.parse(text).Response.RequestId; } catch { return undefined; }
}

const sign = $("#sign");
if (sign && crypto.subtle) {
  const bytes = (text) => new TextEncoder().encode(text);
  const hex = (buffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const hash = async (text) => hex(await crypto.subtle.digest("SHA-256", bytes(text)));
  const hmac = async (key, text) => {
    const made = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
    return new Uint8Array(await crypto.subtle.sign("HMAC", made, bytes(text)));
  };
  const time = sign.elements.timestamp;
  time.value = Math.floor(Date.now() / 1000);
  const steps = async () => {
    const value = (name) => sign.elements[name].value.trim();
    const stamp = Number.parseInt(time.value, 10) || 0;
    const date = new Date(stamp * 1000).toISOString().slice(0, 10);
    const taken = sign.elements.call.selectedOptions[0].dataset.members.split(" ");
    const inputs = all("[data-tencent]", sign);
    for (const input of inputs) input.closest("label").hidden = !taken.includes(input.dataset.tencent);
    const typed = Object.fromEntries(inputs.map((input) => [input.dataset.tencent, input.value]));
    const body = JSON.stringify(Object.fromEntries(taken.map((name) => [name, typed[name]])));
    const host = sign.dataset.host;
    const canonical = `POST\n/\n\ncontent-type:application/json\nhost:${host}\n\ncontent-type;host\n${await hash(body)}`;
    const scope = `${date}/faceid/tc3_request`;
    const text = `TC3-HMAC-SHA256\n${stamp}\n${scope}\n${await hash(canonical)}`;
    const secret = value("secret_key");
    const day = await hmac(bytes("TC3" + secret), date);
    const service = await hmac(day, "faceid");
    const signing = await hmac(service, "tc3_request");
    const signature = hex(await hmac(signing, text));
    const authorization = `TC3-HMAC-SHA256 Credential=${value("secret_id")}/${scope}, SignedHeaders=content-type;host, Signature=${signature}`;
    const curl = `curl -s ${location.origin}/ \\\n  -H 'host: ${host}' -H 'content-type: application/json' \\\n  -H 'authorization: ${authorization}' \\\n  -H 'x-tc-action: ${value("call")}' -H 'x-tc-version: 2018-03-01' -H 'x-tc-timestamp: ${stamp}' \\\n  -d '${body.replaceAll("'", "'\\''")}'`;
    const shown = [
      [say("Body", "请求体"), body],
      [say("Canonical request", "规范请求串"), canonical],
      [say("String to sign", "待签名字符串"), text],
      ["HMAC(TC3 + SecretKey, date)", hex(day)],
      ["HMAC(…, faceid)", hex(service)],
      ["HMAC(…, tc3_request)", hex(signing)],
      [say("Signature", "签名"), signature],
      ["Authorization", authorization],
      ["curl", curl],
    ];
    $("#steps").replaceChildren(...shown.map(([title, what]) => {
      const item = document.createElement("li");
      const head = document.createElement("strong");
      const pre = document.createElement("pre");
      head.textContent = title;
      pre.textContent = what;
      pre.tabIndex = 0;
      item.append(head, pre);
      return item;
    }));
  };
  sign.addEventListener("input", steps);
  sign.addEventListener("submit", (event) => event.preventDefault());
  steps();
}

else if (sign) $("#steps").textContent = say(
  "The browser computes signatures on https and on localhost only.", "浏览器仅在 https 或 localhost 下计算签名。");

// A section that says how something goes on is fetched again while somebody looks.
const goesOn = () => $("#live[data-live]");
if (goesOn()) {
  const again = setInterval(async () => {
    if (document.hidden) return;
    const reply = await fetch(goesOn().dataset.live).catch(() => undefined);
    if (!reply?.ok || reply.redirected) return;
    const fresh = new DOMParser().parseFromString(await reply.text(), "text/html").querySelector("#live");
    if (fresh) $("#live").replaceWith(document.adoptNode(fresh));
    if (!goesOn()) clearInterval(again);
  }, 2000);
}

// A file of accounts, sent in parts: what was answered is on the disk, so the line tells how far it is.
const load = $("#import");
if (load) {
  const KNOWN = ["bank_card", "name", "id_type", "id_number", "phone", "status", "op", "id_validity"];
  const [SLICE, LINES, REJECTED_SHOWN] = [1 << 18, 500, 100];
  let stopped = false;
  const bare = (value) => value.trim().replace(/^"(.*)"$/, "$1");
  const order = (names, line) => {
    const values = line.split(",").map(bare);
    const account = Object.fromEntries(names.map((name, at) => [name, values[at] ?? ""]));
    if (account.op === "delete") return { op: "delete", bank_card: account.bank_card };
    if (!account.op) delete account.op;
    return account;
  };
  const send = async (part) => {
    const headers = { "content-type": "application/x-ndjson", "x-csrf-token": load.dataset.csrf };
    const body = part.map(({ json }) => json).join("\n");
    const reply = await fetch("/console/operator/import", { method: "POST", headers, body });
    const told = await reply.json();
    if (!reply.ok) throw new Error(told.error);
    return told;
  };
  async function* linesOf(file, encoding) {
    const decoder = new TextDecoder(encoding);
    let rest = "";
    for (let at = 0; at < file.size; at += SLICE) {
      rest += decoder.decode(await file.slice(at, at + SLICE).arrayBuffer(), { stream: true });
      const lines = rest.split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) yield [line, Math.min(at + SLICE, file.size)];
    }
    if (rest + decoder.decode()) yield [rest, file.size];
  }
  load.hidden = false;
  $("#import-stop").addEventListener("click", () => (stopped = true));
  load.addEventListener("submit", async (event) => {
    event.preventDefault();
    stopped = false;
    const file = load.elements.file.files[0];
    const button = $("button.primary", load);
    button.disabled = true;
    $("#import-told").hidden = $("#import-stop").hidden = false;
    const sum = { rows: 0, done: 0, absent: 0, rejected: 0 };
    const shown = [];
    let [names, part, line] = [undefined, [], 0];
    const tell = (what) => {
      $("#import-line").textContent = [
        what,
        say(`${sum.rows} rows`, `已读 ${sum.rows} 行`),
        say(`${sum.done} done`, `完成 ${sum.done}`),
        say(`${sum.absent} to delete were not there`, `待删除但不存在 ${sum.absent}`),
        say(`${sum.rejected} rejected`, `拒绝 ${sum.rejected}`),
      ].join(" · ");
      $("#import-rejected").hidden = !shown.length;
      $("#import-rejected").textContent = shown.join("\n");
    };
    const flush = async () => {
      if (!part.length) return;
      const told = await send(part);
      sum.rows += part.length;
      sum.done += told.done;
      sum.absent += told.absent;
      sum.rejected += told.rejected.length;
      for (const { line: at, error } of told.rejected) {
        if (shown.length < REJECTED_SHOWN) shown.push(`${say("line", "第")} ${part[at].line}: ${error}`);
      }
      part = [];
    };
    try {
      for await (const [text, at] of linesOf(file, load.elements.encoding.value)) {
        line += 1;
        if (stopped) break;
        if (!names) {
          names = text.replace(/^\uFEFF/, "").split(",").map(bare);
          const strange = names.find((name) => !KNOWN.includes(name));
          if (strange !== undefined) throw new Error(say(`The header has “${strange}”; it can have ${KNOWN.join(",")}.`, `表头含有“${strange}”；可用列为 ${KNOWN.join(",")}。`));
        } else if (text.trim() && text.split(",").length !== names.length) {
          sum.rows += 1;
          sum.rejected += 1;
          shown.push(`${say("line", "第")} ${line}: ${say("not as many values as the header has", "列数与表头不符")}`);
        } else if (text.trim()) {
          part.push({ line, json: JSON.stringify(order(names, text)) });
        }
        if (part.length >= LINES) {
          await flush();
          $("#import-bar").value = at / file.size;
          tell(say("Importing", "导入中"));
        }
      }
      await flush();
      if (!stopped) $("#import-bar").value = 1;
      tell(stopped ? say("Stopped; what was sent stays", "已停止，已发送的部分保留") : say("Done", "已完成"));
    } catch (error) {
      tell(`${error.message} ${say("What was sent before stays; import the file again.", "此前已发送的部分保留，可重新导入该文件。")}`);
    }
    $("#import-stop").hidden = true;
    button.disabled = false;
  });
}

const journal = $("#journal tbody");
if (journal) {
  const call = async (method, what, body) => {
    const reply = await fetch(`/_sandbox/${what}`, { method, body: body && JSON.stringify(body) });
    return reply.json();
  };
  const refresh = async () => {
    const [lines, clock, faults] = await Promise.all([
      call("GET", "journal?limit=30"), call("GET", "clock"), call("GET", "faults")]);
    $("#clock").textContent = `${clock.utc} (${clock.mode})`;
    $("#faults").textContent = faults.faults.length ? JSON.stringify(faults.faults) : "";
    journal.replaceChildren(...lines.entries.map((entry) => {
      const row = document.createElement("tr");
      const answer = entry.outcome ? `${entry.outcome} (${entry.result ?? ""})` : entry.error ?? String(entry.status);
      for (const text of [entry.at, `${entry.wire} ${entry.action}`, entry.application ?? "", answer, entry.hint ?? ""]) {
        const cell = document.createElement("td");
        cell.textContent = text;
        row.append(cell);
      }
      return row;
    }));
  };
  $("#clock-acts").hidden = $("#fault-acts").hidden = false;
  document.addEventListener("click", async ({ target }) => {
    const { clock, fault } = target.dataset ?? {};
    const now = Math.floor(Date.now() / 1000);
    const modes = { real: { mode: "real" }, tomorrow: { mode: "shifted", seconds: 86400 }, frozen: { mode: "frozen", now } };
    if (clock) await call("PUT", "clock", modes[clock]);
    if (fault === "once") await call("POST", "faults", { effect: { outcome: $("#fault").value }, count: 1 });
    if (fault === "clear") await call("DELETE", "faults");
    if (clock || fault) await refresh();
  });
  refresh();
  setInterval(() => document.hidden || refresh(), 2000);
}

// The page's work: it holds one stream of snapshots, draws what changed, and sends what is asked for.
"use strict";

(() => {
  const TOKEN = "embedding-recovery-token";
  const WAIT_MAX_MS = 10_000;
  // The service sends a sign of life each 15 s: after two missed ones the line is dead.
  const SILENCE_MAX_MS = 40_000;
  // What was asked for is shown so long, unless the row goes before.
  const ASKED_MS = 20_000;
  const SAID_MS = 6_000;
  const $ = (id) => document.getElementById(id);
  const drawn = new Map();
  const asked = new Map();
  let snapshot = null;

  const token = () => sessionStorage.getItem(TOKEN);
  const headers = () => (token() ? { authorization: `Bearer ${token()}` } : {});

  // ---- what is seen

  function draw() {
    if (!snapshot) return;
    for (const [name, view] of Object.entries(views.all)) {
      const nodes = [view(snapshot, acts)].flat(9).filter(Boolean);
      const place = document.querySelector(`[data-view="${name}"]`);
      const holder = document.createElement("div");
      holder.append(...nodes);
      // Times are said anew by themselves: they are no change.
      const text = holder.innerHTML.replace(/<time[^>]*>[^<]*/g, (found) => found.split(">")[0]);
      if (drawn.get(name) === text) continue;
      drawn.set(name, text);
      const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
      const left = place.querySelector(".scroll")?.scrollLeft;
      place.replaceChildren(...nodes);
      if (left) place.querySelector(".scroll")?.scrollTo(left, 0);
      if (focused) place.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    }
    const dead = snapshot.overview.tasks.dead_letter;
    document.title = dead ? `${views.many(dead, "dead letter")} – Embedding Recovery` : "Embedding Recovery";
  }

  function link(state, text) {
    $("link").dataset.state = state;
    $("link-text").textContent = text;
  }

  function trouble(text) {
    $("trouble").hidden = !text;
    if ($("trouble").textContent !== text) $("trouble").textContent = text;
  }

  let saying;
  function say(text) {
    clearTimeout(saying);
    $("said").textContent = text;
    saying = setTimeout(() => { $("said").textContent = ""; }, SAID_MS);
  }

  function gate(refused) {
    snapshot = null;
    drawn.clear();
    for (const place of document.querySelectorAll("[data-view]")) place.replaceChildren();
    pages.close();
    explain.close();
    for (const id of ["board", "seek", "forget"]) $(id).hidden = true;
    $("gate").hidden = false;
    if (refused) $("gate-text").textContent = "That token is not known here. Try another one.";
    link("trouble", "No token");
    trouble("");
    $("token").focus();
  }

  function show(next) {
    snapshot = next;
    $("gate").hidden = true;
    for (const id of ["board", "seek"]) $(id).hidden = false;
    $("forget").hidden = !token();
    link("live", "Live");
    trouble("");
    draw();
    charts.show(next.history);
    pages.refresh();
  }

  // ---- the stream

  const pause = (ms) => new Promise((wake) => setTimeout(wake, ms));

  async function follow() {
    let wait = 500;
    for (;;) {
      try {
        const ended = await stream(() => { wait = 500; });
        if (ended === "gate") return;
        link("trouble", "Connecting again");
      } catch {
        link("trouble", "Connecting again");
        trouble("The service does not answer. What is shown is the last that it told.");
      }
      await pause(wait);
      wait = Math.min(wait * 2, WAIT_MAX_MS);
    }
  }

  // Reads events until the stream ends. An EventSource could send no token.
  async function stream(alive) {
    const cut = new AbortController();
    let timer = setTimeout(() => cut.abort(), SILENCE_MAX_MS);
    try {
      const response = await fetch("/v1/live", { headers: headers(), signal: cut.signal });
      if (response.status === 401) {
        gate(token() !== null);
        return "gate";
      }
      if (!response.ok) {
        trouble((await response.json()).detail);
        return "refused";
      }
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ""; ;) {
        const { done, value } = await reader.read();
        if (done) return "ended";
        alive();
        clearTimeout(timer);
        timer = setTimeout(() => cut.abort(), SILENCE_MAX_MS);
        const events = (text + value).split("\n\n");
        text = events.pop();
        events.forEach(take);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  function take(event) {
    const field = (name) => event.split("\n").find((line) => line.startsWith(name))?.slice(name.length).trim();
    const data = field("data:");
    if (!data) return;
    if (field("event:") === "snapshot") show(JSON.parse(data));
    else {
      link("trouble", "No news");
      trouble(`${JSON.parse(data).detail}. What is shown is the last that was known.`);
    }
  }

  // ---- what is done

  // An answer, or a problem with a title and a detail; neither where a token is asked for.
  async function call(method, path, body) {
    try {
      const json = body && { "content-type": "application/json" };
      const response = await fetch(path, { method, headers: { ...headers(), ...json }, body: body && JSON.stringify(body) });
      const text = await response.text();
      const answer = text ? JSON.parse(text) : {};
      if (response.status === 401) {
        gate(token() !== null);
        return {};
      }
      return response.ok ? { answer } : { problem: answer };
    } catch {
      return { problem: { title: "No answer", detail: "The service does not answer" } };
    }
  }

  async function send(method, path, body) {
    const { answer, problem } = await call(method, path, body);
    if (problem) say(`${problem.title}: ${problem.detail}`);
    return answer ?? null;
  }

  // Several users hold a recording of this number: asks for one of them.
  function choose(problem, chosen) {
    const dialog = $("whose");
    $("whose-text").textContent = `${views.many(problem.users.length, "user")} hold a recording of this number.`;
    $("whose-users").replaceChildren(...problem.users.map((user) =>
      views.h("button", { type: "submit", value: user, class: "quiet" }, user)));
    dialog.returnValue = "";
    dialog.showModal();
    dialog.addEventListener("close", () => { if (dialog.returnValue) chosen(dialog.returnValue); }, { once: true });
  }
  const api = { read: (path) => call("GET", path), say, choose };

  const pages = paging(api, () => draw());

  function ask(key) {
    asked.set(key, Date.now());
    setTimeout(draw, ASKED_MS + 100);
    draw();
  }

  // Asks whether it is meant; returns the reason, or "yes" where none is needed; null where not.
  function sure(title, text, yes, reasonNeeded = false) {
    $("sure-title").textContent = title;
    $("sure-text").textContent = text;
    $("sure-yes").textContent = yes;
    $("sure-reason").hidden = !reasonNeeded;
    $("reason").required = reasonNeeded;
    $("reason").value = "";
    const dialog = $("sure");
    dialog.returnValue = "no";
    dialog.showModal();
    (reasonNeeded ? $("reason") : $("sure-yes")).focus();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => {
        const meant = dialog.returnValue === "yes";
        resolve(meant ? $("reason").value.trim() || "yes" : null);
      }, { once: true });
    });
  }

  const acts = {
    page: pages.of,
    turn: pages.turn,
    explain: (row, key) => explain.show(api, row, key),
    asked: (key) => Date.now() - (asked.get(key) ?? 0) < ASKED_MS,
    async recover(row, node) {
      const path = `/v1/recordings/${row.recording_id}/recover`;
      const body = { user_id: row.user_id };
      let { answer, problem } = await call("POST", path, body);
      if (problem?.again_at) {
        const text = "It was tried within the last hour. Has its cause gone since?";
        if (!await sure(`Try ${row.title || row.recording_id} again already?`, text, "Try again")) return;
        ({ answer, problem } = await call("POST", path, { ...body, force: true }));
      }
      if (problem) say(`${problem.title}: ${problem.detail}`);
      if (!answer) return;
      say(`${row.title || row.recording_id}: ${answer.done}`);
      ask(node.dataset.key);
    },
    async recoverMany(fingerprint, count, node) {
      const key = node.dataset.key;
      const text = "Each is taken by recovery, one after another; what is stored already is not bought again.";
      if (!await sure(`Recover ${views.many(count, "recording")}?`, text, "Recover")) return;
      const answer = await send("POST", "/v1/dead-letters/recover", fingerprint ? { fingerprint } : {});
      if (!answer) return;
      const left = answer.left_alone ? `; ${answer.left_alone} were tried within the hour and are left alone` : "";
      say(`${views.many(answer.requested, "recording")} will be recovered${left}`);
      ask(key);
    },
    async discard(row) {
      const title = `Discard ${row.title || `recording ${row.recording_id}`}?`;
      const text = "The dead letter is removed for good. What can be found of the recording stays, and the log keeps your reason.";
      const reason = await sure(title, text, "Discard", true);
      if (!reason) return;
      const query = new URLSearchParams({ reason, user_id: row.user_id });
      if (await send("DELETE", `/v1/dead-letters/${row.recording_id}?${query}`)) say("Discarded");
    },
    async run(part) {
      if (await send("POST", `/v1/${part}/run`)) say("A run begins");
    },
    async pause(part) {
      if (await send("POST", "/v1/pause", { part })) say("Paused; what is in flight is finished");
    },
    async resume(part) {
      if (await send("POST", "/v1/resume", { part })) say("It goes on");
    },
  };

  $("gate-form").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN, $("token").value.trim());
    $("token").value = "";
    link("connecting", "Connecting");
    follow();
  });
  $("seek").addEventListener("submit", (event) => {
    event.preventDefault();
    explain.show(api, { recording_id: $("seek-id").value.trim() }, null);
  });
  $("forget").addEventListener("click", () => {
    sessionStorage.removeItem(TOKEN);
    location.reload();
  });
  setInterval(views.tick, 1_000);
  follow();
})();

// What each part of the page looks like. A view takes a snapshot and returns nodes; text is always
// set as text, so that a title or a message of a provider can be nothing else.
"use strict";

const views = (() => {
  function h(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (name === "onclick") node.addEventListener("click", value);
      else if (value != null && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat(9).filter((child) => child != null && child !== false));
    return node;
  }

  const number = (value) => value.toLocaleString("en");
  const many = (count, one, more = `${one}s`) => `${number(count)} ${count === 1 ? one : more}`;

  function duration(secs) {
    if (secs < 1) return "under 1 s";
    if (secs < 60) return `${Math.round(secs)} s`;
    if (secs < 3600) return `${Math.round(secs / 60)} min`;
    const [hours, minutes] = [Math.floor(secs / 3600), Math.round((secs % 3600) / 60)];
    if (hours < 24) return minutes && minutes < 60 ? `${hours} h ${minutes} min` : `${hours} h`;
    return many(Math.round(hours / 24), "day");
  }

  // A time as it is said now; `tick` says it anew later.
  function said(at) {
    const secs = (Date.parse(at) - Date.now()) / 1000;
    if (Math.abs(secs) < 2) return "now";
    return secs > 0 ? `in ${duration(secs)}` : `${duration(-secs)} ago`;
  }
  const time = (at) => h("time", { datetime: at, title: new Date(at).toLocaleString() }, said(at));
  function tick() {
    for (const node of document.querySelectorAll("time")) {
      const text = said(node.dateTime);
      if (node.textContent !== text) node.textContent = text;
    }
  }

  // `key` names the button over redraws: for the focus, and for what was asked already.
  function button(label, key, act, { quiet = false, name, asked, off } = {}) {
    const press = (event) => { if (!asked && !off) act(event.currentTarget); };
    return h("button", {
      type: "button", class: quiet && "quiet", "data-key": key, "aria-label": name, "aria-disabled": asked || off ? "true" : null, onclick: press,
    }, asked ? "Asked for" : label);
  }

  // A sentence with commands between backquotes, as the service writes them.
  const marked = (text) => text.replace(/^[a-z]/, (first) => first.toUpperCase()).split("`")
    .map((piece, index) => (index % 2 ? h("code", {}, piece) : piece));
  // When recovery takes something by itself: what is due is taken at its next tick.
  const again = (at) => (Date.parse(at) > Date.now() ? ["tried again ", time(at)] : "due for recovery");

  const called = (row) => row.title || `Recording ${row.recording_id}`;
  const named = (row) => `${row.recording_id} of ${row.user_id}`;
  const wait = (count) => `${number(count)} ${count === 1 ? "waits" : "wait"} for a person`;
  const share = ({ tried, succeeded }) => (tried ? `${Math.round((100 * succeeded) / tried)} % of ${number(tried)}` : "none tried");

  // The name of a recording, which explains it.
  function title(row, place, acts) {
    const key = `explain-${place}-${row.recording_id}-${row.user_id}`;
    return h("button", { type: "button", class: "name", "data-key": key, title: "Why is it here?", onclick: () => acts.explain(row, key) }, called(row));
  }

  function queue({ overview, health }) {
    const { tasks } = overview;
    const cell = (label, value, under, alarm) =>
      h("div", {}, h("dt", {}, label), h("dd", { class: alarm && value > 0 && "bad" }, number(value), under && h("div", { class: "under" }, under)));
    const oldest = overview.oldest_waiting_secs;
    const findings = health?.findings ?? [];
    return [
      findings.length > 0 && h("ul", { class: "findings" }, findings.map((finding) =>
        h("li", { class: finding.state }, h("strong", {}, `${finding.state === "critical" ? "Critical" : "Warning"}: `), `${finding.what}. `, h("span", { class: "action" }, marked(finding.action))))),
      h("dl", { class: "numbers" },
        cell("Pending", tasks.pending, oldest != null && `oldest waits ${duration(oldest)}`),
        cell("Processing", tasks.processing),
        cell("Waiting for a retry", tasks.failed, overview.retry_ready > 0 && `${number(overview.retry_ready)} due`),
        cell("Completed", tasks.completed, `${number(overview.completed_last_hour)} in the last hour`),
        cell("Dead letters", tasks.dead_letter, overview.dead_letters_permanent > 0 && wait(overview.dead_letters_permanent), true)),
      h("p", { class: "sentence soft" }, sentence(overview)),
    ];
  }

  function sentence(overview) {
    const open = overview.tasks.pending + overview.tasks.failed + overview.tasks.processing;
    const pace = overview.drain_per_minute;
    const drains = open === 0 ? "Everything that is queued is done. "
      : overview.empty_in_secs != null ? `The queue shrinks by ${pace.toFixed(1)} a minute and is empty in about ${duration(overview.empty_in_secs)}. `
      : "The queue does not shrink. ";
    const last = overview.last_completed_at;
    return [
      drains, `${many(overview.chunks_last_hour, "chunk")} stored in the last hour`,
      last ? [", the last recording completed ", time(last)] : "", ". ",
      `Over a day: completed at the first attempt ${share(overview.first_pass)}, recovered ${share(overview.recovery)}.`,
    ];
  }

  function parts({ overview }, { run, pause, resume }) {
    const row = (part, label, what) => {
      const paused = overview.pauses.find((pause) => pause.part === part);
      // A schedule is named after what it does and for which model.
      const does = { main: "reconcile", recovery: "recover" }[part];
      const next = overview.schedules.find((schedule) => schedule.name.startsWith(does));
      const state = paused
        ? h("span", { class: "note warn" }, "Paused by ", paused.by, " ", time(paused.since))
        : h("span", { class: "soft" }, what, next?.next_tick ? [", next tick ", time(next.next_tick)] : "");
      return h("li", {},
        h("span", { class: `dot ${paused ? "warn" : "good"}`, "aria-hidden": "true" }),
        h("div", { class: "grow tall" }, h("h3", {}, label), state),
        h("div", { class: "buttons" },
          button("Run now", `run-${part}`, (node) => run(part, node), { quiet: true, name: `Run ${label.toLowerCase()} now` }),
          paused
            ? button("Resume", `pause-${part}`, (node) => resume(part, node), { name: `Resume ${label.toLowerCase()}` })
            : button("Pause", `pause-${part}`, (node) => pause(part, node), { quiet: true, name: `Pause ${label.toLowerCase()}` })));
    };
    return h("ul", { class: "rows" },
      row("main", "Main pipeline", "Takes what is queued"),
      row("recovery", "Recovery", "Tries dead letters again"));
  }

  function dead({ dead_letters: { total, groups, rows } }, acts) {
    if (total === 0) return h("p", { class: "empty" }, "None. What fails for good is listed here by its cause.");
    const shown = rows.length < total ? `, the oldest ${number(rows.length)} below` : "";
    return [
      h("div", { class: "top-line" },
        h("p", {}, `${many(total, "recording")} of ${many(groups.length, "cause")}${shown}`),
        button("Recover all", "recover-all", (node) => acts.recoverMany(null, total, node), { quiet: true, name: "Recover all dead letters", asked: acts.asked("recover-all") })),
      groups.map((group) => cause(group, rows.filter((row) => row.fingerprint === group.fingerprint), acts)),
    ];
  }

  function cause(group, listed, acts) {
    const key = `cause-${group.fingerprint}`;
    const paged = acts.page(group.fingerprint);
    const rows = paged?.rows ?? listed;
    const next = group.next_attempt_at;
    return h("div", { class: "cause" },
      h("div", { class: "cause-head" },
        h("div", { class: "grow tall" },
          h("h3", {}, group.example),
          h("p", { class: "soft" }, many(group.count, "recording"),
            group.oldest_at ? [", one was last tried ", time(group.oldest_at)] : "",
            next ? [", the next is ", again(next)] : "",
            group.permanent > 0 ? `, ${wait(group.permanent)}` : "")),
        (group.count > 1 || rows.length === 0) && button(`Recover these ${number(group.count)}`, key, (node) => acts.recoverMany(group.fingerprint, group.count, node), { name: `Recover these ${group.count}: ${group.example}`, asked: acts.asked(key) })),
      h("ul", { class: "rows" }, rows.map((row) => deadLetter(row, acts))),
      pager(group, rows, paged, acts));
  }

  // The first look has the oldest of all causes; the rest of a cause is read a page at a time.
  function pager(group, rows, paged, acts) {
    const { fingerprint, count, example } = group;
    if (!paged) {
      return rows.length < count && h("p", { class: "pager" },
        h("span", { class: "soft" }, `${number(rows.length)} of ${number(count)} shown`),
        button("Page through all", `page-${fingerprint}`, () => acts.turn(fingerprint, 0), { quiet: true, name: `Page through all ${count}: ${example}` }));
    }
    const { offset, size } = paged;
    const turn = (label, key, to, there) => button(label, `page-${key}-${fingerprint}`, () => acts.turn(fingerprint, to), { quiet: true, name: `${label} page: ${example}`, off: !there });
    return h("p", { class: "pager" },
      h("span", { class: "soft", role: "status" }, rows.length ? `${number(offset + 1)} to ${number(offset + rows.length)} of ${number(count)}` : "None on this page"),
      turn("Previous", "back", Math.max(offset - size, 0), offset > 0),
      turn("Next", "on", offset + size, offset + size < count));
  }

  function deadLetter(row, acts) {
    const key = `${row.recording_id}-${row.user_id}`;
    return h("li", {},
      h("div", { class: "grow tall" },
        title(row, "dead", acts),
        h("span", { class: "soft" }, `${named(row)}, ${many(row.segment_count, "segment")}, ${many(row.attempts, "attempt")}`,
          row.recoveries ? ` and ${many(row.recoveries, "recovery", "recoveries")}` : "",
          row.chunks ? `, ${number(row.chunks_stored)} of ${many(row.chunks, "chunk")} stored` : "",
          row.permanent ? h("span", { class: "warn" }, ", waits for a person") : row.next_attempt_at ? [", ", again(row.next_attempt_at)] : "")),
      h("div", { class: "buttons" },
        button("Discard", `discard-${key}`, (node) => acts.discard(row, node), { quiet: true, name: `Discard ${called(row)}, ${named(row)}` }),
        button("Recover", `recover-${key}`, (node) => acts.recover(row, node), { quiet: true, name: `Recover ${called(row)}, ${named(row)}`, asked: acts.asked(`recover-${key}`) })));
  }

  function flight({ overview }, acts) {
    if (overview.in_flight.length === 0) return h("p", { class: "empty" }, "Nothing is being worked on.");
    return h("ul", { class: "rows" }, overview.in_flight.map((row) => {
      const known = row.chunks != null;
      return h("li", {},
        h("div", { class: "grow tall" },
          title(row, "flight", acts),
          h("span", { class: "soft" }, `${named(row)}, attempt ${row.attempt}${row.part === "recovery" ? " by recovery" : ""}, for ${duration(row.running_secs)}`)),
        h("div", { class: "meter" },
          h("progress", { max: known ? Math.max(row.chunks, 1) : null, value: known ? row.chunks_stored ?? 0 : null, "aria-label": `Chunks of ${called(row)}` }),
          h("div", { class: "soft" }, known ? h("span", {}, `${number(row.chunks_stored ?? 0)} of ${number(row.chunks)} chunks`) : h("span", {}, "reading the transcript"))));
    }));
  }

  function table(heads, rows, empty) {
    if (rows.length === 0) return h("p", { class: "empty" }, empty);
    const align = (head) => head.endsWith("#") && "count";
    return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table" }, h("table", {},
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col", class: align(head) }, head.replace("#", ""))))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, index) => h("td", { class: align(heads[index]) }, cell)))))));
  }

  function workers({ overview }) {
    const state = (worker) => worker.database_trouble
      ? h("span", { class: "bad" }, "Waits: ", worker.database_trouble)
      : worker.provider_trouble
      ? h("span", { class: "bad" }, "Claims nothing: ", worker.provider_trouble, worker.provider_asked_at ? [", asks again ", time(worker.provider_asked_at)] : "")
      : worker.provider_paused_until
      ? h("span", { class: "bad" }, "Rate limited, goes on ", time(worker.provider_paused_until))
      : "Provider answers";
    const rows = overview.workers.map((worker) =>
      [worker.host, worker.model, `${worker.in_flight} of ${worker.slots}`, [state(worker)], [time(worker.started_at)], worker.version]);
    return table(["Host", "Model", "At work#", "Circuit and rate limit", "Started", "Version"], rows, "No process is alive: nothing is worked on until `embedding-recovery serve` runs.");
  }

  function runs({ runs }) {
    const end = (run) => run.stopped_because ?? (run.ended_at ? "done" : "running");
    const rows = runs.slice(0, 12).map((run) =>
      [run.part, run.cause, [time(run.started_at)], number(run.taken), number(run.completed), h("span", { class: run.failed > 0 && "bad" }, number(run.failed)), end(run)]);
    return table(["Part", "Cause", "Began", "Taken#", "Done#", "Failed#", "End"], rows, "No run yet.");
  }

  function jobs({ jobs }) {
    const rows = jobs.slice(0, 12).map((job) =>
      [[time(job.created_at)], job.requested_by ?? "–", number(job.tasks), number(job.completed), h("span", { class: job.dead_letter > 0 && "bad" }, number(job.dead_letter))]);
    return table(["Asked for", "By", "Tasks#", "Done#", "Dead#"], rows, "No job yet.");
  }

  return { all: { queue, parts, dead, flight, workers, runs, jobs }, tick, h, number, many, duration, time, table, called };
})();

// Why one recording is where it is: a dialog over the page, which follows the recording while it is
// open. It is read anew and drawn only where something changed, so that nobody loses their place.
"use strict";

const explain = (() => {
  const { h, number, many, duration, time, table, called } = views;
  const EVERY_MS = 4_000;
  const $ = (id) => document.getElementById(id);
  // What is open: the recording, the button that opened it, what is drawn, what was said.
  let open = null;

  const path = ({ recording_id, user_id }) =>
    `/v1/recordings/${encodeURIComponent(recording_id)}${user_id ? `?${new URLSearchParams({ user_id })}` : ""}`;

  // Shows the dialog; `api` reads a path and says what is refused. `key` names what opened it.
  async function show(api, wanted, key) {
    const { answer, problem } = await api.read(path(wanted));
    if (problem?.users) return api.choose(problem, (user_id) => show(api, { ...wanted, user_id }, key));
    if (!answer) return problem && api.say(`${problem.title}: ${problem.detail}`);
    const { recording_id, user_id } = answer;
    open = { api, key, wanted: { recording_id, user_id }, drawn: "", said: "" };
    draw(answer);
    if (!$("why").open) $("why").showModal();
    $("why-title").focus();
    follow(open);
  }

  async function follow(mine) {
    for (;;) {
      await new Promise((wake) => setTimeout(wake, EVERY_MS));
      if (open !== mine) return;
      const { answer, problem } = await mine.api.read(path(mine.wanted));
      if (open !== mine) return;
      $("why-stale").textContent = answer ? "" : `${problem?.detail ?? "The service does not answer"}. This is the last that was known.`;
      if (answer) draw(answer);
    }
  }

  function draw(told) {
    const { attempts, ...rest } = told;
    const drawn = JSON.stringify(told);
    if (open.drawn === drawn) return;
    open.drawn = drawn;
    $("why-title").textContent = called(told);
    $("why-who").textContent = `Recording ${told.recording_id} of ${told.user_id}`;
    const scrolled = $("why").querySelector(".scroll")?.scrollLeft;
    $("why-told").replaceChildren(facts(rest), history(attempts, told.trace_url_template));
    if (scrolled) $("why").querySelector(".scroll")?.scrollTo(scrolled, 0);
    // A reader of screens hears what changed, not all of it again.
    const said = `${state(told)}. Waits for: ${told.waits_for}`;
    if (open.said !== said) $("why-said").textContent = said;
    open.said = said;
  }

  const state = (told) => (told.state ?? "not queued").replace("_", " ").replace(/^./, (first) => first.toUpperCase());

  function facts(told) {
    const fact = (label, ...value) => h("div", {}, h("dt", {}, label), h("dd", {}, value));
    const building = told.chunks > 0;
    return h("dl", { class: "facts" },
      fact("State", h("strong", { class: told.state === "dead_letter" && "bad" }, state(told))),
      fact("Waits for", told.waits_for),
      told.way_out && fact("What moves it", h("code", {}, told.way_out)),
      told.last_error && fact("Last error", told.last_error),
      told.worker_id && fact("Held by", `worker ${told.worker_id}`, told.lease_ends_at && [", its lease ends ", time(told.lease_ends_at)]),
      told.next_attempt_at && fact("Tried next", Date.parse(told.next_attempt_at) > Date.now() ? time(told.next_attempt_at) : "it is due"),
      fact("Chunks",
        building && [
          h("progress", { max: told.chunks, value: told.chunks_stored, "aria-label": "Chunks stored" }),
          `${number(told.chunks_stored)} of ${many(told.chunks, "chunk")} stored, `,
        ],
        `${number(told.chunks_searchable)} searchable`),
      fact("Transcript", many(told.segment_count, "segment"), told.segments_skipped > 0 && `, ${number(told.segments_skipped)} without text skipped`),
      fact("Paid", many(told.tokens, "token"), ` by attempts that completed; ${many(told.chunks_reused, "chunk")} found stored and not paid for again`));
  }

  function history(attempts, template) {
    const trace = (id) => {
      if (!id) return "–";
      if (!template) return h("code", {}, id);
      const href = template.replaceAll("{trace_id}", encodeURIComponent(id));
      return h("a", { href, target: "_blank", rel: "noopener noreferrer", "aria-label": `Trace ${id}, in a new tab` }, "Open");
    };
    const rows = attempts.map((attempt) => [
      number(attempt.number), attempt.part, [time(attempt.started_at)],
      attempt.took_secs == null ? "–" : duration(attempt.took_secs),
      h("span", {}, (attempt.outcome ?? "running").replace("_", " "), attempt.message && h("div", { class: "soft" }, attempt.message)),
      trace(attempt.trace_id),
    ]);
    return h("div", { class: "attempts" }, h("h3", {}, "Attempts"),
      table(["No.#", "Part", "Began", "Took#", "Outcome", "Trace"], rows.reverse(), "None yet."));
  }

  const close = () => $("why").open && $("why").close();
  $("why-close").addEventListener("click", close);
  $("why").addEventListener("click", (event) => { if (event.target === $("why")) close(); });
  $("why").addEventListener("close", () => {
    // What opened it may have been drawn anew meanwhile: the focus goes to what took its place.
    const key = open?.key;
    open = null;
    (key && document.querySelector(`[data-key="${CSS.escape(key)}"]`) || $("seek-id")).focus({ preventScroll: true });
  });
  return { show, close };
})();

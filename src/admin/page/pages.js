// The dead letters of one cause, a page at a time. One cause is open at a time, and what is shown of
// it stays up to date: pages cost the database only while somebody looks at them.
"use strict";

function paging(api, draw) {
  const SIZE = 50;
  let page = null;

  async function read({ fingerprint, offset }) {
    const query = new URLSearchParams({ fingerprint, limit: SIZE, offset });
    return (await api.read(`/v1/dead-letters?${query}`)).answer?.rows;
  }

  async function turn(fingerprint, offset) {
    const next = { fingerprint, offset, size: SIZE };
    next.rows = await read(next);
    if (!next.rows) return api.say("That page cannot be read now.");
    page = next;
    draw();
  }

  async function refresh() {
    const mine = page;
    const rows = mine && await read(mine);
    if (!rows || page !== mine) return;
    // The last page may be gone by now.
    if (rows.length === 0 && mine.offset > 0) return turn(mine.fingerprint, mine.offset - SIZE);
    mine.rows = rows;
    draw();
  }

  return {
    of: (fingerprint) => (page?.fingerprint === fingerprint ? page : null),
    close() { page = null; },
    turn,
    refresh,
  };
}

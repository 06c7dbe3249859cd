// The two charts, drawn by uPlot in the colours of the page. The captions say in words what is drawn.
"use strict";

const charts = (() => {
  const BUCKET_SECS = 300;
  const drawn = new Map();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const number = (value) => (value == null ? "–" : value.toLocaleString("en"));
  const seconds = (value) => (value == null ? "–" : `${value > 0 && value < 10 ? value.toFixed(1) : Math.round(value)} s`);

  // A bucket in which nothing happened is left out by the service: here it counts as nothing.
  function filled(history) {
    const rows = new Map(history.map((bucket) => [Date.parse(bucket.begins_at) / 1000, bucket]));
    const last = Math.floor(Date.now() / 1000 / BUCKET_SECS) * BUCKET_SECS;
    const begins = [];
    for (let at = last - 71 * BUCKET_SECS; at <= last; at += BUCKET_SECS) begins.push(at);
    return begins.map((at) => [at, rows.get(at)]);
  }

  function axes(value) {
    const common = {
      stroke: colour("--soft"), font: "11px system-ui, sans-serif",
      grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false },
    };
    const hour = (_, values) => values.map((at) => new Date(at * 1000).toTimeString().slice(0, 5));
    return [{ ...common, grid: { show: false }, values: hour }, { ...common, size: 46, values: (_, values) => values.map(value) }];
  }

  function draw(id, data, series, value) {
    const place = document.getElementById(id);
    const known = drawn.get(id);
    if (known && known.dark === dark.matches) {
      known.plot.setData(data);
      return;
    }
    if (known) known.plot.destroy();
    const when = { label: "Time", value: (_, at) => (at == null ? "–" : new Date(at * 1000).toTimeString().slice(0, 5)) };
    const plot = new uPlot({
      width: place.clientWidth, height: 200, series: [when, ...series], axes: axes(value),
      // Half a bucket at each side, so that no bar is cut.
      scales: { x: { range: (_, first, last) => [first - BUCKET_SECS / 2, last + BUCKET_SECS / 2] }, y: { range: (_, low, high) => [0, Math.max(high * 1.1, 1)] } },
      cursor: { points: { show: false }, y: false, drag: { x: false } },
    }, data, place);
    drawn.set(id, { plot, dark: dark.matches });
  }

  function flow(rows) {
    const pick = (name) => rows.map(([, bucket]) => (bucket ? bucket[name] : 0));
    const [completed, failed, dead] = ["completed", "failed", "dead_lettered"].map(pick);
    // Bars are stacked: the taller ones are drawn first, and the legend tells the plain numbers.
    const both = completed.map((value, index) => value + failed[index]);
    const bars = uPlot.paths.bars({ size: [0.75, 14] });
    const bar = (label, name, plain) => ({
      label, stroke: colour(name), fill: colour(name), width: 0, paths: bars, points: { show: false },
      value: (_, __, ___, index) => number(index == null ? null : plain[index]),
    });
    draw("flow", [rows.map(([at]) => at), both, completed], [bar("Failed", "--bad", failed), bar("Completed", "--accent", completed)], number);
    const sum = (values) => number(values.reduce((total, value) => total + value, 0));
    const told = `${sum(completed)} recordings completed, ${sum(failed)} attempts failed, ${sum(dead)} given up`;
    document.getElementById("flow-told").textContent = told;
  }

  function times(rows) {
    const pick = (name) => rows.map(([, bucket]) => bucket?.[name] ?? null);
    const line = (label, name, width, dash) => ({
      label, stroke: colour(name), width, dash, spanGaps: true, points: { show: false }, value: (_, value) => seconds(value),
    });
    const lines = [line("Half within", "--accent", 2), line("95 %", "--soft", 1.5), line("99 %", "--warn", 1.5, [4, 4])];
    draw("times", [rows.map(([at]) => at), pick("p50_secs"), pick("p95_secs"), pick("p99_secs")], lines, seconds);
    const last = rows.map(([, bucket]) => bucket).filter((bucket) => bucket?.p50_secs != null).pop();
    const told = last
      ? `Lately half took up to ${seconds(last.p50_secs)}, 95 % up to ${seconds(last.p95_secs)}, 99 % up to ${seconds(last.p99_secs)}`
      : "No recording was completed";
    document.getElementById("times-told").textContent = told;
  }

  let history = [];
  function show(buckets) {
    history = buckets;
    const rows = filled(history);
    flow(rows);
    times(rows);
  }

  dark.addEventListener("change", () => drawn.size && show(history));
  new ResizeObserver(() => {
    for (const [id, { plot }] of drawn) {
      const width = document.getElementById(id).clientWidth;
      if (width && width !== plot.width) plot.setSize({ width, height: 200 });
    }
  }).observe(document.body);
  return { show };
})();

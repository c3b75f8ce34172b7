// Two models sample by sample: where one is right and the other is not.
function samplesView() {
  const suits = (b) => b.rows.some((r) => r.samples);
  const board = currentBoard(suits);
  if (!board) return [empty("No row passes the filters.")];
  const rows = shownRows(board).filter((r) => r.samples).sort((x, y) => x.rank - y.rank);
  const [a, b] = pair(rows);
  const pairs = board.samples.map((id, i) => ({ id, a: a.samples[i], b: b.samples[i], d: a.samples[i] === null || b.samples[i] === null ? null : b.samples[i] - a.samples[i] }));
  const shown = board.samples.length < board.n ? `${board.samples.length} of ${board.n} samples, evenly spaced` : `all of ${numberOf(board.n, "sample")}`;
  const hits = new Set(pairs.flatMap((p) => [p.a, p.b]).filter((v) => v !== null)).size <= 2;
  const box = h("div", { class: "card chart" });
  if (!hits) later(() => sampleChart(box, board, a, b, pairs));
  const unit = board.unit;
  const columns = [
    { key: "id", label: "Sample", pin: true, value: (r) => r.id, cell: (r) => r.id },
    { key: "a", label: a.model.name, name: true, num: true, first: "desc", value: (r) => r.a, cell: (r) => number(r.a, unit) },
    { key: "b", label: b.model.name, name: true, num: true, first: "desc", value: (r) => r.b, cell: (r) => number(r.b, unit) },
    { key: "d", label: "B − A", num: true, value: (r) => r.d, kind: (r) => deltaKind(r.d, board), cell: (r) => (r.d === null ? "–" : signed(r.d, unit)) },
  ];
  return [
    h("div", { class: "controls" }, boardSelect(board, suits), ...pairSelects(rows, a, b)),
    heading(`Sample by sample: ${board.title} on ${board.dataset}`, `${board.metric} of single samples; ${shown}. Intervals and tests use all of them.`),
    h("div", { class: "two" }, hits ? agreement(a, b, pairs) : box,
      dataTable({ id: "samples", rows: pairs, columns, caption: `Samples of ${boardLabel(board)}`, sort: { key: "d", down: !board.up } })),
  ];
}
function deltaKind(d, board) {
  if (!d) return "";
  return `delta ${(d > 0) === board.up ? "up" : "down"}`;
}
function agreement(a, b, pairs) {
  const count = (x, y) => String(pairs.filter((p) => p.a !== null && p.b !== null && (p.a > 0) === x && (p.b > 0) === y).length);
  const row = (label, right) => h("tr", {}, h("th", { scope: "row" }, label), h("td", { class: "num" }, count(right, true)), h("td", { class: "num" }, count(right, false)));
  return h("div", { class: "card" }, h("table", {}, h("caption", { class: "visually-hidden" }, "Agreement of the two models"),
    h("thead", {}, h("tr", {}, h("th"), h("th", { class: "num", scope: "col" }, `${b.model.name} right`), h("th", { class: "num", scope: "col" }, "wrong"))),
    h("tbody", {}, row(`${a.model.name} right`, true), row("wrong", false))),
    h("p", { class: "note" }, "Only the two off-diagonal cells tell the models apart: McNemar's test looks at nothing else."));
}
function sampleChart(box, board, a, b, pairs) {
  const points = pairs.filter((p) => p.d !== null).map((p) => ({ x: p.a, y: p.b, id: p.id }));
  const values = points.flatMap((p) => [p.x, p.y]);
  const low = Math.min(...values), high = Math.max(...values), room = 0.04 * (high - low || 1);
  const range = { min: low - room, max: high + room };
  const metric = `${board.metric} ${board.unit}`;
  const config = options({ x: axisWords(`${a.model.name}: ${metric}`, `model A: ${metric}`), y: axisWords(`${b.model.name}: ${metric}`, `model B: ${metric}`), range },
    (p) => (p.raw.id ? `${p.raw.id}: ${number(p.raw.x, board.unit)}, ${number(p.raw.y, board.unit)}` : ""), null);
  config.plugins.legend.display = false;
  config.scales.x.grace = config.scales.y.grace = 0;
  chart(box, `Each sample under ${a.model.name} and ${b.model.name}; the table holds the same numbers`, {
    type: "scatter", options: config, data: { datasets: [
      { data: points, pointRadius: 3.2, backgroundColor: PALETTE[0] + "99", borderColor: PALETTE[0] },
      { type: "line", data: [{ x: range.min, y: range.min }, { x: range.max, y: range.max }], pointRadius: 0, pointHitRadius: 0, borderWidth: 1, borderDash: [4, 4], borderColor: css("--soft") },
    ] },
  });
}

// One board: every row with its interval, distance from the best, and all its metrics.
function boardView() {
  const board = currentBoard();
  if (!board) return [empty("No row passes the filters.")];
  const rows = shownRows(board);
  const low = Math.min(...rows.map((r) => r.lo)), high = Math.max(...rows.map((r) => r.hi));
  const others = unique(rows.flatMap((r) => Object.keys(r.metrics))).filter((n) => n !== board.metric);
  const protocol = protocolOf(board);
  return [
    h("div", { class: "controls" }, boardSelect(board),
      h("button", { type: "button", class: "quiet", onclick: () => { state.view = "protocols"; state.pinned = board.protocol; render(); } }, "Which protocol is this?")),
    heading(`${board.title} on ${board.dataset}`, `${board.metric} ${board.unit} ${board.up ? "↑ higher is better" : "↓ lower is better"}, ` +
      `${numberOf(board.n, "sample")}, protocol ${protocol.name} ${protocol.hash.slice(0, 8)}, data ${board.digest.slice(0, 8)}. ${statusWords(protocol)}. ${legend([board])}`),
    dataTable({ id: "board", rows, caption: boardLabel(board), rowClass: mark, sort: { key: "rank", down: false },
      columns: boardColumns(board, low, high, others), extra: floorRows(boardColumns(board, low, high, others), (c) => (c.key === "value" || c.key.startsWith("o_") ? board : null)) }),
    board.disagrees ? h("p", { class: "note", id: "disagrees" }, `${board.disagrees}.`) : null,
  ];
}
function boardColumns(board, low, high, others) {
  const unit = board.unit;
  return [
    { key: "rank", label: "#", num: true, value: (r) => r.rank, cell: (r) => String(r.rank) },
    { key: "model", label: "Model", pin: true, value: (r) => r.model.name, cell: (r) => modelName(r.model) },
    { key: "value", label: board.metric, num: true, first: board.up ? "desc" : "asc", value: (r) => r.v, cell: valueCell },
    { key: "interval", copy: "", label: "95 % interval", cell: (r) => intervalPlot(r, low, high), title: `${number(low, unit)} to ${number(high, unit)}` },
    { key: "range", label: "", copy: "95 % interval", cell: (r) => h("span", { class: "soft small nowrap" }, `${number(r.lo, unit)} – ${number(r.hi, unit)}`) },
    { key: "delta", label: "Δ to best", num: true, title: "value minus the best value", value: (r) => Math.abs(r.delta), cell: (r) => (r.rank === 1 ? "" : signed(r.delta, unit)) },
    { key: "p", label: "adj. p", num: true, title: "p-value of the difference from the best, paired on the same samples, adjusted over all pairs of models", value: (r) => r.p, cell: (r) => (r.rank === 1 ? "" : r.p < 0.001 ? "<0.001" : r.p.toFixed(3)) },
    { key: "sd", label: "rank ±", num: true, value: (r) => r.sd, title: "standard deviation of the rank over joint draws", cell: (r) => r.sd.toFixed(1) },
    ...others.map((name) => ({ key: `o_${name}`, label: name, num: true, first: "desc", value: (r) => r.metrics[name]?.value ?? null,
      cell: (r) => (r.metrics[name] ? number(r.metrics[name].value, r.metrics[name].unit) : "–") })),
    { key: "speed", label: "images/s", num: true, first: "desc", title: "images encoded per second, median over the model's rows; each on the machine that made it", value: (r) => r.model.speed, cell: (r) => speed(r.model.speed) },
    { key: "params", label: "params", num: true, value: (r) => r.model.params, cell: (r) => params(r.model.params) },
  ];
}
// What an answer that sees no picture gets, and what no answer can pass: below all rows, however they are sorted, and without a rank.
const FLOORS = { chance: "the best answer that sees no picture: a uniform guess, or always the same", ceiling: "the most that any answer could get: from the coarsest patch grid of these rows to the finest" };
function floorRows(columns, boardOf) {
  const shown = (kind, c) => {
    const board = c.pin ? null : boardOf(c);
    const metric = board && (c.key.startsWith("o_") ? c.key.slice(2) : board.metric);
    const unit = board && (metric === board.metric ? board.unit : board.rows.map((r) => r.metrics[metric]?.unit).find((u) => u !== undefined) ?? "");
    const found = [board?.[kind]?.[metric] ?? []].flat(); // a ceiling depends on the patch grid: lowest and highest
    return [...new Set(found.map((v) => number(v, unit)))].join(" – ");
  };
  const row = (kind) => h("tr", { class: kind, title: FLOORS[kind] },
    columns.map((c) => h(c.pin ? "th" : "td", { class: [c.num && "num", c.pin && "pin"].filter(Boolean).join(" ") || null, scope: c.pin ? "row" : null }, c.pin ? kind : [shown(kind, c), c.num && !c.key.startsWith("o_") ? h("span", { class: "pm" }) : null])));
  const kinds = Object.keys(FLOORS).filter((kind) => columns.some((c) => shown(kind, c)));
  return kinds.length ? h("tfoot", {}, kinds.map(row)) : null;
}
function intervalPlot(row, low, high) {
  const at = (v) => `${(100 * (v - low)) / (high - low || 1)}%`;
  return h("span", { class: "interval", role: "img", "aria-label": `${number(row.lo, row.board.unit)} to ${number(row.hi, row.board.unit)}` },
    h("i", { style: { left: at(row.lo), width: `calc(${at(row.hi)} - ${at(row.lo)})` } }), h("b", { style: { left: at(row.v) } }));
}

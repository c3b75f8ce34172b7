// The papers' numbers, beside the measured row of the same model where there is one.
function publishedPasses(p, f = state.filter) {
  return named(`${p.model} ${p.model_id}`, f) && (!f.task || p.task === f.task) && (!f.dataset || p.dataset === f.dataset);
}
// By the preset that stands for the paper, else by another one; whole and up to date before a part and stale.
function measuredFor(p) {
  const rows = data.rows.filter((r) => r.model.name === p.model_id && r.board.task === p.task && r.board.dataset === p.dataset && r.metrics[p.metric]);
  const worth = (r) => 4 * (protocolOf(r.board).name === p.preset) + 2 * !r.stale + !r.board.part;
  return rows.sort((a, b) => worth(b) - worth(a))[0] ?? null;
}
// Which fields of the protocol nobody has confirmed: of the row's own, else of the preset that stands for the paper.
function doubtsOf(p) {
  if (!p.row) return p.doubts;
  const of = (status) => fieldsOf(protocolOf(p.row.board)).filter(([, f]) => f.status === status).map(([name]) => name);
  return Object.fromEntries(["unknown", "inferred"].map((s) => [s, of(s)]).filter(([, names]) => names.length));
}
function protocolCell(p) {
  const name = p.row ? protocolOf(p.row.board).name : p.preset;
  const told = [
    ...p.elsewhere.map((e) => [h("strong", {}, `${e.tool}: `), e.differs ? `differs in ${e.differs}` : "nothing is said that differs"]),
    p.row && name !== p.preset ? [`measured by ${name}; ${p.preset} stands for this paper`] : null,
  ];
  const doubts = Object.entries(doubtsOf(p));
  const fields = doubts.length ? h("details", { class: "small" }, h("summary", {}, doubts.map(([s, names]) => [chip(s, `${names.length} ${s}`), " "]), `in ${name}`),
    doubts.map(([s, names]) => h("span", { class: "line soft" }, `${s}: ${names.join(", ")}`))) : null;
  return [...told.filter(Boolean).map((words) => h("span", { class: "line soft small" }, words)), fields];
}
function publishedView() {
  const rows = data.published.filter((p) => publishedPasses(p));
  rows.forEach((p) => { p.row = measuredFor(p); });
  const measured = (p) => p.row?.metrics[p.metric];
  const none = h("span", { class: "soft" }, "–");
  const columns = [
    { key: "model", label: "Model", pin: true, value: (p) => p.model, cell: (p) => [p.model, p.model_id === p.model ? null : h("span", { class: "sub" }, p.model_id)] },
    { key: "task", label: "Task", value: (p) => taskPlace(p.task), cell: (p) => data.tasks[p.task] ?? p.task },
    { key: "dataset", label: "Dataset", value: (p) => p.dataset, cell: (p) => p.dataset },
    { key: "metric", label: "Metric", value: (p) => p.metric, cell: (p) => p.metric },
    { key: "value", label: "Published", num: true, first: "desc", value: (p) => p.value, cell: (p) => (p.value === null ? none.cloneNode(true) : h("em", {}, String(p.value))) },
    { key: "elsewhere", label: "Elsewhere", num: true, first: "desc", value: (p) => p.elsewhere[0]?.value ?? null, cell: (p) => (p.elsewhere.length ? p.elsewhere.map(elsewhereCell) : none.cloneNode(true)) },
    { key: "measured", label: "Measured here", num: true, first: "desc", value: (p) => measured(p)?.value ?? null, cell: (p) => (measured(p) ? measuredCell(p) : h("span", { class: "soft" }, "not measured")) },
    { key: "protocol", label: "What differs or is not confirmed", cell: protocolCell },
    { key: "source", label: "Source", value: (p) => p.source, cell: (p) => h("span", { class: "soft small" }, [p.source, p.note, ...new Set(p.elsewhere.map((e) => e.source))].filter(Boolean).join(". ")) },
  ];
  return [
    heading("Papers", "Numbers as published, as others measured them on the public weights, and as measured here, each by its own protocol. The first two carry no samples, so nothing here is tested."),
    rows.length ? dataTable({ id: "papers", rows, columns, caption: "Published numbers and numbers measured elsewhere", sort: { key: "task", down: false } }) : empty("No published number passes the filters."),
  ];
}
function elsewhereCell(e) {
  return h("span", { class: "line nowrap", title: [e.protocol, e.split, e.date, e.source].filter(Boolean).join("; ") }, String(e.value), h("span", { class: "soft small" }, ` ${e.tool}`));
}
function measuredCell(p) {
  const m = p.row.metrics[p.metric];
  return h("button", { type: "button", class: "linklike nowrap", onclick: () => showRow(p.row) },
    `${number(m.value, m.unit)} [${number(m.ci95[0], m.unit)}, ${number(m.ci95[1], m.unit)}]`);
}

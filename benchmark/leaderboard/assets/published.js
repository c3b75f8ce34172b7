// The papers' numbers, beside the measured row of the same model where there is one.
function publishedPasses(p, f = state.filter) {
  return named(`${p.model} ${p.model_id}`, f) && (!f.task || p.task === f.task) && (!f.dataset || p.dataset === f.dataset);
}
function measuredFor(p) {
  const rows = data.rows.filter((r) => r.model.name === p.model_id && r.board.task === p.task && r.board.dataset === p.dataset && r.metrics[p.metric]);
  return rows.sort((a, b) => (protocolOf(b.board).name === "paper") - (protocolOf(a.board).name === "paper"))[0] ?? null;
}
function publishedView() {
  const rows = data.published.filter((p) => publishedPasses(p));
  rows.forEach((p) => { p.row = measuredFor(p); });
  const measured = (p) => p.row?.metrics[p.metric];
  const columns = [
    { key: "model", label: "Model", pin: true, value: (p) => p.model, cell: (p) => [p.model, h("span", { class: "sub" }, p.model_id)] },
    { key: "task", label: "Task", value: (p) => taskPlace(p.task), cell: (p) => data.tasks[p.task] ?? p.task },
    { key: "dataset", label: "Dataset", value: (p) => p.dataset, cell: (p) => p.dataset },
    { key: "metric", label: "Metric", value: (p) => p.metric, cell: (p) => p.metric },
    { key: "value", label: "Published", num: true, first: "desc", value: (p) => p.value, cell: (p) => h("em", {}, String(p.value)) },
    { key: "measured", label: "Measured here", num: true, first: "desc", value: (p) => measured(p)?.value ?? null, cell: (p) => (measured(p) ? measuredCell(p) : h("span", { class: "soft" }, "not measured")) },
    { key: "source", label: "Source", value: (p) => p.source, cell: (p) => h("span", { class: "soft small" }, [p.source, p.note].filter(Boolean).join(". ")) },
  ];
  return [
    heading("Papers", "Numbers as published, under each paper's own protocol. They carry no samples, so nothing here is tested; a measured row's protocol says which of its fields are not confirmed."),
    rows.length ? dataTable({ id: "papers", rows, columns, caption: "Published numbers", sort: { key: "task", down: false } }) : empty("No published number passes the filters."),
  ];
}
function measuredCell(p) {
  const m = p.row.metrics[p.metric];
  return h("button", { type: "button", class: "linklike nowrap", onclick: () => showRow(p.row) },
    `${number(m.value, m.unit)} [${number(m.ci95[0], m.unit)}, ${number(m.ci95[1], m.unit)}]`);
}

// A table that sorts by its headers (buttons, aria-sort) and shows PAGE rows at a time, so that 5,000 stay usable.
const PAGE = 100;

// columns: {key, label, value: row -> sortable, cell: row -> node or text, num, title, first: "desc", name: the label is a model's, which may be long}
function dataTable({ id, columns, rows, caption, rowClass, sort, extra, header }) {
  const asked = state.sorts[id] && columns.some((c) => c.key === state.sorts[id].key && c.value) ? state.sorts[id] : null;
  const chosen = asked ?? sort ?? null;
  const column = chosen && columns.find((c) => c.key === chosen.key);
  drawn.sort = asked && `${asked.key}${asked.down ? ",down" : ""}`;
  const ordered = column ? [...rows].sort(comparer(column, chosen.down)) : rows;
  const pages = Math.max(1, Math.ceil(ordered.length / PAGE));
  const page = Math.min(state.pages[id] ?? 0, pages - 1);
  const body = ordered.slice(page * PAGE, (page + 1) * PAGE).map((row) => tableRow(row, columns, rowClass));
  const table = h("table", { "data-table": id }, h("caption", { class: "visually-hidden" }, caption),
    h("thead", {}, header ?? null, h("tr", {}, columns.map((c) => headerCell(id, c, chosen)))), h("tbody", {}, body), extra ?? null);
  drawn.page = page ? page + 1 : null;
  const scroll = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
  return h("div", {}, scroll, h("div", { class: "below" }, copyBar(table, caption), pages > 1 ? pager(id, page, pages, ordered.length) : null));
}
function comparer(column, down) {
  return (a, b) => {
    const x = column.value(a), y = column.value(b);
    const noX = x === null || x === undefined, noY = y === null || y === undefined;
    if (noX || noY) return noX - noY; // what has no value stands last, whichever way
    const order = typeof x === "string" ? x.localeCompare(y) : x - y;
    return down ? -order : order;
  };
}
function headerCell(id, c, chosen) {
  const mine = chosen && chosen.key === c.key;
  const attributes = { scope: "col", class: [c.num && "num", c.pin && "pin", c.name && "name"].filter(Boolean).join(" "), title: c.title, "data-copy": c.copy };
  if (mine) attributes["aria-sort"] = chosen.down ? "descending" : "ascending";
  if (!c.value) return h("th", attributes, c.label);
  const press = () => {
    state.sorts[id] = { key: c.key, down: mine ? !chosen.down : c.first === "desc" };
    state.pages[id] = 0;
    render();
    document.querySelector(`[data-table="${id}"] [data-column="${CSS.escape(c.key)}"]`)?.focus();
  };
  const arrow = h("span", { class: "arrow", "aria-hidden": "true" }, mine ? (chosen.down ? "▾" : "▴") : "");
  return h("th", attributes, h("button", { type: "button", class: "sort", "data-column": c.key, onclick: press }, typeof c.label === "string" ? c.label : c.label.cloneNode(true), arrow));
}
function tableRow(row, columns, rowClass) {
  return h("tr", { class: rowClass ? rowClass(row) : null }, columns.map((c) => {
    const tag = c.pin ? "th" : "td";
    const names = [c.num && "num", c.pin && "pin", c.kind && c.kind(row)].filter(Boolean).join(" ");
    return h(tag, { class: names || null, scope: c.pin ? "row" : null, style: c.style ? c.style(row) : null }, c.cell(row));
  }));
}
function pager(id, page, pages, total) {
  const go = (to) => { state.pages[id] = to; render(); };
  return h("div", { class: "pager" }, `${page * PAGE + 1}–${Math.min(total, (page + 1) * PAGE)} of ${total}`,
    h("button", { type: "button", class: "quiet", id: "page-back", disabled: page === 0, onclick: () => go(page - 1) }, "Previous"),
    h("button", { type: "button", class: "quiet", id: "page-on", disabled: page === pages - 1, onclick: () => go(page + 1) }, "Next"));
}
const tint = (share) => ({ backgroundColor: `rgb(var(--tint) / ${(0.02 + 0.2 * share).toFixed(3)})` });

// Which protocol is this, and what in it is inferred.
const STATUSES = ["confirmed", "inferred", "unknown"];
const fieldsOf = (protocol) => Object.entries(protocol.fields ?? {});
function statusCounts(protocol) {
  return STATUSES.map((s) => [s, fieldsOf(protocol).filter(([, f]) => f.status === s).length]).filter(([, n]) => n);
}
function statusWords(protocol) {
  return "Its fields: " + (statusCounts(protocol).map(([s, n]) => `${n} ${s}`).join(", ") || "none");
}
const chip = (status, text) => h("span", { class: `chip ${STATUSES.includes(status) ? status : ""}` }, text ?? status);

function protocolsView() {
  drawn.protocol = data.protocols[state.pinned]?.hash;
  const used = new Map();
  for (const b of shownBoards()) used.set(b.protocol, (used.get(b.protocol) ?? 0) + shownRows(b).length);
  const panels = [...used.entries()].map(([i, rows]) => protocolPanel(i, rows));
  return [
    heading("Protocols", "A protocol is data with a hash; rows of different hashes never share a table. Each field says how sure it is: confirmed by the authors' text or code, inferred, or unknown."),
    panels.length ? panels : empty("No protocol passes the filters."),
  ];
}
function protocolPanel(i, rows) {
  const p = data.protocols[i];
  const field = ([name, f]) => h("tr", {}, h("td", {}, h("code", {}, name)), h("td", {}, h("code", {}, plain(f.value))), h("td", {}, chip(f.status)), h("td", { class: "soft" }, f.source ?? ""));
  const order = ([, x], [, y]) => STATUSES.indexOf(y.status) - STATUSES.indexOf(x.status);
  const titles = ["Field", "Value", "Status", "Source"].map((t) => h("th", { scope: "col" }, t));
  const words = `Protocol ${p.name} ${p.hash} of ${p.task}`;
  const table = h("table", {}, h("caption", { class: "visually-hidden" }, words), h("thead", {}, h("tr", {}, titles)), h("tbody", {}, fieldsOf(p).sort(order).map(field)));
  return h("details", { class: "protocol", open: state.pinned === i || data.protocols.length === 1 },
    h("summary", {}, h("strong", {}, `${data.tasks[p.task] ?? p.task} · ${p.name}`), h("code", { class: "soft" }, p.hash.slice(0, 16)),
      h("span", { class: "soft small" }, numberOf(rows, "row")), statusCounts(p).map(([s, n]) => chip(s, `${n} ${s}`))),
    h("div", { class: "scroll" }, table, copyBar(table, words, `copy-${i}`)));
}

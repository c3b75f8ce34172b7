// A row's whole provenance, one click away; a native dialog, so Escape and focus work by themselves.
function showRow(row) {
  const { board, model } = row;
  const protocol = protocolOf(board);
  const dialog = byId("details");
  const close = () => dialog.close();
  const toProtocol = () => { close(); state.view = "protocols"; state.pinned = board.protocol; render(); };
  dialog.replaceChildren(
    h("header", {}, h("div", {}, h("h2", { id: "details-title" }, model.name), h("p", { class: "soft" }, `${board.title} on ${board.dataset}`)),
      h("button", { type: "button", class: "quiet", onclick: close, "aria-label": "Close" }, "✕")),
    h("div", { class: "body" },
      h("h3", {}, "Metrics"), metricTable(row),
      h("h3", {}, "Protocol"), h("p", {}, h("button", { type: "button", class: "linklike", onclick: toProtocol }, `${protocol.name} ${protocol.hash.slice(0, 16)}`), " ", statusCounts(protocol).map(([s, n]) => [chip(s, `${n} ${s}`), " "]).flat()),
      row.pictures.length ? [h("h3", {}, row.drawn ? "Predictions, of the row that came with densebench" : "Predictions"), pictureList(row)] : null,
      h("h3", {}, "Where it comes from"), facts(provenance(row)),
      Object.keys(row.details).length ? [h("h3", {}, "Noted by the task"), facts(Object.entries(row.details).map(([k, v]) => [k, plain(v)]))] : null,
      h("h3", {}, "Environment"), facts(environmentFacts(data.environments[row.env] ?? {}))));
  dialog.showModal();
  dialog.scrollTop = 0;
}
function metricTable(row) {
  const line = ([name, m]) => h("tr", {}, h("th", { scope: "row" }, name + (m.higher_is_better ? " ↑" : " ↓")), h("td", { class: "num" }, `${number(m.value, m.unit, 1)} ${m.unit}`),
    h("td", { class: "num soft" }, `${number(m.ci95[0], m.unit, 1)} – ${number(m.ci95[1], m.unit, 1)}`));
  const titles = h("tr", {}, h("th", { scope: "col" }, "metric"), h("th", { class: "num", scope: "col" }, "value"), h("th", { class: "num", scope: "col" }, "95 % interval"));
  return h("div", { class: "scroll" }, h("table", {}, h("thead", {}, titles), h("tbody", {}, Object.entries(row.metrics).map(line))));
}
function provenance(row) {
  const { board, model, weights, timing } = row;
  return [
    ["origin", row.shipped ? `shipped: ${SHIPPED}` : "measured by whoever built this page"], ...(row.stale ? [["stale", row.stale]] : []), ["command", row.command], ["weights", weights.source], ["weights sha256", weights.sha256],
    ["data", `${board.unitName}, ${board.split} split, ${numberOf(board.n, "sample")}`], ["data digest", board.digest],
    ["protocol hash", protocolOf(board).hash], ["seed", row.seed], ["images left out", row.bad],
    ["model", `${[model.family, model.backend, model.dtype].filter(Boolean).join(", ")}; ${params(model.params)} parameters; ${plain(model.image_size)} px, patch ${plain(model.patch_size)}`],
    ["licence", model.licence],
    ["time", Object.entries(timing ?? {}).filter(([, v]) => v !== null).map(([k, v]) => `${k} ${plain(v)}`).join(", ")],
    ["peak memory", row.memory ? `${row.memory.toFixed(0)} MiB` : null], ["created", row.created], ["row id", row.id], ["files", row.folder],
  ].map(([k, v]) => [k, plain(v)]);
}
function environmentFacts(e) {
  return Object.entries(e).map(([k, v]) => [k, v && typeof v === "object" ? Object.entries(v).map(([a, b]) => `${a} ${plain(b)}`).join(", ") : plain(v)]);
}
function facts(pairs) {
  return h("dl", {}, pairs.map(([k, v]) => [h("dt", {}, k), h("dd", {}, /^(command|.*(sha256|digest|hash))$/.test(k) ? h("code", {}, v) : v)]));
}
function pictureList(row) {
  return h("div", { class: "pictures" }, row.pictures.map((p) => h("figure", {}, p.src ? h("img", { src: p.src, alt: pictureName(p), loading: "lazy" }) : null,
    h("figcaption", {}, p.src ? pictureName(p) : `${pictureName(p)}: too large for this page, see ${row.folder}/pictures`))));
}
// "worst-1_mIoU-14.6_test-00101" as words: which, its own metric, the sample.
function pictureName(p) {
  const [which, value, ...id] = p.name.split("_");
  return [which.replace("-", " "), value?.replace(/-(?=[^-]*$)/, " "), id.join("_")].filter(Boolean).join(" · ");
}

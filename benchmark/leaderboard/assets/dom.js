// Elements from data. Text always goes in as text: no string here is ever parsed as HTML.
function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(node.style, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}
const byId = (id) => document.getElementById(id);

function select(label, options, value, change) {
  const list = h("select", { id: `pick-${label.replace(/\W+/g, "-")}`, onchange: (e) => change(e.target.value) },
    options.map(([key, text]) => h("option", { value: key, selected: String(key) === String(value) }, text)));
  return h("label", { class: "field" }, label, list);
}
function heading(title, text) {
  return h("div", { class: "head" }, h("h2", {}, title), h("p", {}, text));
}
function empty(text) {
  return h("div", { class: "card empty" }, text);
}

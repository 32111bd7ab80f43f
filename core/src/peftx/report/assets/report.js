(() => {
"use strict";
// --- theme: the reader's choice is remembered where the browser allows it (a file:// page may not be) ---
const root = document.documentElement, themes = ["auto", "light", "dark"];
const recall = () => { try { return localStorage.getItem("peftx-theme"); } catch { return null; } };
const remember = (name) => { try { localStorage.setItem("peftx-theme", name); } catch { /* then not */ } };
let theme = "auto";
const paint = (name) => {
  theme = themes.includes(name) ? name : "auto";
  if (theme === "auto") root.removeAttribute("data-theme"); else root.dataset.theme = theme;
  const button = document.getElementById("theme");
  if (button) { button.textContent = "theme: " + theme; button.hidden = false; }
};
paint(recall());

// --- tables: a click sorts by a column, another one the other way; what is missing stays last ---
const value = (cell) => {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  const text = cell.textContent.trim();
  return text === "–" || text === "" ? null : text;
};
const compare = (a, b) => typeof a === "number" && typeof b === "number"
  ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
const sort = (button) => {
  const head = button.closest("th"), table = head.closest("table"), column = head.cellIndex;
  const first = head.classList.contains("num") && column > 0 ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const way = head.getAttribute("aria-sort") === first ? other : first;
  for (const th of head.parentNode.cells) th.setAttribute("aria-sort", th === head ? way : "none");
  const sign = way === "ascending" ? 1 : -1;
  for (const body of table.tBodies) {
    const keyed = [...body.rows].map((row) => [value(row.cells[column]), row]);
    keyed.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b));
    body.append(...keyed.map(([, row]) => row));
  }
};

// --- switches between views, and legends that hide a series in the plots of their group ---
const show = (button) => {
  const views = button.closest(".views");
  for (const other of button.parentNode.children) other.setAttribute("aria-pressed", String(other === button));
  for (const view of views.children)
    if (view.classList.contains("view")) view.hidden = view.dataset.view !== button.dataset.show;
};
const toggle = (button) => {
  const on = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(on));
  for (const part of button.closest(".series-group").querySelectorAll(`svg.plot [data-series="${button.dataset.toggle}"]`))
    part.toggleAttribute("hidden", !on);
};

// --- copying ---
const copy = async (button) => {
  const text = button.parentNode.querySelector("code").textContent;
  let done = false;
  try { await navigator.clipboard.writeText(text); done = true; } catch {
    const area = document.createElement("textarea");
    area.value = text; document.body.append(area); area.select();
    try { done = document.execCommand("copy"); } catch { done = false; }
    area.remove();
  }
  const label = button.dataset.label ??= button.textContent;
  button.textContent = done ? "copied" : "select and copy";
  setTimeout(() => { button.textContent = label; }, 1500);
};

// --- what is under the pointer: titles of marks, and values of curves at a step ---
let tip;
const place = (event) => {
  const { offsetWidth: w, offsetHeight: h } = tip;
  const x = event.clientX + 14 + w > innerWidth ? event.clientX - w - 14 : event.clientX + 14;
  const y = event.clientY + 16 + h > innerHeight ? event.clientY - h - 12 : event.clientY + 16;
  tip.style.left = Math.max(8, Math.min(x, innerWidth - w - 8)) + "px";
  tip.style.top = Math.max(8, y) + "px";
};
const tell = (text, event) => { tip.textContent = text; tip.hidden = false; place(event); };
const points = (curve) => curve.points ??= curve.dataset.points.split(" ").map((p) => p.split(",").map(Number));
const nearest = (list, x) => {
  let low = 0, high = list.length - 1;
  while (high - low > 1) { const mid = (low + high) >> 1; if (list[mid][0] < x) low = mid; else high = mid; }
  return Math.abs(list[low][0] - x) <= Math.abs(list[high][0] - x) ? list[low] : list[high];
};
const cross = (svg, event) => {
  const [low, high, start, end] = svg.dataset.x.split(" ").map(Number);
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  const pointer = svg.querySelector(".pointer");
  if (at.x < start - 6 || at.x > end + 6) { pointer?.remove(); tip.hidden = true; return; }
  const x = low + (at.x - start) / (end - start) * (high - low);
  const curves = [...svg.querySelectorAll("g.curve:not([hidden])")].sort((a, b) => a.dataset.series - b.dataset.series);
  if (!curves.length) { tip.hidden = true; return; }
  const found = curves.map((curve) => [curve.dataset.name, ...nearest(points(curve), x)]);
  const shown = start + (found[0][1] - low) / (high - low) * (end - start);
  const line = pointer ?? svg.insertBefore(
    document.createElementNS("http://www.w3.org/2000/svg", "line"), svg.querySelector("g.curve"));
  line.setAttribute("class", "pointer");
  const box = svg.viewBox.baseVal;
  for (const [key, number] of [["x1", shown], ["x2", shown], ["y1", 24], ["y2", box.height - 34]]) line.setAttribute(key, number);
  tell(found.map(([name, step, y]) => `${name}  ${y}  (step ${step})`).join("\n"), event);
};
const point = (event) => {
  const target = event.target instanceof Element ? event.target : null;
  const marked = target?.closest("[data-tip]");
  const svg = target?.closest("svg.cross");
  for (const line of document.querySelectorAll(".pointer")) if (line.ownerSVGElement !== svg) line.remove();
  if (marked) tell(marked.dataset.tip, event);
  else if (svg) cross(svg, event);
  else tip.hidden = true;
};

document.addEventListener("DOMContentLoaded", () => {
  paint(theme);
  tip = document.getElementById("tip");
  // a <title> is a slow tooltip without a script; with one it is a quick one, and says the same to screen readers
  for (const title of document.querySelectorAll("svg title")) {
    const owner = title.parentNode;
    owner.setAttribute("aria-label", title.textContent);
    if (owner.getAttribute("role") !== "img") owner.dataset.tip = title.textContent;
    title.remove();
  }
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("button") : null;
    if (!button) return;
    if (button.id === "theme") { paint(themes[(themes.indexOf(theme) + 1) % 3]); remember(theme); }
    else if (button.dataset.show !== undefined) show(button);
    else if (button.dataset.toggle !== undefined) toggle(button);
    else if (button.classList.contains("copy")) copy(button);
    else if (button.closest("table.sortable thead")) sort(button);
  });
  document.addEventListener("pointermove", point);
  document.addEventListener("pointerdown", point);
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  document.addEventListener("pointerleave", () => { tip.hidden = true; });
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const details of folded) details.open = true;
  });
  addEventListener("afterprint", () => { for (const details of folded) details.open = false; });
});
})();

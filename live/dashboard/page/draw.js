// Tables, the curve and the ladder. Everything goes in as text nodes: nothing that comes from outside is ever markup.
import {el, rub, clock, price} from "./words.js";

export function table(target, columns, rows, nothing = "none") {
  if (!rows.length) { target.replaceChildren(el("p", nothing, "dim")); return; }
  const t = el("table"), head = el("tr");
  for (const [name, , cls] of columns) { const th = el("th", name, cls === "n" ? "n" : ""); th.scope = "col"; head.append(th); }
  const thead = el("thead"), body = el("tbody");
  thead.append(head);
  for (const row of rows) {
    const tr = el("tr");
    for (const [, value, cls] of columns) {
      const made = value(row);
      const td = el("td", null, cls || "");
      if (made instanceof Node) td.append(made);
      else if (Array.isArray(made)) { td.textContent = made[0]; td.classList.add(...made.slice(1).filter(Boolean)); }
      else td.textContent = made ?? "";
      tr.append(td);
    }
    body.append(tr);
  }
  t.append(thead, body);
  target.replaceChildren(t);
}

export function facts(target, pairs) {
  target.replaceChildren(...pairs.flatMap(([name, value, cls]) => [el("dt", name), el("dd", value, cls)]));
}

function path(svg, cls, d) {
  const p = document.createElementNS("http://www.w3.org/2000/svg", "path");
  p.setAttribute("d", d); p.setAttribute("class", cls); p.setAttribute("vector-effect", "non-scaling-stroke");
  svg.append(p);
}

export function curve(target, equity) {
  const points = equity.points;
  if (points.length < 2) { target.replaceChildren(el("p", "nothing yet", "dim")); return; }
  const W = 1000, H = 190, GAP = 8, TOP = 128;
  const t0 = points[0][0], t1 = points[points.length - 1][0], span = (t1 - t0) || 1;
  const low = Math.min(0, equity.low_nano), high = Math.max(0, equity.high_nano), range = (high - low) || 1;
  const x = t => ((t - t0) / span * W).toFixed(1);
  const y = v => (4 + (high - v) / range * (TOP - 8)).toFixed(1);
  const deepest = Math.min(-1, equity.worst_nano);
  const d = v => (TOP + GAP + v / deepest * (H - TOP - GAP - 2)).toFixed(1);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${W} ${H}`); svg.setAttribute("preserveAspectRatio", "none"); svg.setAttribute("role", "img");
  const net = points[points.length - 1][1];
  svg.setAttribute("aria-label", `Net result ${rub(net)} roubles, drawdown now ${rub(equity.now_nano)}, deepest ${rub(equity.worst_nano)}`);
  path(svg, "zero", `M0 ${y(0)}H${W}`);
  path(svg, "sunk", `M0 ${TOP + GAP}` + points.map(p => `L${x(p[0])} ${d(p[2])}`).join("") + `L${W} ${TOP + GAP}Z`);
  path(svg, "zero", `M0 ${TOP + GAP}H${W}`);
  path(svg, "net", "M" + points.map(p => `${x(p[0])} ${y(p[1])}`).join("L"));
  target.replaceChildren(svg,
    el("p", `Above: net result, ${clock(t0, false)} to ${clock(t1, false)}: now ${rub(net)}, lowest ${rub(equity.low_nano)}, highest ${rub(equity.high_nano)} RUB.`),
    el("p", `Below: drawdown from the peak: now ${rub(equity.now_nano)}, deepest ${rub(equity.worst_nano)} RUB.`));
}

const SHOWN = 10;
export function ladder(target, book, instrument, working, position) {
  if (!book) { target.replaceChildren(el("p", "no book yet", "dim")); return; }
  const most = Math.max(1, ...book.bid.slice(0, SHOWN).map(l => l[1]), ...book.ask.slice(0, SHOWN).map(l => l[1]));
  const ours = new Map();
  for (const o of working) if (o.price_ticks != null) {
    const key = (o.side > 0 ? "bid" : "ask") + o.price_ticks;
    ours.set(key, (ours.get(key) || 0) + o.lots - o.lots_filled);
  }
  const notes = new Map();
  if (position) {
    if (position.stop_ticks != null) notes.set(position.stop_ticks, "our stop");
  }
  const t = el("table", null, "ladder"), body = el("tbody");
  const row = (level, kind) => {
    const tr = el("tr", null, kind), left = el("td", null, "size"), mid = el("td", price(level[0], instrument), "price"), right = el("td", null, "size");
    const mine = ours.get(kind + level[0]), note = notes.get(level[0]);
    const sized = kind === "bid" ? left : right, other = kind === "bid" ? right : left;
    const bar = el("i"); bar.style.width = Math.max(1, level[1] / most * 100) + "%";
    sized.append(bar, el("span", level[1]));
    if (mine || note) { tr.classList.add("mine"); other.append(el("span", mine ? `ours: ${mine}` : note, "us")); }
    if (!mine && !note) other.className = "";
    tr.append(left, mid, right);
    return tr;
  };
  // Orders of ours outside the levels shown must not disappear.
  const seen = new Set([...book.bid.slice(0, SHOWN).map(l => "bid" + l[0]), ...book.ask.slice(0, SHOWN).map(l => "ask" + l[0])]);
  const far = [...ours].filter(([key]) => !seen.has(key)).map(([key, lots]) => [+key.slice(3), lots, key.slice(0, 3)]);
  const asks = book.ask.slice(0, SHOWN).reverse(), gap = book.bid.length && book.ask.length ? book.ask[0][0] - book.bid[0][0] : null;
  for (const level of asks) body.append(row(level, "ask"));
  const between = el("tr", null, "mid"), cell = el("td", gap == null ? "one side is empty" : `spread ${gap} tick${gap === 1 ? "" : "s"}` + (instrument?.spread_millibps != null ? `, ${(instrument.spread_millibps / 1000).toFixed(1)} bps` : ""));
  cell.colSpan = 3; between.append(cell); body.append(between);
  for (const level of book.bid.slice(0, SHOWN)) body.append(row(level, "bid"));
  t.append(body);
  const parts = [t];
  for (const [ticks, lots, kind] of far) parts.push(el("p", `our ${kind === "bid" ? "buy" : "sell"} order of ${lots} at ${price(ticks, instrument)} is outside these levels`, "us"));
  if (position?.stop_ticks != null) parts.push(el("p", `our stop: ${price(position.stop_ticks, instrument)}`, "dim"));
  target.replaceChildren(...parts);
}

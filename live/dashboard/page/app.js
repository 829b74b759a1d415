// The page: keeps the newest sections, and draws those that changed.
import {$, el, rub, bps, side, tone, clock, span, micros, price, setZone, zoneName} from "./words.js";
import {table, facts, curve, ladder} from "./draw.js";

const SIGNS = {ok: "✓", idle: "◦", watch: "!", bad: "✕", lost: "✕", unknown: "…"};
const LOST_AFTER_MS = 4000;
const S = {};                       // the sections
let heard = 0, chosen = "orders", ticker = "", lost = false;

// ---- the banner

function verdict() {
  const v = lost ? {level: "lost", headline: "No news from the trading box",
    why: `This page has heard nothing for ${heard ? span((performance.now() - heard) / 1000) : "a while"}; what is below is old.`,
    what_to_do: "Check this device's network, then the box."} : S.verdict;
  if (!v) return;
  const box = $("verdict");
  if (box.dataset.level !== v.level) box.dataset.level = v.level;
  put("sign", SIGNS[v.level]); put("headline", v.headline); put("why", v.why); put("todo", v.what_to_do);
  $("headline").setAttribute("aria-live", v.level === "bad" || v.level === "lost" ? "assertive" : "polite");
  document.title = `${SIGNS[v.level]} ${v.headline} – Scalper`;
  document.body.toggleAttribute("data-stale", lost || S.state?.alive === false);
}
function put(id, text) { if ($(id).textContent !== text) $(id).textContent = text; }

function state() {
  const s = S.state;
  setZone(s.timezone);
  if (s.simulated) { document.body.dataset.simulated = ""; put("mark", `SIMULATED: ${s.simulated}`); } else delete document.body.dataset.simulated;
  $("mark").hidden = !s.simulated;
  if (!s.model) return;
  put("meta", `${s.mode} · model ${s.model.alias} v${s.model.version} (${s.model.manifest_sha256.slice(0, 8)}) · ${clock(s.market_ns)} ${zoneName()}`);
  put("foot", `session ${s.session_id}, pid ${s.pid}${s.speed !== 1 ? `, market time runs ${s.speed} times as fast` : ""}`);
}

function tiles() {
  const s = S.state, m = S.market, h = S.health;
  if (!s?.model) { $("tiles").replaceChildren(); return; }
  const lots = Object.entries(m.positions).map(([t, p]) => `${t} ${p.lots > 0 ? "+" : ""}${p.lots}`).join(", ");
  const ages = Object.entries(m.instruments).map(([t, i]) => [i.book_age_s, t]).filter(p => p[0] != null).sort((a, b) => b[0] - a[0]);
  const limit = h.limits?.book_age_s;
  // The curve is read every few seconds, the result every second: the drawdown is taken from the newer one.
  const c = h.connection, sunk = s.net_nano - Math.max(0, S.equity?.high_nano ?? 0, s.net_nano);
  const deepest = Math.min(sunk, S.equity?.worst_nano ?? 0);
  const rows = [
    ["net of the session, RUB", rub(s.net_nano), tone(s.net_nano)],
    ["drawdown (deepest " + rub(deepest) + ")", rub(sunk), sunk < 0 ? "bad" : ""],
    ["position", lots || "flat", ""],
    ["oldest data" + (ages.length ? ` (${ages[0][1]})` : ""), ages.length ? span(ages[0][0]) : "none", ages.length && limit && ages[0][0] > limit ? "bad" : ""],
    [`connection (${c.channel}), ${c.reconnects} reconnects`, c.up ? "up" : "DOWN", c.up ? "good" : "bad"],
    ["signals · orders · fills", `${s.counts.signals || 0} · ${s.counts.orders || 0} · ${s.counts.fills || 0}`, ""],
  ];
  $("tiles").replaceChildren(...rows.map(([name, value, cls]) => { const d = el("div"); d.append(el("dt", name), el("dd", value, cls)); return d; }));
}

// ---- holds

const SOFT = {NO_ENTRIES: "watch", REDUCE_ONLY: "bad", FLATTEN: "bad", NO_ORDERS: "bad"};
const MEANS = {NO_ENTRIES: "no new positions", REDUCE_ONLY: "only smaller positions", FLATTEN: "positions are closed", NO_ORDERS: "no order at all"};

function holds() {
  const found = S.holds?.list ?? [], s = S.state, list = [];
  if (s?.halt_flag != null && !found.some(h => h.name === "MANUAL_OVERRIDE")) list.push(one("Halted by the flag file", "no order at all", s.halt_flag, "until it is resumed", "bad"));
  for (const h of found) {
    const when = h.until_ns && s ? `until ${clock(h.until_ns)} (${span(Math.max(0, (h.until_ns - s.market_ns) / 1e9 / (s.speed || 1)))})` : `until ${h.lifts_when}`;
    const level = h.name === "SESSION" || h.name === "STOP_REQUESTED" ? "idle" : SOFT[h.severity];
    list.push(one(`${h.name}${h.scope === "*" ? "" : " " + h.scope}`, MEANS[h.severity], h.reason, `since ${clock(h.since_ns)}, ${when}`, level));
  }
  $("hold-list").replaceChildren(...(list.length ? list : [el("p", "Nothing stops trading.", "good")]));
  buttons();
}
function one(name, means, reason, when, level) {
  const d = el("div", null, "hold"); d.dataset.level = level;
  const head = el("p"); head.append(el("b", name), ": " + means);
  d.append(head, el("p", reason), el("p", when, "dim"));
  return d;
}

// ---- the market

function market() {
  const m = S.market;
  const at = r => m.instruments[r.ticker];
  table($("positions"), [["instrument", r => r.ticker], ["lots", r => (r.lots > 0 ? "+" : "") + r.lots, "n"], ["paid", r => r.entry_ticks == null ? "" : price(r.entry_ticks, at(r)), "n"],
    ["now", r => r.mark_ticks == null ? "" : price(r.mark_ticks, at(r)), "n"], ["stop", r => r.stop_ticks == null ? ["none", "bad"] : price(r.stop_ticks, at(r)), "n"],
    ["open result", r => [rub(r.unrealised_nano), tone(r.unrealised_nano)], "n"]],
    Object.entries(m.positions).map(([t, p]) => ({ticker: t, ...p})), "flat: no position is open");
  table($("working"), [["instrument", r => r.ticker], ["", r => [side(r.side), side(r.side)]], ["open lots", r => `${r.lots - r.lots_filled} of ${r.lots}`, "n"], ["price", r => price(r.price_ticks, at(r)), "n"],
    ["why", r => `${r.role.toLowerCase()}, ${r.reason}`], ["state", r => r.state], ["since", r => clock(r.placed_ns)]], m.working, "none");
  const names = Object.keys(m.instruments);
  if (!names.includes(ticker)) ticker = Object.keys(m.positions)[0] ?? m.working[0]?.ticker ?? names[0] ?? "";
  if ($("pick").dataset.names !== names.join()) {
    $("pick").dataset.names = names.join();
    $("pick").replaceChildren(...(names.length > 1 ? names.map(n => tab(n, n === ticker, () => { ticker = n; market(); })) : []));
  }
  for (const b of $("pick").children) b.setAttribute("aria-pressed", b.textContent === ticker);
  ladder($("book"), m.books[ticker], m.instruments[ticker], m.working.filter(o => o.ticker === ticker), m.positions[ticker]);
  const limit = S.health?.limits?.book_age_s, wide = S.health?.limits?.spread_millibps;
  table($("ages"), [["instrument", r => r[0]], ["data age", r => r[1].book_age_s == null ? ["never", "bad"] : [span(r[1].book_age_s), limit && r[1].book_age_s > limit ? "bad" : ""], "n"],
    ["spread, bps", r => r[1].spread_millibps == null ? "" : [bps(r[1].spread_millibps), wide && r[1].spread_millibps > wide ? "warn" : ""], "n"],
    ["book", r => r[1].trusted ? "believed" : ["not believed", "bad"]], ["model", r => r[1].threshold_millibps == null ? ["does not trade it", "dim"] : r[1].rotated_out ? ["rotated out", "dim"] : r[1].warming_up ? ["warming up", "dim"] : "trades it"]], Object.entries(m.instruments));
}
function tab(text, pressed, act) { const b = el("button", text); b.type = "button"; b.setAttribute("aria-pressed", pressed); b.onclick = act; return b; }

// ---- signals

const picked = new Map();             // what a person opened or closed; else the newest is open
function signals() {
  const box = $("signals");
  const made = S.signals.slice(0, 8).map((s, n) => {
    const d = el("details", null, "signal"), head = el("summary");
    d.open = picked.get(s.trace_id) ?? n === 0;
    head.onclick = () => picked.set(s.trace_id, !d.open);
    head.append(el("span", clock(s.now_ns), "dim"), el("b", s.ticker), el("span", side(s.side), side(s.side)),
      el("span", `expects ${bps(s.expected_move_millibps)} bps, costs ${bps(s.cost_millibps)}`), el("span", s.outcome, "outcome" + (s.outcome === "ENTRY" ? " good" : "")));
    d.append(head);
    const votes = Object.entries(s.votes);
    if (votes.length) { const t = el("div"); table(t, [["model", v => v[0]], ["weight", v => v[1].weight.toFixed(2), "n"], ["down – up", v => vote(v[1].up_minus_down)], ["", v => (v[1].up_minus_down > 0 ? "+" : "") + v[1].up_minus_down.toFixed(2), "n"]], votes); d.append(t); }
    else d.append(el("p", s.source === "fallback" ? "the heuristic fallback: book imbalance and volatility, no model" : "", "dim"));
    if (s.inputs.length) d.append(el("p", "least usual inputs: " + s.inputs.map(i => `${i.name} (${i.z > 0 ? "+" : ""}${i.z} σ)`).join(", "), "dim"));
    return d;
  });
  box.replaceChildren(...(made.length ? made : [el("p", "none yet", "dim")]));
}
function vote(v) {
  const box = el("span", null, "vote"), bar = el("i", null, v > 0 ? "up" : "down");
  bar.style.width = Math.min(50, Math.abs(v) * 50) + "%";
  box.append(bar); box.setAttribute("role", "img"); box.setAttribute("aria-label", `${v}`);
  return box;
}

// ---- health

const STAGES = {queue: "waiting in the queue", features: "features", ml: "models", risk: "risk and decision", recv_to_decision: "book to decision", intent_commit: "intention to disk", tick_to_order: "book to order on the wire", rpc: "the broker's answer"};
function health() {
  const h = S.health, limits = h.limits?.latency_us ?? {};
  const order = Object.keys(STAGES), known = Object.entries(h.latency).sort((a, b) => (order.indexOf(a[0]) + 99) % 99 - (order.indexOf(b[0]) + 99) % 99);
  table($("latency"), [["stage", r => STAGES[r[0]] ?? r[0]], ["half under", r => micros(r[1].p50_us), "n"], ["99 % under", r => [micros(r[1].p99_us), limits[r[0]] && r[1].p99_us > limits[r[0]] ? "bad" : ""], "n"],
    ["worst", r => micros(r[1].max_us), "n"], ["limit", r => limits[r[0]] ? micros(limits[r[0]]) : "", "n"]], known, "nothing measured yet");
  const n = h.notifier, r = h.resources, d = S.drift ?? {};
  const limited = (h.restrictions ?? []).filter(name => name !== "simplified");
  const pairs = [
    ...(limited.length ? [["restrictions", limited.join(", "), "warn"]] : []),
    ["resources", r ? `${r.simplified ? "SIMPLIFIED" : "full"} mode` + (r.cpu_pct != null ? `, CPU ${Math.round(r.cpu_pct)} %, memory ${Math.round(r.memory_pct ?? 0)} %` : "") + (r.reason ? `: ${r.reason}` : "") : "full mode", r?.simplified ? "warn" : ""],
    ["drift", drift(d), d.warning || d.critical ? "warn" : ""],
    ["queue", `${h.queue.length} waiting, ${h.queue.conflated} conflated, ${h.queue.dropped} dropped`, h.queue.dropped ? "bad" : ""],
    ["database", h.storage.degraded || S.database || "takes writes", h.storage.degraded || S.database ? "bad" : ""],
    ["messages", n.enabled ? `${n.sent} sent, ${n.waiting} waiting, ${n.dropped} lost` : "not configured", n.dropped ? "warn" : ""],
    ["clock skew", h.connection.clock_skew_ns == null ? "unknown" : `${(h.connection.clock_skew_ns / 1e6).toFixed(0)} ms`],
  ];
  if (n.last_error) pairs.push(["last message error", n.last_error, "bad"]);
  if (h.connection.last_error) pairs.push(["last connection error", h.connection.last_error, h.connection.up ? "dim" : "bad"]);
  facts($("health"), pairs);
}
function drift(d) {
  const last = d.last ?? d;
  const numbers = Object.entries(last).filter(([, v]) => typeof v === "number" || typeof v === "string").slice(0, 5);
  return numbers.length ? numbers.map(([k, v]) => `${k} ${typeof v === "number" && !Number.isInteger(v) ? v.toFixed(3) : v}`).join(", ") : "nothing measured yet";
}

// ---- what happened

const at = r => S.market?.instruments[r.ticker];
const LISTS = {
  orders: [["time", r => clock(r.created_ns)], ["instrument", r => r.ticker], ["", r => [side(r.side), side(r.side)]], ["lots", r => `${r.lots_executed} of ${r.lots}`, "n"], ["price", r => price(r.price_ticks, at(r)), "n"],
    ["status", r => r.status], ["why", r => r.reason], ["note", r => r.note, "wide"]],
  fills: [["time", r => clock(r.now_ns)], ["instrument", r => r.ticker], ["", r => [side(r.side), side(r.side)]], ["lots", r => r.lots, "n"], ["price", r => price(r.price_ticks, at(r)), "n"], ["realised", r => [rub(r.realised_nano), tone(r.realised_nano)], "n"], ["fee", r => rub(-r.fee_nano), "n"]],
  trips: [["closed", r => clock(r.exit_ns)], ["instrument", r => r.ticker], ["", r => [side(r.side), side(r.side)]], ["lots", r => r.lots, "n"], ["gross", r => rub(r.gross_nano), "n"], ["fees", r => rub(-r.fees_nano), "n"], ["net", r => [rub(r.net_nano), tone(r.net_nano)], "n"], ["why", r => r.exit_reason]],
  past_holds: [["since", r => clock(r.raised_ns)], ["lifted", r => clock(r.lifted_ns) || "in force"], ["hold", r => r.name + (r.scope === "*" ? "" : " " + r.scope)], ["means", r => MEANS[r.severity] ?? r.severity], ["reason", r => r.reason, "wide"]],
  audit: [["time", r => clock(r.market_ns)], ["tag", r => r.tag], ["event", r => r.event], ["facts", r => r.fields, "wide"]],
  sessions: [["started", r => new Date(r.started_wall_ns / 1e6).toISOString().slice(0, 16).replace("T", " ") + " UTC"], ["mode", r => r.mode], ["model", r => `${r.alias} v${r.model_version}`], ["net", r => r.net_nano == null ? "" : [rub(r.net_nano), tone(r.net_nano)], "n"], ["", r => r.ended_wall_ns ? "ended" : ""]],
};
const NAMES = {past_holds: "holds", trips: "round trips"};
function list() { if (S[chosen]) table($("table"), LISTS[chosen], S[chosen], "nothing yet"); else $("table").replaceChildren(el("p", S.database || "nothing yet", "dim")); }
for (const name of Object.keys(LISTS)) $("tabs").append(tab(NAMES[name] ?? name, name === chosen, e => {
  chosen = name;
  for (const b of $("tabs").children) b.setAttribute("aria-pressed", b === e.currentTarget);
  list();
}));

// ---- the live stream

const DRAW = {verdict, state, holds, market, signals, health, equity: () => curve($("curve"), S.equity)};
function take(message) {
  heard = performance.now(); lost = false;
  const news = JSON.parse(message.data).sections;
  Object.assign(S, news);
  for (const [name, draw] of Object.entries(DRAW)) if (name in news) draw();
  if ("state" in news && !("holds" in news)) holds();
  if (["state", "market", "health", "equity"].some(n => n in news)) tiles();
  if ("drift" in news && S.health) health();
  if (chosen in news) list();
  verdict();
}
let source;
function open() {
  source = new EventSource("/events");
  source.onmessage = take;
  source.onerror = async () => {
    if (source.readyState !== EventSource.CLOSED) return;      // it tries again by itself
    const answer = await fetch("/api/verdict").catch(() => null);
    if (answer?.status === 401) location.reload(); else setTimeout(open, 3000);
  };
}
setInterval(() => { if (performance.now() - heard > LOST_AFTER_MS) { lost = true; verdict(); } }, 1000);
document.addEventListener("visibilitychange", () => { if (!document.hidden && performance.now() - heard > LOST_AFTER_MS) { source.close(); open(); } });
open();

// ---- halt and resume

const writable = document.body.dataset.writable === "yes";
$("out").hidden = !writable;
function buttons() {
  const flag = S.state?.halt_flag ?? null, names = S.holds?.liftable ?? [];
  $("halt").disabled = !writable || flag != null;
  $("resume").disabled = !writable || (flag == null && !names.length);
  for (const id of ["halt", "resume"]) $(id).title = writable ? "" : "Set dashboard.token to halt and resume from here; until then: live-runner halt";
}
function say(text, bad) { const box = $("said"); box.textContent = text; box.className = bad ? "bad" : ""; box.hidden = false; clearTimeout(say.timer); say.timer = setTimeout(() => { box.hidden = true; }, 15000); }
async function send(address, wish) {
  try {
    const answer = await fetch(address, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({confirm: true, ...wish})});
    const body = await answer.json();
    say(answer.ok ? body.done : body.error, !answer.ok);
  } catch (error) { say(`Not sent: ${error.message}. Use live-runner halt on the box.`, true); }
}
for (const dialog of document.querySelectorAll("dialog")) dialog.querySelector("button[value=no]").onclick = () => dialog.close("no");
$("halt").onclick = () => { $("halt-why").value = ""; $("ask-halt").returnValue = ""; $("ask-halt").showModal(); };
$("ask-halt").onclose = () => { if ($("ask-halt").returnValue === "yes") send("/api/halt", {reason: $("halt-why").value || "halted from the dashboard"}); };
let seen = null;
$("resume").onclick = () => {
  // What the person sees now is what is lifted: a hold that comes while the question is open stays.
  const why = name => (S.holds?.list ?? []).filter(h => h.name === name).map(h => (h.scope === "*" ? "" : `${h.scope}: `) + h.reason).join("; ");
  seen = {seen_flag: S.state?.halt_flag ?? null, names: [...(S.holds?.liftable ?? [])]};
  $("lifts").replaceChildren(...(seen.seen_flag != null ? [el("li", `the halt: ${seen.seen_flag}`)] : []), ...seen.names.map(n => el("li", `${n}: ${why(n)}`)));
  $("looked").checked = false; $("resume-why").value = ""; $("ask-resume").returnValue = "";
  $("ask-resume").showModal();
};
$("ask-resume").onclose = () => { if ($("ask-resume").returnValue === "yes") send("/api/resume", {...seen, reason: $("resume-why").value}); };
buttons();

// The live part of the report: a stretch of text, character by character, in both models. It reads the JSON of
// #live-data, which scratchrnn/report/payload.py writes and describes, and needs nothing from anywhere else.
//
// Two rules keep it short: `chosen` is all the state there is, and every change goes through `choose`, which draws what
// depends on it. Text of the study enters the page as textContent only.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("live-data").textContent);
  const $ = (name) => document.getElementById(`live-${name}`);
  const steps = data.text.length;
  const chosen = { model: data.models.length - 1, layer: 0, quantity: "h", order: "slow", unit: 0, at: (3 * steps) >> 2 };
  chosen.held = null; // the character after which a prediction is held, while `at` goes on

  // --- colours: ColorBrewer's RdBu and cividis (Nuñez, Anderton, Renslow, 2018); the dark theme has a dark middle

  const STOPS = {
    diverging: "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f",
    dark: "b9e0ff 6db5ee 3a82bf 245582 1d3148 1e2127 45271f 84402a c05a38 ec8a63 ffd0b5",
    sequential: "00224e 083370 35456c 4f576c 666970 7d7c78 948e77 aea371 c8b866 e5cf52 fee838",
  };
  const RAMPS = Object.fromEntries(Object.entries(STOPS).map(([name, stops]) => [name, ramp(stops.split(" "))]));
  const darkTheme = matchMedia("(prefers-color-scheme: dark)");

  function ramp(stops) {
    const rgb = stops.map((hex) => [0, 2, 4].map((n) => parseInt(hex.slice(n, n + 2), 16)));
    return Array.from({ length: 256 }, (_, n) => {
      const place = (n / 255) * (stops.length - 1);
      const low = Math.min(Math.floor(place), stops.length - 2);
      return rgb[low].map((value, channel) => Math.round(value + (place - low) * (rgb[low + 1][channel] - value)));
    });
  }

  const signed = (name) => data.quantities[name].map === "diverging";
  const colors = (name) => RAMPS[signed(name) && darkTheme.matches ? "dark" : data.quantities[name].map];
  const span = (name, limit) => [signed(name) ? -limit : 0, limit];

  function color(name, limit, value) {
    if (Number.isNaN(value)) return [136, 136, 136];
    const [low, high] = span(name, limit);
    return colors(name)[Math.round(255 * Math.min(1, Math.max(0, (value - low) / (high - low))))];
  }

  const inkOn = ([r, g, b]) => (0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#14161a" : "#ffffff");

  // --- words

  const SIGNS = { "\n": "⏎", "\r": "↵", "\t": "⇥" };
  const SPOKEN = { " ": "space", "\n": "line end", "\r": "carriage return", "\t": "tab" };
  const sign = (c) => SIGNS[c] ?? (/\p{Zs}/u.test(c) ? "␣" : /[\p{C}\p{M}\p{Z}]/u.test(c) ? "□" : c);
  const code = (c) => `U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  const spoken = (c) => SPOKEN[c] ?? (sign(c) === "□" ? code(c) : c);
  const superscript = (n) => String(n).replace(/./g, (d) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(d)]);
  const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

  function number(value) {
    if (!Number.isFinite(value)) return "not finite"; // null is one as well
    const size = Math.abs(value);
    if (value === 0) return "0";
    if (size >= 0.01 && size < 1000) return value.toFixed(size < 10 ? 3 : 1).replace("-", "−");
    const [digits, exponent] = value.toExponential(1).split("e");
    return `${digits}·10${superscript(Number(exponent))}`.replace("-", "−");
  }

  const short = (value) => String(value).replace("-", "−");

  function percent(p) {
    if (p === null) return "not finite";
    if (p === 0 || p === 1) return `${100 * p}%`;
    if (p >= 0.995) return p >= 0.9995 ? ">99.9%" : `${(100 * p).toFixed(1)}%`;
    return p >= 0.1 ? `${(100 * p).toFixed(0)}%` : p >= 0.001 ? `${(100 * p).toFixed(1)}%` : "<0.1%";
  }

  // --- the chosen part of the data

  const model = () => data.models[chosen.model];
  const layer = () => model().layers[chosen.layer];
  const names = () => Object.keys(layer().arrays);
  const prediction = () => chosen.held ?? chosen.at;
  const value = (name, k, unit) => values(name)[k * layer().units + unit];

  function values(name) {
    const array = layer().arrays[name];
    array.values ??= new Float32Array(Uint8Array.from(atob(array.data), (c) => c.charCodeAt(0)).buffer);
    return array.values;
  }

  function order() {
    return layer().orders[chosen.order] ?? Array.from({ length: layer().units }, (_, unit) => unit);
  }

  // --- small helpers for elements

  function element(tag, attributes = {}, ...children) {
    const svg = ["svg", "path", "rect", "line"].includes(tag);
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [key, content] of Object.entries(attributes)) made.setAttribute(key, content);
    made.append(...children);
    return made;
  }

  const stretched = (...shapes) => element("svg", { viewBox: `0 0 ${steps} 100`, preserveAspectRatio: "none" }, ...shapes);
  const label = (text, top, kind = "") => element("span", { class: `tick ${kind}`, style: `top:${top}%` }, text);

  // --- drawing what depends on model, layer, quantity, order, theme and size

  function drawMap() {
    const canvas = $("map").querySelector("canvas");
    const ratio = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((n) => Math.max(1, Math.round(n * ratio)));
    Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    const { limit } = layer().arrays[chosen.quantity];
    const rows = order();
    const edge = (n, of, size) => Math.round((n / of) * size); // whole pixels, or there would be seams
    rows.forEach((unit, row) => {
      const top = edge(row, rows.length, height);
      for (let k = 0; k < steps; k++) {
        const left = edge(k, steps, width);
        context.fillStyle = `rgb(${color(chosen.quantity, limit, value(chosen.quantity, k, unit))})`;
        context.fillRect(left, top, edge(k + 1, steps, width) - left, edge(row + 1, rows.length, height) - top);
      }
    });
    const shades = colors(chosen.quantity).filter((_, n) => n % 15 === 0).map((rgb) => `rgb(${rgb})`);
    const [low, high] = span(chosen.quantity, limit);
    const beyond = values(chosen.quantity).some((v) => Math.abs(v) > limit);
    const cut = layer().size > layer().units ? `; the first ${layer().units} of ${layer().size} units` : "";
    const bar = element("i", { style: `background:linear-gradient(90deg,${shades})` });
    const ends = [`${beyond && low < 0 ? "≤ " : ""}${short(low)}`, `${beyond ? "≥ " : ""}${short(high)}`];
    $("legend").replaceChildren(
      element("span", {}, `${data.quantities[chosen.quantity].sign}, one row for each unit${cut}`),
      element("span", { class: "scale" }, ends[0], bar, ends[1]),
    );
  }

  function fillSelect(name, entries) {
    const select = $(name);
    select.replaceChildren(...entries.map(([key, text]) => element("option", { value: key }, text)));
    select.value = chosen[name];
    select.parentElement.hidden = entries.length < 2;
  }

  function drawControls() {
    [...$("models").children].forEach((tab, n) => tab.setAttribute("aria-pressed", n === chosen.model));
    fillSelect("layer", model().layers.map((_, n) => [n, n + 1]));
    const quantity = (name) => [name, `${data.quantities[name].sign}: ${data.quantities[name].words}`];
    fillSelect("quantity", names().map(quantity));
    fillSelect("order", [["slow", "slow units first"], ["alike", "alike together"], ["number", "by number"]]);
  }

  // --- drawing what depends on the character, the prediction and the unit as well

  function drawGradient() {
    const t = prediction();
    const norms = model().gradient[t];
    const largest = Math.max(...norms.map((norm) => norm ?? 0));
    const top = Math.ceil(Math.log10(Math.max(...model().gradient.flat().map((norm) => norm ?? 0)) || 1));
    const DECADES = 5;
    const height = (norm) => Math.max(0, 100 * (1 - (top - Math.log10(norm || 1e-300)) / DECADES));
    const grid = [1, 2, 3, 4].map((n) => element("line", { x1: 0, x2: steps, y1: 20 * n, y2: 20 * n }));
    const bars = norms.map((norm, k) => {
      const y = height(norm);
      return element("rect", { x: k + 0.12, width: 0.76, y: 100 - y, height: y, class: k === chosen.at ? "now" : "" });
    });
    const ticks = [1, 2, 3, 4].map((n) => label(`10${superscript(top - n)}`, 20 * n));
    $("bars").replaceChildren(stretched(...grid, ...bars), ...ticks);
    $("what-gradient").replaceChildren(
      "Gradient of the loss of predicting ", element("b", {}, sign(data.following[t])), " after ",
      element("b", {}, sign(data.text[t])), ": its norm at each character read",
    );
    [...$("text").children].forEach((cell, k) => {
      // three powers of ten below the largest it has faded
      const share = largest > 0 && norms[k] > 0 ? Math.max(0, 1 + Math.log10(norms[k] / largest) / 3) : 0;
      cell.style.setProperty("--share", `${Math.round(65 * share)}%`);
      cell.className = [k === chosen.at && "now", k === t && "predicts", k > t && "later"].filter(Boolean).join(" ");
    });
    return { norms, largest };
  }

  function drawPanel({ norms, largest }) {
    const [t, k] = [prediction(), chosen.at];
    $("glyph").textContent = sign(data.text[k]);
    $("position").textContent = `character ${k + 1} of ${steps}`;
    $("context").textContent = `…${data.text.slice(Math.max(0, k - 16), k + 1).map(sign).join("")}`;
    drawCandidates(t);

    const total = norms.reduce((sum, norm) => sum + norm, 0);
    let half = 0;
    for (let sum = 0; half <= t && sum < total / 2; half++) sum += norms[t - half];
    const strongest = norms.indexOf(largest);
    const back = (from) => (from < t ? `, ${t - from} back` : "");
    const rows = [
      [`at ${sign(data.text[k])}${back(k)}`, k > t ? "none: read later" : number(norms[k])],
      ["of the largest", k > t || !largest ? "–" : percent(norms[k] / largest)],
      largest ? [`largest, at ${sign(data.text[strongest])}`, number(largest) + back(strongest)] : ["largest", "–"],
      ["half of the sum", total > 0 ? `last ${plural(half, "character")}` : "–"],
    ];
    $("gradient").replaceChildren(...rows.flatMap(([key, text]) => [element("dt", {}, key), element("dd", {}, text)]));

    $("unit").textContent = chosen.unit;
    $("values").replaceChildren(...names().map((name) => drawValue(name, value(name, k, chosen.unit))));
    const told = names().map((name) => `${data.quantities[name].sign} ${number(value(name, k, chosen.unit))}`);
    const follows = `followed by ${spoken(data.following[k])}, expected with ${percent(model().probability[k])}`;
    $("map").setAttribute("aria-valuenow", k + 1);
    $("map").setAttribute("aria-valuetext", `${spoken(data.text[k])}, ${follows}; unit ${chosen.unit}: ${told.join(", ")}`);
  }

  function drawCandidates(t) {
    const held = chosen.held !== null;
    const follows = data.following[t];
    const candidates = model().candidates[t].slice();
    if (!candidates.some(([c]) => c === follows)) candidates.push([follows, model().probability[t]]);
    $("predicts").replaceChildren(`${model().name} expects`);
    if (held) $("predicts").append(element("span", {}, ` after ${sign(data.text[t])}, held`));
    $("candidates").replaceChildren(...candidates.map(([c, p]) => {
      const track = element("span", { class: "track" }, element("i", { style: `width:${100 * (p ?? 0)}%` }));
      const kind = c === follows ? "bar true" : "bar";
      return element("div", { class: kind }, element("b", {}, sign(c)), track, element("em", {}, percent(p)));
    }));
    $("hold").setAttribute("aria-pressed", held);
    $("hold").textContent = held ? "Let go" : "Hold this prediction";
  }

  function drawValue(name, x) {
    const [low, high] = span(name, layer().arrays[name].limit);
    const place = (v) => 100 * Math.min(1, Math.max(0, (v - low) / (high - low)));
    const [from, to] = [place(0), place(x || 0)].sort((a, b) => a - b);
    const bar = element("i", { style: `margin-left:${from}%;width:${to - from}%` });
    const { sign: name_, words } = data.quantities[name];
    return element("div", { class: `bar value ${name}`, title: words }, element("b", {}, name_),
      element("span", { class: signed(name) ? "track signed" : "track" }, bar), element("em", {}, number(x)));
  }

  function drawUnit() {
    const { limit } = layer().arrays[chosen.quantity];
    const where = ` of the ${model().name} over the text; colours: ${data.quantities[chosen.quantity].sign}`;
    $("what-unit").replaceChildren(element("b", {}, `Unit ${chosen.unit}`), where);
    [...$("unit-text").children].forEach((cell, k) => {
      const rgb = color(chosen.quantity, limit, value(chosen.quantity, k, chosen.unit));
      cell.style.backgroundColor = `rgb(${rgb})`;
      cell.style.color = inkOn(rgb);
      cell.className = k === chosen.at ? "now" : "";
    });
    $("lines").replaceChildren(...[["c"], ["h", "g"], ["i", "f", "o"]].flatMap(drawLines));
  }

  function drawLines(wanted) {
    const shown = wanted.filter((name) => names().includes(name));
    if (!shown.length) return [];
    const courses = shown.map((name) => data.text.map((_, k) => value(name, k, chosen.unit)));
    const limit = Math.max(1, ...courses.flat().map((v) => (Number.isFinite(v) ? Math.ceil(Math.abs(v)) : 0)));
    const low = span(shown[0], limit)[0];
    const y = (v) => 97 - (94 * (v - low)) / (limit - low); // room for the width of a line at either end
    const point = (v, k, course) =>
      Number.isFinite(v) ? `${Number.isFinite(course[k - 1]) ? "L" : "M"}${k + 0.5} ${y(v).toFixed(2)}` : "";
    const vertical = element("line", { class: "now", x1: chosen.at + 0.5, x2: chosen.at + 0.5, y1: 0, y2: 100 });
    const zero = element("line", { x1: 0, x2: steps, y1: y(0), y2: y(0) });
    const lines = courses.map((course, n) => element("path", { d: course.map(point).join(""), class: shown[n] }));
    const named = ({ sign: name, words }) => [element("b", {}, name), ` ${words}`];
    const key = shown.map((name) => element("span", { class: name }, ...named(data.quantities[name])));
    const ends = [label(short(limit), 0, "first"), label(short(low), 100, "last")];
    return [
      element("p", { class: "what key" }, ...key),
      element("div", { class: "plot" }, stretched(zero, vertical, ...lines), ...ends),
    ];
  }

  function drawMarks(hovered = chosen.unit) {
    const rows = order();
    const map = $("map");
    const percentOf = (n, of) => `${(100 * n) / of}%`;
    const mark = (name, place) => Object.assign(map.querySelector(name).style, place);
    mark(".column", { left: percentOf(chosen.at, steps), width: percentOf(1, steps) });
    mark(".row", { top: percentOf(rows.indexOf(chosen.unit), rows.length), height: percentOf(1, rows.length) });
    const tip = map.querySelector(".tip");
    const shown = number(value(chosen.quantity, chosen.at, hovered));
    tip.textContent = `unit ${hovered}: ${data.quantities[chosen.quantity].sign} ${shown}`;
    mark(".tip", {
      top: percentOf(rows.indexOf(hovered) + 0.5, rows.length),
      left: chosen.at < steps / 2 ? percentOf(chosen.at + 1.3, steps) : "auto",
      right: chosen.at < steps / 2 ? "auto" : percentOf(steps - chosen.at + 0.3, steps),
    });
  }

  // --- choosing

  function choose(change, hovered) {
    const whole = ["model", "layer", "quantity", "order"].some((name) => name in change);
    Object.assign(chosen, change);
    if ("model" in change) chosen.layer = Math.min(chosen.layer, model().layers.length - 1);
    if (!names().includes(chosen.quantity)) chosen.quantity = "h";
    chosen.unit = Math.min(chosen.unit, layer().units - 1);
    if ("model" in change || "layer" in change) drawControls();
    if (whole) drawMap();
    drawPanel(drawGradient());
    drawUnit();
    drawMarks(hovered);
  }

  const clamp = (n, end) => Math.max(0, Math.min(end - 1, n));

  function place(event, target) {
    const cell = document.elementFromPoint(event.clientX, event.clientY)?.closest(".text > span");
    if (cell && target.contains(cell)) return { at: [...target.children].indexOf(cell) };
    if (target.classList.contains("text")) return {};
    const box = target.getBoundingClientRect();
    const at = clamp(Math.floor(((event.clientX - box.left) / box.width) * steps), steps);
    const row = clamp(Math.floor(((event.clientY - box.top) / box.height) * layer().units), layer().units);
    return { at, unit: order()[row] };
  }

  const turned = () => (chosen.held === null ? chosen.at : null);

  function listen() {
    for (const name of ["map", "bars", "text", "unit-text", "lines"]) {
      const target = $(name);
      const follow = (event) => {
        const { at, unit } = place(event, target);
        if (at !== undefined) choose({ at }, name === "map" ? unit : undefined);
      };
      target.addEventListener("pointermove", follow);
      target.addEventListener("pointerdown", follow);
      target.addEventListener("click", (event) => {
        const { at, unit } = place(event, target);
        if (name === "map") choose({ unit });
        else if (at !== undefined && event.pointerType !== "touch") choose({ held: chosen.held === at ? null : at });
      });
      target.addEventListener("pointerleave", () => drawMarks());
    }
    $("map").addEventListener("keydown", (event) => {
      const rows = order();
      const row = rows.indexOf(chosen.unit);
      const change = {
        ArrowLeft: { at: clamp(chosen.at - 1, steps) }, ArrowRight: { at: clamp(chosen.at + 1, steps) },
        ArrowUp: { unit: rows[clamp(row - 1, rows.length)] }, ArrowDown: { unit: rows[clamp(row + 1, rows.length)] },
        PageUp: { unit: rows[clamp(row - 10, rows.length)] }, PageDown: { unit: rows[clamp(row + 10, rows.length)] },
        Home: { at: 0 }, End: { at: steps - 1 }, Enter: { held: turned() }, Escape: { held: null },
      }[event.key];
      if (!change || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      choose(change);
    });
    const step = (by) => () => choose({ unit: order()[clamp(order().indexOf(chosen.unit) + by, layer().units)] });
    $("before").addEventListener("click", step(-1));
    $("after").addEventListener("click", step(1));
    $("hold").addEventListener("click", () => choose({ held: turned() }));
    $("layer").addEventListener("change", (event) => choose({ layer: Number(event.target.value) }));
    for (const name of ["quantity", "order"]) {
      $(name).addEventListener("change", (event) => choose({ [name]: event.target.value }));
    }
    darkTheme.addEventListener("change", () => choose({ quantity: chosen.quantity }));
    new ResizeObserver(drawMap).observe($("map"));
  }

  // --- beginning

  $("models").replaceChildren(...data.models.map(({ cell, name }, n) => {
    const tab = element("button", { type: "button", class: cell }, name);
    tab.addEventListener("click", () => choose({ model: n }));
    return tab;
  }));
  $("models").hidden = data.models.length < 2;
  for (const name of ["text", "unit-text"]) {
    $(name).replaceChildren(...data.text.map((c) => element("span", { title: spoken(c) }, sign(c))));
  }
  $("map").setAttribute("aria-valuemax", steps);
  document.getElementById("live").style.setProperty("--steps", steps);
  document.getElementById("live").hidden = false;
  listen();
  chosen.unit = order()[layer().units >> 1];
  choose({ model: chosen.model });
})();

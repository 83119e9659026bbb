"use strict";
// Filters over tables and figures, and the figures: rows of points with intervals, panels of lines. No library.
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const every = (selector, within = document) => [...within.querySelectorAll(selector)];
  const form = document.getElementById("filters");
  const tip = document.getElementById("tip");
  const looks = Object.fromEntries(every("button[aria-pressed]", form).map((b) =>
    [b.value, { own: b.style.getPropertyValue("--own"), path: b.querySelector("path").getAttribute("d"), button: b }]));
  const keys = ["machine", "network", "cell", "pass", "dtype", "verdict"];
  const METRICS = {
    over: { label: () => `speed-up over ${reference()}: more is better`, form: (v) => `${number(v)}x` },
    time: { label: () => "time a step: less is better", form: time },
    share: { label: () => "share of the machine's peak: more is better", form: (v) => `${number(100 * v)} %` },
    change: { label: () => "new / base: right of 1 is slower", form: (v) => `${number(v)}x` },
    error: { label: () => "largest error over its limit: left of 1 is right", form: (v) => (v >= 0.01 ? number(v) : v.toExponential(0)) },
  };
  const BARS = "Bars are 95 % intervals; an arrow: it goes on.";
  const HOW = "Point, or focus and arrow keys, for values; the buttons of the backends hide them.";

  const value = (name) => (form.elements[name] ? form.elements[name].value : "");
  const reference = () => value("reference") || page.reference;
  const hidden = (backend) => looks[backend] && looks[backend].button.getAttribute("aria-pressed") === "false";
  const wanted = (found) => keys.every((key) => !value(key) || found[key] === undefined || found[key] === value(key));

  // Numbers as the report writes them: three digits, a unit that suits.
  function number(v) {
    if (!v) return "0";
    const decimals = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(v)) + 1e-9));
    return v.toLocaleString("en", { maximumFractionDigits: decimals });
  }
  function time(seconds) {
    const [name, unit] = seconds >= 0.1 ? ["s", 1] : seconds >= 1e-4 ? ["ms", 1e-3] : ["µs", 1e-6];
    return `${number(seconds / unit)} ${name}`;
  }
  const count = (v) => (v >= 1e6 ? `${number(v / 1e6)}M` : v >= 1e4 ? `${number(v / 1e3)}k` : number(v));
  const FORMS = { time, count, number, ratio: (v) => `${number(v)}x` };

  function svg(name, attributes = {}, within = null, text = "") {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, v] of Object.entries(attributes)) made.setAttribute(key, v);
    if (text) made.textContent = text;
    if (within) within.append(made);
    return made;
  }

  // An axis from the values that it must hold: where each lies between 0 and 1, and the ticks.
  function axis(values, log, most, room = 0.03, narrowest = 3) {
    const found = values.filter((v) => Number.isFinite(v) && (v > 0 || !log));
    if (!found.length) return null;
    const to = log ? Math.log10 : (v) => v;
    let low = Math.min(...found.map(to)), high = Math.max(...found.map(to));
    if (!log) low = Math.min(low, 0) === low ? low : 0;
    const least = log ? Math.log10(narrowest) : Math.abs(high) || 1;
    if (high - low < least) [low, high] = log ? [(low + high - least) / 2, (low + high + least) / 2] : [low, low + least];
    const margin = room * (high - low);
    if (log || low < 0) low -= margin;
    high += margin;
    return { at: (v) => (to(v) - low) / (high - low), ticks: ticks(low, high, log, most) };
  }
  function ticks(low, high, log, most) {
    if (log && high - low < Math.log10(2.9)) return ticks(10 ** low, 10 ** high, false, most);
    if (!log) {
      const rough = (high - low) / Math.min(5, most), power = 10 ** Math.floor(Math.log10(rough));
      const step = power * [1, 2, 5, 10].find((d) => d * power >= rough);
      const found = [];
      for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(k * step);
      return found;
    }
    const decades = [];
    for (let k = Math.floor(low); k <= Math.ceil(high); k++) decades.push(k);
    const within = (digits) => decades.flatMap((k) => digits.map((d) => d * 10 ** k))
      .filter((v) => Math.log10(v) >= low - 1e-9 && Math.log10(v) <= high + 1e-9);
    const found = [[1, 2, 5], [1, 3], [1]].map(within).find((some) => some.length <= most) || within([1]);
    return found.filter((_, i) => i % Math.ceil(found.length / most) === 0);
  }

  function show(text, x, y) {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 4))}px`;
    tip.style.top = `${y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18}px`;
  }
  const hide = () => { tip.hidden = true; };
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  function beside(element) {
    const box = element.getBoundingClientRect();
    return [box.left + Math.min(box.width / 2, 200), box.top + box.height / 2];
  }

  function panel(figure, title, width, height) {
    const made = document.createElement("div");
    made.className = "panel";
    made.style.width = `${width}px`;
    const name = document.createElement("p");
    name.textContent = title;
    made.append(name);
    figure.querySelector(".panels").append(made);
    return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}` }, made);
  }
  function widths(figure, count, least) {
    const all = figure.querySelector(".panels").clientWidth || 700;
    const columns = Math.max(1, Math.min(count, Math.floor((all + 19) / (least + 19)), 3));
    return Math.floor((all - 19.2 * (columns - 1)) / columns);
  }
  const group = (backend, within, extra = "") => svg("g", { class: `own${extra}`, style: `--own: ${looks[backend].own}` }, within);

  // A panel for each network and pass, a row for each backend; all panels have one axis and one order.
  function drawRows(figure, spec) {
    const chosen = figure.querySelector(".metric");
    const metric = (chosen && chosen.value) || spec.metric;
    const log = figure.querySelector(".scale").value === "log";
    const point = (r) => (metric === "over" ? r.over && r.over[reference()] : r[metric]);
    const rows = page.results.filter((r) => !hidden(r.backend) && wanted(r) && (!spec.main || r.main || value("pass")));
    const near = spec.near || Math.sqrt(3); // as far as an axis follows an interval, by a factor
    const bar = (p) => [Math.max(p.low ?? p.value, p.value / near), Math.min(p.high ?? p.value, p.value * near)];
    const values = rows.map(point).filter(Boolean).flatMap((p) => [p.value, ...bar(p)]);
    const groups = new Map();
    for (const r of rows) {
      const title = `${r.network}: ${r.pass}${r.machine ? `, on ${r.machine}` : ""}`;
      groups.set(title, [...(groups.get(title) || []), r]);
    }
    const width = widths(figure, groups.size, 300), left = 108, right = spec.band ? 92 : 74, high = 22;
    if (spec.band) values.push(...spec.band);
    const scale = axis(values, log, (width - left - right) / 34, 0.03, spec.narrowest);
    for (const [title, some] of groups) {
      const root = panel(figure, title, width, some.length * high + 26);
      root.setAttribute("role", "list");
      root.setAttribute("aria-label", `${title}: ${METRICS[metric].label()}`);
      const x = (v) => left + scale.at(v) * (width - left - right), foot = some.length * high + 4;
      if (scale && spec.band && log) {
        const [from, to] = spec.band.map(x);
        svg("rect", { class: "band", x: from, y: 0, width: to - from, height: foot }, root);
      }
      if (scale) drawTicks(root, scale, x, foot, METRICS[metric].form, width);
      if (scale && ["over", "error", "change"].includes(metric) && scale.at(1) >= 0 && scale.at(1) <= 1) {
        svg("line", { class: "one", x1: x(1), x2: x(1), y1: 0, y2: foot }, root);
      }
      some.forEach((r, i) => {
        const p = point(r), y = i * high + high / 2;
        const said = p ? `${p.text}${r.wrong ? ", wrong" : ""}` : r.missing || "no value";
        const row = group(r.backend, root, r.wrong ? " wrong" : "");
        for (const [key, v] of Object.entries({ role: "listitem", tabindex: i ? -1 : 0, "aria-label": `${r.backend}: ${said}` })) row.setAttribute(key, v);
        svg("rect", { class: "hit", x: 0, y: i * high, width, height: high, rx: 3 }, row);
        svg("text", { x: left - 12, y: y + 4, "text-anchor": "end" }, row, short(r.backend, 16));
        if (p && p.value !== null) {
          const [low, upper] = bar(p);
          svg("line", { class: "interval", x1: x(low), x2: x(upper), y1: y, y2: y }, row);
          if (p.high > upper * 1.001) svg("path", { d: `M${x(upper)} ${y - 4}l6 4l-6 4z` }, row);
          if (p.low < low * 0.999) svg("path", { d: `M${x(low)} ${y - 4}l-6 4l6 4z` }, row);
          svg("path", { d: looks[r.backend].path, transform: `translate(${x(p.value)} ${y}) scale(5)`, "stroke-width": 0.25 }, row);
          svg("text", { x: Math.max(x(p.value) + 8, x(upper) + 8), y: y + 4, class: p.tone || "faint" }, row, p.label);
        } else {
          svg("text", { x: left, y: y + 4, class: "faint" }, row, short(said, Math.floor((width - left) / 6)));
        }
        const words = `${r.backend}, ${title}\n${said}`;
        row.addEventListener("pointermove", (e) => show(words, e.clientX, e.clientY));
        row.addEventListener("pointerleave", hide);
        row.addEventListener("focus", () => show(words, ...beside(row)));
        row.addEventListener("blur", hide);
        row.addEventListener("keydown", (e) => {
          const next = { ArrowDown: row.nextSibling, ArrowUp: row.previousSibling }[e.key];
          if (next && next.getAttribute("role") === "listitem") { e.preventDefault(); next.focus(); }
        });
      });
    }
    const said = spec.band ? `${METRICS[metric].label()}, the band is the margin` : METRICS[metric].label();
    return `${capital(said)}. ${log ? "Log" : "Linear"} scale, the same in all panels. ${BARS} ${HOW}`;
  }
  function drawTicks(root, scale, x, foot, form, width) {
    const g = svg("g", { class: "axis", "aria-hidden": "true" }, root);
    for (const v of scale.ticks) {
      svg("line", { x1: x(v), x2: x(v), y1: 0, y2: foot }, g);
      svg("text", { x: Math.min(x(v), width - 14), y: foot + 15, "text-anchor": "middle" }, g, form(v));
    }
  }
  const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
  const capital = (text) => text[0].toUpperCase() + text.slice(1);

  // Panels of lines; names at the right, moved apart. Arrow keys walk along the axis below.
  function drawLines(figure, spec) {
    const log = figure.querySelector(".scale").value === "log";
    const panels = spec.panels.filter((p) => wanted(p.keys));
    const width = widths(figure, panels.length, 380), height = 240, left = 58, right = 118, foot = height - 38;
    for (const one of panels) {
      const lines = one.lines.filter((line) => !hidden(line.backend));
      const root = panel(figure, one.title, width, height);
      const stepped = lines.filter((l) => (l.steps || []).length), top = 8 + 13 * Math.min(3, stepped.length);
      const xs = spec.x.names ? slots(spec.x.names.length, width - left - right)
        : axis(lines.flatMap((l) => l.points.map((p) => p[0])), log && spec.x.log, (width - left - right) / 46, 0);
      const ys = axis(lines.flatMap((l) => l.points.map((p) => p[1])), log && spec.y.log, 6, 0.03, spec.y.narrowest);
      root.setAttribute("role", "img");
      root.setAttribute("tabindex", 0);
      root.setAttribute("aria-label", `${one.title}. ${spec.label}. ${lines.map((l) => l.name || l.backend).join(", ")}`);
      if (!xs || !ys) continue;
      const x = (v) => left + xs.at(v) * (width - left - right), y = (v) => foot - ys.at(v) * (foot - top);
      drawTicks(root, xs, x, foot, spec.x.names ? (v) => spec.x.names[v] : FORMS[spec.x.form], width);
      const g = svg("g", { class: "axis" }, root);
      for (const v of ys.ticks) {
        svg("line", { x1: left, x2: width - right, y1: y(v), y2: y(v) }, g);
        svg("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, g, FORMS[spec.y.form](v));
      }
      svg("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, g, one.x || spec.x.label);
      const ends = lines.map((l) => y(l.points.at(-1)[1]));
      const places = apart(ends, 14, 8, foot);
      lines.forEach((line, i) => {
        const own = group(line.backend, root, stepped.length && !stepped.includes(line) ? " quiet" : "");
        const drawn = svg("polyline", { points: line.points.map((p) => `${x(p[0])},${y(p[1])}`).join(" ") }, own);
        if (line.dashed) drawn.setAttribute("stroke-dasharray", "5 4");
        for (const [at, value, low, high] of spec.x.names ? line.points : []) {
          if (low) svg("line", { class: "whisker", x1: x(at), x2: x(at), y1: inside(y(low), top, foot), y2: inside(y(high), top, foot) }, own);
          svg("circle", { cx: x(at), cy: y(value), r: 2.5 }, own);
        }
        for (const [at, label] of line.steps || []) {
          svg("line", { class: "step", x1: x(at) - 6, x2: x(at) - 6, y1: top, y2: foot }, own);
          svg("text", { x: x(at) - 6, y: 13 + 13 * (stepped.indexOf(line) % 3), "text-anchor": "middle", class: label.startsWith("slower") ? "severe" : "best" }, root, `${line.backend} ${label}`);
        }
        const end = x(line.points.at(-1)[0]);
        svg("line", { x1: end, x2: width - right + 9, y1: ends[i], y2: places[i] }, own);
        svg("path", { d: looks[line.backend].path, transform: `translate(${width - right + 14} ${places[i]}) scale(4)`, "stroke-width": 0.25 }, own);
        svg("text", { x: width - right + 22, y: places[i] + 4 }, root, short(line.name || line.backend, 16));
      });
      lookInto(root, lines, x, spec, one, width);
    }
    return `${spec.label}. ${log ? "Log scales" : "Linear scales"}. ${HOW}`;
  }
  // An axis of things in a row, every so many of them named.
  function slots(count, width) {
    const stride = Math.ceil(count / Math.max(1, Math.floor(width / 62))), found = [];
    for (let i = count - 1; i >= 0; i -= stride) found.unshift(i);
    return { at: (i) => (i + 0.5) / count, ticks: found };
  }
  const inside = (y, top, foot) => Math.max(top, Math.min(foot, y));
  // What all lines are at the place that is pointed at, or that the arrow keys have come to.
  function lookInto(root, lines, x, spec, one, width) {
    const all = [...new Set(lines.flatMap((l) => l.points.map((p) => p[0])))].sort((a, b) => a - b);
    const cursor = svg("line", { class: "cursor", y1: 0, y2: 202, visibility: "hidden" }, root);
    let at = -1;
    const move = (to, ...place) => {
      at = Math.max(0, Math.min(all.length - 1, to));
      const found = lines.map((l) => [l.name || l.backend, l.points.find((p) => p[0] === all[at])]).filter((f) => f[1]);
      found.sort((a, b) => a[1][1] - b[1][1]);
      const lead = `${one.title}, ${one.x || spec.x.label} ${spec.x.said ? spec.x.said[all[at]] : count(all[at])}`;
      cursor.setAttribute("x1", x(all[at]));
      cursor.setAttribute("x2", x(all[at]));
      cursor.setAttribute("visibility", "visible");
      show([lead, ...found.map(([name, p]) => `${name}: ${p[4] || FORMS[spec.y.form](p[1])}`)].join("\n"), ...place);
    };
    const leave = () => { hide(); cursor.setAttribute("visibility", "hidden"); };
    root.addEventListener("pointermove", (e) => {
      const place = (e.clientX - root.getBoundingClientRect().left) * (width / root.clientWidth || 1);
      let best = 0;
      all.forEach((v, i) => { if (Math.abs(x(v) - place) < Math.abs(x(all[best]) - place)) best = i; });
      move(best, e.clientX, e.clientY);
    });
    root.addEventListener("pointerleave", leave);
    root.addEventListener("blur", leave);
    root.addEventListener("focus", () => move(at < 0 ? all.length - 1 : at, ...beside(root)));
    root.addEventListener("keydown", (e) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
      if (step) { e.preventDefault(); move(at + step, ...beside(root)); }
    });
  }
  function apart(places, gap, low, high) {
    const order = places.map((_, i) => i).sort((a, b) => places[a] - places[b]);
    const room = Math.min(gap, (high - low) / Math.max(1, places.length - 1));
    const found = [];
    let last = low - room;
    for (const i of order) { found[i] = last = Math.max(places[i], last + room); }
    let ceiling = high;
    for (const i of order.reverse()) { found[i] = Math.min(found[i], ceiling); ceiling = found[i] - room; }
    return found;
  }

  function draw() {
    hide();
    for (const figure of every("[data-figure]")) {
      const spec = page.figures[figure.dataset.figure];
      figure.querySelector(".panels").replaceChildren();
      figure.querySelector("figcaption").textContent = (spec.kind === "rows" ? drawRows : drawLines)(figure, spec);
    }
  }

  // What the filters leave out is hidden; ratios are to the reference that is chosen.
  function filter() {
    for (const e of every(["machine", "network", "dtype", "cell", "pass", "backend"].map((key) => `main [data-${key}]`).join())) {
      e.hidden = !wanted(e.dataset) || hidden(e.dataset.backend);
    }
    const found = new Map(page.results.map((r) => [`${r.network} ${r.pass} ${r.backend}`, r]));
    for (const section of every("[data-ratio]")) {
      section.querySelector("h2").textContent = `Speed-up over ${reference()}`;
      for (const cell of every("[data-network] td[data-pass]", section)) {
        const network = cell.closest("[data-network]").dataset.network;
        const r = found.get(`${network} ${cell.dataset.pass} ${cell.parentElement.dataset.backend}`);
        const ratio = r && r.over && r.over[reference()];
        if (r && r.over) cell.textContent = ratio ? ratio.text : `${reference()} was not measured`;
      }
    }
    const left = page.results.filter((r) => wanted(r) && !hidden(r.backend)).length;
    form.querySelector("output").textContent = page.results.length ? `${left} of ${page.results.length} results` : "";
  }

  for (const select of every(".metric")) {
    for (const [name, metric] of Object.entries(METRICS)) {
      if (page.results.some((r) => r[name])) select.add(new Option(metric.label().split(":")[0], name));
    }
    if (select.options.length) select.value = page.figures[select.closest("[data-figure]").dataset.figure].metric;
  }
  const change = () => { filter(); draw(); };
  form.addEventListener("click", (event) => {
    const button = event.target.closest("button[aria-pressed]");
    if (!button) return;
    button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "false");
    change();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", change);
  document.addEventListener("change", (event) => { if (event.target.closest(".tools")) draw(); });
  let width = 0;
  new ResizeObserver(() => { if (document.body.clientWidth !== width) { width = document.body.clientWidth; draw(); } }).observe(document.body);
  change();
})();

/* What the page can do beyond being read. Everything here is an addition: without scripts all
   numbers, drawings and pictures are still there. Nothing is fetched and nothing is stored but
   the chosen theme. */
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (name, attributes = {}, text = "") => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.textContent = text;
    return node;
  };
  const short = (value) =>
    value === null ? "–" : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en")
      : value !== 0 && Math.abs(value) < 0.001 ? value.toPrecision(3) : String(+value.toFixed(3));

  /* Theme: as the system has it, or light, or dark. */
  const themes = ["auto", "light", "dark"];
  const recall = () => { try { return localStorage.getItem("vislang-theme"); } catch { return null; } };
  const button = make("button", { type: "button", class: "theme" });
  const dress = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    try { localStorage.setItem("vislang-theme", theme); } catch { /* a file without storage */ }
  };
  const first = recall();
  let theme = themes.includes(first) ? first : "auto";
  dress(theme);
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    dress(theme);
  });
  document.querySelector(".top").append(button);

  /* Learning curves: the values under the pointer, or under the arrow keys. */
  for (const chart of all("svg.chart[data-axes]")) {
    const [xLow, xHigh, left, right, yLow, yHigh, bottom, top] = JSON.parse(chart.dataset.axes);
    const series = JSON.parse(chart.dataset.series);
    const steps = [...new Set(series.flatMap((line) => line.p.map((p) => p[0])))].sort((a, b) => a - b);
    const output = chart.parentNode.querySelector("output");
    const before = output.textContent;
    const svg = (name, attributes) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      return node;
    };
    const measure = (v) => ("log" in chart.dataset ? Math.log10(Math.max(v, 1e-300)) : v);
    const across = (v) => ("xlog" in chart.dataset ? Math.log10(v) : v);
    const x = (v) => left + ((across(v) - across(xLow)) / (across(xHigh) - across(xLow))) * (right - left);
    const y = (v) => bottom + ((measure(v) - measure(yLow)) / (measure(yHigh) - measure(yLow))) * (top - bottom);
    const layer = svg("g", {});
    chart.append(layer);
    let place = -1;
    const clear = () => { layer.replaceChildren(); output.textContent = before; place = -1; };
    const show = (index) => {
      place = Math.max(0, Math.min(steps.length - 1, index));
      const step = steps[place];
      layer.replaceChildren(svg("path", { d: `M${x(step)} ${top}V${bottom}`, class: "cursor" }));
      const said = [];
      for (const line of series) {
        const point = line.p.find((p) => p[0] === step) || line.p.findLast((p) => p[0] <= step);
        if (!point) continue;
        const dot = svg("g", { class: `s${line.c}` });
        dot.append(svg("circle", { cx: x(point[0]), cy: y(point[1]), r: 4, class: "hit", stroke: "var(--s)" }));
        layer.append(dot);
        const range = point[2] !== null && point[3] !== null ? ` [${short(point[2])}, ${short(point[3])}]` : "";
        said.push(`${series.length > 1 ? `${line.name} ` : ""}${short(point[1])}${range}`);
      }
      output.textContent = `${said.join(", ")} at ${chart.dataset.x} ${Number.isInteger(step) ? step.toLocaleString("en") : short(step)}`;
    };
    chart.addEventListener("pointermove", (event) => {
      const box = chart.getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width) * 360;
      let nearest = 0;
      steps.forEach((step, i) => { if (Math.abs(x(step) - at) < Math.abs(x(steps[nearest]) - at)) nearest = i; });
      show(nearest);
    });
    chart.addEventListener("pointerleave", clear);
    chart.addEventListener("blur", clear);
    chart.addEventListener("keydown", (event) => {
      const leap = event.shiftKey ? Math.max(1, Math.round(steps.length / 10)) : 1;
      const to = { ArrowLeft: (place < 0 ? steps.length : place) - leap, ArrowRight: place + leap,
        Home: 0, End: steps.length - 1 }[event.key];
      if (event.key === "Escape") clear();
      if (to === undefined) return;
      event.preventDefault();
      show(to);
    });
  }

  /* The map: picture, class and id of the chosen point; a class can be lifted out. */
  for (const figure of all("figure.scatter")) {
    const map = figure.querySelector("svg.map");
    const card = figure.querySelector(".card");
    const atlas = figure.querySelector("img.atlas");
    const points = JSON.parse(card.dataset.points);
    const tile = +card.dataset.tile, across = +card.dataset.across;
    const places = [];
    for (const node of all("g[data-i]", map)) {
      node.querySelector("title")?.remove(); /* the card says it, with the picture */
      const box = node.firstElementChild.getBBox();
      places[+node.dataset.i] = [box.x + box.width / 2, box.y + box.height / 2];
    }
    let chosen = -1;
    const choose = (index) => {
      chosen = index;
      map.classList.toggle("chosen", index >= 0);
      card.hidden = index < 0;
      if (index < 0) return;
      const [id, label, at] = points[index];
      const ring = map.querySelector(".ring");
      ring.setAttribute("cx", places[index][0]);
      ring.setAttribute("cy", places[index][1]);
      card.querySelector(".id").textContent = id;
      card.querySelector(".label").textContent = label;
      /* The card keeps out of the way of the point. */
      card.style.right = places[index][0] > 320 ? "auto" : "";
      card.style.left = places[index][0] > 320 ? "0.6rem" : "";
      const canvas = card.querySelector("canvas");
      canvas.hidden = at < 0;
      if (at < 0) return;
      const brush = canvas.getContext("2d");
      brush.imageSmoothingEnabled = tile >= 32;
      brush.drawImage(atlas, (at % across) * tile, Math.floor(at / across) * tile, tile, tile, 0, 0, 96, 96);
    };
    map.addEventListener("pointermove", (event) => {
      const box = map.getBoundingClientRect();
      const scale = Math.min(box.width / 640, box.height / 480);
      const px = (event.clientX - box.left - (box.width - 640 * scale) / 2) / scale;
      const py = (event.clientY - box.top - (box.height - 480 * scale) / 2) / scale;
      let nearest = -1, least = 400;
      places.forEach(([a, b], i) => {
        const d = (a - px) ** 2 + (b - py) ** 2;
        if (d < least) { least = d; nearest = i; }
      });
      choose(nearest);
    });
    map.addEventListener("pointerleave", () => choose(-1));
    map.addEventListener("blur", () => choose(-1));
    map.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.key === "Escape") choose(-1);
      if (!way) return;
      event.preventDefault();
      const from = places[chosen] || [320, 240];
      let nearest = -1, least = Infinity;
      places.forEach(([a, b], i) => {
        const ahead = (a - from[0]) * way[0] + (b - from[1]) * way[1];
        const aside = Math.abs((a - from[0]) * way[1]) + Math.abs((b - from[1]) * way[0]);
        if (i !== chosen && (ahead > 0 || chosen < 0) && Math.abs(ahead) + 2 * aside < least) {
          least = Math.abs(ahead) + 2 * aside;
          nearest = i;
        }
      });
      if (nearest >= 0) choose(nearest);
    });
    for (const key of all(".classes button", figure)) {
      key.addEventListener("click", () => {
        const on = key.getAttribute("aria-pressed") !== "true";
        all(".classes button", figure).forEach((other) => other.setAttribute("aria-pressed", other === key && on));
        all("g[data-class]", map).forEach((group) =>
          group.classList.toggle("dim", on && group.dataset.class !== key.dataset.class));
      });
    }
  }

  /* Tables: sort by a column; take the table along as CSV. */
  const raw = (cell) => cell.dataset.v ?? cell.textContent.trim();
  const sort = (table, column, head) => {
    const down = head.getAttribute("aria-sort") === "ascending";
    all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => [raw(row.cells[column]), row]);
    const numbers = rows.every(([value]) => value === "" || value === "–" || !isNaN(value));
    const compare = numbers ? (a, b) => (+a || 0) - (+b || 0) : (a, b) => a.localeCompare(b, "en", { numeric: true });
    rows.sort(([a], [b]) => (down ? -1 : 1) * compare(a, b));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  /* A cell that a spreadsheet would run as a formula is turned into text. */
  const quoted = (text) => {
    const safe = /^[=+\-@\t\r]/.test(text) && isNaN(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  for (const table of all("table.data")) {
    const title = table.caption.textContent;
    const csv = make("button", { type: "button", class: "csv", "aria-label": `Save ${title} as CSV` }, "CSV");
    csv.addEventListener("click", () => {
      const full = (cell) => {
        const ends = cell.querySelector(".ends");
        return cell.dataset.v !== undefined && ends ? `${cell.dataset.v} ${ends.textContent}` : raw(cell);
      };
      const text = [...table.rows].map((row) => [...row.cells].map((cell) => quoted(full(cell))).join(",")).join("\r\n");
      const link = make("a", { download: `${title.replace(/[^\p{L}\p{N}]+/gu, "-")}.csv` });
      link.href = URL.createObjectURL(new Blob(["\ufeff", text, "\r\n"], { type: "text/csv" }));
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    table.caption.append(csv);
    if (table.tBodies[0].rows.length < 4 || table.classList.contains("compare")) continue;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (!table.tBodies[0].querySelector(`:scope > tr > :nth-child(${column + 1}):not(.mark)`)) return;
      const key = make("button", { type: "button", class: "sort" });
      key.append(...head.childNodes);
      head.append(key);
      key.addEventListener("click", () => sort(table, column, head));
    });
  }

  /* Folded runs open when something inside them is asked for, and all open on paper. */
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let node = target; node; node = node.parentElement) if (node.matches("details")) node.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    folded.forEach((node) => { node.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((node) => { node.open = false; }));

  /* The contents show where the reader is. */
  const links = all("nav a");
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((link) => link.removeAttribute("aria-current"));
      const link = links.find((one) => one.getAttribute("href") === `#${entry.target.id}`);
      link?.setAttribute("aria-current", "true");
      const bar = link?.closest("nav");
      if (bar && bar.scrollWidth > bar.clientWidth) bar.scrollTo({ left: link.offsetLeft - 40 });
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  links.forEach((link) => {
    const part = document.getElementById(link.getAttribute("href").slice(1));
    if (part) seen.observe(part);
  });
})();

"use strict";
// What the viewers of scans and of clips have in common.

const content = JSON.parse(document.getElementById("content").textContent);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function bytes(base64) {
  const text = atob(base64);
  const found = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) found[i] = text.charCodeAt(i);
  return found;
}

function css(color) {
  return `rgb(${color.join(",")})`;
}

function press(button, on) {
  button.setAttribute("aria-pressed", String(on));
}

// A box of keys and what they do, which "?" and a button show and hide.
function help(rows) {
  const table = element("table");
  for (const [key, does] of rows) {
    table.append(element("tr", {}, element("td", { textContent: key }),
      element("td", { textContent: does })));
  }
  const box = element("div", { id: "help", hidden: true }, table);
  const button = element("button", { id: "ask", textContent: "? help" });
  const toggle = () => { box.hidden = !box.hidden; press(button, !box.hidden); };
  button.onclick = toggle;
  press(button, false);
  return { box, button, toggle };
}

// A colour for a share: from -1 blue by grey to 1 red, or from 0 dark to 1 bright.
function shade(share, signed) {
  const part = Math.min(1, Math.abs(share));
  if (!signed) return [20 + 235 * part, 20 + 190 * part, 30 + 60 * part];
  return share < 0 ? [55 - 25 * part, 55 + 90 * part, 55 + 200 * part]
    : [55 + 200 * part, 55 + 55 * part, 55 - 25 * part];
}

// A box of the means and deviations that each norm took out, one cell for each channel. A row has
// one scale for all that is shown, so that the styles of two scans can be compared.
function statistics(shown, instance) {
  const told = shown.filter((each) => each.statistics && each.statistics.length);
  const box = element("div", { id: "norms", hidden: true });
  const said = element("div", { id: "cell", textContent: "point at a cell" });
  const button = element("button", { textContent: "norms", hidden: !told.length });
  const cells = [];
  const names = [...new Set(told.flatMap((each) => each.statistics.map(({ name }) => name)))];
  const table = element("table");
  table.append(element("tr", {}, element("th", { textContent: "norm" }),
    ...told.flatMap(({ title }) => ["mean", "deviation"].map((part) =>
      element("th", { textContent: `${title}: ${part}` })))));
  for (const name of names) {
    const row = element("tr", {}, element("td", { textContent: name }));
    for (const part of ["mean", "std"]) {
      const most = told.reduce((so, each) => Math.max(so, ...each.statistics
        .filter((layer) => layer.name === name).flatMap((layer) => layer[part].flat())
        .map(Math.abs)), 1e-30);
      for (const each of told) cells.push({ each, name, part, most });
    }
    for (const each of told) {
      for (const part of ["mean", "std"]) {
        const cell = cells.find((c) => c.each === each && c.name === name && c.part === part);
        const layer = each.statistics.find((found) => found.name === name);
        cell.layer = layer;
        cell.canvas = element("canvas", { width: layer ? layer[part][0].length : 1, height: 1 });
        cell.canvas.onmousemove = (event) => {
          if (!layer) return;
          const values = cell.layer[part][instance(each)] || cell.layer[part][0];
          const at = Math.min(values.length - 1,
            Math.floor(event.offsetX / cell.canvas.clientWidth * values.length));
          said.textContent = `${name}, channel ${at}: ${part === "std" ? "deviation" : part} `
            + values[at].toPrecision(4);
        };
        row.append(element("td", {}, cell.canvas));
      }
    }
    table.append(row);
  }
  box.append(said, table);
  const draw = () => {
    if (box.hidden) return;
    for (const { each, layer, part, most, canvas } of cells) {
      if (!layer) continue;
      const pen = canvas.getContext("2d");
      (layer[part][instance(each)] || layer[part][0]).forEach((value, channel) => {
        pen.fillStyle = css(shade(value / most, part === "mean").map(Math.round));
        pen.fillRect(channel, 0, 1, 1);
      });
    }
  };
  press(button, false);
  button.id = "ask-norms";
  button.onclick = () => { box.hidden = !box.hidden; press(button, !box.hidden); draw(); };
  return { box, button, draw };
}

// Tests and measurements wait for this; the time is counted from the start of the navigation.
function ready() {
  document.documentElement.dataset.ready = performance.now().toFixed(0);
}

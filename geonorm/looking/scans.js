"use strict";
// Scans in one canvas, a part of it for each, seen by cameras that move together. The points are
// drawn by this script, which without a graphics card is several times as fast as WebGL.

const FIELD = 62 * Math.PI / 180;
const START = { yaw: Math.PI, pitch: 0.56, distance: 28, target: [7, 0, -2] };
const ABOVE = { yaw: Math.PI, pitch: Math.PI / 2 - 1e-3, distance: 60, target: [0, 0, 0] };
const NEAR = 12;  // pixels from the pointer within which a point is told

const stage = element("div", { id: "stage" });
const bar = element("div", { id: "bar" });
const canvas = element("canvas", { className: "points" });
const legend = element("div", { id: "legend" });
const said = element("span", { id: "said" });
const panels = content.panels.map((told) => ({
  title: told.title,
  statistics: told.statistics,
  points: new Float32Array(bytes(told.points).buffer),
  columns: Object.fromEntries(told.columns.map((column) =>
    [column.name, { ...column, index: bytes(column.index) }])),
  camera: null,
}));
const names = [...new Set(panels.flatMap((panel) => Object.keys(panel.columns)))];
const hidden = Object.fromEntries(names.map((name) => [name, new Set()]));
let shown = names.includes(content.color) ? content.color : names[0];
let size = 2;
let linked = true;
let waiting = false;

document.body.append(bar, stage);
stage.append(canvas, legend);
const pen = canvas.getContext("2d", { alpha: false });
let image = null;  // its pixels, as bytes
let pixels = null;  // the same, as one number each
let depths = null;  // what is drawn in each is so near: the reciprocal of its distance

// The colours of all points by the column that is shown, as pixels; what is hidden is 0.
function paint() {
  for (const panel of panels) {
    const column = panel.columns[shown];
    panel.colors = new Uint32Array(panel.points.length / 3).fill(0xff5a5a5a);
    if (!column) continue;
    const table = Uint32Array.from(column.colors, ([r, g, b], i) =>
      hidden[shown].has(entry(column, i)) ? 0 : 0xff000000 + (b << 16) + (g << 8) + r);
    for (let i = 0; i < panel.colors.length; i++) panel.colors[i] = table[column.index[i]];
  }
}

// Classes are known by their names, which two scans may number differently.
function entry(column, number) {
  return column.names ? column.names[number] : number;
}

function direction({ yaw, pitch }) {
  return [Math.cos(pitch) * Math.cos(yaw), Math.cos(pitch) * Math.sin(yaw), Math.sin(pitch)];
}

// The camera's right, up and backward directions, and its eye.
function frame(camera) {
  const back = direction(camera);
  const right = [-Math.sin(camera.yaw), Math.cos(camera.yaw), 0];
  const up = [
    back[1] * right[2] - back[2] * right[1], back[2] * right[0] - back[0] * right[2],
    back[0] * right[1] - back[1] * right[0],
  ];
  const eye = camera.target.map((value, axis) => value + camera.distance * back[axis]);
  return { right, up, back, eye };
}

// The rows of a matrix that takes a point (x, y, z, 1) to its distance ahead of the camera, and, in
// pixels from the middle times that distance, to its place to the right and below.
function matrix(camera, height) {
  const { right, up, back, eye } = frame(camera);
  const scale = height / 2 / Math.tan(FIELD / 2);
  return [[back, -1], [right, scale], [up, -scale]].flatMap(([axis, by]) => [
    by * axis[0], by * axis[1], by * axis[2],
    -by * (axis[0] * eye[0] + axis[1] * eye[1] + axis[2] * eye[2]),
  ]);
}

// The part of the stage that a panel has, in CSS pixels from the left and the top.
function place(number) {
  const columns = panels.length < 4 ? panels.length : Math.ceil(Math.sqrt(panels.length));
  const rows = Math.ceil(panels.length / columns);
  const width = stage.clientWidth / columns, height = stage.clientHeight / rows;
  return { left: width * (number % columns), top: height * Math.floor(number / columns),
    width, height };
}

// Draws the points of a panel as squares into a part of the image, the nearest in front.
function splat(panel, m, left, top, width, height, side) {
  const { points, colors } = panel, row = image.width;
  const x0 = left + width / 2 - side / 2, y0 = top + height / 2 - side / 2;
  const near = panel.camera.distance / 100;
  for (let i = 0, p = 0; i < colors.length; i++, p += 3) {
    if (!colors[i]) continue;
    const x = points[p], y = points[p + 1], z = points[p + 2];
    const far = m[0] * x + m[1] * y + m[2] * z + m[3];
    if (far < near) continue;
    const near1 = 1 / far;
    const across = Math.round(x0 + near1 * (m[4] * x + m[5] * y + m[6] * z + m[7]));
    const down = Math.round(y0 + near1 * (m[8] * x + m[9] * y + m[10] * z + m[11]));
    if (across < left || down < top || across + side > left + width
      || down + side > top + height) continue;
    for (let b = 0, start = down * row + across; b < side; b++, start += row) {
      for (let at = start; at < start + side; at++) {
        if (depths[at] < near1) {
          depths[at] = near1;
          pixels[at] = colors[i];
        }
      }
    }
  }
}

function draw() {
  waiting = false;
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [stage.clientWidth, stage.clientHeight].map((x) => Math.round(x * ratio));
  if (!image || image.width !== width || image.height !== height) {
    Object.assign(canvas, { width, height });
    image = pen.createImageData(width, height);
    pixels = new Uint32Array(image.data.buffer);
    depths = new Float32Array(width * height);
  }
  pixels.fill(0xff000000);
  depths.fill(0);
  panels.forEach((panel, number) => {
    const part = place(number);
    const [left, top, right, bottom] =
      [part.left, part.top, part.left + part.width, part.top + part.height]
        .map((value) => Math.floor(value * ratio));
    splat(panel, matrix(panel.camera, bottom - top), left, top, right - left, bottom - top,
      Math.round(size * ratio));
    panel.heading.style.left = `${part.left}px`;
    panel.heading.style.top = `${part.top}px`;
  });
  pen.putImageData(image, 0, 0);
}

function redraw() {
  if (!waiting) requestAnimationFrame(draw);
  waiting = true;
}

// Turns the scans about once and tells how many frames a second were shown.
async function measure(count = 60) {
  const shown = () => new Promise(requestAnimationFrame);
  let since = await shown();
  for (let i = 0; i < count; i++) {
    turn(panels[0], 2 * Math.PI / count, 0);
    since = i ? since : performance.now();
    await shown();
  }
  return 1000 * count / (performance.now() - since);
}

function moved(panel) {
  return linked ? panels : [panel];
}

function turn(panel, yaw, pitch) {
  for (const { camera } of moved(panel)) {
    camera.yaw += yaw;
    camera.pitch = Math.max(-1.57, Math.min(1.57, camera.pitch + pitch));
  }
  redraw();
}

// Moves the target by pixels of the picture.
function shift(panel, x, y, height) {
  for (const { camera } of moved(panel)) {
    const { right, up } = frame(camera);
    const scale = 2 * camera.distance * Math.tan(FIELD / 2) / height;
    camera.target = camera.target.map((v, axis) => v + scale * (y * up[axis] - x * right[axis]));
  }
  redraw();
}

function zoom(panel, factor) {
  for (const { camera } of moved(panel)) {
    camera.distance = Math.max(0.2, Math.min(2000, camera.distance * factor));
  }
  redraw();
}

function look(from) {
  for (const panel of panels) panel.camera = { ...from, target: [...from.target] };
  redraw();
}

// The point whose picture is nearest to the pointer, the first in sight among those as near.
function nearest(panel, part, x, y) {
  const m = matrix(panel.camera, part.height), { points } = panel;
  let best = -1, least = NEAR * NEAR, depth = Infinity;
  for (let i = 0, p = 0; i < panel.colors.length; i++, p += 3) {
    if (!panel.colors[i]) continue;
    const px = points[p], py = points[p + 1], pz = points[p + 2];
    const far = m[0] * px + m[1] * py + m[2] * pz + m[3];
    if (far <= 0) continue;
    const dx = part.width / 2 + (m[4] * px + m[5] * py + m[6] * pz + m[7]) / far - x;
    const dy = part.height / 2 + (m[8] * px + m[9] * py + m[10] * pz + m[11]) / far - y;
    const off = dx * dx + dy * dy;
    if (off < least - 4 || (off < least + 4 && far < depth)) {
      best = i;
      least = Math.min(least, off);
      depth = far;
    }
  }
  return best;
}

function describe(panel, i) {
  const parts = ["x", "y", "z"].map((axis, a) => `${axis} ${panel.points[3 * i + a].toFixed(2)}`);
  for (const column of Object.values(panel.columns)) {
    if (column.name === "height") continue;
    const number = column.index[i];
    const value = column.names ? column.names[number]
      : (column.low + number / 255 * (column.high - column.low)).toPrecision(3);
    parts.push(`${column.name} ${value}`);
  }
  return `point ${i}: ${parts.join(", ")}`;
}

function told(counts) {
  return counts.map((count) => count.toLocaleString("en")).join(" | ");
}

function showLegend() {
  legend.replaceChildren();
  const found = panels.map((panel) => panel.columns[shown]).filter(Boolean);
  const [first] = found;
  if (!first.names) {
    const stops = first.colors.filter((_, i) => i % 15 === 0).map(css);
    const scale = element("div", { className: "scale" });
    scale.style.background = `linear-gradient(to right, ${stops.join(",")})`;
    const ends = [first.low, first.high].map((value) =>
      element("span", { textContent: value.toPrecision(3) }));
    const alike = found.every(({ low, high }) => low === first.low && high === first.high);
    legend.append(scale, alike ? element("div", { className: "ends" }, ...ends)
      : element("div", { textContent: "each scan on a scale of its own" }));
    return;
  }
  const rows = new Map();
  found.forEach((column, number) => {
    const counts = new Uint32Array(256);
    for (const index of column.index) counts[index]++;
    column.names.forEach((name, i) => {
      const row = rows.get(name) || { counts: found.map(() => 0), color: column.colors[i] };
      row.counts[number] += counts[i];
      rows.set(name, row);
    });
  });
  for (const [name, { counts, color }] of rows) {
    if (!counts.some(Boolean)) continue;
    const square = element("span", { className: "square" });
    square.style.background = css(color);
    const button = element("button", {}, square, name,
      element("span", { className: "count", textContent: told(counts) }));
    button.dataset.name = name;
    press(button, !hidden[shown].has(name));
    button.onclick = () => {
      const set = hidden[shown];
      if (!set.delete(name)) set.add(name);
      press(button, !set.has(name));
      paint();
      redraw();
    };
    legend.append(button);
  }
}

function show(name) {
  shown = name;
  for (const button of bar.querySelectorAll("[data-color]")) {
    press(button, button.dataset.color === name);
  }
  paint();
  showLegend();
  redraw();
}

function resize(by) {
  size = Math.max(1, Math.min(12, size + by));
  redraw();
}

const KEYS = {
  r: () => look(START), t: () => look(ABOVE), "+": () => resize(1), "=": () => resize(1),
  "-": () => resize(-1), "?": () => keys.toggle(), l: () => link.click(),
  n: () => norms.button.click(),
  f: async () => { said.textContent = `${(await measure()).toFixed(1)} frames/s`; },
  ArrowLeft: () => turn(panels[0], -0.1, 0), ArrowRight: () => turn(panels[0], 0.1, 0),
  ArrowUp: () => turn(panels[0], 0, 0.1), ArrowDown: () => turn(panels[0], 0, -0.1),
};
names.forEach((name, number) => { KEYS[number + 1] = () => show(name); });
const keys = help([
  ["drag", "turn"], ["shift or right button and drag", "move"], ["wheel", "nearer, farther"],
  ["click", "tell what is known of a point"], ["double click", "turn about that point"],
  [`1 to ${names.length}`, "colour by …"], ["click in the legend", "hide or show points"],
  ["+ −", "larger or smaller points"], ["arrows", "turn"], ["r", "as at first"], ["t", "from above"],
  ["l", "move all scans together, or each by itself"], ["n", "what a network's norms took out"],
  ["f", "measure frames per second"],
  ["?", "this help"],
]);
const norms = statistics(panels, () => 0);
const link = element("button", { id: "link", textContent: "linked", hidden: panels.length < 2 });

function controls() {
  bar.append("colour by");
  names.forEach((name, number) => {
    const button = element("button", { textContent: name, title: `key ${number + 1}` });
    button.dataset.color = name;
    button.onclick = () => show(name);
    bar.append(button);
  });
  press(link, true);
  link.onclick = () => {
    linked = !linked;
    press(link, linked);
    if (linked) look(panels[0].camera);
  };
  bar.append(link, norms.button, keys.button, said);
  stage.append(keys.box, norms.box);
  for (const panel of panels) {
    panel.heading = element("div", { className: "title", textContent: panel.title });
    stage.append(panel.heading);
  }
}

function under(event) {
  const box = stage.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  const number = panels.findIndex((_, n) => {
    const part = place(n);
    return x >= part.left && x < part.left + part.width && y >= part.top
      && y < part.top + part.height;
  });
  if (number < 0) return null;
  const part = place(number);
  return { panel: panels[number], part, x: x - part.left, y: y - part.top };
}

function pointers() {
  let held = null;
  canvas.oncontextmenu = (event) => event.preventDefault();
  canvas.onpointerdown = (event) => {
    held = under(event);
    if (held) held.travelled = 0;
    canvas.setPointerCapture(event.pointerId);
  };
  canvas.onpointermove = (event) => {
    if (!held) return;
    const { movementX: x, movementY: y } = event;
    held.travelled += Math.abs(x) + Math.abs(y);
    if (event.shiftKey || event.buttons & 2) shift(held.panel, x, y, held.part.height);
    else turn(held.panel, -x / 200, y / 200);
  };
  canvas.onpointerup = () => {
    if (held && held.travelled < 4) {
      const point = nearest(held.panel, held.part, held.x, held.y);
      said.textContent = point < 0 ? "" : describe(held.panel, point);
    }
    held = null;
  };
  canvas.ondblclick = (event) => {
    const at = under(event);
    const point = at ? nearest(at.panel, at.part, at.x, at.y) : -1;
    if (point < 0) return;
    for (const { camera } of moved(at.panel)) {
      camera.target = [...at.panel.points.subarray(3 * point, 3 * point + 3)];
    }
    redraw();
  };
  canvas.onwheel = (event) => {
    event.preventDefault();
    const at = under(event);
    if (at) zoom(at.panel, Math.exp(event.deltaY / 800));
  };
  window.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    event.preventDefault();
    KEYS[event.key]();
  };
  window.onresize = redraw;
}

controls();
pointers();
look(START);
show(shown);
draw();
ready();

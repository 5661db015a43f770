"use strict";
// Clips side by side at one time, with the scores of their classes over it.

const LINES = ["#5ab4ff", "#ff9f43", "#7bd88f", "#ff6b81", "#c792ea"];
const RATES = [0.25, 0.5, 1, 2];

const bar = element("div", { id: "bar" });
const stage = element("div", { className: "clips" });
const clips = content.clips;
const length = Math.max(...clips.map((clip) => clip.duration));
const slider = element("input", { id: "time", type: "range", min: 0, max: length, step: 0.001,
  value: 0 });
const clock = element("span", { id: "clock" });
const playing = element("button", { id: "play", textContent: "play" });
const rate = element("button", { id: "rate", textContent: "×1" });
let time = 0;
let speed = 1;
let since = null;
let heated = true;

document.body.append(bar, stage);

function frameAt(clip) {
  let found = 0;
  while (found + 1 < clip.seconds.length && clip.seconds[found + 1] <= time) found++;
  return found;
}

function build(clip) {
  const [height, width] = clip.size;
  clip.canvas = element("canvas", { className: "frame", width, height });
  const box = element("div", { className: "clip" },
    element("h2", { textContent: clip.title }), clip.canvas);
  if (clip.views) {
    clip.chart = element("canvas", { className: "chart", width: 720, height: 150 });
    clip.chart.onclick = (event) => {
      seek(event.offsetX / clip.chart.clientWidth * clip.duration);
    };
    clip.values = element("div");
    clip.names.forEach((name, i) => {
      const square = element("span", { className: "square" });
      square.style.background = LINES[i];
      const value = element("span", { className: "value" });
      value.dataset.name = name;
      clip.values.append(element("span", { className: "key" }, square, name, value));
    });
    box.append(clip.chart, clip.values);
  }
  stage.append(box);
}

// The view whose part of the clip this moment lies in.
function viewAt(clip) {
  const later = clip.views.findIndex((view) => time < view.to);
  return clip.views[later < 0 ? clip.views.length - 1 : later];
}

function chart(clip) {
  const { width, height } = clip.chart;
  const pen = clip.chart.getContext("2d");
  const across = (seconds) => seconds / clip.duration * width;
  const down = (score) => 6 + (1 - score) * (height - 12);
  pen.fillStyle = "#161616";
  pen.fillRect(0, 0, width, height);
  pen.fillStyle = "#888";
  pen.strokeStyle = "#333";
  pen.font = "11px system-ui";
  for (const score of [0, 0.5, 1]) {
    pen.strokeRect(0, down(score), width, 0);
    pen.fillText(score, 3, down(score) - 2 + (score === 1 ? 13 : 0));
  }
  clip.names.forEach((_, i) => {
    pen.strokeStyle = LINES[i];
    pen.lineWidth = 2;
    pen.beginPath();
    for (const view of clip.views) {
      pen.lineTo(across(view.from), down(view.scores[i]));
      pen.lineTo(across(view.to), down(view.scores[i]));
    }
    pen.stroke();
  });
  pen.fillStyle = "#fff";
  pen.fillRect(across(Math.min(time, clip.duration)) - 1, 0, 2, height);
}

function draw() {
  for (const clip of clips) {
    const number = frameAt(clip);
    const heat = clip.heat && heated ? clip.heat.at[number] : null;
    if (number !== clip.drawn || heat !== clip.drawnHeat) {
      clip.drawn = number;
      clip.drawnHeat = heat;
      const pen = clip.canvas.getContext("2d");
      pen.drawImage(clip.images[number], 0, 0);
      if (heat !== null) overlay(pen, clip, heat);
      clip.canvas.dataset.frame = number;
    }
    if (!clip.views) continue;
    chart(clip);
    const { scores } = viewAt(clip);
    clip.values.querySelectorAll(".value").forEach((value, i) => {
      value.textContent = scores[i].toFixed(2);
    });
  }
  norms.draw();
  slider.value = time;
  clock.textContent = `${time.toFixed(2)} s of ${length.toFixed(2)} s`;
}

// What the network looked at, over a darker frame.
function overlay(pen, clip, heat) {
  const { width, height } = clip.canvas, [top, left, bottom, right] = clip.heat.box;
  pen.fillStyle = "#0008";
  pen.fillRect(0, 0, width, height);
  pen.drawImage(clip.heat.images[heat], left * width, top * height, (right - left) * width,
    (bottom - top) * height);
}

function heatOn(on) {
  heated = on;
  press(attribution, on);
  draw();
}

function seek(seconds) {
  time = Math.max(0, Math.min(length, seconds));
  draw();
}

function step(direction) {
  const [clip] = clips;
  const number = Math.max(0, Math.min(clip.seconds.length - 1, frameAt(clip) + direction));
  seek(clip.seconds[number]);
}

function tick(now) {
  if (since === null) return;
  const next = time + speed * (now - since) / 1000;
  since = now;
  seek(next > length ? 0 : next);
  requestAnimationFrame(tick);
}

function play() {
  const on = since === null;
  since = on ? performance.now() : null;
  playing.textContent = on ? "pause" : "play";
  press(playing, on);
  if (on) requestAnimationFrame(tick);
}

function faster() {
  speed = RATES[(RATES.indexOf(speed) + 1) % RATES.length];
  rate.textContent = `×${speed}`;
}

const keys = help([
  ["space", "play, pause"], ["← →", "a frame back, on"], ["Home", "to the beginning"],
  ["s", "slower, faster"], ["click in the scores", "go there"],
  ["a", "what the network looked at"], ["n", "what its norms took out"], ["?", "this help"],
]);
const KEYS = {
  " ": play, ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => seek(0), s: faster,
  "?": keys.toggle, a: () => attribution.click(), n: () => norms.button.click(),
};
const attribution = element("button", { id: "attribution", textContent: "attribution",
  hidden: !clips.some((clip) => clip.heat) });
const norms = statistics(clips, (clip) => clip.views ? clip.views.indexOf(viewAt(clip)) : 0);

async function decoded(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}

async function begin() {
  bar.append(playing, rate, slider, clock, attribution, norms.button, keys.button);
  document.body.append(keys.box, norms.box);
  press(attribution, heated);
  attribution.onclick = () => heatOn(!heated);
  press(playing, false);
  playing.onclick = play;
  rate.onclick = faster;
  slider.oninput = () => seek(Number(slider.value));
  window.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    event.preventDefault();
    KEYS[event.key]();
  };
  clips.forEach(build);
  for (const clip of clips) {
    clip.images = await Promise.all(clip.frames.map(decoded));
    if (clip.heat) clip.heat.images = await Promise.all(clip.heat.pictures.map(decoded));
  }
  draw();
  ready();
}

begin();

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

// Tests and measurements wait for this; the time is counted from the start of the navigation.
function ready() {
  document.documentElement.dataset.ready = performance.now().toFixed(0);
}

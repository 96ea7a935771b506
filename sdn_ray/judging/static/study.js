"use strict";
// Texts are put in as text, never as markup: captions are whatever a data set says.

const byId = (name) => document.getElementById(name);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
let key = null;      // where this browser keeps who the rater is
let trial = null;    // what is shown
let chosen = [];     // places, the best first
let began = 0;       // when all pictures of the trial were there
let busy = false;

// Ask until there is an answer: a server that restarts costs nothing but a moment.
async function ask(path, body) {
  const options = { headers: {} };
  const rater = key && localStorage.getItem(key);
  if (rater) options.headers.Authorization = "Bearer " + rater;
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  for (let rest = 500; ; rest = Math.min(2 * rest, 8000)) {
    try {
      const answer = await fetch(path, options);
      if (answer.status !== 429 && answer.status < 500) {
        say("");
        return { status: answer.status, body: await answer.json() };
      }
    } catch (error) { /* no connection: as a server that is down */ }
    say("No connection. Your answer is kept here and sent again …");
    await pause(rest);
  }
}

function say(text) { byId("status").textContent = text; }

function show(name) {
  for (const one of ["start", "trial", "end"]) byId(one).hidden = one !== name;
}

async function open() {
  const study = (await ask("/api/study")).body;
  key = "study " + study.study;
  byId("questions").replaceChildren(...study.questions.map((text) => element("li", "", text)));
  if (localStorage.getItem(key)) byId("begin").textContent = "Go on";
  byId("begin").disabled = false;
}

// The secret is made and kept here before it is sent: asked again, or clicked twice, it is one rater.
async function begin() {
  if (busy) return;
  wait(true);
  try {
    if (!localStorage.getItem(key)) localStorage.setItem(key, newSecret());
    const answer = await ask("/api/raters", { secret: localStorage.getItem(key) });
    if (answer.status !== 201) return say(answer.body.error);
    await follow(await ask("/api/trial"));
  } finally {
    wait(false);
  }
}

function newSecret() {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// What the server answered: the next trial, the end, or an error.
async function follow(answer) {
  if (answer.status === 409) answer = await ask("/api/trial");  // it had the answer already
  if (answer.status === 401 && key) {
    localStorage.removeItem(key);
    show("start");
    return say(answer.body.error);
  }
  if (answer.status !== 200) return say(answer.body.error);
  trial = answer.body;
  chosen = [];
  const done = trial.done ? trial.trials : trial.trial;
  byId("progress").value = done / trial.trials;
  byId("count").textContent = done + " of " + trial.trials;
  if (trial.done) return show("end");
  await draw();
}

function element(kind, name, text) {
  const made = document.createElement(kind);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

async function draw() {
  const match = Boolean(trial.sentences);
  byId("question").textContent = trial.text;
  byId("caption").hidden = !trial.caption;
  byId("caption").textContent = trial.caption || "";
  byId("sentences").hidden = !match;
  byId("pictures").className = match ? "one" : "";
  const images = trial.images.map((name) => {
    const image = element("img");
    image.src = "/images/" + name;
    image.alt = "";
    image.draggable = false;
    return image;
  });
  byId("pictures").replaceChildren(...images.map((image, place) => {
    const button = element(match ? "div" : "button", "picture");
    button.append(image);
    if (!match) {
      button.append(element("span", "key", String(place + 1)));
      button.addEventListener("click", () => toggle(place));
    }
    return button;
  }));
  byId("sentences").replaceChildren(...(trial.sentences || []).map((text, place) => {
    const button = element("button", "sentence");
    button.append(element("span", "", place + 1 + "."), element("span", "", text));
    button.addEventListener("click", () => toggle(place));
    const item = element("li");
    item.append(button);
    return item;
  }));
  show("trial");
  mark();
  await Promise.all(images.map(loaded));
  say("");
  began = performance.now();
  byId("question").focus();
}

// No trial begins before all of its pictures can be seen.
async function loaded(image) {
  const source = image.src;
  for (let rest = 500; ; rest = Math.min(2 * rest, 8000)) {
    try {
      return await image.decode();
    } catch (error) {
      say("A picture did not arrive. Trying again …");
      await pause(rest);
      image.src = source;
    }
  }
}

function needed() { return trial.sentences ? 1 : trial.images.length; }

function toggle(place) {
  if (busy) return;
  if (trial.sentences) chosen = [place];
  else if (chosen.includes(place)) chosen = chosen.filter((one) => one !== place);
  else chosen.push(place);
  mark();
}

function mark() {
  const all = document.querySelectorAll(trial.sentences ? ".sentence" : "button.picture");
  all.forEach((button, place) => {
    const rank = chosen.indexOf(place);
    button.classList.toggle("chosen", rank >= 0);
    button.setAttribute("aria-pressed", String(rank >= 0));
    if (trial.sentences) return;
    const label = "picture " + (place + 1) + (rank >= 0 ? ", place " + (rank + 1) : "");
    button.setAttribute("aria-label", label);
    const badge = button.querySelector(".rank");
    if (badge) badge.remove();
    if (rank >= 0) button.append(element("span", "rank", ordinal(rank + 1)));
  });
  byId("undo").disabled = chosen.length === 0;
  byId("next").disabled = busy || chosen.length !== needed();
}

function ordinal(number) { return number + (["st", "nd", "rd"][number - 1] || "th"); }

async function next() {
  if (busy || chosen.length !== needed()) return;
  wait(true);
  const milliseconds = Math.min(Math.round(performance.now() - began), 86400000);
  try {
    await follow(await ask("/api/answers", { trial: trial.trial, choice: chosen, milliseconds }));
  } finally {
    wait(false);
  }
}

// Nothing is chosen before all pictures of a trial are there.
function wait(yes) {
  busy = yes;
  byId("trial").setAttribute("aria-busy", String(yes));
  if (trial && !trial.done) mark();
}

function undo() { chosen.pop(); mark(); }

document.addEventListener("keydown", (event) => {
  if (byId("trial").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  const place = Number(event.key) - 1;
  const places = trial.sentences ? trial.sentences.length : trial.images.length;
  if (Number.isInteger(place) && place >= 0 && place < places) toggle(place);
  else if (event.key === "Backspace") undo();
  else if (event.key === "Enter") next();
  else return;
  event.preventDefault();  // or Enter would press what has the focus, too
});
byId("begin").addEventListener("click", begin);
byId("next").addEventListener("click", next);
byId("undo").addEventListener("click", undo);
open();

"use strict";
// Texts are put in as text, never as markup: captions are whatever somebody typed.

const byId = (name) => document.getElementById(name);
const KEPT = "sdn_ray drawn";
const MOST_KEPT = 24;
const STEPS = 17;   // pictures of a way: the slider shows them without asking again
let about = null;   // what can be asked
let frames = [];    // of a way, for each model [image element, sources]
let turn = 0;       // answers of earlier turns come too late
let focused = null; // entry of the history that has the focus
let shown = null;   // the picture of the dialog: { wish, sample }

async function ask(path, body) {
  let answer;
  try {
    answer = await fetch(path, body && {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
  } catch (error) {
    throw new Error("There is no connection to the server.");
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.error || "The server answered " + answer.status + ".");
  return found;
}

function say(text) { byId("status").textContent = text; }

function element(kind, name, ...children) {
  const made = document.createElement(kind);
  if (name) made.className = name;
  made.append(...children);
  return made;
}

const source = (image) => "data:image/png;base64," + image;

async function open() {
  try {
    about = await ask("/api/models");
  } catch (error) {
    return say(error.message + " Open the page again.");
  }
  for (const name of ["caption", "last"]) byId(name).maxLength = about.longest_caption;
  const noisy = about.models.some((model) => model.takes_noise);
  byId("seed").disabled = byId("dice").disabled = !noisy;
  const most = Math.max(...about.models.map((model) => model.most_samples));
  for (const option of [...byId("samples").options]) {
    if (Number(option.value) > most) option.remove();
  }
  if (!byId("samples").value || most < 4) byId("samples").selectedIndex = byId("samples").length - 1;
  byId("draw").disabled = false;
  byId("caption").select();
  showHistory();
}

function wished() {
  return {
    caption: byId("caption").value.trim(),
    last: byId("between").checked ? byId("last").value.trim() : null,
    samples: Number(byId("samples").value),
    seed: Number(byId("seed").value),
  };
}

// Every model draws by itself: those that are ready are shown, whatever the others do.
async function draw() {
  const wish = wished();
  const own = ++turn;
  say("Drawing …");
  frames = [];
  byId("way").hidden = wish.last === null;
  byId("from").textContent = wish.caption;
  byId("to").textContent = wish.last || "";
  byId("slider").max = STEPS - 1;
  byId("slider").value = 0;
  const cards = about.models.map((model) => [model, card(model)]);
  byId("results").replaceChildren(...cards.map(([, made]) => made));
  byId("results").setAttribute("aria-busy", "true");
  const first = await Promise.all(cards.map(async ([model, made]) => {
    try {
      const found = await ask(...request(model, wish));
      if (own !== turn) return null;
      fill(made, model, wish, found.images.map(source));
      return source(found.images[0]);
    } catch (error) {
      if (own === turn) put(made, element("p", "problem", error.message));
      return null;
    }
  }));
  if (own !== turn) return;
  byId("results").setAttribute("aria-busy", "false");
  const drawn = first.filter((one) => one);
  const missing = first.length - drawn.length;
  say(missing ? missing + " of " + first.length + " models did not draw." : "Drawn.");
  if (drawn.length) remember(wish, drawn[0]);
}

function request(model, wish) {
  const common = { model: model.name, seed: model.takes_noise ? wish.seed : 0 };
  if (wish.last !== null) {
    return ["/api/interpolate", { ...common, first: wish.caption, last: wish.last, steps: STEPS }];
  }
  const samples = Math.min(wish.samples, model.most_samples);
  return ["/api/draw", { ...common, caption: wish.caption, samples }];
}

function card(model) {
  const size = model.image_size + "×" + model.image_size + " pixels";
  const more = model.takes_noise ? "" : ", " + (model.most_samples === 1
    ? "one picture a caption" : "at most " + model.most_samples + " pictures a caption");
  return element("section", "model",
    element("h2", "", model.name),
    element("p", "", model.method + ", " + size + more),
    element("div", "content", "drawing …"));
}

function put(made, content) { made.querySelector(".content").replaceChildren(content); }

function fill(made, model, wish, sources) {
  const pictures = element("div", "pictures");
  const way = wish.last !== null;
  const count = way ? 1 : sources.length;
  pictures.style.setProperty("--columns", Math.ceil(Math.sqrt(count)));
  for (let sample = 0; sample < count; sample++) {
    const image = element("img");
    image.src = sources[sample];
    const caption = way ? "from “" + wish.caption + "” to “" + wish.last + "”" : "“" + wish.caption + "”";
    const number = way ? "" : ", picture " + (sample + 1);
    const told = model.name + ": " + caption + number;
    image.alt = told;
    const file = fileName(model.name, 30) + "-" + fileName(caption, 60) + fileName(number, 12);
    const button = element("button", "", image);
    button.type = "button";
    button.addEventListener("click", () => enlarge(image.src, told, file + ".png", way ? null : { model, wish, sample }));
    pictures.append(button);
    if (way) frames.push([image, sources]);
  }
  put(made, pictures);
  slide();
}

function slide() {
  const place = Number(byId("slider").value);
  for (const [image, sources] of frames) image.src = sources[place];
  byId("slider").setAttribute("aria-valuetext", Math.round(100 * place / (STEPS - 1)) + " %");
}

// A large picture, to be saved and compared.
function enlarge(src, told, file, drawn) {
  shown = drawn;
  byId("large").src = src;
  byId("said").textContent = told;
  byId("save").href = src;
  byId("save").download = file;
  byId("look").hidden = !(about.nearest && drawn);
  byId("found").textContent = "";
  byId("nearest").replaceChildren();
  byId("picture").showModal();
}

function fileName(told, most) {
  return told.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/-$/, "").replace(/^-(?!picture)/, "").slice(0, most);
}

async function look() {
  const { model, wish, sample } = shown;
  byId("look").hidden = true;
  byId("close").focus();  // or the focus would be lost with the button
  byId("found").textContent = "looking …";
  const own = shown;
  try {
    const body = { model: model.name, caption: wish.caption, sample };
    const found = await ask("/api/nearest", { ...body, seed: model.takes_noise ? wish.seed : 0 });
    if (own !== shown) return;
    byId("found").textContent = "";
    byId("nearest").replaceChildren(...found.nearest.map((one) => {
      const image = element("img");
      image.src = source(one.image);
      image.alt = one.caption;
      return element("li", "", image, one.cosine.toFixed(3) + " " + one.caption);
    }));
  } catch (error) {
    if (own === shown) byId("found").textContent = error.message;
    byId("look").hidden = false;
  }
}

// What was drawn before, on this device alone.
function kept() {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT));
    return Array.isArray(found) ? found.filter((one) => one && one.wish) : [];
  } catch (error) {
    return [];
  }
}

async function remember(wish, drawn) {
  const own = JSON.stringify(wish);
  const picture = await thumbnail(drawn);
  const others = kept().filter((one) => JSON.stringify(one.wish) !== own);
  const all = [{ wish, picture }, ...others].slice(0, MOST_KEPT);
  try {
    localStorage.setItem(KEPT, JSON.stringify(all));
  } catch (error) { /* no room, or none allowed: the page draws all the same */ }
  showHistory();
}

async function thumbnail(picture) {
  const image = element("img");
  image.src = picture;
  await image.decode();
  const canvas = element("canvas");
  canvas.width = canvas.height = 56;
  canvas.getContext("2d").drawImage(image, 0, 0, 56, 56);
  return canvas.toDataURL("image/png");
}

function showHistory() {
  const all = kept();
  const had = focused;  // its button is about to be replaced
  let refocus = null;
  byId("past").hidden = all.length === 0;
  byId("history").replaceChildren(...all.map((one) => {
    const image = element("img");
    image.src = String(one.picture).startsWith("data:image/png") ? one.picture : "data:,";
    image.alt = "";
    const { caption, last, samples, seed } = one.wish;
    const told = (last === null ? samples + (samples === 1 ? " picture" : " pictures") : "to “" + last + "”");
    const button = element("button", "", image,
      element("span", "", caption, element("small", "", told + ", seed " + seed)));
    button.addEventListener("click", () => again(one.wish));
    button.addEventListener("focus", () => { focused = JSON.stringify(one.wish); });
    button.addEventListener("blur", () => { focused = null; });
    if (JSON.stringify(one.wish) === had) refocus = button;
    return element("li", "", button);
  }));
  if (refocus) refocus.focus();
}

function again(wish) {
  byId("caption").value = wish.caption;
  byId("between").checked = wish.last !== null;
  if (wish.last !== null) byId("last").value = wish.last;
  const counts = [...byId("samples").options].map((option) => Number(option.value));
  byId("samples").value = Math.max(counts[0], ...counts.filter((count) => count <= wish.samples));
  byId("seed").value = wish.seed;
  between();
  draw();
  scrollTo({ top: 0 });
}

function between() {
  const on = byId("between").checked;
  byId("second").hidden = !on;
  byId("last").disabled = !on;
  byId("last").required = on;
  byId("samples").disabled = on;
}

byId("wish").addEventListener("submit", (event) => {
  event.preventDefault();
  draw();
});
byId("dice").addEventListener("click", () => {
  byId("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
  byId("wish").requestSubmit();
});
byId("between").addEventListener("change", between);
byId("slider").addEventListener("input", slide);
byId("look").addEventListener("click", look);
byId("close").addEventListener("click", () => byId("picture").close());
byId("forget").addEventListener("click", () => { localStorage.removeItem(KEPT); showHistory(); });
open();

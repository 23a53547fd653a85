// The viewer's front end: draws a frame and its cells, and asks the kernel for everything else.
// Points are x, y in pixels of the frame; "screen" is in CSS pixels of the canvas.

const DASHES = { removed: [2, 3], wrong: [6, 3], missed: [2, 2] };
const LAYER_KEYS = { truth: "t", prediction: "p", "pseudo labels": "l", errors: "e", removed: "r" };
const EDITS = [
  ["delete", "Delete", "Delete", "Delete the chosen cells"],
  ["split", "Split", "s", "Draw a line across a cell"],
  ["merge", "Merge", "m", "Join the chosen cells"],
  ["draw", "Draw", "d", "Outline a new cell, or the chosen one anew"],
  ["adopt", "Adopt", "a", "Add the chosen predicted cells"],
  ["undo", "Undo", "u", "Take the last step back"],
];
const HELP = [
  ["← →", "frame before, after"],
  ["t p l e r", "layers"],
  ["click, Shift", "choose a cell, several"],
  ["drag, wheel", "move, zoom"],
  ["+ − 0", "zoom in, out, whole frame"],
  ["x", "save the view as PNG"],
  ["Esc", "end a tool, choose nothing"],
];
const TALLEST = 620;
const DEEPEST = 60;
const CLICK = 4;

function h(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// -------------------------------------------------------------------------------- cells

// The outlines of a layer's cells, as kitlib/viewer/outlines.py packs them.
function unpack(block) {
  const numbers = new Uint32Array(block.buffer.slice(block.byteOffset, block.byteOffset + block.byteLength));
  const [rings] = numbers;
  const owners = numbers.subarray(2, 2 + rings);
  const bounds = numbers.subarray(2 + rings, 3 + 2 * rings);
  const points = numbers.subarray(3 + 2 * rings);
  const paths = [];
  for (let ring = 0; ring < rings; ring++) {
    const path = (paths[owners[ring]] ||= new Path2D());
    for (let at = bounds[ring]; at < bounds[ring + 1]; at++) path.lineTo(points[2 * at], points[2 * at + 1]);
    path.closePath();
  }
  return paths;
}

class Cells {
  constructor(columns, paths) {
    Object.assign(this, columns);
    this.count = columns.type.length;
    this.paths = paths;
  }

  contains(context, place, x, y) {
    const [x0, y0, x1, y1] = this.boxes.slice(4 * place, 4 * place + 4);
    if (x < x0 || y < y0 || x > x1 || y > y1) return false;
    return Boolean(this.paths[place]) && context.isPointInPath(this.paths[place], x, y, "evenodd");
  }

  sentence(name, place) {
    const parts = [`${name} ${place + 1}`, this.type[place]];
    if (this.score[place] !== null) parts.push(`score ${this.score[place].toFixed(2)}`);
    parts.push(`area ${this.area[place].toLocaleString("en")} px`);
    if (this.iou) parts.push(`best IoU ${this.iou[place].toFixed(2)}`);
    if (this.state[place]) parts.push(this.state[place]);
    return parts;
  }
}

// -------------------------------------------------------------------------------- canvas

// The picture: zoom and position, drawing, and the cell at a point.
class Picture {
  constructor(canvas, colors) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    // Points are tested here, where no transformation is set.
    this.tester = document.createElement("canvas").getContext("2d");
    this.colors = colors;
    this.cells = {};
    this.shown = new Set();
    this.chosen = [];
    this.hovered = null;
    this.stroke = [];
    this.size = { width: 4, height: 3 };
  }

  resize() {
    const width = this.canvas.parentElement.clientWidth;
    if (!width) return;
    const height = Math.min(TALLEST, Math.max(240, (width * this.size.height) / this.size.width));
    const ratio = window.devicePixelRatio || 1;
    this.screen = { width, height };
    this.canvas.style.height = `${height}px`;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.fit();
  }

  fit() {
    const { width, height } = this.screen;
    this.scale = Math.min(width / this.size.width, height / this.size.height);
    this.left = (width - this.scale * this.size.width) / 2;
    this.top = (height - this.scale * this.size.height) / 2;
    this.draw();
  }

  zoom(factor, x = this.screen.width / 2, y = this.screen.height / 2) {
    const whole = Math.min(this.screen.width / this.size.width, this.screen.height / this.size.height);
    const scale = Math.min(DEEPEST, Math.max(whole / 2, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.draw();
  }

  move(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.draw();
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left;
    const y = event.clientY - box.top;
    return { x, y, at: [(x - this.left) / this.scale, (y - this.top) / this.scale] };
  }

  // What is drawn of the layers that are on: layer, place, and the name of its colour.
  *items() {
    const { truth, prediction } = this.cells;
    for (const name of ["removed", "pseudo labels", "prediction", "truth"]) {
      if (!this.shown.has(name) || !this.cells[name]) continue;
      for (let place = 0; place < this.cells[name].count; place++) yield { layer: name, place, kind: name };
    }
    if (!this.shown.has("errors") || !truth || !prediction) return;
    for (let place = 0; place < prediction.count; place++) {
      if (prediction.state[place]) yield { layer: "prediction", place, kind: prediction.state[place] };
    }
    for (let place = 0; place < truth.count; place++) {
      if (truth.state[place] === "missed") yield { layer: "truth", place, kind: "missed" };
    }
  }

  // The smallest of the drawn cells that cover a point; annotated ones first, which can be corrected.
  find([x, y], layer = null) {
    let best = null;
    let rank = Infinity;
    for (const item of layer ? this.all(layer) : this.items()) {
      const cells = this.cells[item.layer];
      const mine = cells.area[item.place] + (item.layer === "truth" ? 0 : 1e9);
      if (mine < rank && cells.contains(this.tester, item.place, x, y)) [best, rank] = [item, mine];
    }
    return best;
  }

  *all(layer) {
    const count = this.cells[layer] ? this.cells[layer].count : 0;
    for (let place = 0; place < count; place++) yield { layer, place, kind: layer };
  }

  draw() {
    if (!this.screen) return;
    const { context, scale } = this;
    const ratio = this.canvas.width / this.screen.width;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.setTransform(scale * ratio, 0, 0, scale * ratio, this.left * ratio, this.top * ratio);
    context.imageSmoothingEnabled = scale < 2;
    if (this.image) context.drawImage(this.image, 0, 0, this.size.width, this.size.height);
    context.lineJoin = "round";
    const items = [...this.items()];
    for (const item of items) this.outline(item, "rgba(0, 0, 0, 0.5)", 3, []);
    for (const item of items) this.outline(item, this.colors[item.kind], 1.5, DASHES[item.kind] || []);
    for (const item of this.chosen) this.mark(item, 0.35, 3);
    if (this.hovered) this.mark(this.hovered, 0.25, 2.5);
    this.drawStroke();
  }

  outline({ layer, place }, color, width, dash) {
    const path = this.cells[layer].paths[place];
    if (!path) return;
    this.context.strokeStyle = color;
    this.context.lineWidth = width / this.scale;
    this.context.setLineDash(dash.map((length) => length / this.scale));
    this.context.stroke(path);
  }

  mark(item, opacity, width) {
    const path = this.cells[item.layer] && this.cells[item.layer].paths[item.place];
    if (!path) return;
    this.context.globalAlpha = opacity;
    this.context.fillStyle = this.colors[item.kind];
    this.context.fill(path, "evenodd");
    this.context.globalAlpha = 1;
    this.outline(item, "#ffffff", width + 1.5, []);
    this.outline(item, this.colors[item.kind], width - 0.5, []);
  }

  drawStroke() {
    if (!this.stroke.length) return;
    const { context, scale } = this;
    for (const [color, width] of [["rgba(0, 0, 0, 0.6)", 4], ["#ffffff", 2]]) {
      context.beginPath();
      for (const [x, y] of this.stroke) context.lineTo(x, y);
      context.setLineDash([]);
      context.strokeStyle = context.fillStyle = color;
      context.lineWidth = width / scale;
      context.stroke();
      const [x, y] = this.stroke[0];
      context.fillRect(x - width / scale, y - width / scale, (2 * width) / scale, (2 * width) / scale);
    }
  }
}

// -------------------------------------------------------------------------------- controls

class Controls {
  constructor(overview, act) {
    this.overview = overview;
    this.names = overview.layers.includes("truth") && overview.layers.includes("prediction")
      ? [...overview.layers.filter((name) => name !== "removed"), "errors", "removed"] : overview.layers;
    this.frames = h("select", { title: "Frame", "aria-label": "Frame", onchange: () => act.frame(this.frames.selectedIndex) });
    this.order = h("select", { title: "Order", "aria-label": "Order of the frames", onchange: () => act.order(this.order.value) },
      ...overview.orders.map((name) => h("option", { value: name, selected: name === overview.by }, name)));
    this.canvas = h("canvas", { role: "img" });
    this.detail = h("div", { className: "kit-detail" });
    this.said = h("div", { className: "kit-said", role: "status", "aria-live": "polite" });
    this.numbers = h("div", { className: "kit-numbers" });
    this.reasons = h("ul", { className: "kit-reasons" });
    this.root = h("div", { className: "kit-viewer", tabIndex: 0, "data-lm-suppress-shortcuts": "true",
      role: "application", "aria-label": "Viewer of cells" },
      h("div", { className: "kit-bar" },
        this.button("◀", "Frame before (←)", () => act.step(-1)), this.button("▶", "Frame after (→)", () => act.step(1)),
        this.frames, h("label", {}, "order ", this.order), h("span", { className: "kit-space" }),
        this.button("−", "Zoom out (-)", () => act.zoom(1 / 1.4)), this.button("+", "Zoom in (+)", () => act.zoom(1.4)),
        this.button("Fit", "Whole frame (0)", act.fit), this.button("PNG", "Save the view as PNG (x)", act.save)),
      h("div", { className: "kit-body" },
        h("div", { className: "kit-left" }, h("div", { className: "kit-well" }, this.canvas), this.said),
        h("div", { className: "kit-side" }, this.numbers, this.layers(act), ...this.thresholds(act), ...this.corrections(act),
          this.detail, this.help())));
  }

  button(text, title, act, key = "") {
    return h("button", { type: "button", title, "aria-label": title, "aria-keyshortcuts": key, onclick: act }, text);
  }

  layers(act) {
    this.boxes = {};
    this.counts = {};
    const rows = this.names.map((name) => {
      this.boxes[name] = h("input", { type: "checkbox", onchange: () => act.toggle(name), "aria-keyshortcuts": LAYER_KEYS[name] });
      this.counts[name] = h("span", { className: "kit-count" });
      const swatches = name === "errors" ? [] : [this.swatch(name)];
      return h("label", { className: "kit-layer" }, this.boxes[name], ...swatches,
        h("span", {}, name), this.counts[name], h("kbd", {}, LAYER_KEYS[name]));
    });
    return h("fieldset", {}, h("legend", {}, "Layers"), ...rows, this.reasons);
  }

  swatch(kind) {
    const style = DASHES[kind] ? "dashed" : "solid";
    return h("i", { className: "kit-swatch", title: kind, style: `border-color: ${this.overview.colors[kind]}; border-style: ${style}` });
  }

  thresholds(act) {
    if (!this.overview.layers.includes("prediction")) return [];
    const masks = this.overview.masks;
    this.score = h("input", { type: "range", min: 0, max: 1, step: 0.01, "aria-label": "Score threshold", oninput: act.thresholds });
    this.scoreText = h("output", {});
    this.mask = h("input", { type: "range", min: 0, max: masks.length - 1, step: 1, "aria-label": "Mask threshold", oninput: act.thresholds });
    this.maskText = h("output", {});
    this.tuned = this.button("as tuned", "The thresholds of post-processing", act.tuned);
    const rows = [h("label", { className: "kit-range" }, "score", this.score, this.scoreText)];
    if (masks.length > 1) rows.push(h("label", { className: "kit-range" }, "mask", this.mask, this.maskText));
    if (this.overview.post) rows.push(this.tuned);
    return [h("fieldset", {}, h("legend", {}, "Thresholds"), ...rows)];
  }

  corrections(act) {
    this.edits = {};
    if (!this.overview.corrections) return [];
    for (const [edit, text, key, title] of EDITS) {
      this.edits[edit] = this.button(text, `${title} (${key})`, () => act.edit(edit), key);
    }
    return [h("fieldset", { className: "kit-edits" }, h("legend", {}, `Correct, in ${this.overview.corrections}`), ...Object.values(this.edits))];
  }

  help() {
    const rows = HELP.flatMap(([key, text]) => [h("dt", {}, key), h("dd", {}, text)]);
    return h("details", {}, h("summary", {}, "Keys"), h("dl", {}, ...rows));
  }

  list(frames) {
    this.frames.replaceChildren(...frames.map((frame, place) => h("option", {}, this.entry(frame, place))));
  }

  entry(frame, place) {
    const why = frame.why || (frame.cells ? `${frame.cells} cells` : "");
    return [`${place + 1}  ${frame.id}`, frame.type, why, frame.corrected ? "corrected" : ""].filter(Boolean).join(" · ");
  }

  show(scene) {
    const { numbers, layers } = scene;
    for (const name of this.names) this.counts[name].textContent = layers[name] ? layers[name].type.length : name === "errors" ? "" : "0";
    const parts = [];
    if ("score" in numbers) {
      parts.push(h("strong", { className: "kit-score" }, numbers.score.toFixed(3)), h("span", {}, "score of this frame"));
      const wrong = numbers.predicted - numbers.matched;
      const counts = { matched: numbers.matched, wrong, missed: numbers.cells - numbers.matched };
      parts.push(...Object.entries(counts).map(([kind, count]) => h("small", {}, this.swatch(kind), ` ${count} ${kind}`)));
    } else {
      const count = "predicted" in numbers ? `${numbers.predicted} predicted cells` : `${numbers.cells} cells`;
      parts.push(h("strong", { className: "kit-score" }, count.split(" ")[0]), h("span", {}, count.replace(/^\d+ /, "")));
    }
    this.numbers.replaceChildren(...parts);
    if (this.score && "predicted" in numbers) this.place(numbers);
    const tally = new Map();
    for (const reason of layers.removed ? layers.removed.state : []) tally.set(reason, (tally.get(reason) || 0) + 1);
    this.reasons.replaceChildren(...[...tally].map(([reason, count]) => h("li", {}, `${count}: ${reason}`)));
    this.reasons.hidden = !this.boxes.removed || !this.boxes.removed.checked;
    this.canvas.setAttribute("aria-label", `Frame ${scene.frame.id}, ${this.numbers.textContent}`);
  }

  place(numbers) {
    const masks = this.overview.masks;
    this.score.value = numbers.score_threshold;
    this.scoreText.textContent = numbers.score_threshold.toFixed(2);
    this.mask.value = masks.indexOf(numbers.mask_threshold);
    this.maskText.textContent = numbers.mask_threshold.toFixed(2);
  }

  describe(parts) {
    this.detail.replaceChildren(...(parts ? [h("b", {}, parts[0]), ...parts.slice(1).map((part) => h("span", {}, part))] :
      [h("em", {}, "Point at a cell for its numbers.")]));
  }

  say(text, isError = false) {
    this.said.textContent = text;
    this.said.classList.toggle("kit-error", isError);
  }
}

// -------------------------------------------------------------------------------- viewer

class Viewer {
  constructor(model, element) {
    this.model = model;
    this.list = model.get("overview").frames;
    this.asked = { score: null, mask: null };
    this.queue = [];
    this.waiting = null;
    this.name = Math.random().toString(36).slice(2);
    this.number = 0;
    this.tool = null;
    this.controls = new Controls(model.get("overview"), this.actions());
    this.picture = new Picture(this.controls.canvas, model.get("overview").colors);
    this.hear = (message, blocks) => this.receive(message, blocks);
    model.on("msg:custom", this.hear);
    element.append(this.controls.root);
    this.resizing = new ResizeObserver(() => this.picture.resize());
    this.resizing.observe(this.controls.canvas.parentElement);
    this.listen();
    this.begin();
  }

  close() {
    this.model.off("msg:custom", this.hear);
    this.resizing.disconnect();
    clearTimeout(this.patience);
  }

  begin() {
    const names = this.controls.names;
    const first = names.includes("errors") ? "errors" : names[0];
    this.toggle(first, true);
    this.controls.list(this.list);
    this.controls.describe(null);
    this.frame(0);
  }

  actions() {
    return {
      frame: (place) => this.frame(place),
      step: (by) => this.frame(this.place + by),
      order: (by) => this.ask({ kind: "order", by }),
      zoom: (factor) => this.picture.zoom(factor),
      fit: () => this.picture.fit(),
      save: () => this.save(),
      toggle: (name) => this.toggle(name, this.controls.boxes[name].checked),
      thresholds: () => this.threshold(),
      tuned: () => this.threshold({ score: null, mask: null }),
      edit: (edit) => this.edit(edit),
    };
  }

  // ------------------------------------------------------------------------------ messages

  // One request at a time; of requests to show something, only the last one waits.
  ask(request) {
    const isView = (each) => each.kind === "frame" || each.kind === "thresholds";
    if (isView(request)) this.queue = this.queue.filter((each) => !isView(each) || (each.kind === "frame" && request.kind !== "frame"));
    this.queue.push(request);
    this.send();
  }

  send() {
    if (this.waiting || !this.queue.length) return;
    this.waiting = `${this.name}-${++this.number}`;
    const removed = this.picture.shown.has("removed");
    this.model.send({ ...this.asked, removed, ...this.queue.shift(), ticket: this.waiting });
    this.patience = setTimeout(() => this.controls.say("Waiting for the kernel. Is it running, and idle?"), 4000);
  }

  receive(message, blocks) {
    if (message.ticket !== this.waiting) return;
    this.waiting = null;
    clearTimeout(this.patience);
    if (message.kind === "error") this.controls.say(message.said, true);
    else if (message.kind === "order") this.reorder(message);
    else this.scene(message, blocks);
    this.send();
  }

  reorder({ frames, by }) {
    this.list = frames;
    this.controls.order.value = by;
    this.controls.list(frames);
    this.frame(0);
  }

  async scene(message, blocks) {
    const { picture, controls } = this;
    const { id } = message.frame;
    const isOther = !this.shownFrame || this.shownFrame.id !== id;
    // An edit or an undo may show a frame whose image is not here.
    if (isOther && !message.blocks.includes("image")) {
      this.frame(this.list.findIndex((each) => each.id === id));
      controls.say(message.said);
      return;
    }
    for (const [name, columns] of Object.entries(message.layers)) {
      const at = message.blocks.indexOf(name);
      const before = name === "removed" || !picture.cells[name] ? [] : picture.cells[name].paths;
      picture.cells[name] = new Cells(columns, at < 0 ? before : unpack(blocks[at]));
    }
    for (const name of Object.keys(picture.cells)) if (!message.layers[name]) delete picture.cells[name];
    picture.hovered = null;
    picture.chosen = isOther ? [] : picture.chosen.filter((item) => item.layer === "truth" && item.place < picture.cells.truth.count);
    if (message.blocks.includes("truth") && !isOther) picture.chosen = message.made.map((place) => ({ layer: "truth", place, kind: "truth" }));
    this.shownFrame = message.frame;
    this.update(message.frame);
    controls.show(message);
    controls.describe(null);
    controls.say(message.said);
    if (isOther) await this.load(message, blocks);
    else picture.draw();
    controls.root.dataset.frame = id;
  }

  async load(message, blocks) {
    const block = blocks[message.blocks.indexOf("image")];
    const image = await createImageBitmap(new Blob([block], { type: "image/png" }));
    if (this.shownFrame !== message.frame) return;
    this.picture.image = image;
    this.picture.size = message.frame;
    this.picture.resize();
  }

  update(frame) {
    const place = this.list.findIndex((each) => each.id === frame.id);
    Object.assign(this.list[place], { cells: frame.cells, corrected: frame.corrected, type: frame.type });
    this.controls.frames.options[place].textContent = this.controls.entry(this.list[place], place);
    this.controls.frames.selectedIndex = this.place = place;
  }

  // ------------------------------------------------------------------------------ actions

  frame(place) {
    if (place < 0 || place >= this.list.length) return;
    this.stop();
    this.place = place;
    this.controls.frames.selectedIndex = place;
    this.shownFrame = null;
    this.ask({ kind: "frame", id: this.list[place].id });
  }

  toggle(name, on = !this.picture.shown.has(name)) {
    if (!this.controls.boxes[name]) return;
    this.controls.boxes[name].checked = on;
    if (on) this.picture.shown.add(name);
    else this.picture.shown.delete(name);
    if (name === "removed") this.controls.reasons.hidden = !on;
    // The outlines of removed cells come when they are looked at.
    if (name === "removed" && on && this.shownFrame) this.ask({ kind: "thresholds", id: this.shownFrame.id });
    this.picture.draw();
  }

  threshold(asked) {
    const { score, mask, overview } = this.controls;
    this.asked = asked || { score: Number(score.value), mask: overview.masks[mask.value] };
    this.ask({ kind: "thresholds", id: this.list[this.place].id });
  }

  edit(edit) {
    const { chosen } = this.picture;
    if (edit === "undo") return this.ask({ kind: "undo" });
    if (edit === "split" || edit === "draw") return this.start(edit);
    const layer = edit === "adopt" ? (chosen.find((item) => item.layer !== "truth") || {}).layer || "prediction" : "truth";
    this.sendEdit(edit, chosen.filter((item) => item.layer === layer), { layer });
  }

  sendEdit(edit, items, further = {}) {
    this.toggle("truth", true);
    this.ask({ kind: "edit", edit, id: this.list[this.place].id, cells: items.map((item) => item.place), ...further });
  }

  start(tool) {
    const same = this.tool === tool;
    this.stop();
    if (same || !this.controls.edits[tool]) return;
    this.tool = tool;
    this.toggle("truth", true);
    this.controls.edits[tool].setAttribute("aria-pressed", "true");
    this.controls.canvas.classList.add("kit-tool");
    this.controls.say(tool === "split" ? "Drag a line across a cell, from one side to the other; Esc ends this."
      : "Drag around a cell, or click its corners and press Enter; Esc ends this.");
  }

  stop() {
    if (this.tool) {
      this.controls.edits[this.tool].removeAttribute("aria-pressed");
      this.controls.say("");
    }
    this.tool = null;
    this.picture.stroke = [];
    this.controls.canvas.classList.remove("kit-tool");
    this.picture.draw();
  }

  finish() {
    const points = this.picture.stroke;
    const tool = this.tool;
    let items = this.picture.chosen.filter((item) => item.layer === "truth");
    if (tool === "split" && items.length !== 1) items = this.crossed(points);
    this.stop();
    if (points.length > 1) this.sendEdit(tool, items, { points });
  }

  // The annotated cell on which most of a line lies, in a list.
  crossed(points) {
    const tally = new Map();
    for (let at = 1; at < points.length; at++) {
      for (let part = 0; part <= 1; part += 0.05) {
        const item = this.picture.find([0, 1].map((axis) => points[at - 1][axis] * (1 - part) + points[at][axis] * part), "truth");
        if (item) tally.set(item.place, (tally.get(item.place) || 0) + 1);
      }
    }
    const best = [...tally].sort((a, b) => b[1] - a[1])[0];
    return best ? [{ layer: "truth", place: best[0], kind: "truth" }] : [];
  }

  save() {
    this.controls.canvas.toBlob((blob) => {
      const address = URL.createObjectURL(blob);
      h("a", { href: address, download: `${this.list[this.place].id}.png` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 1000);
    });
  }

  // ------------------------------------------------------------------------------ mouse and keys

  listen() {
    const { canvas, root } = this.controls;
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointerleave", () => this.hover(null));
    canvas.addEventListener("dblclick", () => this.tool && this.finish());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    root.addEventListener("keydown", (event) => this.key(event));
  }

  press(event) {
    if (event.button !== 0) return;
    this.controls.root.focus({ preventScroll: true });
    this.controls.canvas.setPointerCapture(event.pointerId);
    const { x, y, at } = this.picture.point(event);
    this.down = { x, y, moved: false };
    if (this.tool) this.picture.stroke.push(at);
  }

  drag(event) {
    const { x, y, at } = this.picture.point(event);
    if (!this.down) return this.tool ? undefined : this.hover(this.picture.find(at));
    if (!this.down.moved && Math.hypot(x - this.down.x, y - this.down.y) < CLICK) return undefined;
    this.down.moved = true;
    if (this.tool) {
      this.picture.stroke.push(at);
      this.picture.draw();
    } else {
      this.picture.move(x - this.down.x, y - this.down.y);
      Object.assign(this.down, { x, y });
    }
    return undefined;
  }

  release(event) {
    const { down } = this;
    this.down = null;
    if (!down) return;
    if (!this.tool) {
      if (!down.moved) this.choose(this.picture.find(this.picture.point(event).at), event.shiftKey);
    } else if (down.moved || (this.tool === "split" && this.picture.stroke.length > 1)) this.finish();
    else this.picture.draw();
  }

  choose(item, further) {
    const { picture } = this;
    const same = (each) => item && each.layer === item.layer && each.place === item.place;
    const others = further ? picture.chosen.filter((each) => !same(each)) : [];
    const isNew = item && !(further && picture.chosen.some(same));
    picture.chosen = isNew ? [...others, item] : others;
    picture.draw();
  }

  hover(item) {
    const { picture } = this;
    if (!item && !picture.hovered) return;
    picture.hovered = item;
    picture.draw();
    this.controls.describe(item && picture.cells[item.layer].sentence(item.layer, item.place));
  }

  // The page scrolls until the viewer has been clicked.
  wheel(event) {
    if (!event.ctrlKey && !this.controls.root.contains(document.activeElement)) return;
    event.preventDefault();
    const { x, y } = this.picture.point(event);
    this.picture.zoom(Math.exp(-event.deltaY / 400), x, y);
  }

  key(event) {
    const isControl = ["SELECT", "INPUT"].includes(event.target.tagName) && event.target.type !== "checkbox";
    if (isControl && event.key !== "Escape") return;
    if ((event.ctrlKey || event.metaKey) && event.key !== "z") return;
    const layer = Object.keys(LAYER_KEYS).find((name) => LAYER_KEYS[name] === event.key);
    const act = layer ? () => this.toggle(layer) : this.keys()[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  keys() {
    const edit = (name) => () => this.controls.edits[name] && this.edit(name);
    return {
      ArrowLeft: () => this.frame(this.place - 1), ArrowRight: () => this.frame(this.place + 1),
      "+": () => this.picture.zoom(1.4), "=": () => this.picture.zoom(1.4), "-": () => this.picture.zoom(1 / 1.4),
      0: () => this.picture.fit(), x: () => this.save(),
      Delete: edit("delete"), Backspace: edit("delete"), s: edit("split"), m: edit("merge"), d: edit("draw"),
      a: edit("adopt"), u: edit("undo"), z: edit("undo"),
      Enter: this.tool ? () => this.finish() : undefined,
      Escape: () => (this.tool ? this.stop() : this.choose(null, false)),
    };
  }
}

function render({ model, el }) {
  const viewer = new Viewer(model, el);
  return () => viewer.close();
}

export default { render };

// The playground: controls, one panel for each operator, and a box that is dragged in any of them.

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const REACH = 14; // pixels of the screen around an edge in which it is grabbed

class Playground {
  // options: withHash, whether the state is kept in the address; isCompact, the pictures alone, without controls and
  // closer looks.
  constructor(root, data, options = {}) {
    this.data = data;
    this.options = options;
    this.side = data.side;
    this.masks = data.pictures.map((picture) => picture.objects.map((object) => decodeRuns(object, data.side)));
    this.outlines = data.pictures.map((picture, p) => picture.objects.map((object, o) => outlineOfMask(this.masks[p][o], object, data.side)));
    this.cache = new Map();
    this.first = examples(data)[0][1];
    this.state = options.withHash ? readHash(location.hash, this.first, data) : this.first;
    this.view = viewOf(this.state.box, this.side);
    this.panels = OPERATORS.map((operator) => new Panel(operator, data.side, options.isCompact));
    this.build(root);
    this.update();
  }

  build(root) {
    this.controls = new Controls(this);
    this.tabs = htmlElement("div", { class: "tabs", role: "group", "aria-label": "operator shown" });
    this.panels.forEach((panel) => {
      const tab = htmlElement("button", { type: "button", class: panel.operator }, NAMES[panel.operator]);
      tab.addEventListener("click", () => this.show(panel.operator));
      this.tabs.append(tab);
      this.listen(panel.scene);
    });
    this.summary = htmlElement("output", { class: "unseen", "aria-live": "polite" });
    const columns = htmlElement("div", { class: "panels" }, ...this.panels.map((panel) => panel.root));
    if (this.options.isCompact) root.append(this.tabs, columns, legend(), this.summary);
    else root.append(this.controls.examples, this.controls.main, legend(), this.tabs, columns, this.controls.more, this.summary);
    root.classList.add("playground");
    this.root = root;
    this.show("pool");
    if (this.options.withHash) window.addEventListener("hashchange", () => this.choose(readHash(location.hash, this.first, this.data)));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const panel of this.panels) panel.ink = null;
      this.update();
    });
  }

  // Which panel a narrow screen shows; a wide one shows all.
  show(operator) {
    this.root.dataset.shown = operator;
    this.panels.forEach((panel, index) => this.tabs.children[index].setAttribute("aria-pressed", panel.operator === operator));
  }

  // Another state, chosen by an example, an address or a control: the view follows the box where it has to.
  choose(changes) {
    this.state = { ...this.state, ...changes };
    if (!isWellSeen(this.state.box, this.view) || "picture" in changes) this.view = viewOf(this.state.box, this.side);
    this.update();
  }

  // A step of a movement: the view stays.
  move(box) {
    this.state = { ...this.state, box };
    this.update();
  }

  update() {
    const { state } = this;
    const world = this.world();
    for (const panel of this.panels) {
      panel.draw(state, world);
      panel.scene.setAttribute("viewBox", `${this.view.x} ${this.view.y} ${this.view.size} ${this.view.size}`);
    }
    const scene = `${state.picture}/${world.object}/${state.stride}`;
    if (this.drawnScene !== scene) for (const panel of this.panels) panel.drawScene(this.data.pictures[state.picture], state, world);
    this.drawnScene = scene;
    this.controls.show(state);
    this.panels.forEach((panel, index) => {
      const text = `${NAMES[panel.operator]} ${Number.isNaN(panel.iou) ? "–" : panel.iou.toFixed(2)}`;
      if (this.tabs.children[index].textContent !== text) this.tabs.children[index].textContent = text;
    });
    clearTimeout(this.later);
    this.later = setTimeout(() => this.settle(), 250);
  }

  // After a change that was not followed by another one: the address, and words for who does not see the picture.
  settle() {
    if (this.options.withHash && location.hash !== writeHash(this.state)) history.replaceState(null, "", writeHash(this.state));
    const words = this.panels.map((panel) => `${NAMES[panel.operator]}: ${panel.score.textContent.replace("mask", ", mask")}`);
    this.summary.textContent = `Box ${this.state.box.map(Math.round).join(", ")}. ${words.join(". ")}.`;
  }

  // What the operators see: the map of the object that the box holds the most of, and the backbone's channels.
  world() {
    const { picture, stride, box } = this.state;
    const { objects, channels } = this.data.pictures[picture];
    const shares = objects.map((object) => overlap(object.box, box));
    const object = shares.indexOf(Math.max(...shares));
    return {
      side: this.side,
      cells: this.side / stride,
      object,
      name: objects[object].name,
      mask: this.masks[picture][object],
      outline: this.outlines[picture][object],
      coverage: this.once(`${picture}/${object}/${stride}`, () => coverage(this.masks[picture][object], this.side, stride)),
      channels: this.once(`${picture}/${stride}`, () => channels[stride].map((text, index) => ({ label: `channel ${this.data.channel_numbers[stride][index]}`, map: decodeBytes(text, this.side / stride) }))),
    };
  }

  once(key, make) {
    if (!this.cache.has(key)) this.cache.set(key, make());
    return this.cache.get(key);
  }

  // ---- dragging ----

  listen(scene) {
    // While the box is dragged the frame stays: to ask for it again would lay the page out at every step.
    const at = (event, frame = scene.getBoundingClientRect()) => {
      const scale = this.view.size / frame.width;
      return { x: this.view.x + (event.clientX - frame.left) * scale, y: this.view.y + (event.clientY - frame.top) * scale, reach: REACH * scale };
    };
    scene.addEventListener("pointerdown", (event) => {
      const grip = gripAt(this.state.box, at(event));
      if (!grip || event.button > 0) return;
      const frame = scene.getBoundingClientRect();
      this.drag = { grip, frame, start: at(event, frame), box: this.state.box };
      scene.setPointerCapture(event.pointerId);
    });
    scene.addEventListener("pointermove", (event) => {
      if (!this.drag) scene.style.cursor = cursorOf(gripAt(this.state.box, at(event)));
      else this.move(dragged(this.drag, at(event, this.drag.frame), this.side));
    });
    for (const name of ["pointerup", "pointercancel"]) scene.addEventListener(name, () => {
      if (this.drag) this.choose({});
      this.drag = null;
    });
    // A finger on the box drags it; beside it, the page scrolls.
    scene.addEventListener("touchstart", (event) => gripAt(this.state.box, at(event.touches[0])) && event.preventDefault(), { passive: false });
    scene.addEventListener("keydown", (event) => {
      const move = MOVES[event.key];
      if (!move || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const [x1, y1, x2, y2] = this.state.box;
      const box = event.shiftKey ? insidePicture([x1, y1, Math.max(x2 + move[0], x1 + LEAST_SIDE), Math.max(y2 + move[1], y1 + LEAST_SIDE)], this.side) : moved(this.state.box, ...move, this.side);
      this.move(box);
      if (!isWellSeen(box, this.view)) this.choose({});
    });
  }
}

// The part of the picture that is shown: a square with the box in its middle, as far as the picture reaches.
function viewOf([x1, y1, x2, y2], side) {
  const size = Math.min(Math.max(1.75 * Math.max(x2 - x1, y2 - y1), 96), side);
  const low = (from, to) => Math.min(Math.max((from + to - size) / 2, 0), side - size);
  return { x: low(x1, x2), y: low(y1, y2), size };
}

function isWellSeen([x1, y1, x2, y2], { x, y, size }) {
  return x1 >= x && y1 >= y && x2 <= x + size && y2 <= y + size && Math.max(x2 - x1, y2 - y1) > 0.3 * size;
}

function overlap(one, other) {
  const side = (low, high) => Math.max(Math.min(one[high], other[high]) - Math.max(one[low], other[low]), 0);
  const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
  const both = side(0, 2) * side(1, 3);
  return both / (area(one) + area(other) - both);
}

function legend() {
  const items = [["", "the box"], ["reads", "what is read for it"], ["amiss", "where the two differ"], ["truth", "the object"], ["drawn", "the mask that comes out"]];
  return htmlElement("ul", { class: "legend" }, ...items.map(([kind, text]) => htmlElement("li", {}, htmlElement("i", { class: kind }), text)));
}

// What a pointer would grab: {x, y} with -1, 0 or 1 for the low edge, the whole, or the high edge; null beside the box.
function gripAt([x1, y1, x2, y2], { x, y, reach }) {
  const edge = (at, low, high) => {
    const near = Math.min(reach, (high - low) / 3);
    if (at < low - reach || at > high + reach) return null;
    return at < low + near ? -1 : at > high - near ? 1 : 0;
  };
  const [across, down] = [edge(x, x1, x2), edge(y, y1, y2)];
  return across === null || down === null ? null : { x: across, y: down };
}

function cursorOf(grip) {
  if (!grip) return "default";
  if (grip.x && grip.y) return grip.x === grip.y ? "nwse-resize" : "nesw-resize";
  return grip.x ? "ew-resize" : grip.y ? "ns-resize" : "move";
}

function dragged({ grip, start, box }, { x, y }, side) {
  const [dx, dy] = [x - start.x, y - start.y];
  if (!grip.x && !grip.y) return moved(box, dx, dy, side);
  const [x1, y1, x2, y2] = box;
  return insidePicture([
    grip.x < 0 ? Math.min(x1 + dx, x2 - LEAST_SIDE) : x1,
    grip.y < 0 ? Math.min(y1 + dy, y2 - LEAST_SIDE) : y1,
    grip.x > 0 ? Math.max(x2 + dx, x1 + LEAST_SIDE) : x2,
    grip.y > 0 ? Math.max(y2 + dy, y1 + LEAST_SIDE) : y2,
  ], side);
}

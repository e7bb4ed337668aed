"use strict";
// The page can be read without this script. It makes tables sortable, opens folds for printing and for links into them,
// and adds the slider between two arms.

const COLOURS = ["#FFB000", "#0090FF", "#FF4F6B", "#00C08B", "#C77DFF", "#FFF04D", "#FF8AD8", "#7CFF6B"];

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// ---- tables ----

function sortKey(cell) {
  const text = cell.textContent.trim().replace(/−/g, "-").replace(/,(?=\d{3})/g, "");
  const number = text.match(/^[<>x+\s]*(-?\d+(\.\d+)?)/);
  return number ? Number(number[1]) : text.toLowerCase();
}

function order(one, other) {
  if (typeof one === typeof other) return one < other ? -1 : one > other ? 1 : 0;
  return typeof one === "number" ? -1 : 1;
}

function makeSortable(table) {
  const body = table.tBodies[0];
  if (!body || body.rows.length < 3) return;
  // A row without a first cell belongs to the row above it, and a mean to all of them: such tables keep their order.
  if ([...body.rows].some((row) => ["", "mean"].includes(row.cells[0].textContent.trim()))) return;
  if (["fact", "setting"].includes(table.tHead.rows[0].cells[0].textContent.trim())) return;
  const original = [...body.rows];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = element("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const descending = before === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      if (before === "descending") {
        body.append(...original);
        return;
      }
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      // Differences, in italics, are no arms: they stay below them.
      const [arms, differences] = [false, true].map((of) => original.filter((row) => !!row.cells[0].querySelector("em") === of));
      const rows = arms.map((row) => [sortKey(row.cells[column]), row]);
      const isEmpty = ([key]) => key === "–";
      rows.sort((one, other) => isEmpty(one) - isEmpty(other) || (descending ? -1 : 1) * order(one[0], other[0]));
      body.append(...rows.map((row) => row[1]), ...differences);
    });
  });
}

// ---- folds ----

function openFor(target) {
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
}

function openForPrinting() {
  const closed = [...document.querySelectorAll("details:not([open])")];
  window.addEventListener("beforeprint", () => closed.splice(0, closed.length, ...document.querySelectorAll("details:not([open])")) && closed.forEach((fold) => (fold.open = true)));
  window.addEventListener("afterprint", () => closed.forEach((fold) => (fold.open = false)));
}

// ---- the slider ----

function choice(text, options, chosen) {
  const select = element("select");
  for (const [value, label] of options) select.append(element("option", { value }, label));
  select.value = String(chosen);
  return [element("label", {}, text, select), select];
}

// Whether claims are about an object of a scene.
const asked = (scene, index) => !scene.asked?.includes(true) || scene.asked[index];

class Compare {
  constructor(data) {
    this.data = data;
    this.oneClass = new Set(data.scenes.flatMap((scene) => scene.names)).size === 1;
    const arms = data.arms.map((arm) => [arm.id, arm.label]);
    const pair = data.pair ?? arms.slice(0, 2).map((arm) => arm[0]);
    const scenes = data.scenes.map((_, index) => [String(index), `image ${index + 1}`]);
    const seeds = data.seeds.map((seed) => [String(seed), `seed ${seed}`]);
    const controls = element("fieldset");
    controls.append(element("legend", {}, "Compare two arms: drag the line, or use the arrow keys on the slider"));
    for (const [name, text, options, chosen] of [
      ["left", "left of the line", arms, pair[0]],
      ["right", "right of the line", arms, pair[1]],
      ["scene", "image", scenes, String(this.usual(pair))],
      ["seed", "seed", seeds, data.shown],
    ]) {
      const [label, select] = choice(text, options, chosen);
      select.addEventListener("change", () => this.draw());
      this[name] = select;
      if (options.length > 1) controls.append(label);
    }
    this.range = element("input", { type: "range", min: "0", max: "100", value: "50", "aria-label": "where the line between the two arms stands, in percent of the image" });
    this.range.addEventListener("input", () => this.move());
    this.svg = drawn("svg", { role: "img" });
    const drag = (event) => {
      if (event.buttons !== 1 && event.type !== "pointerdown") return;
      const box = this.svg.getBoundingClientRect();
      this.range.value = String((100 * (event.clientX - box.left)) / box.width);
      this.move();
    };
    this.svg.addEventListener("pointerdown", drag);
    this.svg.addEventListener("pointermove", drag);
    this.words = element("output");
    const legend = element("p", {}, "Thin white lines are the objects' own outlines, dashed where the arm shows none.");
    if (document.getElementById("photographs")) legend.append(" ", element("a", { href: "#photographs" }, "Sources and licences"), ".");
    this.root = element("div", { class: "compare" }, controls, this.svg, this.range, this.words, legend);
    this.draw();
  }

  // The image on which the second arm gains the median over the first, on the objects that claims are about: neither the
  // best nor the worst is shown first.
  usual([first, second]) {
    const mean = (scene, arm) => {
      const ious = (scene.found[`${arm}/${this.data.shown}`]?.ious ?? []).filter((_, index) => asked(scene, index));
      return ious.reduce((sum, iou) => sum + (iou ?? 0), 0) / Math.max(ious.length, 1);
    };
    const gains = this.data.scenes.map((scene, index) => [mean(scene, second) - mean(scene, first), index]);
    return gains.sort((one, other) => one[0] - other[0])[Math.floor(gains.length / 2)][1];
  }

  draw() {
    const scene = this.data.scenes[Number(this.scene.value)];
    const { width, height } = scene;
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.append(drawn("image", { href: scene.picture, width, height }));
    const clips = drawn("defs", {});
    this.svg.append(clips);
    this.clips = ["left", "right"].map((side) => {
      const clip = drawn("clipPath", { id: `clip-${side}` });
      const box = drawn("rect", { y: 0, height });
      clip.append(box);
      clips.append(clip);
      const group = drawn("g", { "clip-path": `url(#clip-${side})` });
      this.outlines(scene, scene.found[`${this[side].value}/${this.seed.value}`], group);
      this.svg.append(group);
      return box;
    });
    this.lines = ["handle back", "handle"].map((name) => {
      const line = drawn("line", { class: name, y1: 0, y2: height });
      this.svg.append(line);
      return line;
    });
    this.words.replaceChildren(...["left", "right"].map((side) => this.sentence(scene, side)));
    this.svg.setAttribute("aria-label", this.words.textContent);
    this.move();
  }

  outlines(scene, found, group) {
    if (!found) return;
    scene.truth.forEach((truth, index) => {
      const path = found.paths[index];
      if (path === null) {
        group.append(drawn("path", { class: "truth", d: truth }));
        return;
      }
      group.append(drawn("path", { class: "own back", d: truth }));
      group.append(drawn("path", { class: "own", d: truth }));
      group.append(drawn("path", { class: "halo", d: path }));
      group.append(drawn("path", { class: "outline", d: path, stroke: COLOURS[index % COLOURS.length] }));
    });
  }

  sentence(scene, side) {
    const found = scene.found[`${this[side].value}/${this.seed.value}`];
    const arm = this.data.arms.find((one) => one.id === this[side].value).label;
    const where = side === "left" ? "Left" : "Right";
    if (!found) return element("div", {}, `${where}: ${arm} has no detections stored for this seed.`);
    const each = scene.names.flatMap((name, index) => {
      if (!asked(scene, index)) return [];
      const value = found.ious[index] === null ? (this.data.missed ?? "missed") : found.ious[index].toFixed(2);
      return [this.oneClass ? value : `${name} ${value}`];
    });
    const others = found.others ? `; ${found.others} more detection${found.others > 1 ? "s" : ""} not drawn` : "";
    return element("div", {}, `${where}: ${arm}. IoU of ${this.data.about ? `${this.data.about}: ` : ""}${each.join(", ")}${others}.`);
  }

  move() {
    const scene = this.data.scenes[Number(this.scene.value)];
    const at = (scene.width * Number(this.range.value)) / 100;
    this.clips[0].setAttribute("x", 0);
    this.clips[0].setAttribute("width", at);
    this.clips[1].setAttribute("x", at);
    this.clips[1].setAttribute("width", scene.width - at);
    for (const line of this.lines) {
      line.setAttribute("x1", at);
      line.setAttribute("x2", at);
    }
  }
}

// On a narrow screen charts and pictures that are much wider keep their size and scroll sideways, which has to work with the keyboard too.
function makeScrollable() {
  for (const chart of document.querySelectorAll("figure > img.chart, figure > img.picture")) {
    const figure = chart.parentElement;
    const isWider = matchMedia("(max-width: 40rem)").matches && chart.naturalWidth > 1.3 * figure.clientWidth;
    figure.classList.toggle("scrolls", isWider);
    if (isWider) figure.setAttribute("tabindex", "0");
    else figure.removeAttribute("tabindex");
  }
}

document.querySelectorAll("table").forEach(makeSortable);
makeScrollable();
for (const event of ["load", "resize"]) window.addEventListener(event, makeScrollable);
openForPrinting();
const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
if (target) openFor(target);
const scenes = JSON.parse(document.getElementById("scenes").textContent);
const samples = document.querySelector('img[data-name="samples"]');
if (scenes.scenes && samples) samples.closest("figure").before(new Compare(scenes).root);

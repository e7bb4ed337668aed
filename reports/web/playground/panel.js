// One operator's column: the picture with its box and the mask, a closer look at what is read, and the pooled values.

const NAMES = { pool: "RoIPool", warp: "RoIWarp", align: "RoIAlign" };
const SHADES = 8; // grades of grey in which cells are drawn

function svgElement(name, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

function htmlElement(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const rectangle = (x1, y1, x2, y2) => `M${x1} ${y1}H${x2}V${y2}H${x1}Z`;
const dot = (x, y) => `M${x} ${y}h0`; // a stroke of no length and round caps

// Lines between the cells of a map, which are squares around multiples of the stride.
function gridPath(side, stride) {
  let path = "";
  for (let at = stride / 2; at < side; at += stride) path += `M${at} 0V${side}M0 ${at}H${side}`;
  return path;
}

let panels = 0; // made so far: ids in a document are unique

class Panel {
  constructor(operator, side, isCompact = false) {
    this.operator = operator;
    this.isCompact = isCompact;
    const clip = `playground-clip-${panels++}`;
    this.scene = svgElement("svg", { class: "scene", viewBox: `0 0 ${side} ${side}`, tabindex: "0", role: "application" });
    this.image = svgElement("image", { class: "photo", width: side, height: side }, this.scene);
    const definitions = svgElement("defs", {}, this.scene);
    this.clip = svgElement("rect", {}, svgElement("clipPath", { id: clip }, definitions));
    const hatch = svgElement("pattern", { id: `${clip}-hatch`, width: 4, height: 4, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, definitions);
    svgElement("rect", { class: "hatch", width: 2, height: 4 }, hatch);
    this.layers = {};
    for (const name of ["grid", "amiss", "mask-halo", "mask", "truth-halo", "truth", "read-halo", "read", "box-halo", "box", "handles-halo", "handles"]) {
      const parent = name.startsWith("mask") ? svgElement("g", { "clip-path": `url(#${clip})` }, this.scene) : this.scene;
      this.layers[name] = svgElement("path", { class: name }, parent);
    }
    this.layers.amiss.style.fill = `url(#${clip}-hatch)`;
    this.inside = svgElement("svg", { class: "inside", role: "img" });
    for (let shade = 1; shade <= SHADES; shade++) this.layers[`shade${shade}`] = svgElement("path", { class: "shade", "fill-opacity": 0.62 * (shade / SHADES) }, this.inside);
    for (const name of ["lines", "centres", "bins", "samples", "stalks", "places", "frame"]) this.layers[name] = svgElement("path", { class: name }, this.inside);
    this.maps = htmlElement("div", { class: "maps" });
    this.score = htmlElement("p", { class: "score" });
    this.title = htmlElement("h3", {});
    this.says = htmlElement("p", { class: "says" });
    const closer = htmlElement("p", { class: "note" }, "Closer: the cells, the bins, and stalks from where each bin should be to where it reads");
    const pooledNote = htmlElement("p", { class: "note" }, "What the bins hold");
    this.root = htmlElement("section", { class: `panel ${operator}${isCompact ? " compact" : ""}` }, this.title, this.says, this.scene, this.score);
    if (!isCompact) this.root.append(closer, this.inside, pooledNote, this.maps);
  }

  draw(state, world) {
    const { box, stride, bins } = state;
    const reading = readBox(this.operator, box, state, world.cells);
    const values = pooled(reading, world.coverage);
    const { x, y } = reading;
    const set = (name, path) => this.layers[name].setAttribute("d", path);
    const exact = rectangle(...box), read = rectangle(x.from, y.from, x.to, y.to);
    set("amiss", exact + read);
    for (const halo of ["", "-halo"]) {
      set(`read${halo}`, read);
      set(`box${halo}`, exact);
      set(`handles${halo}`, dot(box[0], box[1]) + dot(box[2], box[1]) + dot(box[0], box[3]) + dot(box[2], box[3]));
    }
    const isFaultless = state.head === "faultless";
    const transform = isFaultless ? faultlessTransform(reading, box) : "";
    const mask = isFaultless ? world.outline : drawnBack(values, bins, box);
    for (const name of ["mask", "mask-halo"]) {
      set(name, mask);
      this.layers[name].setAttribute("transform", transform);
    }
    for (const [name, value] of [["x", box[0]], ["y", box[1]], ["width", box[2] - box[0]], ["height", box[3] - box[1]]]) this.clip.setAttribute(name, value);
    const drawn = isFaultless ? faultless(reading, box, world.mask, world.side) : pooledMask(values, bins, box, world.side);
    this.iou = fit(drawn, box, world.mask, world.side);
    this.off = displacement(reading);
    this.write(state);
    if (this.isCompact) return;
    this.drawInside(reading, state);
    this.drawMaps(reading, values, state, world);
  }

  // What does not change while the box is dragged: the picture, the grid, the object, and how much of each cell it covers.
  drawScene(picture, { stride }, { outline, name, side, coverage }) {
    const set = (layer, path) => this.layers[layer].setAttribute("d", path);
    this.image.setAttribute("href", picture.image);
    this.scene.setAttribute("aria-label", `The box under ${NAMES[this.operator]}, on ${/^[aeiou]/.test(name) ? "an" : "a"} ${name}. Arrow keys move it by a pixel, with Shift they resize it.`);
    for (const layer of ["grid", "lines"]) set(layer, gridPath(side, stride));
    for (const layer of ["truth", "truth-halo"]) set(layer, outline);
    const shades = Array(SHADES + 1).fill("");
    let centres = "";
    coverage.data.forEach((value, cell) => {
      const [x, y] = [stride * (cell % coverage.side), stride * Math.floor(cell / coverage.side)];
      shades[Math.round(value * SHADES)] += rectangle(x - stride / 2, y - stride / 2, x + stride / 2, y + stride / 2);
      centres += dot(x, y);
    });
    for (let shade = 1; shade <= SHADES; shade++) set(`shade${shade}`, shades[shade]);
    set("centres", centres);
  }

  write({ step, stride, aligned }) {
    const { operator } = this;
    const rounds = step > 0 ? `rounds to ${step === 1 ? "cell centres" : `multiples of ${Math.round(step * stride * 10) / 10} px`}` : "rounds nothing";
    const titles = { pool: "RoIPool", warp: step === 1 ? "RoIWarp" : step === 0 ? "RoIWarp = RoIAlign" : "RoIWarp, finer", align: "RoIAlign" };
    const says = {
      pool: "rounds the box to whole cells",
      warp: `${rounds}, samples between cells`,
      align: aligned ? "rounds nothing, but takes cells to stand elsewhere" : "rounds nothing, samples between cells",
    };
    this.title.textContent = titles[operator];
    this.says.textContent = says[operator];
    const amount = Number.isNaN(this.off) ? "reads nothing" : this.off < 0.05 ? "in place" : `${this.off.toFixed(1)} px off`;
    this.score.replaceChildren(htmlElement("b", { class: "off" }, amount), Number.isNaN(this.iou) ? htmlElement("span", {}, "no object in the box") : htmlElement("span", {}, "mask IoU ", htmlElement("b", { class: "iou" }, this.iou.toFixed(2))));
  }

  // The closer look: bins, samples, and a stalk from where each bin should be to where it reads.
  drawInside({ x, y }, { box, stride }) {
    const set = (name, path) => this.layers[name].setAttribute("d", path);
    // The same window for all operators: none of them reads more than a cell beyond the box.
    const extent = Math.max(box[2] - box[0], box[3] - box[1]) + 2.2 * stride;
    const corner = [(box[0] + box[2] - extent) / 2, (box[1] + box[3] - extent) / 2];
    this.inside.setAttribute("viewBox", `${corner[0]} ${corner[1]} ${extent} ${extent}`);
    let bins = "", samples = "", stalks = "", places = "";
    x.edges.forEach(([left, right], i) => y.edges.forEach(([top, bottom], j) => {
      bins += rectangle(left, top, right, bottom);
      const [dx, dy] = [x.offsets[i], y.offsets[j]];
      if (Number.isNaN(dx + dy)) return;
      const [px, py] = [(left + right) / 2, (top + bottom) / 2];
      places += dot(px, py);
      if (Math.hypot(dx, dy) > 0.05) stalks += `M${px - dx} ${py - dy}L${px} ${py}`;
    }));
    if (x.positions) for (const row of y.positions.flat()) for (const column of x.positions.flat()) samples += dot(stride * column, stride * row);
    set("bins", bins);
    set("samples", samples);
    set("stalks", stalks);
    set("places", stalks ? places : "");
    set("frame", rectangle(...box));
    this.inside.setAttribute("aria-label", `${NAMES[this.operator]}: the box on the feature grid, its bins, and where they read; ${Number.isNaN(this.off) ? "nothing is read" : `${this.off.toFixed(1)} pixels off on average`}.`);
  }

  drawMaps(reading, values, { bins }, { channels }) {
    const shown = [["object’s mask", values, 1], ...channels.map(({ label, map }) => [label, pooled(reading, map), 255])];
    while (this.maps.children.length < shown.length) this.maps.append(htmlElement("figure", {}, htmlElement("canvas", { role: "img" }), htmlElement("figcaption", {})));
    this.ink ??= getComputedStyle(this.maps).color.match(/\d+/g).map(Number);
    shown.forEach(([label, numbers, most], index) => {
      const [canvas, caption] = this.maps.children[index].children;
      if (canvas.width !== bins) canvas.width = canvas.height = bins;
      const pixels = new ImageData(bins, bins);
      numbers.forEach((value, i) => pixels.data.set([...this.ink.slice(0, 3), Math.round((255 * value) / most)], 4 * i));
      canvas.getContext("2d").putImageData(pixels, 0, 0);
      if (caption.textContent !== label) {
        caption.textContent = label;
        canvas.setAttribute("aria-label", `${label}, pooled by ${NAMES[this.operator]} to bins`);
      }
    });
  }
}

// What is shown, and its form in the address: #picture=1&box=63,113,144,210&stride=16&...

const STRIDES = [8, 16, 32];
const LEAST_SIDE = 8; // of the box, in pixels

const DEFAULTS = { picture: 0, stride: 16, bins: 7, samples: 2, aligned: false, step: 1, head: "faultless" };

// The whole state that the text of an address says; what it leaves out, or says wrongly, is taken from `fallback`.
function readHash(text, fallback, data) {
  const given = new URLSearchParams(text.replace(/^#/, ""));
  const state = { ...fallback };
  const whole = (name, low, high) => {
    const value = Number(given.get(name));
    if (given.has(name) && Number.isInteger(value) && value >= low && value <= high) state[name] = value;
  };
  whole("bins", 1, 14);
  whole("samples", 0, 4);
  if (STRIDES.includes(Number(given.get("stride")))) state.stride = Number(given.get("stride"));
  const picture = Number(given.get("picture"));
  if (given.has("picture") && Number.isInteger(picture) && picture >= 1 && picture <= data.pictures.length) state.picture = picture - 1;
  const step = Number(given.get("step"));
  if (given.has("step") && step >= 0 && step <= 1) state.step = step;
  if (["0", "1"].includes(given.get("aligned"))) state.aligned = given.get("aligned") === "1";
  if (["faultless", "pooled"].includes(given.get("head"))) state.head = given.get("head");
  const box = (given.get("box") ?? "").split(",").map((text) => (text.trim() ? Number(text) : NaN));
  if (box.length === 4 && box.every(Number.isFinite)) state.box = insidePicture(box, data.side);
  return state;
}

function writeHash(state) {
  const { picture, box, stride, bins, samples, aligned, step, head } = state;
  const numbers = box.map((value) => Math.round(value * 100) / 100).join(",");
  return `#picture=${picture + 1}&box=${numbers}&stride=${stride}&bins=${bins}&samples=${samples}&aligned=${aligned ? 1 : 0}&step=${step}&head=${head}`;
}

// The box with its ends in order, inside the picture, and no smaller than LEAST_SIDE.
function insidePicture([x1, y1, x2, y2], side) {
  const axis = (one, other) => {
    const low = Math.min(Math.max(Math.min(one, other), 0), side - LEAST_SIDE);
    return [low, Math.min(Math.max(one, other, low + LEAST_SIDE), side)];
  };
  const [[left, right], [top, bottom]] = [axis(x1, x2), axis(y1, y2)];
  return [left, top, right, bottom];
}

// The box moved as a whole, as far as the picture reaches.
function moved([x1, y1, x2, y2], across, down, side) {
  const limited = (low, high, by) => Math.min(Math.max(by, -low), side - high);
  const [dx, dy] = [limited(x1, x2, across), limited(y1, y2, down)];
  return [x1 + dx, y1 + dy, x2 + dx, y2 + dy];
}

// The examples above the panels: [label, state that differs from the defaults].
function examples(data) {
  const box = (picture, object) => data.pictures[picture].objects[object].box;
  // Of all objects here, its displacements under RoIPool and RoIWarp (7.0 and 4.7 px) are nearest the means over the
  // synthetic test images, so that the three operators stand in their usual order.
  const usual = { picture: 1, box: box(1, 2) };
  const shifted = { ...usual, box: moved(usual.box, 8, 0, data.side) };
  return [
    ["An object of typical displacement", usual],
    ["The box half a cell to the right", shifted],
    ["An object of 40 px", { box: box(0, 1) }],
    ["Stride 32", { ...usual, stride: 32 }],
    ["Halfway between RoIWarp and RoIAlign", { ...usual, step: 0.5 }],
    ["RoIAlign with aligned = true", { ...usual, aligned: true }],
  ].map(([label, state]) => [label, { ...DEFAULTS, ...state }]);
}

// Masks of objects: bytes of a whole picture (side x side), their share of each feature cell, and what becomes of the
// P x P values that an operator makes of it when they are drawn back into the box, as a mask head's output is.

function decodeRuns(object, side) {
  const [x1, y1, x2] = object.box;
  const width = x2 - x1;
  const mask = new Uint8Array(side * side);
  let at = 0;
  object.runs.forEach((length, index) => {
    if (index % 2) for (let i = at; i < at + length; i++) mask[(y1 + Math.floor(i / width)) * side + x1 + (i % width)] = 1;
    at += length;
  });
  return mask;
}

function decodeBytes(text, side) {
  return { side, data: Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)) };
}

// How much of each cell the mask covers, 0 to 1. Cell i is the square of one stride around pixel stride * i.
function coverage(mask, side, stride) {
  const cells = Math.ceil(side / stride);
  const data = new Float64Array(cells * cells);
  const ends = (cell) => [Math.max(stride * (cell - 0.5), 0), Math.min(stride * (cell + 0.5), side)];
  for (let row = 0; row < cells; row++) {
    for (let column = 0; column < cells; column++) {
      const [top, bottom] = ends(row), [left, right] = ends(column);
      let sum = 0;
      for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) sum += mask[y * side + x];
      data[row * cells + column] = sum / ((bottom - top) * (right - left));
    }
  }
  return { side: cells, data };
}

// For points along one axis, where they lie between P values spread over [low, high]: [index, next index, fraction].
function between(low, high, numBins, points) {
  return points.map((point) => {
    const position = Math.min(Math.max(((point - low) / (high - low)) * numBins - 0.5, 0), numBins - 1);
    const index = Math.min(Math.floor(position), Math.max(numBins - 2, 0));
    return [index, Math.min(index + 1, numBins - 1), position - index];
  });
}

// P x P values, stretched over the box by bilinear interpolation, at all points of a lattice; row by row.
function stretched(values, numBins, box, xs, ys) {
  const across = between(box[0], box[2], numBins, xs), down = between(box[1], box[3], numBins, ys);
  const result = new Float64Array(xs.length * ys.length);
  let at = 0;
  for (const [top, bottom, v] of down) {
    for (const [left, right, u] of across) {
      const upper = values[top * numBins + left] * (1 - u) + values[top * numBins + right] * u;
      const lower = values[bottom * numBins + left] * (1 - u) + values[bottom * numBins + right] * u;
      result[at++] = upper * (1 - v) + lower * v;
    }
  }
  return result;
}

// The mask of a head without fault, which draws all that its bins have read, and puts it where the box is: the object as
// seen in the region that is read, stretched over the box. A function from pixels to whether it is drawn there.
function faultless({ x, y }, box, mask, side) {
  const scaleX = (x.to - x.from) / (box[2] - box[0]), scaleY = (y.to - y.from) / (box[3] - box[1]);
  return (px, py) => {
    const column = Math.floor(x.from + (px - box[0]) * scaleX), row = Math.floor(y.from + (py - box[1]) * scaleY);
    return column >= 0 && row >= 0 && column < side && row < side && mask[row * side + column] === 1;
  };
}

// The same as an SVG transformation of the object's outline.
function faultlessTransform({ x, y }, box) {
  const scaleX = (box[2] - box[0]) / (x.to - x.from || 1), scaleY = (box[3] - box[1]) / (y.to - y.from || 1);
  return `matrix(${scaleX} 0 0 ${scaleY} ${box[0] - x.from * scaleX} ${box[1] - y.from * scaleY})`;
}

// The pixels along one axis whose centre is inside [low, high), as coordinates of their centres.
function pixelsInside(low, high, side) {
  const points = [];
  for (let i = Math.max(Math.ceil(low - 0.5), 0); i + 0.5 < high && i < side; i++) points.push(i + 0.5);
  return points;
}

// Intersection over union of a drawn mask and the object's part inside the box, pixel by pixel. `drawn` says of the
// pixel at (x, y), the number `at` of those inside, whether it is in the mask. NaN where there is neither.
function fit(drawn, box, mask, side) {
  const xs = pixelsInside(box[0], box[2], side);
  let both = 0, either = 0, at = 0;
  for (const y of pixelsInside(box[1], box[3], side)) {
    const row = Math.floor(y) * side;
    for (const x of xs) {
      const ours = drawn(x, y, at++), truth = mask[row + Math.floor(x)] === 1;
      both += ours && truth;
      either += ours || truth;
    }
  }
  return both / either;
}

function pooledMask(values, numBins, box, side) {
  const field = stretched(values, numBins, box, pixelsInside(box[0], box[2], side), pixelsInside(box[1], box[3], side));
  return (_x, _y, at) => field[at] >= 0.5;
}

// ---- outlines: where a field of numbers on a lattice crosses one half ----

function crossing(xs, ys, field, edge) {
  const width = xs.length;
  const [i, j] = [edge >> 1, (edge >> 1) + (edge & 1 ? width : 1)];
  const t = (0.5 - field[i]) / (field[j] - field[i]);
  const x = xs[i % width] + t * (xs[j % width] - xs[i % width]);
  const yi = ys[Math.floor(i / width)], yj = ys[Math.floor(j / width)];
  return `${x.toFixed(2)} ${(yi + t * (yj - yi)).toFixed(2)}`;
}

// Marching squares: the closed outlines as an SVG path. The field must be below one half along the lattice's rim.
// An edge has the number 2 i (from lattice point i to the right) or 2 i + 1 (downwards).
function outline(xs, ys, field) {
  const width = xs.length;
  const next = new Map();
  for (let row = 0; row + 1 < ys.length; row++) {
    for (let column = 0; column + 1 < width; column++) {
      const i = row * width + column;
      const corners = (field[i] >= 0.5) | ((field[i + 1] >= 0.5) << 1) | ((field[i + width + 1] >= 0.5) << 2) | ((field[i + width] >= 0.5) << 3);
      if (corners === 0 || corners === 15) continue;
      const top = 2 * i, left = 2 * i + 1, right = 2 * (i + 1) + 1, bottom = 2 * (i + width);
      for (const [from, to] of SEGMENTS[corners]) next.set([top, right, bottom, left][from], [top, right, bottom, left][to]);
    }
  }
  let path = "";
  for (const start of [...next.keys()]) {
    if (!next.has(start)) continue;
    let edge = start, letter = "M";
    while (next.has(edge)) {
      path += letter + crossing(xs, ys, field, edge);
      letter = "L";
      const after = next.get(edge);
      next.delete(edge);
      edge = after;
    }
    path += "Z";
  }
  return path;
}

// Corners that are inside (top left 1, top right 2, bottom right 4, bottom left 8) -> segments between the square's
// edges (top 0, right 1, bottom 2, left 3), with the inside on the right.
const SEGMENTS = {
  1: [[0, 3]], 2: [[1, 0]], 3: [[1, 3]], 4: [[2, 1]], 5: [[0, 3], [2, 1]], 6: [[2, 0]], 7: [[2, 3]],
  8: [[3, 2]], 9: [[0, 2]], 10: [[1, 0], [3, 2]], 11: [[1, 2]], 12: [[3, 1]], 13: [[0, 1]], 14: [[3, 0]],
};

function drawnBack(values, numBins, box) {
  const spread = (low, high) => {
    const count = Math.min(Math.max(Math.ceil((high - low) / 2), 16), 64);
    const points = Array.from({ length: count + 1 }, (_, i) => low + (i / count) * (high - low));
    return [low - 0.01, ...points, high + 0.01];
  };
  const xs = spread(box[0], box[2]), ys = spread(box[1], box[3]);
  const field = stretched(values, numBins, box, xs, ys);
  for (let i = 0; i < xs.length; i++) field[i] = field[field.length - 1 - i] = 0;
  for (let row = 0; row < ys.length; row++) field[row * xs.length] = field[(row + 1) * xs.length - 1] = 0;
  return outline(xs, ys, field);
}

function outlineOfMask(mask, object, side) {
  const [x1, y1, x2, y2] = object.box;
  const points = (low, high) => Array.from({ length: high - low + 4 }, (_, i) => low + i - 1.5);
  const xs = points(x1, x2), ys = points(y1, y2);
  const at = (x, y) => (x < 0 || y < 0 || x > side || y > side ? 0 : mask[Math.floor(y) * side + Math.floor(x)]);
  return outline(xs, ys, ys.flatMap((y) => xs.map((x) => at(x, y))));
}

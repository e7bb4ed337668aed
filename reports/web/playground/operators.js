// What each operator reads of a map, and what it makes of it. A map is {side, data}: side x side numbers, row by row.
// Boxes are [x1, y1, x2, y2] in image pixels; cell i of a map of stride s stands on pixel s * i.

const OPERATORS = ["pool", "warp", "align"];

// How one operator reads along one axis. All numbers are in pixels of the image, but for `bins` and `positions`, in cells.
//   bins:      RoIPool's pairs of cells; null for the others
//   positions: the samples of each bin; null for RoIPool
//   from, to:  the ends of all that is read;  edges: pairs of ends, one for each bin
//   offsets:   from each bin of the box to the middle of what is read for it; NaN where that is nothing
function readAxis(operator, low, high, settings, side) {
  const { stride, bins: numBins, samples, aligned, step } = settings;
  const middle = (p) => low + ((p + 0.5) / numBins) * (high - low);
  if (operator === "pool") {
    const bins = poolBins(low / stride, high / stride, numBins, side);
    const edges = bins.map(([start, end]) => [(start - 0.5) * stride, (end - 0.5) * stride]);
    const offsets = bins.map(([start, end], p) => (end > start ? (stride * (start + end - 1)) / 2 - middle(p) : NaN));
    return { bins, positions: null, from: edges[0][0], to: edges[numBins - 1][1], edges, offsets };
  }
  const [start, size] = operator === "align"
    ? alignInterval(low / stride, high / stride, aligned) : warpInterval(low / stride, high / stride, step);
  const positions = samplePositions(start, size, numBins, numSamples(size, numBins, samples));
  const edge = (p) => stride * (start + (p * size) / numBins);
  const edges = positions.map((_, p) => [edge(p), edge(p + 1)]);
  const offsets = edges.map(([from, to], p) => (from + to) / 2 - middle(p));
  return { bins: null, positions, from: edge(0), to: edge(numBins), edges, offsets };
}

function readBox(operator, box, settings, side) {
  return { x: readAxis(operator, box[0], box[2], settings, side), y: readAxis(operator, box[1], box[3], settings, side) };
}

// The P x P values that an operator gives for a map, row by row: the maximum of each bin's cells for RoIPool, 0 where it
// has none; for the others the mean of its bilinear samples.
function pooled(reading, map) {
  const { x, y } = reading;
  return x.bins ? poolCells(x.bins, y.bins, map) : averageSamples(x.positions, y.positions, map);
}

function poolCells(columns, rows, { side, data }) {
  const values = [];
  for (const [top, bottom] of rows) {
    for (const [left, right] of columns) {
      let greatest = top < bottom && left < right ? -Infinity : 0;
      for (let row = top; row < bottom; row++) {
        for (let column = left; column < right; column++) greatest = Math.max(greatest, data[row * side + column]);
      }
      values.push(greatest);
    }
  }
  return values;
}

// Bilinear interpolation is separable: a bin is a sum over the cells that its samples touch along either axis.
function averageSamples(columns, rows, { side, data }) {
  const touched = (positions) => positions.map((bin) => bin.flatMap((position) => hatWeights(position, side)));
  const across = touched(columns), down = touched(rows);
  const samples = rows[0].length * columns[0].length || 1;
  const values = [];
  for (const cellsDown of down) {
    for (const cellsAcross of across) {
      let sum = 0;
      for (const [row, rowWeight] of cellsDown) {
        for (const [column, columnWeight] of cellsAcross) sum += data[row * side + column] * rowWeight * columnWeight;
      }
      values.push(sum / samples);
    }
  }
  return values;
}

// The mean distance in pixels, over the P x P bins, between a bin and what is read for it.
function displacement({ x, y }) {
  let sum = 0, count = 0;
  for (const down of y.offsets) {
    for (const across of x.offsets) {
      const distance = Math.hypot(across, down);
      if (!Number.isNaN(distance)) {
        sum += distance;
        count += 1;
      }
    }
  }
  return count ? sum / count : NaN;
}

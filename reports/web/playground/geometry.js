// A port of ops/geometry.py: the RoI operators, one axis at a time. Positions are in feature cells; cell i has its
// sample point at i. The order of all sums and products is the original's, so that results are equal to the last bit.
// Letters: P bins along the axis, S samples in a bin, L cells along the axis of the map.

// Rounds to the nearest integer, halves away from zero.
function roundHalfAway(value) {
  const whole = Math.trunc(value) + 0;
  return Math.abs(value - whole) >= 0.5 ? whole + Math.sign(value) : whole;
}

// RoIPool's bins: P pairs [start, end] of cells, end excluded; empty where end <= start.
function poolBins(low, high, numBins, length) {
  const first = roundHalfAway(low), last = roundHalfAway(high);
  const size = Math.max(last - first + 1, 1);
  const clamp = (cell) => Math.min(Math.max(cell, 0), length);
  const bins = [];
  for (let p = 0; p < numBins; p++) {
    bins.push([clamp(first + Math.floor((p * size) / numBins)), clamp(first + Math.ceil(((p + 1) * size) / numBins))]);
  }
  return bins;
}

// RoIAlign's interval as [start, size]: nothing is rounded.
function alignInterval(low, high, aligned) {
  if (aligned) return [low - 0.5, high - low];
  const size = high - low;
  return [low, size > 1 ? size : 1];
}

// RoIWarp's interval: RoIAlign's, of the box rounded to multiples of `step` cells. A step of 1 is RoIWarp, 0 RoIAlign.
function warpInterval(low, high, step = 1) {
  const rounded = (end) => (step > 0 ? roundHalfAway(end / step) * step : end);
  return alignInterval(rounded(low), rounded(high), false);
}

// Samples in a bin along one axis: `samplingRatio`, or about one a cell where that is 0 or less.
function numSamples(size, numBins, samplingRatio) {
  return samplingRatio > 0 ? samplingRatio : Math.max(Math.ceil(size / numBins), 0);
}

// The P x S positions sampled along one axis: S points spread evenly in each of P equal bins.
function samplePositions(start, size, numBins, samples) {
  const step = size / numBins;
  const positions = [];
  for (let p = 0; p < numBins; p++) {
    const bin = [];
    for (let s = 0; s < samples; s++) bin.push(start + p * step + ((s + 0.5) * step) / samples);
    positions.push(bin);
  }
  return positions;
}

// Linear interpolation at a position: pairs [cell, weight]; none further than a cell outside the map.
function hatWeights(position, length) {
  if (!(position >= -1 && position <= length)) return [];
  if (position <= 0) return [[0, 1]];
  const cell = Math.trunc(position);
  if (cell >= length - 1) return [[length - 1, 1]];
  return [[cell, 1 - (position - cell)], [cell + 1, position - cell]];
}

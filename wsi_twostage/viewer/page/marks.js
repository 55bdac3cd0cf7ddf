// What is drawn over the slide in screen pixels: the tile grid, the chosen tile and the scale bar.

const LEAST_PX = 4; // between lines of the grid
const LONGEST_BAR_PX = 150;

export function drawMarks(world, canvas, { grid, chosen }) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth, clientHeight } = canvas;
  if (canvas.width !== Math.round(clientWidth * ratio) || canvas.height !== Math.round(clientHeight * ratio)) {
    canvas.width = Math.round(clientWidth * ratio);
    canvas.height = Math.round(clientHeight * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, clientWidth, clientHeight);
  if (grid.on) drawGrid(context, world, grid.opacity / 100, clientWidth, clientHeight);
  if (chosen) drawTile(context, world, chosen);
}

function drawGrid(context, world, opacity, width, height) {
  const { facts } = world;
  const begin = world.toScreen({ row: 0, col: 0 });
  const end = world.toScreen({ row: facts.height, col: facts.width });
  const step = ((end.x - begin.x) * facts.tile) / facts.width;
  if (step < LEAST_PX) return;
  context.beginPath();
  for (const [from, to, size, line] of [
    [begin.x, end.x, width, (x) => { context.moveTo(x, Math.max(begin.y, 0)); context.lineTo(x, Math.min(end.y, height)); }],
    [begin.y, end.y, height, (y) => { context.moveTo(Math.max(begin.x, 0), y); context.lineTo(Math.min(end.x, width), y); }],
  ]) {
    const first = Math.max(0, Math.floor(-from / step));
    for (let at = from + first * step; at < Math.min(to, size); at += step) line(Math.round(at) + 0.5);
    if (to < size) line(Math.round(to) + 0.5);
  }
  context.lineWidth = 1;
  context.strokeStyle = `rgba(20, 40, 60, ${opacity})`;
  context.stroke();
}

function drawTile(context, world, { row, col }) {
  const { tile, height, width } = world.facts;
  const a = world.toScreen({ row: row * tile, col: col * tile });
  const b = world.toScreen({ row: Math.min((row + 1) * tile, height), col: Math.min((col + 1) * tile, width) });
  for (const [lineWidth, colour] of [[5, "rgba(255, 255, 255, .85)"], [2, "#10202b"]]) {
    context.lineWidth = lineWidth;
    context.strokeStyle = colour;
    context.strokeRect(a.x, a.y, b.x - a.x, b.y - a.y);
  }
}

// The longest of 1, 2 and 5 times a power of ten that fits.
export function scaleBar(mpp) {
  const longest = mpp * LONGEST_BAR_PX;
  const power = 10 ** Math.floor(Math.log10(longest));
  const length = [5, 2, 1].map((n) => n * power).find((n) => n <= longest * (1 + 1e-9)) ?? power;
  const text = length >= 1000 ? `${length / 1000} mm` : `${+length.toPrecision(1)} µm`;
  return { px: length / mpp, text };
}

// Triangles and points painted with a depth for each pixel, without a graphics card: the same picture in every browser,
// in a report, and on a machine that has none. 50,000 points or triangles take a few milliseconds.

export class Raster {
  constructor(width, height) {
    this.resize(width, height);
  }

  resize(width, height) {
    this.width = width;
    this.height = height;
    this.image = new ImageData(width, height);
    this.colours = new Uint32Array(this.image.data.buffer);
    this.depth = new Float32Array(width * height);
  }

  clear(colour) {
    this.colours.fill(colour);
    this.depth.fill(-Infinity);
  }

  // A square of `size` pixels around (x, y); what is nearer has the larger z.
  point(x, y, z, size, colour) {
    const half = size / 2;
    const [left, right] = [Math.max(0, Math.round(x - half)), Math.min(this.width, Math.round(x + half))];
    const [top, bottom] = [Math.max(0, Math.round(y - half)), Math.min(this.height, Math.round(y + half))];
    for (let row = top; row < bottom; row += 1) {
      for (let at = row * this.width + left, end = row * this.width + right; at < end; at += 1) {
        if (z > this.depth[at]) { this.depth[at] = z; this.colours[at] = colour; }
      }
    }
  }

  triangle(ax, ay, az, bx, by, bz, cx, cy, cz, colour) {
    const area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax);
    if (area === 0 || !Number.isFinite(area)) return;
    const [left, right] = [Math.max(0, Math.floor(Math.min(ax, bx, cx))),
      Math.min(this.width - 1, Math.ceil(Math.max(ax, bx, cx)))];
    const [top, bottom] = [Math.max(0, Math.floor(Math.min(ay, by, cy))),
      Math.min(this.height - 1, Math.ceil(Math.max(ay, by, cy)))];
    for (let row = top; row <= bottom; row += 1) {
      const y = row + 0.5;
      for (let column = left; column <= right; column += 1) {
        const x = column + 0.5;
        const a = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area;
        const b = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area;
        if (a < 0 || b < 0 || a + b > 1) continue;
        const z = a * az + b * bz + (1 - a - b) * cz;
        const at = row * this.width + column;
        if (z > this.depth[at]) { this.depth[at] = z; this.colours[at] = colour; }
      }
    }
  }
}

// As the bytes of an ImageData lie in memory on all machines that browsers run on.
export function packed(red, green, blue) {
  return (255 << 24) | (Math.min(255, blue) << 16) | (Math.min(255, green) << 8) | Math.min(255, red);
}
